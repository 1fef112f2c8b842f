"""Runs the contract suites over every engine that lives in an environment of its own. A new plugin adds its line."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from backends.contract import Engine, Progress, StepEngine, StreamEngine
from backends.registry import Registry
from tests.backends.support import load_request
from tests.engines.engine_process import EngineProcess, StepEngineAway, StreamEngineAway
from tests.engines.environments import DEMO_FOLDER, STATE, interpreter
from tests.engines.making.gptq import quantised_demo

pytest.register_assert_rewrite("tests.backends.contract_suite", "tests.backends.contract_streams")

from tests.backends.contract_streams import *  # noqa: E402, F403
from tests.backends.contract_suite import *  # noqa: E402, F403

pytestmark = pytest.mark.timeout(600)


class Case(msgspec.Struct, frozen=True):
    """A plugin, its environment, weights for it (none: the demo model as GPTQ), and the options that make it round as
    little as it can."""

    backend: str
    environment: str
    weights: str = str(DEMO_FOLDER)
    options: dict[str, Any] = {}
    shape: str = "step"


STEP_ENGINES = (Case("transformers", "transformers"), Case("gptq", "transformers", ""))
STREAM_ENGINES = (
    Case("vllm", "vllm", str(DEMO_FOLDER), {"f16": False}),
    Case("openvino", "openvino", str(DEMO_FOLDER), {"type": "OVModelForCausalLM", "f16": False}),
)


def name_of(case: Case) -> str:
    return case.backend


class Loader:
    """Loads a case's engine, in one process for all tests of a module."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._process = EngineProcess(interpreter(case.environment))
        self._loaded: list[Engine] = []
        self._kept: dict[bytes, Engine] = {}

    def step(self, progress: Progress = lambda _: None, **limits: Any) -> StepEngine:
        """A fresh engine, unloaded by `unload`."""
        engine = StepEngineAway(self._process, Registry(()).get(self._case.backend).engine)
        self._loaded.append(engine)
        assert engine.load(self._request(limits), progress) == engine.info
        return engine

    def stream(self, progress: Progress = lambda _: None, **limits: Any) -> StreamEngine:
        """The engine with these limits, loaded once: some take half a minute."""
        key = msgspec.json.encode(limits)
        if key not in self._kept:
            for engine in self._kept.values():
                engine.unload()
            self._kept.clear()
            engine = StreamEngineAway(self._process, Registry(()).get(self._case.backend).engine)
            assert engine.load(self._request(limits), progress) == engine.info
            self._kept[key] = engine
        kept = self._kept[key]
        assert isinstance(kept, StreamEngine)
        return kept

    def unload(self) -> None:
        while self._loaded:
            self._loaded.pop().unload()

    def close(self) -> None:
        self._process.close()

    def _request(self, limits: dict[str, Any]) -> Any:
        weights = self._case.weights or str(quantised_demo(STATE, interpreter("transformers")))
        return load_request(weights, options=self._case.options, **limits)


@pytest.fixture(scope="module", params=STEP_ENGINES, ids=name_of)
def step_loader(request: pytest.FixtureRequest) -> Iterator[Loader]:
    loader = Loader(request.param)
    yield loader
    loader.close()


@pytest.fixture(scope="module", params=STREAM_ENGINES, ids=name_of)
def stream_loader(request: pytest.FixtureRequest) -> Iterator[Loader]:
    loader = Loader(request.param)
    yield loader
    loader.close()


@pytest.fixture
def load(step_loader: Loader) -> Iterator[Callable[..., StepEngine]]:
    yield step_loader.step
    step_loader.unload()


@pytest.fixture
def load_stream(stream_loader: Loader) -> Callable[..., StreamEngine]:
    return stream_loader.stream
