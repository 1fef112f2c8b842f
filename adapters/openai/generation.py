"""Run one or several prompts to the end and gather what they gave. Streaming is `stream.py`'s."""

import asyncio
from collections.abc import Callable, Sequence

import msgspec
from msgspec.structs import replace

from adapters.asgi import closing, gathered
from runner.api import RunnerApi
from runner.errors import GenerationFailed
from runner.wire.requests import (
    Accepted,
    Delta,
    Finished,
    GenerateRequest,
    ServiceTier,
    TokenText,
    ToolCallDelta,
    Usage,
)

MAX_PROMPTS_AT_ONCE = 32


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A whole tool call; `arguments` is the JSON text of an object."""

    id: str
    name: str
    arguments: str


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One finished choice. `finish`: "stop", "length" or "tool_calls"; `stop_reason` tells which stop text or
    token id ended it. `prompt_logprobs` has None where the engine has no log-probability to give."""

    text: str
    finish: str
    stop_reason: str | int | None = None
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[TokenText, ...] = ()
    token_ids: tuple[int, ...] = ()
    prompt_logprobs: tuple[TokenText | None, ...] = ()


class Generated(msgspec.Struct, frozen=True, kw_only=True):
    """All samples, those of the first prompt first. `service_tier`: the one that they were run with."""

    model: str
    samples: tuple[Sample, ...]
    usage: Usage
    service_tier: ServiceTier = "default"


def finish_reason(finish: str) -> str:
    """What clients accept as the reason that a choice ended: engines have words of their own for "stop"."""
    return finish if finish in ("stop", "length", "tool_calls") else "stop"


def add_usage(one: Usage, other: Usage) -> Usage:
    return Usage(
        one.prompt_tokens + other.prompt_tokens,
        one.completion_tokens + other.completion_tokens,
        one.cached_tokens + other.cached_tokens,
        one.reasoning_tokens + other.reasoning_tokens,
    )


def usage_body(usage: Usage) -> dict[str, object]:
    """OpenAI's usage object."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


async def collect(
    runner: RunnerApi, model: str, requests: Sequence[GenerateRequest], *, hear: Callable[[Accepted], None]
) -> Generated:
    """Run all requests, some at once. Raises the first RunnerError; the other requests are cancelled then. `hear` is
    told of each that is accepted."""
    slots = asyncio.Semaphore(MAX_PROMPTS_AT_ONCE)

    async def one(request: GenerateRequest) -> Generated:
        async with slots:
            return await _collect_one(runner, model, request, hear)

    if len(requests) == 1:
        return await one(requests[0])
    parts = await gathered([one(request) for request in requests])
    usage = parts[0].usage
    for part in parts[1:]:
        usage = add_usage(usage, part.usage)
    samples = tuple(sample for part in parts for sample in part.samples)
    return replace(parts[0], samples=samples, usage=usage)


async def _collect_one(
    runner: RunnerApi, model: str, request: GenerateRequest, hear: Callable[[Accepted], None]
) -> Generated:
    parts = [_Parts() for _ in range(request.n)]
    ran, tier = model, request.service_tier
    async with closing(runner.generate(model, request)) as events:
        async for event in events:
            match event:
                case Delta():
                    parts[event.index].add(event)
                case Accepted():
                    hear(event)
                    ran, tier = event.model, event.service_tier
                case Finished():
                    shared = parts[0].prompt_logprobs
                    samples = tuple(part.sample(shared) for part in parts)
                    return Generated(model=ran, samples=samples, usage=event.usage, service_tier=tier)
    raise GenerationFailed("The model's answer ended without saying that it was finished.")


class _Parts:
    """What one sample has given so far."""

    def __init__(self) -> None:
        self.prompt_logprobs: tuple[TokenText | None, ...] = ()
        self._texts: list[str] = []
        self._reasonings: list[str] = []
        self._logprobs: list[TokenText] = []
        self._token_ids: list[int] = []
        self._calls: list[list[ToolCallDelta]] = []
        self._finish = "stop"
        self._stop_reason: str | int | None = None

    def add(self, delta: Delta) -> None:
        self._texts.append(delta.text)
        self._logprobs += delta.logprobs
        self._token_ids += delta.token_ids
        self.prompt_logprobs += delta.prompt_logprobs
        if delta.reasoning:
            self._reasonings.append(delta.reasoning)
        for call in delta.tool_calls:
            if call.index == len(self._calls):
                self._calls.append([])
            self._calls[call.index].append(call)
        if delta.finish is not None:
            self._finish, self._stop_reason = finish_reason(delta.finish), delta.stop_reason

    def sample(self, prompt_logprobs: tuple[TokenText | None, ...]) -> Sample:
        return Sample(
            text="".join(self._texts),
            finish=self._finish,
            stop_reason=self._stop_reason,
            reasoning="".join(self._reasonings),
            tool_calls=tuple(map(_tool_call, self._calls)),
            logprobs=tuple(self._logprobs),
            token_ids=tuple(self._token_ids),
            prompt_logprobs=self.prompt_logprobs or prompt_logprobs,
        )


def _tool_call(deltas: Sequence[ToolCallDelta]) -> ToolCall:
    return ToolCall(
        id=deltas[0].id or "",
        name=deltas[0].name or "",
        arguments="".join(delta.arguments for delta in deltas),
    )
