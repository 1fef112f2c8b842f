"""Events to the bytes of stream chunks, for chat and for completions. Pure: no socket, no clock.

A stream sends a chunk per token, so all that is constant in a chunk is encoded once per choice, and only the
new text is encoded per chunk.
"""

import abc
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from adapters.openai.generation import add_usage, finish_reason, usage_body
from adapters.openai.logprobs import LegacyLogprobs, chat_logprobs
from adapters.openai.schema import StreamOptions
from runner.wire.requests import Accepted, Delta, Event, Finished, TokenText, Usage

DONE = b"data: [DONE]\n\n"


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """What all parts of one answer have in common. `created`: seconds since 1970."""

    id: str
    created: int
    fingerprint: str


class Chunks(abc.ABC):
    """The chunks of one response: `prompts` times `n` choices, choice = prompt * n + sample."""

    object: ClassVar[str]
    text_open: ClassVar[bytes]
    text_close: ClassVar[bytes]
    empty: ClassVar[bytes]

    def __init__(
        self, envelope: Envelope, options: StreamOptions | None, *, n: int, prompts: int = 1
    ) -> None:
        self._envelope = envelope
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
                if not (event.text or event.token_ids or event.prompt_logprobs or event.finish):
                    return  # the first chunk stands for a token that exists
                head = self._begin(choice, event, out)
            if self._continuous:
                self._count(event)
            if event.logprobs:
                out.append(
                    self._chunk(
                        choice,
                        self.text_open + self._json(event.text) + self.text_close,
                        logprobs=self._logprobs(choice, event.logprobs),
                    )
                )
            elif event.text:
                out.append(head + self._json(event.text) + self._rest + self._tail)
            if event.finish is not None:
                out.append(self._chunk(choice, self.empty, finish=self._encode(finish_reason(event.finish))))
        elif type(event) is Accepted:
            if not self._common:
                self._common = self._begin_response(event.model)
            self._running = add_usage(self._running, Usage(event.prompt_tokens, 0))
        elif type(event) is Finished:
            self._usage = add_usage(self._usage, event.usage)

    def end(self) -> bytes:
        """What follows the last choice: the usage chunk where it was asked for, and the end mark."""
        if not self._with_usage:
            return DONE
        usage = self._encode(usage_body(self._usage))
        return b"data: " + self._common + b',"choices":[],"usage":' + usage + b"}\n\n" + DONE

    @abc.abstractmethod
    def _first(self, choice: int, delta: Delta) -> bytes | None:
        """The chunk that opens a choice, if there is one."""

    @abc.abstractmethod
    def _logprobs(self, choice: int, tokens: Sequence[TokenText]) -> Any: ...

    def _begin_response(self, model: str) -> bytes:
        fields = {
            "id": self._envelope.id,
            "object": self.object,
            "created": self._envelope.created,
            "model": model,
            "system_fingerprint": self._envelope.fingerprint,
        }
        return self._encode(fields)[:-1]

    def _begin(self, choice: int, delta: Delta, out: list[bytes]) -> bytes:
        head = self._head(choice) + self.text_open
        self._heads[choice] = head
        first = self._first(choice, delta)
        if first is not None:
            out.append(first)
        return head

    def _head(self, choice: int) -> bytes:
        return b'data: %b,"choices":[{"index":%d,' % (self._common, choice)

    def _chunk(self, choice: int, content: bytes, *, logprobs: Any = None, finish: bytes = b"null") -> bytes:
        rest = b',"logprobs":%b,"finish_reason":%b}]' % (self._encode(logprobs), finish)
        return self._head(choice) + content + rest + self._tail

    def _count(self, delta: Delta) -> None:
        self._running = add_usage(self._running, Usage(0, len(delta.token_ids)))
        self._tail = b',"usage":' + self._encode(usage_body(self._running)) + b"}\n\n"

    def _json(self, text: str) -> bytes:
        encoded = self._encode(text)
        if not text.isascii():
            # Clients that split text into lines do so at these too, although event streams do not.
            for raw, escaped in (
                (b"\xc2\x85", b"\\u0085"),
                (b"\xe2\x80\xa8", b"\\u2028"),
                (b"\xe2\x80\xa9", b"\\u2029"),
            ):
                encoded = encoded.replace(raw, escaped)
        return encoded


class ChatChunks(Chunks):
    """`chat.completion.chunk`: role first, then contents, then an empty delta with the reason."""

    object = "chat.completion.chunk"
    text_open = b'"delta":{"content":'
    text_close = b"}"
    empty = b'"delta":{}'

    def _first(self, choice: int, delta: Delta) -> bytes | None:
        return self._chunk(choice, b'"delta":{"role":"assistant","content":""}')

    def _logprobs(self, choice: int, tokens: Sequence[TokenText]) -> Any:
        return {"content": chat_logprobs(tokens), "refusal": None}


class CompletionChunks(Chunks):
    """`text_completion`: texts, then an empty text with the reason. `echo`: the prompts' texts, which come
    first; `first_tokens`: the bytes of each prompt's first token, which has no log-probability."""

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
        first_tokens: Sequence[bytes] = (),
    ) -> None:
        super().__init__(envelope, options, n=n, prompts=prompts)
        self._echo = echo
        self._first_tokens = first_tokens
        self._arrays = [LegacyLogprobs() for _ in range(n * prompts)]

    def _first(self, choice: int, delta: Delta) -> bytes | None:
        if not self._echo:
            return None
        prompt = choice // self._n
        logprobs = None
        if self._first_tokens:
            tokens = [token or self._first_tokens[prompt] for token in delta.prompt_logprobs]
            logprobs = self._arrays[choice].feed(tokens)
        return self._chunk(choice, self.text_open + self._json(self._echo[prompt]), logprobs=logprobs)

    def _logprobs(self, choice: int, tokens: Sequence[TokenText]) -> Any:
        return self._arrays[choice].feed(tokens)
