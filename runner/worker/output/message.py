"""One sample's text as the message it stands for: reasoning, content that no stop text is in, and tool calls."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from runner.wire.requests import ToolCallDelta
from runner.worker.output.parts import Kind, Part
from runner.worker.output.reasoning import ReasoningReader
from runner.worker.output.tool_calls import ToolCallReader
from runner.worker.text import StopMatcher


class Gain(NamedTuple):
    """What a message gained, to be read in this order."""

    reasoning: str = ""
    text: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()


class MessageReader:
    """Fed with all that a model writes but its last stop token. What it gives is for `merged`, some of it empty.
    `new_id` makes the ids of tool calls."""

    def __init__(
        self,
        stops: StopMatcher,
        *,
        reasoning: ReasoningReader | None = None,
        calls: ToolCallReader | None = None,
        new_id: Callable[[], str],
    ) -> None:
        self.stop: str | None = None
        """The stop text that ended the content."""
        self._stops = stops
        self._reasoning = reasoning
        self._calls = calls
        self._new_id = new_id
        self._thought = _Edges(holds=True, is_at_mark=True)
        self._content = _Edges(holds=calls is not None)
        self._num_first_tokens = 0
        self._num_calls = self._num_whole = 0
        self._ids: set[str] = set()

    @property
    def is_done(self) -> bool:
        """Nothing more is wanted: a stop text came, or as many calls as there may be."""
        return self.stop is not None or (self._calls is not None and self._calls.is_done)

    @property
    def reasoning_tokens(self) -> int:
        """Tokens up to the end of the reasoning, its tags included."""
        return self._num_first_tokens if self._reasoning is not None and self._reasoning.has_begun else 0

    def feed(self, text: str, *, num_tokens: int) -> list[Gain]:
        """What `text`, of so many tokens, makes certain."""
        if self._reasoning is None:
            return self._take(self._with_calls([Part(Kind.CONTENT, text)]))
        if not self._reasoning.has_ended:
            self._num_first_tokens += num_tokens
        return self._take(self._with_calls(self._reasoning.feed(text)))

    def flush(self) -> list[Gain]:
        """What was held back, now that nothing follows."""
        if self.stop is not None:
            return []
        is_reasoning = self._reasoning is not None and not self._reasoning.has_ended
        parts = self._with_calls(self._reasoning.flush() if self._reasoning is not None else ())
        parts += self._calls.flush() if self._calls is not None else ()
        gains = self._take(parts)
        if self.stop is None:
            gains.append(Gain(reasoning=self._thought.flush() if is_reasoning else ""))
            gains.append(Gain(text=self._until_stop(self._content.flush())))
        if self.stop is None:
            gains.append(Gain(text=self._stops.flush()))
        return gains

    def finish(self, reason: str | None) -> str | None:
        """Why the message ended, given why its tokens did, or None: "tool_calls" where all calls are whole."""
        if self.is_done:
            reason = "stop"
        is_calling = 0 < self._num_calls == self._num_whole
        return "tool_calls" if is_calling and reason == "stop" else reason

    def _with_calls(self, parts: Iterable[Part]) -> list[Part]:
        """The same with the content read for calls."""
        if self._calls is None:
            return list(parts)
        return [
            found
            for part in parts
            for found in (self._calls.feed(part.text) if part.kind is Kind.CONTENT else (part,))
        ]

    def _take(self, parts: Iterable[Part]) -> list[Gain]:
        gains: list[Gain] = []
        for kind, text, id in parts:
            match kind:
                case Kind.REASONING:
                    gains.append(Gain(reasoning=self._thought.pass_on(text)))
                    self._content.mark()
                case Kind.CONTENT:
                    gains.append(Gain(text=self._until_stop(self._content.pass_on(text))))
                    if self.stop is not None:
                        break
                case Kind.CALL:
                    gains.append(Gain(text=self._stops.flush()))
                    self._content.mark()
                    begun = ToolCallDelta(self._num_calls, id=self._unique(id), name=text)
                    gains.append(Gain(tool_calls=(begun,)))
                    self._num_calls += 1
                case Kind.ARGUMENTS:
                    gains.append(Gain(tool_calls=(ToolCallDelta(self._num_calls - 1, text),)))
                case Kind.END:
                    self._num_whole += 1
        return gains

    def _unique(self, id: str) -> str:
        """The model's own id for a call, or a new one where there is none or it was used before."""
        if not id or id in self._ids:
            id = self._new_id()
        self._ids.add(id)
        return id

    def _until_stop(self, text: str) -> str:
        if not text:
            return ""
        fed = self._stops.feed(text)
        self.stop = fed.stop
        return fed.text


class _Edges:
    """Space next to markup belongs to the markup. With `holds`, space is held back until it is known what follows."""

    def __init__(self, *, holds: bool, is_at_mark: bool = False) -> None:
        self._holds = holds
        self._is_at_mark = is_at_mark
        self._held = ""

    def pass_on(self, text: str) -> str:
        if self._is_at_mark:
            text = text.lstrip()
            self._is_at_mark = not text
        if not self._holds:
            return text
        text = self._held + text
        passed = text.rstrip()
        self._held = text[len(passed) :]
        return passed

    def mark(self) -> None:
        """Markup stands here."""
        self._held, self._is_at_mark = "", True

    def flush(self) -> str:
        held, self._held = self._held, ""
        return held


def merged(gains: Iterable[Gain]) -> list[Gain]:
    """The same in as few as can be, none of them empty, to be read in the same order."""
    fewer: list[Gain] = []
    for gain in gains:
        last = fewer[-1] if fewer else None
        if not any(gain):
            continue
        if last is None or (last.tool_calls and not gain.tool_calls):
            fewer.append(gain)
        else:
            calls = _joined(last.tool_calls, gain.tool_calls)
            fewer[-1] = Gain(last.reasoning + gain.reasoning, last.text + gain.text, calls)
    return fewer


def _joined(calls: tuple[ToolCallDelta, ...], more: tuple[ToolCallDelta, ...]) -> tuple[ToolCallDelta, ...]:
    if not calls or not more or calls[-1].index != more[0].index:
        return calls + more
    first = calls[-1]
    both = ToolCallDelta(first.index, first.arguments + more[0].arguments, first.id, first.name)
    return (*calls[:-1], both, *more[1:])
