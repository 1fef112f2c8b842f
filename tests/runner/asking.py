"""Short ways to ask a runner."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from runner.api import RunnerApi
from runner.wire.requests import Accepted, ChatPrompt, Delta, Finished, GenerateRequest, Prompt, TextPrompt


class Answer:
    """What one request gave."""

    def __init__(self) -> None:
        self.accepted: Accepted | None = None
        self.texts: dict[int, str] = {}
        self.deltas: list[Delta] = []
        self.finish: dict[int, str] = {}
        self.finished: Finished | None = None

    @property
    def text(self) -> str:
        return self.texts.get(0, "")

    @property
    def version(self) -> int:
        assert self.accepted is not None
        return self.accepted.version


async def ask(
    runner: RunnerApi,
    prompt: str | Prompt = "hello there",
    *,
    model: str = "echo",
    on_delta: Callable[[Delta], None] = lambda _: None,
    **given: Any,
) -> Answer:
    """One greedy request to its end. A text is one user turn of a chat."""
    if isinstance(prompt, str):
        prompt = ChatPrompt(messages=({"role": "user", "content": prompt},))
    given.setdefault("sampling", {"temperature": 0})
    answer = Answer()
    async with contextlib.aclosing(runner.generate(model, GenerateRequest(prompt=prompt, **given))) as events:  # type: ignore[type-var]
        async for event in events:
            match event:
                case Accepted():
                    answer.accepted = event
                case Delta():
                    answer.deltas.append(event)
                    answer.texts[event.index] = answer.texts.get(event.index, "") + event.text
                    if event.finish:
                        answer.finish[event.index] = event.finish
                    on_delta(event)
                case Finished():
                    answer.finished = event
    return answer


def endless(**given: Any) -> dict[str, Any]:
    """A request that runs until its context is full."""
    return {"ignore_eos": True, "prompt": TextPrompt("go on and on "), **given}


async def until(claim: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
    """Wait for what another process or task brings about; fails after `timeout_s`."""
    async with asyncio.timeout(timeout_s):
        while not claim():
            await asyncio.sleep(0.01)


def metric(runner: RunnerApi, name: str, **labels: str) -> float:
    """The sum of a metric's samples that carry `labels`."""
    total = 0.0
    for line in runner.metrics().decode().splitlines():
        if line.startswith(f"modelyard_{name}{{") and all(
            f'{key}="{value}"' in line for key, value in labels.items()
        ):
            total += float(line.rsplit(" ", 1)[1])
    return total
