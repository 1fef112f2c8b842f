"""Tokens become text: whole characters only, and never a part of a stop text."""

import codecs
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Fed(NamedTuple):
    """Text that may be sent, and the stop text that ended it, if one did."""

    text: str
    stop: str | None = None


class StopMatcher:
    """Holds text back while it may still be the beginning of a stop text. What the text `begins` with is no part of
    one."""

    def __init__(self, stops: Sequence[str], *, include: bool = False, begins: str = "") -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._include = include
        self._begins = begins
        self._held = ""

    def feed(self, text: str) -> Fed:
        """Text that is safe to send now. After a hit nothing more must be fed."""
        if not self._stops:
            return Fed(text)
        if self._begins:
            size = common(text, self._begins)
            self._begins = self._begins[size:] if size == len(text) else ""
            fed = self.feed(text[size:]) if size < len(text) else Fed("")
            return Fed(text[:size] + fed.text, fed.stop)
        self._held += text
        hit = min(
            ((at, -len(stop), stop) for stop in self._stops if (at := self._held.find(stop)) >= 0),
            default=None,
        )
        if hit is not None:
            at, _, stop = hit
            sent, self._held = self._held[: at + len(stop) if self._include else at], ""
            return Fed(sent, stop)
        keep = max(overlap(self._held, stop) for stop in self._stops)
        cut = len(self._held) - keep
        sent, self._held = self._held[:cut], self._held[cut:]
        return Fed(sent)

    def flush(self) -> str:
        """What was held back, once it is known that no stop text follows."""
        held, self._held = self._held, ""
        return held


def common(one: str, other: str) -> int:
    """The length of what both texts begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that is a proper beginning of `stop`."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0


class TextStream:
    """The text of one sequence, as its tokens come. `token_bytes` gives what a token adds; `begins` stands before it
    all, and no stop text is looked for in it."""

    def __init__(self, token_bytes: Callable[[int], bytes], stops: StopMatcher, *, begins: str = "") -> None:
        self._begins = begins
        self._token_bytes = token_bytes
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._stops = stops

    def feed(self, tokens: Sequence[int]) -> Fed:
        """Text that `tokens` complete."""
        text = self._decode(b"".join(map(self._token_bytes, tokens)))
        return self._begun(self._stops.feed(text) if text else Fed(""))

    def feed_text(self, text: str) -> Fed:
        """The same for an engine that gives text."""
        return self._begun(self._stops.feed(text))

    def flush(self) -> Fed:
        """What is left at the end; an incomplete character becomes U+FFFD."""
        tail = self._stops.feed(self._decode(b"", True))
        return self._begun(tail if tail.stop is not None else Fed(tail.text + self._stops.flush()))

    def _begun(self, fed: Fed) -> Fed:
        if not self._begins:
            return fed
        begins, self._begins = self._begins, ""
        return Fed(begins + fed.text, fed.stop)
