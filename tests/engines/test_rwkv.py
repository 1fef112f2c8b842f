"""What is particular to the rwkv plugin: every generation in one batch, against the package's own forward.

The engine runs in its own environment, and so does the package alone; the weights are random.
"""

import asyncio
import json
import math
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import torch
import yaml

from backends.contract import LoadError, LoadRequest, UnsupportedError
from backends.registry import Registry
from runner.errors import GenerationFailed, WorkerCrashed
from runner.runner import Runner
from runner.settings import RunnerSettings
from runner.wire.requests import ChatPrompt, TextPrompt, TokenPrompt
from tests.backends.support import Driver, encode, run, run_greedy
from tests.engines.engine_process import EngineProcess, StepEngineAway
from tests.engines.environments import STATE, interpreter
from tests.engines.making import breaking_rwkv
from tests.engines.making.rwkv import VERSIONS, WORLD_SIZE, write_rwkv
from tests.runner.asking import ask, endless, metric, until

pytest.register_assert_rewrite("tests.backends.contract_suite")

from tests.backends.contract_suite import *  # noqa: E402, F403

pytestmark = pytest.mark.timeout(600)

ENVIRONMENT = "transformers"
ENGINE = "backends.rwkv.engine:RwkvEngine"
REFERENCE = Path(__file__).parent / "making" / "rwkv_reference.py"
PROMPTS = [[5, 80, 33, 9], [*range(60, 95)], [17] * 20, [200]]
TOKENS = 24

Load = Callable[..., StepEngineAway]


class Made(NamedTuple):
    """Weights of one generation, and the process that may load them: the package serves 7 or the others."""

    version: str
    weights: Path
    process: EngineProcess


@pytest.fixture(scope="module")
def processes() -> Iterator[dict[bool, EngineProcess]]:
    running = {is_v7: EngineProcess(interpreter(ENVIRONMENT)) for is_v7 in (False, True)}
    yield running
    for process in running.values():
        process.close()


@pytest.fixture(scope="module")
def make(
    processes: dict[bool, EngineProcess], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Made]:
    made: dict[str, Made] = {}

    def write(version: str, **shape: Any) -> Made:
        key = json.dumps([version, shape])
        if key not in made:
            path = tmp_path_factory.mktemp(f"rwkv{version}") / "rwkv.pth"
            made[key] = Made(version, write_rwkv(path, version, **shape), processes[version == "7"])
        return made[key]

    return write


@pytest.fixture
def load_made() -> Iterator[Callable[..., StepEngineAway]]:
    engines: list[StepEngineAway] = []

    def load(made: Made, progress: Any = lambda _: None, **fields: Any) -> StepEngineAway:
        engine = StepEngineAway(made.process, ENGINE)
        engines.append(engine)
        limits = {"context_tokens": 512, "lanes": 8, "running_lanes": 8, **fields}
        engine.load(LoadRequest(model="test", weights=str(made.weights), **limits), progress)
        return engine

    yield load
    for engine in engines:
        engine.unload()


@pytest.fixture(params=["4", "6", "7"], ids=lambda version: f"rwkv{version}")
def load(
    request: pytest.FixtureRequest, make: Callable[..., Made], load_made: Callable[..., StepEngineAway]
) -> Load:
    """What the contract suite loads."""
    return lambda progress=lambda _: None, **limits: load_made(make(request.param), progress, **limits)


def reference(made: Made, *, strategy: str = "cpu fp32") -> list[dict[str, Any]]:
    job = {
        "weights": str(made.weights),
        "strategy": strategy,
        "is_v7": made.version == "7",
        "prompts": PROMPTS,
        "tokens": TOKENS,
    }
    words = [str(interpreter(ENVIRONMENT)), "-I", str(REFERENCE)]
    done = subprocess.run(words, input=json.dumps(job), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


@pytest.mark.parametrize("version", VERSIONS)
def test_a_batch_says_what_the_package_says_of_each_prompt_alone(
    version: str, make: Callable[..., Made], load_made: Callable[..., StepEngineAway]
) -> None:
    made = make(version)
    expected = [answer["tokens"] for answer in reference(made)]
    engine = load_made(made)
    assert run_greedy(engine, PROMPTS, TOKENS) == expected
    assert run(engine, PROMPTS, n=TOKENS, chunk=7) == expected


@pytest.mark.parametrize(("version", "number"), [("4", "bf16"), ("6", "bf16"), ("7", "bf16"), ("7", "fp16")])
def test_half_precision_is_as_near_as_the_packages_own(
    version: str, number: str, make: Callable[..., Made], load_made: Callable[..., StepEngineAway]
) -> None:
    made = make(version)
    exact = reference(made)[1]["logits"]
    own = reference(made, strategy=f"cpu {number}")[1]["logits"]
    engine = load_made(made, options={"strategy": f"cpu {number}"})
    ours = first_logprobs(engine, PROMPTS[1])
    assert distance(ours, exact) < 2 * distance(own, exact) + 0.05


def first_logprobs(engine: StepEngineAway, prompt: list[int]) -> list[float]:
    driver = Driver(engine)
    running = driver.start(prompt, 0)
    (row,) = driver.step(running, logprobs=engine.info.vocabulary)
    driver.finish(running)
    found = dict(row.logprobs[0].top)
    return [found[token] for token in range(engine.info.vocabulary)]


def distance(one: list[float], other: list[float]) -> float:
    """The largest difference of two rows of logits, each as log-probabilities."""
    rows = []
    for row in (one, other):
        most = max(row)
        total = most + math.log(sum(math.exp(value - most) for value in row))
        rows.append([value - total for value in row])
    return max(abs(a - b) for a, b in zip(*rows, strict=True))


@pytest.mark.parametrize("strategy", ["cpu fp32i8", "cpu fp32 *1 -> cpu fp32"])
def test_a_strategy_of_several_kinds_is_computed_by_the_package_itself(
    strategy: str, make: Callable[..., Made], load_made: Callable[..., StepEngineAway]
) -> None:
    made = make("6")
    expected = [answer["tokens"] for answer in reference(made, strategy=strategy)]
    engine = load_made(made, options={"strategy": strategy})
    assert run_greedy(engine, PROMPTS, TOKENS) == expected


@pytest.mark.parametrize("version", VERSIONS)
def test_a_whole_state_can_be_saved_and_restored_in_any_lane(
    version: str, make: Callable[..., Made], load_made: Callable[..., StepEngineAway]
) -> None:
    engine = load_made(make(version), running_lanes=2)
    expected = run_greedy(engine, PROMPTS[1:2], TOKENS)[0]
    driver = Driver(engine)
    running = driver.start(PROMPTS[1], 0)
    driver.run(running, n=8)
    assert engine.save(0, 0, running.computed - 1) is None and engine.save(0, 1, running.computed) is None
    state = engine.save(0, 0, running.computed)
    assert state is not None
    driver.run(running, n=TOKENS)
    driver.finish(running)
    assert engine.restore(5, 0, state)
    resumed = driver.start([*PROMPTS[1], *expected[:8]], 5, computed=running.num_prompt + 7)
    assert driver.run(resumed, n=TOKENS - 8) == [expected[8:]]


def test_a_model_with_the_world_vocabulary_needs_no_tokenizer(
    make: Callable[..., Made], load_made: Callable[..., StepEngineAway]
) -> None:
    engine = load_made(make("7", vocabulary=WORLD_SIZE, width=64, layers=1))
    assert engine.info.eos_ids == (0,)
    assert engine.tokenize("User: Hello world!\n\nAssistant:", special=True) == [
        24281, 59, 36786, 40213, 34, 261, 5585, 41693, 59,
    ]  # fmt: skip
    assert b"".join(map(engine.token_bytes, engine.tokenize("漢字 🚀", special=False))) == "漢字 🚀".encode()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "cuda fp16"}, "no GPU can be seen here"),
        ({"strategy": "cpu int4"}, "is not of the form"),
        ({"tokenizer": "gone.json"}, "gone.json"),
    ],
)
def test_what_cannot_be_loaded_is_said_in_a_sentence(
    options: dict[str, str],
    message: str,
    make: Callable[..., Made],
    load_made: Callable[..., StepEngineAway],
) -> None:
    with pytest.raises(LoadError, match=message):
        load_made(make("6"), options=options)


def test_too_little_memory_is_said_before_the_weights_are_read(
    make: Callable[..., Made], load_made: Callable[..., StepEngineAway]
) -> None:
    with pytest.raises(LoadError, match="MiB are free"):
        load_made(make("6"), memory_bytes=1000)


def test_a_model_that_is_another_generation_inside_is_refused(
    make: Callable[..., Made], load_made: Callable[..., StepEngineAway], tmp_path: Path
) -> None:
    made = make("6")
    tensors = torch.load(made.weights, weights_only=True)
    del tensors["blocks.0.ffn.key.weight"]
    torch.save(tensors, tmp_path / "rwkv.pth")
    (tmp_path / "rwkv.tokenizer.json").write_bytes(made.weights.with_name("rwkv.tokenizer.json").read_bytes())
    with pytest.raises(LoadError, match=r"looks like RWKV-6, but the rwkv package cannot read it"):
        load_made(made._replace(weights=tmp_path / "rwkv.pth"))


def test_embeddings_are_unit_vectors_and_the_same_in_any_batch(load: Load) -> None:
    """The suite's test, for a plugin that has none."""
    engine = load()
    with pytest.raises(UnsupportedError, match="embeddings"):
        engine.embed([encode(engine, "hello")])


def test_embedding_does_not_disturb_what_runs(load: Load) -> None:
    with pytest.raises(LoadError, match="rwkv makes no embeddings"):
        load(embeddings=True)


@pytest.fixture
async def runner(make: Callable[..., Made], tmp_path: Path) -> AsyncIterator[Runner]:
    """Serves `rwkv`, and `breaking`, whose engine breaks when it is told to."""
    made = make("7", layers=2)
    for name, backend in (("rwkv", "rwkv"), ("breaking", "breaking-rwkv")):
        version = tmp_path / "models" / name / "1"
        shutil.copytree(made.weights.parent, version)
        config = {"backend": backend, "environment": ENVIRONMENT, "scheduler": {"offload_bytes": 2**24}}
        (version.parent / "config.yaml").write_text(yaml.safe_dump(config))
    settings = RunnerSettings(repository=tmp_path / "models", state_dir=STATE, poll_s=0.05, drain_s=10.0)
    breaking = EntryPoint("breaking-rwkv", f"{breaking_rwkv.__name__}:SPEC", Registry.GROUP)
    async with Runner(settings, Registry([breaking])) as running:
        yield running


async def test_the_next_turn_of_a_chat_goes_on_behind_the_last_one(runner: Runner) -> None:
    question = {"role": "user", "content": "What is it that is asked here?"}
    first = await ask(runner, ChatPrompt(messages=(question,)), model="rwkv", max_tokens=8, ignore_eos=True)
    turns = (
        question,
        {"role": "assistant", "content": "An answer."},
        {"role": "user", "content": "And now?"},
    )
    second = await ask(runner, ChatPrompt(messages=turns), model="rwkv", max_tokens=8, ignore_eos=True)
    assert first.accepted is not None and second.finished is not None
    # All of the first prompt but what asks for an answer, which one state serves.
    assert second.finished.usage.cached_tokens == first.accepted.prompt_tokens - len("Assistant:")
    tokens = [token for delta in first.deltas for token in delta.token_ids]
    known = [*await tokens_of(runner, question), *tokens]
    third = await ask(runner, TokenPrompt((*known, 5, 6)), model="rwkv", max_tokens=1)
    assert third.finished is not None and third.finished.usage.cached_tokens == len(known) - 1


async def tokens_of(runner: Runner, question: dict[str, str]) -> tuple[int, ...]:
    return (await runner.tokenize("rwkv", ChatPrompt(messages=(question,)))).tokens


async def test_a_killed_worker_fails_its_streams_and_is_started_again(runner: Runner) -> None:
    before = (await ask(runner, TextPrompt("again "), model="rwkv", max_tokens=8)).text
    stream = asyncio.create_task(ask(runner, model="rwkv", **endless()))
    await until(lambda: metric(runner, "running_sequences") == 1, timeout_s=60)
    (worker,) = [child for child in psutil.Process().children() if "runner.worker" in child.cmdline()]
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerCrashed):
        await stream
    assert (await ask(runner, TextPrompt("again "), model="rwkv", max_tokens=8)).text == before


async def test_an_engine_that_breaks_in_a_step_fails_its_requests_and_is_started_again(
    runner: Runner,
) -> None:
    with pytest.raises(GenerationFailed, match="the engine failed"):
        await ask(runner, TokenPrompt((5, breaking_rwkv.BREAKING_TOKEN)), model="breaking", max_tokens=4)
    assert (await ask(runner, TokenPrompt((5, 6)), model="breaking", max_tokens=4, ignore_eos=True)).texts
