"""Words that are one token each in the benchmarks' random models, and the tokenizer that makes them so."""

import itertools
from collections.abc import Iterable

import numpy as np

_CONSONANTS = "bdgklmnr"
_VOWELS = "aeio"
_SPACE = "Ġ"  # how byte-level BPE writes a space
_SYLLABLES = [c + v for c in _CONSONANTS for v in _VOWELS]
_EOS = "<|endoftext|>"
NUM_PARTS = 1 + 256 + len(_SYLLABLES)
"""So many tokens, the first, end a text or are parts of words."""


def words(count: int, /, *, seed: int, vocabulary: int) -> list[str]:
    """`count` random words with their leading spaces, one token each in a model of this vocabulary size."""
    choices = _word_tokens(vocabulary)
    picks = np.random.default_rng(seed).integers(len(choices), size=count)
    return [choices[pick].replace(_SPACE, " ") for pick in picks]


def word_numbers(vocabulary: int) -> tuple[int, int]:
    """The tokens that are words: the first of them, and the one after the last."""
    return len(_base_tokens()), vocabulary


def text_of(tokens: Iterable[int], *, vocabulary: int) -> str:
    """The text of tokens that are words."""
    first, choices = len(_base_tokens()), _word_tokens(vocabulary)
    return "".join(choices[token - first].replace(_SPACE, " ") for token in tokens)


def tokenizer_parts(vocabulary: int) -> tuple[list[str], list[str]]:
    """The tokens by their numbers, and the merges that build them."""
    word_tokens = _word_tokens(vocabulary)
    return [*_base_tokens(), *word_tokens], _merges(word_tokens)


def _word_tokens(vocabulary: int) -> list[str]:
    room = vocabulary - len(_base_tokens())
    if room < 1:
        raise ValueError(f"vocabulary {vocabulary}: at least {len(_base_tokens()) + 1} tokens are needed")
    triples = itertools.product(_SYLLABLES, repeat=3)
    return [_SPACE + "".join(triple) for triple in itertools.islice(triples, room)]


def _byte_tokens() -> list[str]:
    """The 256 characters that stand for bytes in byte-level BPE, in the order of the bytes."""
    printable = {
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    }
    others = itertools.count(256)
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def _base_tokens() -> list[str]:
    pairs = [_SPACE + a + b for a, b in itertools.product(_SYLLABLES, repeat=2)]
    return [_EOS, *_byte_tokens(), *_SYLLABLES, *(_SPACE + s for s in _SYLLABLES), *pairs]


def _merges(word_tokens: list[str]) -> list[str]:
    """Rules that build a word from the left: letters to syllables, then space and syllable by syllable."""
    pairs = [f"{_SPACE}{a} {b}" for a, b in itertools.product(_SYLLABLES, repeat=2)]
    return [
        *(f"{syllable[0]} {syllable[1]}" for syllable in _SYLLABLES),
        *(f"{_SPACE} {syllable}" for syllable in _SYLLABLES),
        *pairs,
        *(f"{word[:-2]} {word[-2:]}" for word in word_tokens),
    ]
