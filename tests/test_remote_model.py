"""A Modelyard in front of another one: a model there is a model here, by the backend `triton`."""

import asyncio
import contextlib
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from backends.registry import Registry
from runner.errors import EngineUnavailable, GenerationFailed, LoadFailed, ModelNotReady, RunnerError
from runner.runner import Runner
from runner.settings import RunnerSettings
from runner.wire.requests import GenerateRequest, TextPrompt
from tests.runner.asking import ask, until
from tests.serving import Served, free_port, serve

TEXT = "the quick brown fox jumps over us"

pytestmark = pytest.mark.asyncio(loop_scope="module")


def write(repository: Path, models: dict[str, dict[str, Any]]) -> Path:
    for name, config in models.items():
        (repository / name).mkdir(parents=True)
        (repository / name / "config.yaml").write_text(yaml.safe_dump(config))
    return repository


def remote(served: Served, name: str, **config: Any) -> dict[str, Any]:
    return {"backend": "triton", "endpoint": served.grpc_url, "remote_model": name, **config}


@contextlib.asynccontextmanager
async def front(root: Path, models: dict[str, dict[str, Any]], **given: Any) -> AsyncIterator[Runner]:
    repository = write(root / "models", models)
    settings = RunnerSettings(repository=repository, state_dir=root / "state", **given)
    async with Runner(settings, Registry()) as runner:
        yield runner


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The Modelyard that has the models."""
    root = tmp_path_factory.mktemp("behind")
    echo = {"backend": "echo"}
    models = {
        "echo": echo,
        "slow": {**echo, "delay_s": 0.02},
        "fails": {**echo, "fail": {"row": "bad luck"}},
        "broken": {**echo, "fail": {"load": "the weights are bad"}},
        "vectors": {**echo, "embeddings": True},
    }
    port = str(free_port())
    with serve(write(root / "models", models), root / "state", "--grpc-port", port) as served:
        yield served


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runner(behind: Served, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Runner]:
    chat = {"template": {"chat": "{% for message in messages %}{{ message.content }}{% endfor %}"}}
    names = ("echo", "slow", "fails", "broken", "vectors")
    models = {name: remote(behind, name, **chat) for name in names}
    async with front(tmp_path_factory.mktemp("front"), models) as running:
        yield running


async def test_a_text_comes_back_token_by_token_with_the_counts_of_the_other(runner: Runner) -> None:
    answer = await ask(runner, TextPrompt(TEXT), model="echo")
    assert (answer.text, answer.finish) == (TEXT, {0: "stop"})
    assert len(answer.deltas) > 1 and answer.finished is not None
    assert answer.finished.usage.prompt_tokens == len(TEXT)
    assert answer.finished.usage.completion_tokens == len(TEXT) + 1


async def test_a_chat_and_sampling_parameters_work(runner: Runner) -> None:
    answer = await ask(
        runner,
        "hello there",
        model="echo",
        max_tokens=5,
        sampling={"temperature": 0.0, "top_k": 5, "seed": 1},
    )
    assert (answer.text, answer.finish) == ("hello", {0: "length"})


async def test_a_request_that_fails_there_fails_here_with_its_words(runner: Runner) -> None:
    with pytest.raises(GenerationFailed, match="bad luck"):
        await ask(runner, TextPrompt("bad luck to you"), model="fails")
    assert (await ask(runner, TextPrompt("good luck"), model="fails")).text == "good luck"


@pytest.mark.parametrize(
    ("name", "words"), [("broken", "the weights are bad"), ("vectors", "neither vLLM's")]
)
async def test_a_model_that_cannot_be_served_says_why(runner: Runner, name: str, words: str) -> None:
    with pytest.raises(LoadFailed, match=words):
        await runner.load(name)


async def test_a_cancelled_request_ends_there(runner: Runner, behind: Served) -> None:
    endless = GenerateRequest(prompt=TextPrompt("on and on "), max_tokens=4000, ignore_eos=True)
    events = runner.generate("slow", endless)
    for _ in range(4):
        await anext(events)
    await events.aclose()  # type: ignore[attr-defined]
    running = "asked for"
    async with asyncio.timeout(10):
        while running:
            await asyncio.sleep(0.05)
            running = await asyncio.to_thread(_running, behind)


def _running(served: Served) -> str:
    """The samples of sequences that run there."""
    with urllib.request.urlopen(f"{served.url}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return "".join(
        line
        for line in lines
        if line.startswith("modelyard_running_sequences{")
        and 'model="slow"' in line
        and not line.endswith(" 0.0")
    )


async def test_a_server_that_dies_fails_requests_until_it_is_back(tmp_path: Path) -> None:
    behind = write(tmp_path / "models", {"echo": {"backend": "echo", "delay_s": 0.02}})
    port = str(free_port())
    with serve(behind, tmp_path / "state", "--grpc-port", port) as first:
        models = {"echo": remote(first, "echo"), "late": remote(first, "echo", connect_timeout_s=0.2)}
        async with front(tmp_path / "front", models) as runner:
            request = GenerateRequest(prompt=TextPrompt("on and on "), max_tokens=4000, ignore_eos=True)
            events = runner.generate("echo", request)
            for _ in range(4):
                await anext(events)
            first.process.kill()
            with pytest.raises(ModelNotReady, match="does not answer now"):
                async for _ in events:
                    pass
            with pytest.raises(ModelNotReady, match="does not answer now"):
                await ask(runner, TextPrompt(TEXT), model="echo")
            with pytest.raises(EngineUnavailable, match="no server answers at grpc://"):
                await ask(runner, TextPrompt(TEXT), model="late")
            with serve(behind, tmp_path / "again", "--grpc-port", port):
                await until_it_answers(runner, "echo")
                await runner.load("late")


async def until_it_answers(runner: Runner, model: str) -> None:
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(RunnerError):
                assert (await ask(runner, TextPrompt("hello"), model=model)).text == "hello"
                return
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("mode", ["none", "poll"])
async def test_a_server_that_comes_up_late_is_found_where_models_are_loaded_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr("runner.retry.FIRST_PAUSE_S", 0.1)
    monkeypatch.setattr("runner.slots.RETRY_AFTER_S", 0.05)
    port = free_port()
    config = {"backend": "triton", "endpoint": f"grpc://127.0.0.1:{port}", "connect_timeout_s": 0.1}
    async with front(tmp_path / "front", {"echo": config}, control_mode=mode) as runner:
        await until(lambda: "no server answers" in runner.index()[0].versions[0].reason)
        behind = write(tmp_path / "models", {"echo": {"backend": "echo"}})
        with serve(behind, tmp_path / "state", "--grpc-port", str(port)):
            await until(lambda: runner.model_ready("echo"))
            assert (await ask(runner, TextPrompt(TEXT), model="echo")).text == TEXT
