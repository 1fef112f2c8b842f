"""The parts a model's output is made of."""

import enum
from typing import NamedTuple, Protocol


class Kind(enum.IntEnum):
    """What a piece of text is of."""

    REASONING = 0
    CONTENT = 1
    CALL = 2
    ARGUMENTS = 3
    END = 4


class Part(NamedTuple):
    """A piece of text. CALL begins a tool call and holds the tool's name; ARGUMENTS belong to the last call, and END
    tells that it has them all. `id`: what the model itself calls the call."""

    kind: Kind
    text: str
    id: str = ""


class TextFilter(Protocol):
    """Turns a text that comes in pieces into another."""

    def feed(self, text: str) -> str:
        """What `text` makes certain."""

    def flush(self) -> str:
        """The rest, now that nothing follows; what is fed then is another text."""
