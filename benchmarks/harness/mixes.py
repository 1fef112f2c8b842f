"""The work by name: what a chat, a long prompt, a shared prefix and so on are here, and a file of one's own.

The same seed gives the same requests, whichever server gets them; no two requests share a prefix unless the mix says
so. Prompts are of plain words.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.client import Call
from benchmarks.harness.work import Session, Sizes

SPREAD = 0.25
"""Prompts and outputs are so much shorter or longer than the mix's sizes, evenly: sequences keep out of step."""

SYSTEM_PROMPT = "You are a helpful assistant. Answer in plain words and at some length."

_WORDS = (
    "yard",
    "model",
    "train",
    "river",
    "stone",
    "light",
    "morning",
    "water",
    "paper",
    "window",
    "garden",
    "question",
    "answer",
    "number",
    "letter",
    "engine",
    "signal",
    "market",
    "village",
    "bridge",
    "harbour",
    "mountain",
    "station",
    "evening",
    "winter",
    "summer",
    "doctor",
    "teacher",
    "driver",
    "sailor",
    "baker",
    "carpenter",
    "reader",
    "writer",
    "listener",
    "story",
    "picture",
    "colour",
    "sound",
    "silence",
    "measure",
    "weight",
    "distance",
    "reason",
    "result",
    "method",
    "system",
    "memory",
    "island",
    "forest",
    "desert",
    "valley",
    "corner",
    "circle",
    "square",
    "triangle",
    "pattern",
    "history",
    "future",
    "open",
    "close",
    "carry",
    "follow",
    "gather",
    "remember",
    "forget",
    "promise",
    "travel",
    "return",
    "arrange",
    "compare",
    "collect",
    "deliver",
    "quiet",
    "loud",
    "early",
    "late",
    "narrow",
    "broad",
    "gentle",
    "steady",
    "simple",
    "careful",
    "honest",
    "curious",
    "ordinary",
    "distant",
    "golden",
    "silver",
    "between",
    "beyond",
    "against",
    "during",
    "without",
    "towards",
    "under",
    "above",
    "before",
    "after",
    "always",
    "never",
    "often",
    "rarely",
    "together",
)

_SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 40},
        "score": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 4},
    },
    "required": ["title", "score", "tags"],
    "additionalProperties": False,
}


class Mix(msgspec.Struct, frozen=True, kw_only=True):
    """A named kind of work: its usual sizes, and how session `index` of a seed is made."""

    about: str
    sizes: Sizes
    make: Callable[["Writer", Sizes], Session]


class MixError(Exception):
    """The work cannot be made; the message says where and why."""


class Writer:
    """Makes the requests of one session. `ignore_eos`: ask for exactly as many tokens as planned."""

    def __init__(self, seed: int, index: int, *, ignore_eos: bool) -> None:
        self.ignore_eos = ignore_eos
        self._seed = seed
        self._random = np.random.default_rng([seed, index])

    def words(self, count: int) -> str:
        """About so many words, spread."""
        return _text(self._random, self.spread(count))

    def common(self, count: int) -> str:
        """Words that all sessions of this seed share."""
        return _text(np.random.default_rng([self._seed]), count)

    def spread(self, size: int) -> int:
        return max(1, round(size * self._random.uniform(1 - SPREAD, 1 + SPREAD)))

    def chat(self, messages: list[dict[str, str]], tokens: int, **fields: Any) -> Call:
        return self._call("/chat/completions", {"messages": messages}, tokens, **fields)

    def _call(self, path: str, body: dict[str, Any], tokens: int, **fields: Any) -> Call:
        exact = self.ignore_eos and "response_format" not in fields
        body |= {
            "max_tokens": tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if exact:
            body["ignore_eos"] = True
        return Call(path=path, body=body | fields, tokens=tokens if exact else None)


def _chat(writer: Writer, sizes: Sizes) -> Session:
    asked = [_system(SYSTEM_PROMPT), _user(writer.words(sizes.prompt_words))]
    return Session(calls=(writer.chat(asked, writer.spread(sizes.output_tokens)),))


def _shared_prefix(writer: Writer, sizes: Sizes) -> Session:
    asked = [_system(writer.common(sizes.prefix_words)), _user(writer.words(sizes.prompt_words))]
    return Session(calls=(writer.chat(asked, writer.spread(sizes.output_tokens)),))


def _multi_turn(writer: Writer, sizes: Sizes) -> Session:
    system = _system(writer.common(sizes.prefix_words))
    calls = []
    for turn in range(sizes.turns):
        asked = [_user(writer.words(sizes.prompt_words))]
        calls.append(writer.chat([system, *asked] if not turn else asked, writer.spread(sizes.output_tokens)))
    return Session(calls=tuple(calls), is_chat=True)


def _structured(writer: Writer, sizes: Sizes) -> Session:
    schema = {"type": "json_schema", "json_schema": {"name": "note", "strict": True, "schema": _SCHEMA}}
    asked = [_system(SYSTEM_PROMPT), _user(writer.words(sizes.prompt_words))]
    return Session(calls=(writer.chat(asked, sizes.output_tokens, response_format=schema),))


def _embeddings(writer: Writer, sizes: Sizes) -> Session:
    body = {"input": writer.words(sizes.prompt_words), "stream": False}
    return Session(calls=(Call(path="/embeddings", body=body),))


MIXES: dict[str, Mix] = {
    "chat": Mix(
        about="short questions, answers of a paragraph",
        sizes=Sizes(prompt_words=60, output_tokens=128),
        make=_chat,
    ),
    "long-prompt": Mix(
        about="pages to read, a short answer", sizes=Sizes(prompt_words=1500, output_tokens=64), make=_chat
    ),
    "shared-prefix": Mix(
        about="one long system prompt for all, short questions",
        sizes=Sizes(prompt_words=40, output_tokens=64, prefix_words=400),
        make=_shared_prefix,
    ),
    "multi-turn": Mix(
        about="conversations of several turns behind one system prompt",
        sizes=Sizes(prompt_words=40, output_tokens=64, prefix_words=200, turns=4),
        make=_multi_turn,
    ),
    "structured": Mix(
        about="answers that a JSON Schema binds",
        sizes=Sizes(prompt_words=60, output_tokens=128),
        make=_structured,
    ),
    "embeddings": Mix(
        about="one vector a text", sizes=Sizes(prompt_words=100, output_tokens=0), make=_embeddings
    ),
}


def sessions(mix: Mix, sizes: Sizes, *, seed: int, count: int, ignore_eos: bool) -> list[Session]:
    """`count` sessions of a mix."""
    return [mix.make(Writer(seed, index, ignore_eos=ignore_eos), sizes) for index in range(count)]


def from_file(path: Path) -> list[Session]:
    """One session per line of a JSON Lines file: a body with `prompt`, `messages` or `input`, as it would be sent;
    `model` is put in. Raises MixError with the line."""
    found = list(_lines(path))
    if not found:
        raise MixError(f"{path} holds no requests; write one JSON object a line")
    return found


def _lines(path: Path) -> Iterator[Session]:
    routes = {"messages": "/chat/completions", "prompt": "/completions", "input": "/embeddings"}
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MixError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            body = msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise MixError(f"{path}:{number}: not a JSON object: {error}") from error
        route = next((route for key, route in routes.items() if key in body), None)
        if route is None:
            raise MixError(f"{path}:{number}: needs `messages`, `prompt` or `input`")
        usual: dict[str, Any] = {"stream": False} if route == "/embeddings" else _STREAMED
        yield Session(calls=(Call(path=route, body={**body, **usual}),))


_STREAMED = {"stream": True, "stream_options": {"include_usage": True}}


def _text(random: np.random.Generator, count: int) -> str:
    return " ".join(_WORDS[pick] for pick in random.integers(len(_WORDS), size=count))


def _system(content: str) -> dict[str, str]:
    return {"role": "system", "content": content}


def _user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}
