"""What the copying model is asked: to repeat texts of random words, and to put new words in place of old ones."""

from typing import NamedTuple

import numpy as np

from benchmarks.words import word_numbers

VOCABULARY = 2048
LONGEST_TEXT = 200
_FIRST_WORD, _END = word_numbers(VOCABULARY)
TEXT, ANSWER = range(_FIRST_WORD, _FIRST_WORD + 2)
REPLACED = 32
OLD = ANSWER + 1
NEW = OLD + REPLACED
"""So many old words have a new one each, in the same order. One word in twelve of a text to correct is an old one."""
_PLAIN = NEW + REPLACED


class Exercise(NamedTuple):
    """Tokens of a prompt, and of the one right answer."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


def exercise(rng: np.random.Generator, *, words: int, corrects: bool) -> Exercise:
    """A text of so many words, none of them twice, to be repeated; `corrects`: with old words in it,
    which are new ones in the answer."""
    text = rng.choice(np.arange(_PLAIN, _END), size=words, replace=False)
    if corrects:
        old = rng.choice(np.arange(OLD, NEW), size=min(REPLACED, max(1, words // 12)), replace=False)
        text[rng.choice(words, size=len(old), replace=False)] = old
    answer = np.where((text >= OLD) & (text < NEW), text + REPLACED, text)
    return Exercise((TEXT, *text.tolist(), ANSWER), tuple(answer.tolist()))
