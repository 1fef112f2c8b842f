"""How models are asked for what belongs between two texts: by marks, which are tokens of their own."""

import re
from collections.abc import Callable, Sequence

PREFIX, SUFFIX = "{prefix}", "{suffix}"

_ORDERS = (
    "<|fim_prefix|>{prefix}<|fim_suffix|>{suffix}<|fim_middle|>",
    "<fim_prefix>{prefix}<fim_suffix>{suffix}<fim_middle>",
    "<fim-prefix>{prefix}<fim-suffix>{suffix}<fim-middle>",
    "<|code_prefix|>{prefix}<|code_suffix|>{suffix}<|code_middle|>",
    "<｜fim▁begin｜>{prefix}<｜fim▁hole｜>{suffix}<｜fim▁end｜>",
    "▁<PRE>{prefix}▁<SUF>{suffix}▁<MID>",
    "<PRE>{prefix}<SUF>{suffix}<MID>",
    "[SUFFIX]{suffix}[PREFIX]{prefix}",
)
_PARTS = re.compile(r"({prefix}|{suffix})")


def find_infill(tokenize: Callable[[str], Sequence[int]]) -> tuple[str, ...] | None:
    """The marks of a model in order, with PREFIX and SUFFIX where these texts belong; None where it has none that are
    known."""
    for order in _ORDERS:
        parts = tuple(filter(None, _PARTS.split(order)))
        if all(part in (PREFIX, SUFFIX) or len(tokenize(part)) == 1 for part in parts):
            return parts
    return None
