"""What becomes of one field of a LocalAI file, as a value. The fields are in `fields.py` and `sections.py`."""

from typing import Literal

from msgspec import Struct

from repository.document import Node

Kind = Literal["acts", "idle", "refused"]

OFF = (False,)
UNSET = (0, "")


class Field(Struct, frozen=True):
    """`key` is its place in the file, with dots. `does` says what it does here; where it does nothing, why, and what to
    write instead. `to`: where it stands here, if not in the same place. `only`: the one backend that takes it; on
    others it is told as of no effect rather than refused. Values that are `neutral` ask for nothing and are left out.
    """

    key: str
    does: str
    kind: Kind = "acts"
    to: str | None = None
    only: str | None = None
    neutral: tuple[bool | int | float | str, ...] = ()

    def is_neutral(self, node: Node) -> bool:
        """The value asks for nothing: it is empty, or what holds anyway."""
        value = node.value
        if value is None or value in ((), {}, ""):
            return True
        return any(
            value == each and isinstance(value, bool) == isinstance(each, bool) for each in self.neutral
        )


def idle(key: str, why: str, *neutral: bool | int | float | str) -> Field:
    """A field that is taken and does nothing."""
    return Field(key, why, "idle", neutral=neutral)


def refused(key: str, why: str, *neutral: bool | int | float | str) -> Field:
    """A field without which its model cannot be what it was meant to be."""
    return Field(key, why, "refused", neutral=neutral)


def moved(key: str, to: str, does: str, *neutral: bool | int | float | str) -> Field:
    """A field that stands elsewhere here."""
    return Field(key, does, to=to, neutral=neutral)
