"""`Problem`: one thing wrong with a model on disk, said so that a person can find and mend it.

Owns how problems and near-misses are worded; finds none itself.
"""

import difflib
from collections.abc import Iterable

from msgspec import Struct


class Problem(Struct, frozen=True, order=True):
    """Where and what. `line` and `column` count from 1; 0 stands for the whole file or folder."""

    path: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}:{self.column}" if self.line else self.path
        return f"{where}: {self.message}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean "x"?)`, or nothing when no known word is near."""
    near = difflib.get_close_matches(word, sorted(set(known)), n=1, cutoff=0.7)
    return f' (did you mean "{near[0]}"?)' if near else ""
