"""What the loaded models' memory adds up to, against a budget. Counts; unloading is the registry's."""

from collections.abc import Iterable
from typing import NamedTuple

from runner.errors import InsufficientMemory


class Candidate(NamedTuple):
    """A loaded version that nobody uses just now and that may be evicted."""

    key: str
    last_used: float


class Ledger:
    """Bytes by key. A reservation may be corrected once the real size is known."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._reserved: dict[str, int] = {}

    @property
    def used_bytes(self) -> int:
        return sum(self._reserved.values())

    @property
    def free_bytes(self) -> int:
        return self.budget_bytes - self.used_bytes

    def reserve(self, key: str, size_bytes: int) -> None:
        """Book (or correct) what `key` takes."""
        self._reserved[key] = size_bytes

    def reserved_bytes(self, key: str) -> int:
        return self._reserved.get(key, 0)

    def release(self, key: str) -> None:
        self._reserved.pop(key, None)

    def evictions(self, model: str, size_bytes: int, idle: Iterable[Candidate]) -> list[str]:
        """Which idle ones must go, least recently used first, so that `size_bytes` more fit.

        Raises InsufficientMemory with the numbers where even all of them are not enough.
        """
        chosen: list[str] = []
        free = self.free_bytes
        for candidate in sorted(idle, key=lambda candidate: candidate.last_used):
            if free >= size_bytes:
                break
            chosen.append(candidate.key)
            free += self._reserved.get(candidate.key, 0)
        if free < size_bytes:
            raise InsufficientMemory(
                f"{model} needs about {mebibytes(size_bytes)} and {mebibytes(self.free_bytes)} of the memory budget "
                f"of {mebibytes(self.budget_bytes)} are free; the other models are busy or pinned. Wait, unload a "
                "model, or raise --memory-budget",
                retry_after_s=10.0,
            )
        return chosen


def mebibytes(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:,.0f} MiB"
