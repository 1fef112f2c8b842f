"""A stream engine whose model is on another server. Counts, tokens and templates are that server's business."""

import contextlib
from collections.abc import AsyncIterator
from typing import Literal

from backends.contract import (
    EngineError,
    EngineInfo,
    EngineRequest,
    LoadError,
    LoadRequest,
    Progress,
    StreamEngine,
    TokenChunk,
    UnsupportedError,
)
from backends.triton.options import Options
from backends.triton.protocols import Answer, choose
from backends.triton.remote import Remote

NO_TOKENIZER = "the tokenizer is on the other server"


class TritonEngine(StreamEngine):
    """Passes on as many requests at once as it has lanes; whether they wait there too is decided there."""

    def load(self, request: LoadRequest, progress: Progress) -> EngineInfo:
        options = Options.read(request.options)
        if request.embeddings:
            raise LoadError(
                "a remote model makes no embeddings here; remove `embeddings` from its config.yaml"
            )
        self._remote = Remote(options.remote_model or request.model, options)
        self._protocol = choose(options.protocol, self._remote.describe())
        progress(1.0)
        self.info = EngineInfo(
            vocabulary=0,
            context_tokens=request.context_tokens or 0,
            kv_tokens=0,
            lanes=request.running_lanes,
            text_only=True,
            prefix="none",
            capabilities=self._protocol.capabilities,
            engine="triton",
            description=f"{self._remote.model} at {options.endpoint} ({self._protocol.name})",
        )
        return self.info

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        raise UnsupportedError(NO_TOKENIZER)

    def token_bytes(self, token: int, *, special: bool = False) -> bytes:
        raise UnsupportedError(NO_TOKENIZER)

    async def generate(self, request: EngineRequest) -> AsyncIterator[TokenChunk]:
        prompt = request.text or ""
        message = self._protocol.message(request)
        num_tokens = 0
        answer: Answer | None = None
        async with contextlib.aclosing(
            self._remote.stream(message, timeout_s=request.timeout_s)
        ) as responses:  # type: ignore[type-var]
            async for response in responses:
                try:
                    answer = self._protocol.read(response, prompt=prompt)
                except ValueError as error:
                    raise EngineError(f"the other server's answer cannot be read: {error}") from error
                num_tokens += answer.num_tokens or 0
                ends = answer.finish is not None or answer.is_last
                yield TokenChunk(
                    text=answer.text,
                    num_tokens=answer.num_tokens or 0,
                    prompt_tokens=answer.prompt_tokens,
                    finish=_finish(answer, num_tokens, request) if ends else None,
                )
                if ends:
                    return
        if answer is None:
            raise EngineError("the other server ended the request without an answer")
        yield TokenChunk(text="", finish=_finish(answer, num_tokens, request))


def _finish(answer: Answer, num_tokens: int, request: EngineRequest) -> Literal["stop", "length"]:
    """Why it ended: what the server says, or else whether all tokens that were asked for have come."""
    if answer.finish is None:
        return "length" if num_tokens >= request.max_tokens else "stop"
    if answer.finish == "abort":
        raise EngineError("the other server gave the request up")
    return "length" if answer.finish == "length" else "stop"
