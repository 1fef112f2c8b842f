"""Reads whole outputs through a MessageReader, in any chunks, and gathers the message."""

import itertools
from collections.abc import Iterable, Sequence

import msgspec
from hypothesis import strategies as st

from runner.worker.output.message import MessageReader, merged
from runner.worker.output.reasoning import ReasoningReader, ReasoningTags
from runner.worker.output.tool_calls import ToolCallReader
from runner.worker.output.tool_formats import TOOL_FORMATS
from runner.worker.text import StopMatcher

THINK = ReasoningTags("<think>", "</think>")
TOOLS = ("get_weather", "list_models")
WEATHER = {"properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}


class Message(msgspec.Struct, frozen=True):
    """`calls`: names with arguments. `order`: the kinds of what came, without repetitions."""

    reasoning: str = ""
    text: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    finish: str | None = "stop"
    reasoning_tokens: int = 0
    order: tuple[str, ...] = ()


def read(
    chunks: Iterable[str],
    format: str | None = None,
    *,
    tags: ReasoningTags | None = None,
    is_open: bool = False,
    stops: Sequence[str] = (),
    parallel: bool = True,
    finish: str = "stop",
) -> Message:
    """The message that `chunks`, one token each, are."""
    numbers, calls, most = itertools.count(), None, None if parallel else 1
    if format is not None:
        calls = ToolCallReader(TOOL_FORMATS[format], dict.fromkeys(TOOLS, WEATHER), most=most)
    reader = MessageReader(
        StopMatcher(stops),
        reasoning=ReasoningReader(tags, is_open=is_open) if tags else None,
        calls=calls,
        new_id=lambda: f"id-{next(numbers)}",
    )
    gains = []
    for chunk in chunks:
        gains += reader.feed(chunk, num_tokens=1)
        if reader.is_done:
            break
    gains += reader.flush()
    reasoning, text, names, arguments, order = "", "", [], [], []
    ids: list[str] = []
    for gain in merged(gains):
        assert any(gain)
        reasoning += gain.reasoning
        text += gain.text
        order += [kind for kind, value in zip(("reasoning", "text", "calls"), gain, strict=True) if value]
        for call in gain.tool_calls:
            if call.name is not None:
                assert call.index == len(names) and call.id and call.id not in ids
                ids.append(call.id)
                names.append(call.name)
                arguments.append("")
            assert call.index == len(names) - 1
            arguments[-1] += call.arguments
    return Message(
        reasoning=reasoning,
        text=text,
        calls=tuple(zip(names, arguments, strict=True)),
        finish=reader.finish(finish),
        reasoning_tokens=reader.reasoning_tokens,
        order=tuple(kind for kind, _ in itertools.groupby(order)),
    )


def splits(text: str) -> st.SearchStrategy[list[str]]:
    """Every way of cutting `text` into chunks."""
    cuts = st.lists(st.integers(1, max(1, len(text) - 1)), max_size=12, unique=True).map(sorted)
    return st.one_of(cuts, st.just(list(range(1, len(text))))).map(
        lambda at: [text[a:b] for a, b in itertools.pairwise([0, *at, len(text)]) if a < b]
    )
