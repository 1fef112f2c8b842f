"""Drives a step engine the way a scheduler does, without one: a lane per sequence, everything in order."""

import pkgutil
from collections.abc import Sequence
from typing import Any

from backends.contract import (
    Engine,
    LoadRequest,
    PlanRow,
    ResultRow,
    Sampling,
    StepEngine,
    StepPlan,
    StepResult,
)
from backends.registry import Registry

GREEDY = Sampling(temperature=0.0)
PROMPTS = (
    "<|im_start|>user\nWhat is a model version?<|im_end|>\n<|im_start|>assistant\n",
    "The yard opens in the morning,",
    "<|im_start|>user\nHow do I add a model to the server?<|im_end|>\n<|im_start|>assistant\n",
)


def make_engine(backend: str) -> Engine:
    """An engine that is not loaded yet, found as a worker finds it."""
    engine = pkgutil.resolve_name(Registry(()).get(backend).engine)()
    assert isinstance(engine, Engine)
    return engine


def load_request(weights: str = "", **fields: Any) -> LoadRequest:
    """Small limits, one thread."""
    limits: dict[str, Any] = {"context_tokens": 512, "lanes": 8, "running_lanes": 8, **fields}
    return LoadRequest(model="test", weights=weights, **limits)


def encode(engine: Engine, text: str) -> list[int]:
    """A prompt: BOS where the model wants one, and control-token texts parsed."""
    bos = [engine.info.bos_id] if engine.info.adds_bos and engine.info.bos_id is not None else []
    return bos + engine.tokenize(text, special=True)


def decode(engine: Engine, tokens: Sequence[int], *, special: bool = False) -> bytes:
    return b"".join(engine.token_bytes(token, special=special) for token in tokens)


class Running:
    """One sequence on its lane: `tokens` are prompt and output; the lane holds the first `computed`."""

    def __init__(self, seq: int, lane: int, prompt: Sequence[int], computed: int) -> None:
        self.seq = seq
        self.lane = lane
        self.tokens = list(prompt)
        self.num_prompt = len(prompt)
        self.computed = computed

    @property
    def output(self) -> list[int]:
        return self.tokens[self.num_prompt :]

    def row(self, *, chunk: int | None = None, **fields: Any) -> PlanRow:
        """What is missing on the lane, at most `chunk` tokens of it; samples once nothing is missing."""
        missing = self.tokens[self.computed :][:chunk]
        caught_up = self.computed + len(missing) == len(self.tokens)
        following = None if caught_up else self.tokens[self.computed + len(missing)]
        defaults = {"tokens": missing, "sample": caught_up, "next_token": following}
        return PlanRow(seq=self.seq, lane=self.lane, start=self.computed, **{**defaults, **fields})


class Driver:
    """Starts sequences on lanes and steps them together."""

    def __init__(self, engine: StepEngine) -> None:
        self.engine = engine
        self._opened = 0

    def start(
        self, prompt: Sequence[int], lane: int, *, sampling: Sampling = GREEDY, computed: int = 0
    ) -> Running:
        """Open a sequence whose first `computed` tokens the lane holds already."""
        self._opened += 1
        self.engine.open(self._opened, sampling, tuple(prompt))
        return Running(self._opened, lane, prompt, computed)

    def try_step(self, *rows: PlanRow) -> StepResult:
        return self.engine.step(StepPlan(rows=rows))

    def step(self, *running: Running, chunk: int | None = None, **fields: Any) -> tuple[ResultRow, ...]:
        """One step for all of `running`, with `fields` in each row; what it gave is added to them."""
        rows = [one.row(chunk=chunk, **fields) for one in running]
        result = self.try_step(*rows)
        assert result.fit, "the step did not fit"
        assert [row.seq for row in result.rows] == [one.seq for one in running]
        for one, row, given in zip(running, rows, result.rows, strict=True):
            one.computed += len(row.tokens)
            one.tokens += given.tokens
        return result.rows

    def run(self, *running: Running, n: int, chunk: int | None = None, **fields: Any) -> list[list[int]]:
        """Step until each has `n` output tokens; whatever ends a text is ignored. Returns the outputs."""
        while pending := [one for one in running if len(one.output) < n]:
            for row in self.step(*pending, chunk=chunk, **fields):
                assert row.error is None, row.error
        return [one.output for one in running]

    def finish(self, *running: Running) -> None:
        """Close the sequences and empty their lanes."""
        for one in running:
            self.engine.close(one.seq)
            self.engine.truncate(one.lane, 0)


def run(
    engine: StepEngine,
    prompts: Sequence[Sequence[int]],
    *,
    n: int,
    sampling: Sampling = GREEDY,
    chunk: int | None = None,
    **fields: Any,
) -> list[list[int]]:
    """`n` output tokens for each prompt, all computed together on empty lanes, which are left empty."""
    driver = Driver(engine)
    running = [driver.start(prompt, lane, sampling=sampling) for lane, prompt in enumerate(prompts)]
    outputs = driver.run(*running, n=n, chunk=chunk, **fields)
    driver.finish(*running)
    return outputs


def run_greedy(engine: StepEngine, prompts: Sequence[Sequence[int]], n: int) -> list[list[int]]:
    """`run` with the likeliest token each time."""
    return run(engine, prompts, n=n)
