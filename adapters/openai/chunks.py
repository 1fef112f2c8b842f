"""Events to the bytes of stream chunks, for chat and for completions. Pure: no socket, no clock.

A stream sends a chunk per token, so all that is constant in a chunk is encoded once per choice, and only the
new text is encoded per chunk.
"""

import abc
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from adapters.openai.errors import to_api_error
from adapters.openai.generation import add_usage, finish_reason, usage_body
from adapters.openai.logprobs import FirstToken, LegacyLogprobs, chat_logprobs
from adapters.openai.schema import StreamOptions
from adapters.openai.sse import one_line
from runner.errors import RunnerError
from runner.wire.requests import (
    Accepted,
    Delta,
    Event,
    Finished,
    ServiceTier,
    TokenText,
    ToolCallDelta,
    Usage,
)

DONE = b"data: [DONE]\n\n"


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """What all parts of one answer have in common. `created`: seconds since 1970. `tells_tier`: the service tier
    that was used is told, for one was asked for."""

    id: str
    created: int
    fingerprint: str
    tells_tier: bool = False

    def fields(self, kind: str, model: str, tier: ServiceTier) -> dict[str, Any]:
        """The common fields of an answer or chunk of the object `kind`."""
        fields = {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": model,
            "system_fingerprint": self.fingerprint,
        }
        return fields | {"service_tier": tier} if self.tells_tier else fields


class Chunks(abc.ABC):
    """The chunks of one response: `prompts` times `n` choices, choice = prompt * n + sample. `prompt_ids`: the
    tokens of the prompts, where those and the answers' are to be told."""

    object: ClassVar[str]
    text_open: ClassVar[bytes]
    text_close: ClassVar[bytes]
    empty: ClassVar[bytes]

    def __init__(
        self,
        envelope: Envelope,
        options: StreamOptions | None,
        *,
        n: int,
        prompts: int = 1,
        prompt_ids: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self._envelope = envelope
        self._prompt_ids = prompt_ids
        self._n = n
        self._with_usage = options is not None and bool(options.include_usage)
        self._continuous = self._with_usage and options is not None and bool(options.continuous_usage_stats)
        self._tail = b',"usage":null}\n\n' if self._with_usage else b"}\n\n"
        self._rest = self.text_close + b',"logprobs":null,"finish_reason":null}]'
        self._heads: list[bytes | None] = [None] * (n * prompts)
        self._common = b""
        self._usage = Usage(0, 0)
        self._running = Usage(0, 0)
        self._encode = msgspec.json.Encoder().encode

    def add(self, prompt: int, event: Event, out: list[bytes]) -> None:
        """Append the chunks that `event` of prompt number `prompt` makes."""
        if type(event) is Delta:
            choice = prompt * self._n + event.index
            head = self._heads[choice]
            if head is None:
                if not _gives_something(event):
                    return  # the first chunk stands for a token that exists
                head = self._begin(choice, event, out)
            if self._continuous:
                self._count(event)
            ids = self._prompt_ids is not None and event.token_ids
            if event.logprobs or event.reasoning or event.tool_calls or ids:
                logprobs = self._logprobs(choice, event.logprobs) if event.logprobs else None
                more = b',"token_ids":' + self._encode(ids) if ids else b""
                for content in self._contents(event):
                    out.append(self._chunk(choice, content, logprobs=logprobs, more=more))
                    logprobs, more = None, b""  # told once, with the first of what came of these tokens
            elif event.text:
                out.append(head + self._json(event.text) + self._rest + self._tail)
            if event.finish is not None:
                out.append(self._chunk(choice, self.empty, finish=self._encode(self._finish(event.finish))))
        elif type(event) is Accepted:
            if not self._common:
                fields = self._envelope.fields(self.object, event.model, event.service_tier)
                self._common = self._encode(fields)[:-1]
            self._running = add_usage(self._running, Usage(event.prompt_tokens, 0))
        elif type(event) is Finished:
            self._usage = add_usage(self._usage, event.usage)

    def end(self) -> bytes:
        """What follows the last choice: the usage chunk where it was asked for, and the end mark."""
        if not self._with_usage:
            return DONE
        usage = self._encode(usage_body(self._usage))
        return b"data: " + self._common + b',"choices":[],"usage":' + usage + b"}\n\n" + DONE

    def fail(self, error: RunnerError) -> bytes:
        return b"data: " + self._encode(to_api_error(error).body()) + b"\n\n"

    def ping(self, words: str) -> bytes:
        """A comment, which clients pass over and do not take for a first token."""
        return f": {words}\n\n".encode()

    @abc.abstractmethod
    def _first(self, choice: int, delta: Delta) -> bytes | None:
        """The chunk that opens a choice, if there is one."""

    @abc.abstractmethod
    def _logprobs(self, choice: int, tokens: Sequence[TokenText]) -> Any: ...

    def _contents(self, delta: Delta) -> list[bytes]:
        """What a delta adds, in order, a chunk for each kind; one at least."""
        return [self.text_open + self._json(delta.text) + self.text_close]

    def _finish(self, finish: str) -> str:
        return finish_reason(finish)

    def _begin(self, choice: int, delta: Delta, out: list[bytes]) -> bytes:
        head = self._head(choice) + self.text_open
        self._heads[choice] = head
        first = self._first(choice, delta)
        if first is not None:
            out.append(first)
        return head

    def _head(self, choice: int) -> bytes:
        return b'data: %b,"choices":[{"index":%d,' % (self._common, choice)

    def _chunk(
        self,
        choice: int,
        content: bytes,
        *,
        logprobs: Any = None,
        finish: bytes = b"null",
        more: bytes = b"",
        beside: bytes = b"",
    ) -> bytes:
        """`more`: members of the choice; `beside`: of the chunk."""
        rest = b',"logprobs":%b,"finish_reason":%b%b}]' % (self._encode(logprobs), finish, more)
        return self._head(choice) + content + rest + beside + self._tail

    def _told_prompt(self, choice: int) -> bytes:
        if self._prompt_ids is None:
            return b""
        return b',"prompt_token_ids":' + self._encode(self._prompt_ids[choice // self._n])

    def _count(self, delta: Delta) -> None:
        self._running = add_usage(self._running, Usage(0, len(delta.token_ids) + delta.num_text_tokens))
        self._tail = b',"usage":' + self._encode(usage_body(self._running)) + b"}\n\n"

    def _json(self, value: Any) -> bytes:
        return one_line(self._encode(value))


def _gives_something(delta: Delta) -> bool:
    gained = delta.text or delta.reasoning or delta.tool_calls or delta.token_ids
    return bool(gained or delta.prompt_logprobs or delta.finish)


def chat_finish(finish: str, *, calls_functions: bool) -> str:
    """The reason that a choice ended, by the name it has where calls are told as the deprecated `functions`."""
    return "function_call" if finish == "tool_calls" and calls_functions else finish


class ChatChunks(Chunks):
    """`chat.completion.chunk`: role first, then reasoning, contents and calls, then an empty delta with the
    reason. `calls_functions`: calls are told as the deprecated `functions` have them."""

    object = "chat.completion.chunk"
    text_open = b'"delta":{"content":'
    text_close = b"}"
    empty = b'"delta":{}'

    def __init__(
        self,
        envelope: Envelope,
        options: StreamOptions | None,
        *,
        n: int,
        calls_functions: bool = False,
        prompt_ids: Sequence[Sequence[int]] | None = None,
    ) -> None:
        super().__init__(envelope, options, n=n, prompt_ids=prompt_ids)
        self._calls_functions = calls_functions

    def _contents(self, delta: Delta) -> list[bytes]:
        contents = []
        if delta.reasoning:
            contents.append(b'"delta":{"reasoning_content":' + self._json(delta.reasoning) + b"}")
        if delta.text or not (delta.reasoning or delta.tool_calls):
            contents.append(self.text_open + self._json(delta.text) + self.text_close)
        if delta.tool_calls and self._calls_functions:
            contents.append(b'"delta":{"function_call":' + self._json(_function(delta.tool_calls[0])) + b"}")
        elif delta.tool_calls:
            contents.append(b'"delta":{"tool_calls":' + self._json(list(map(_call, delta.tool_calls))) + b"}")
        return contents

    def _finish(self, finish: str) -> str:
        return chat_finish(finish_reason(finish), calls_functions=self._calls_functions)

    def _first(self, choice: int, delta: Delta) -> bytes | None:
        content = b"null" if delta.tool_calls and not delta.text else b'""'
        opening = b'"delta":{"role":"assistant","content":' + content + b"}"
        return self._chunk(choice, opening, beside=self._told_prompt(choice))

    def _logprobs(self, choice: int, tokens: Sequence[TokenText]) -> Any:
        return {"content": chat_logprobs(tokens), "refusal": None}


def _call(call: ToolCallDelta) -> dict[str, Any]:
    """A part of a call; its id, type and name stand in the first only."""
    opening = {"id": call.id, "type": "function"} if call.id is not None else {}
    return {"index": call.index, **opening, "function": _function(call)}


def _function(call: ToolCallDelta) -> dict[str, Any]:
    name = {"name": call.name} if call.name is not None else {}
    return {**name, "arguments": call.arguments}


class CompletionChunks(Chunks):
    """`text_completion`: texts, then an empty text with the reason. `echo`: the prompts' texts, which come
    first; `first_tokens`: each prompt's first token, which has no log-probability."""

    object = "text_completion"
    text_open = b'"text":'
    text_close = b""
    empty = b'"text":""'

    def __init__(
        self,
        envelope: Envelope,
        options: StreamOptions | None,
        *,
        n: int,
        prompts: int,
        echo: Sequence[str] = (),
        first_tokens: Sequence[FirstToken] = (),
        prompt_ids: Sequence[Sequence[int]] | None = None,
    ) -> None:
        super().__init__(envelope, options, n=n, prompts=prompts, prompt_ids=prompt_ids)
        self._echo = echo
        self._first_tokens = first_tokens
        self._arrays = [LegacyLogprobs() for _ in range(n * prompts)]

    def _first(self, choice: int, delta: Delta) -> bytes | None:
        if not self._echo and self._prompt_ids is None:
            return None
        prompt = choice // self._n
        logprobs = None
        if self._first_tokens:
            tokens = [token or self._first_tokens[prompt] for token in delta.prompt_logprobs]
            logprobs = self._arrays[choice].feed(tokens)
        text = self._json(self._echo[prompt] if self._echo else "")
        return self._chunk(choice, self.text_open + text, logprobs=logprobs, more=self._told_prompt(choice))

    def _logprobs(self, choice: int, tokens: Sequence[TokenText]) -> Any:
        return self._arrays[choice].feed(tokens)
