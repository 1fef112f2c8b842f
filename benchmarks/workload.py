"""The work that every system gets: seeded prompts of distinct text, and how they arrive. Values only."""

import msgspec
import numpy as np

from benchmarks.words import words


class Request(msgspec.Struct, frozen=True):
    """One completion of exactly `max_tokens` tokens."""

    prompt: str
    max_tokens: int


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """A closed loop: `clients` at once, each taking the next request when its last one ended.

    `intruder` is one more request, sent when the others together have `intruder_after_tokens` chunks.
    """

    clients: int
    requests: list[Request]
    intruder: Request | None = None
    intruder_after_tokens: int = 0


def distinct(
    count: int,
    *,
    prompt_words: int,
    max_tokens: int,
    seed: int,
    spread: float = 0.25,
    vocabulary: int = 32_000,
) -> list[Request]:
    """Prompts that share no prefix; output lengths run from (1 - spread) to (1 + spread) * max_tokens.

    Spread lengths keep the sequences out of step, so prefills meet running decodes as they do in service.
    """
    steps = (np.arange(count) + 0.5) / count  # middles, so that the mean is max_tokens for any count
    lengths = (max_tokens * (1 + spread * (2 * steps - 1))).round().astype(int)
    np.random.default_rng(seed).shuffle(lengths)
    texts = (words(prompt_words, seed=_seed(seed, i), vocabulary=vocabulary) for i in range(count))
    return [Request("".join(text), int(length)) for text, length in zip(texts, lengths, strict=True)]


def shared_prefix(
    count: int, *, prefix_words: int, own_words: int, max_tokens: int, seed: int, vocabulary: int = 32_000
) -> list[Request]:
    """Prompts with one prefix in common, which no other seed shares."""
    prefix = "".join(words(prefix_words, seed=_seed(seed, count), vocabulary=vocabulary))
    tails = (words(own_words, seed=_seed(seed, i), vocabulary=vocabulary) for i in range(count))
    return [Request(prefix + "".join(tail), max_tokens) for tail in tails]


def _seed(seed: int, part: int) -> int:
    return seed * 100_003 + part
