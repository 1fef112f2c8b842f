"""Echo's KV memory: numbered cells, one per token, that several lanes may share. Holds no tokens."""

from collections.abc import Iterable


class CellPool:
    """`size` cells. Whoever takes or shares a cell releases it; the last release frees it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._owners: dict[int, int] = {}
        self._released: list[int] = []

    @property
    def num_free(self) -> int:
        return self.size - len(self._owners)

    def take(self, count: int) -> list[int]:
        """`count` free cells; the caller has looked at `num_free`."""
        cells = []
        # With nothing released, the cells in use are 0 .. n - 1, so n is the next fresh one.
        for _ in range(count):
            cell = self._released.pop() if self._released else len(self._owners)
            self._owners[cell] = 1
            cells.append(cell)
        return cells

    def share(self, cells: Iterable[int]) -> None:
        """One owner more for each of `cells`."""
        for cell in cells:
            self._owners[cell] += 1

    def release(self, cells: Iterable[int]) -> None:
        """One owner less for each of `cells`."""
        for cell in cells:
            if self._owners[cell] > 1:
                self._owners[cell] -= 1
            else:
                del self._owners[cell]
                self._released.append(cell)
