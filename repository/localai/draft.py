"""A configuration while it is being translated: takes values in at their places, and gathers what is to be told."""

from typing import Any

from repository.document import Entry, Node
from repository.problem import Problem


class Draft:
    """`path` names the file in problems. Notes are problems that keep nothing from being served."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.entries: dict[str, Entry] = {}
        self.problems: list[Problem] = []
        self.notes: list[Problem] = []

    def put(self, place: str, entry: Entry, value: Any = ...) -> None:
        """Set `place` (with dots) to the entry's value, or to another that it stands for. What the file says there in
        so many words wins, and that it says it twice is a problem."""
        node = entry.value if value is ... else node_of(value, entry.value)
        if not self._put(self.entries, place.split("."), Entry(entry.key, node)):
            self.problem(
                entry.key, f"{entry.key.text}: {place} is given too, and is the same; remove one of the two"
            )

    def default(self, place: str, entry: Entry, value: Any) -> None:
        """As `put`, but what is there already stays."""
        self._put(self.entries, place.split("."), Entry(entry.key, node_of(value, entry.value)))

    def problem(self, where: Node, message: str) -> None:
        self.problems.append(Problem(self.path, where.line, where.column, message))

    def note(self, where: Node, message: str) -> None:
        self.notes.append(Problem(self.path, where.line, where.column, message))

    def idle(self, entry: Entry, key: str, why: str) -> None:
        """Tell that a field does nothing."""
        self.note(entry.key, f"{key}: No effect: {why}")

    def _put(self, entries: dict[str, Entry], keys: list[str], entry: Entry) -> bool:
        head, *rest = keys
        there = entries.get(head)
        if not rest:
            if there is not None and there.value.value is not None:
                return False
            entries[head] = entry
            return True
        inside = dict(there.value.value) if there is not None and isinstance(there.value.value, dict) else {}
        if there is not None and there.value.value is not None and not isinstance(there.value.value, dict):
            return True  # it has a wrong type, which is told where types are checked
        is_new = self._put(inside, rest, entry)
        above = there or entry
        entries[head] = Entry(above.key, Node(inside, above.value.line, above.value.column))
        return is_new


def node_of(value: Any, where: Node) -> Node:
    """A value that stands for what is written at `where`."""
    match value:
        case dict():
            entries = {key: Entry(Node(key, text=key), node_of(each, where)) for key, each in value.items()}
            return Node(entries, where.line, where.column)
        case list() | tuple():
            return Node(tuple(node_of(each, where) for each in value), where.line, where.column)
        case _:
            return Node(value, where.line, where.column, str(value))
