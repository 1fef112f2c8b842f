"""Run one or several prompts to the end and gather what they gave. Streaming is `stream.py`'s."""

import asyncio
from collections.abc import Sequence

import msgspec

from adapters.asgi import closing
from runner.api import RunnerApi
from runner.errors import GenerationFailed
from runner.wire.requests import Accepted, Delta, Finished, GenerateRequest, TokenText, Usage

MAX_PROMPTS_AT_ONCE = 32


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One finished choice. `prompt_logprobs` has None where the engine has no log-probability to give."""

    text: str
    finish: str
    logprobs: tuple[TokenText, ...]
    prompt_logprobs: tuple[TokenText | None, ...]


class Generated(msgspec.Struct, frozen=True, kw_only=True):
    """All samples, those of the first prompt first."""

    model: str
    samples: tuple[Sample, ...]
    usage: Usage


def finish_reason(finish: str) -> str:
    """What clients accept as the reason that a choice ended: engines have words of their own for "stop"."""
    return finish if finish in ("stop", "length") else "stop"


def add_usage(one: Usage, other: Usage) -> Usage:
    return Usage(
        one.prompt_tokens + other.prompt_tokens,
        one.completion_tokens + other.completion_tokens,
        one.cached_tokens + other.cached_tokens,
    )


def usage_body(usage: Usage) -> dict[str, object]:
    """OpenAI's usage object."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


async def collect(runner: RunnerApi, model: str, requests: Sequence[GenerateRequest]) -> Generated:
    """Run all requests, some at once. Raises the first RunnerError; the other requests are cancelled then."""
    slots = asyncio.Semaphore(MAX_PROMPTS_AT_ONCE)

    async def one(request: GenerateRequest) -> Generated:
        async with slots:
            return await _collect_one(runner, model, request)

    if len(requests) == 1:
        return await one(requests[0])
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(one(request)) for request in requests]
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    parts = [task.result() for task in running]
    usage = parts[0].usage
    for part in parts[1:]:
        usage = add_usage(usage, part.usage)
    samples = tuple(sample for part in parts for sample in part.samples)
    return Generated(model=parts[0].model, samples=samples, usage=usage)


async def _collect_one(runner: RunnerApi, model: str, request: GenerateRequest) -> Generated:
    texts: list[list[str]] = [[] for _ in range(request.n)]
    tokens: list[list[TokenText]] = [[] for _ in range(request.n)]
    prompts: list[tuple[TokenText | None, ...]] = [()] * request.n
    reasons = ["stop"] * request.n
    ran = model
    async with closing(runner.generate(model, request)) as events:
        async for event in events:
            match event:
                case Delta():
                    texts[event.index].append(event.text)
                    tokens[event.index] += event.logprobs
                    prompts[event.index] += event.prompt_logprobs
                    if event.finish is not None:
                        reasons[event.index] = finish_reason(event.finish)
                case Accepted():
                    ran = event.model
                case Finished():
                    samples = tuple(
                        Sample(
                            text="".join(texts[i]),
                            finish=reasons[i],
                            logprobs=tuple(tokens[i]),
                            prompt_logprobs=prompts[i] or prompts[0],
                        )
                        for i in range(request.n)
                    )
                    return Generated(model=ran, samples=samples, usage=event.usage)
    raise GenerationFailed("The model's answer ended without saying that it was finished.")
