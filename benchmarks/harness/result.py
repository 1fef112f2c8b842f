"""What is kept of a benchmark: every run with its plan, its figures and its requests, as one JSON file."""

import os
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.harness.measures import Measures
from benchmarks.harness.work import Arrival, Sizes, Slo
from benchmarks.measure import Record

SCHEMA = 1
"""Counts incompatible changes of this form."""


REPEAT = "repeat"
"""The key of a run's `settings` that tells repeats of the same work apart."""


class ResultError(Exception):
    """A result file cannot be used; the message says why and what to do."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How a run was asked for; the same plan is the same work. `mix` is a name or the path of a file; `warm_up` are
    requests sent before, in prompts of their own."""

    mix: str
    sizes: Sizes | None
    sessions: int
    seed: int
    arrival: Arrival
    warm_up: int
    ignore_eos: bool
    slo: Slo = Slo()
    timeout_s: float = 300.0
    cache: str = "prompts that the server has not seen; caches as the warm-up left them"


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One model, one plan. `failure` says why there are no figures; an `is_partial` run was broken off. Times in
    `records` count from the run's start. `outputs` are greedy answers for the comparison of engines."""

    label: str
    url: str
    model: str
    plan: Plan
    started: datetime
    measures: Measures | None = None
    records: list[Record] = []
    outputs: list[str] = []
    load_s: float | None = None
    peak_memory_bytes: int | None = None
    energy_j: float | None = None
    facts: dict[str, str] = {}
    settings: dict[str, Any] = {}
    failure: str = ""
    is_partial: bool = False

    @property
    def work(self) -> str:
        """What distinguishes this run from another of the same model."""
        return f"{self.plan.mix}, {self.plan.arrival}"


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one command measured."""

    schema: int = SCHEMA
    started: datetime
    machine: dict[str, str]
    runs: list[Run]


class _Header(msgspec.Struct, frozen=True):
    schema: int


def save(result: Result, path: Path) -> None:
    """Write the file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(result), indent=1))
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def load(path: Path) -> Result:
    """Raises ResultError for a file that is none, or of another schema."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ResultError(f"{path} cannot be read: {error.strerror}") from error
    try:
        schema = msgspec.json.decode(data, type=_Header).schema
    except msgspec.MsgspecError as error:
        raise ResultError(f"{path} is not a result of `modelyard bench`: {error}") from error
    if schema != SCHEMA:
        raise ResultError(
            f"{path} has schema {schema}, and this version reads {SCHEMA}; "
            "measure again, or use the version that wrote it"
        )
    try:
        return msgspec.json.decode(data, type=Result)
    except msgspec.MsgspecError as error:
        raise ResultError(f"{path} is damaged: {error}") from error


def compact(records: list[Record], *, started_s: float) -> list[Record]:
    """Times counted from the run's start, in whole microseconds; texts left out."""

    def since(value: float) -> float:
        return round(value - started_s, 6)

    return [
        msgspec.structs.replace(
            one,
            start_s=since(one.start_s),
            end_s=since(one.end_s),
            due_s=None if one.due_s is None else since(one.due_s),
            chunk_times_s=[since(time) for time in one.chunk_times_s],
            text="",
        )
        for one in records
    ]
