"""Runs the contract suite over every engine there is. A new plugin adds its line to a table below."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backends.contract import Engine, Progress, StepEngine, StreamEngine
from tests.backends.support import load_request, make_engine

pytest.register_assert_rewrite("tests.backends.contract_suite", "tests.backends.contract_streams")

from tests.backends.contract_streams import *  # noqa: E402, F403
from tests.backends.contract_suite import *  # noqa: E402, F403

DEMO = Path(__file__).parents[2] / "models" / "demo" / "1" / "model.gguf"


class Case(msgspec.Struct, frozen=True):
    """A plugin, weights for it, and the options that make it round as little as it can."""

    backend: str
    weights: str = ""
    options: dict[str, Any] = {}

    def load(self, progress: Progress, **limits: Any) -> Engine:
        engine = make_engine(self.backend)
        request = load_request(self.weights, options=self.options, **limits)
        assert engine.load(request, progress) == engine.info
        return engine


# llama.cpp's fused attention computes in F16, which shows when a prompt comes in other pieces.
EXACT = {"cache_type_k": "f32", "cache_type_v": "f32", "flash_attention": "off"}
STEP_ENGINES = (
    Case("echo"),
    Case("echo", options={"prefix": "tip"}),
    Case("llamacpp", str(DEMO), EXACT),
)
STREAM_ENGINES = (Case("echo-stream"),)


def name_of(case: Case) -> str:
    return "-".join([case.backend, *([case.options["prefix"]] if "prefix" in case.options else [])])


@pytest.fixture(params=STEP_ENGINES, ids=name_of)
def load(request: pytest.FixtureRequest) -> Iterator[Callable[..., StepEngine]]:
    """Loads the engine under test, limits as keywords; unloads at the end all that the test loaded."""
    loaded: list[StepEngine] = []

    def load_one(progress: Progress = lambda _: None, **limits: Any) -> StepEngine:
        engine = request.param.load(progress, **limits)
        assert isinstance(engine, StepEngine)
        loaded.append(engine)
        return engine

    yield load_one
    for engine in loaded:
        engine.unload()


@pytest.fixture(params=STREAM_ENGINES, ids=name_of)
def load_stream(request: pytest.FixtureRequest) -> Iterator[Callable[..., StreamEngine]]:
    """The same for a stream engine."""
    loaded: list[StreamEngine] = []

    def load_one(progress: Progress = lambda _: None, **limits: Any) -> StreamEngine:
        engine = request.param.load(progress, **limits)
        assert isinstance(engine, StreamEngine)
        loaded.append(engine)
        return engine

    yield load_one
    for engine in loaded:
        engine.unload()
