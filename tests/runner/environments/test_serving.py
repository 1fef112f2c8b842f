"""Models whose workers run in an environment of their own, and those that may not be run."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest
import yaml

from backends.registry import Registry
from runner.environments.folder import Environments, write
from runner.environments.values import RECORD
from runner.errors import LoadFailed
from runner.instance import Launch
from runner.process import WorkerProcess
from runner.runner import Runner
from runner.settings import RunnerSettings
from runner.wire.messages import PROTOCOL
from runner.wire.requests import TextPrompt
from tests.runner.asking import ask
from tests.runner.conftest import MakeRunner, Yard
from tests.runner.environments.conftest import PLUGIN, Made
from tests.runner.test_workers import worker_pids
from tests.serving import serve
from tests.support import make_start


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's models, and one that nobody can run."""
    root = tmp_path_factory.mktemp("models") / "models"
    shutil.copytree(PLUGIN / "models", root)
    (root / "wrong").mkdir()
    (root / "wrong" / "config.yaml").write_text("backend: markov\norder: many\n")
    return root


def test_a_plugin_in_an_environment_of_its_own_is_served_over_http(made: Made, models: Path) -> None:
    with serve(models, made.state) as served:
        answer = served.client.completions.create(
            model="proverbs", prompt="Still ", max_tokens=64, logprobs=1
        )
        [choice] = answer.choices
        assert (choice.text, choice.finish_reason) == ("waters run deep.", "stop")
        assert choice.logprobs is not None and "".join(choice.logprobs.tokens or []) == choice.text
        [worker] = served.workers()
        assert worker.cmdline()[0] == str(made.environment.python)
        begun = ["The early ", "Many hands "]
        many = served.client.completions.create(
            model="proverbs", prompt=begun, n=2, temperature=1, max_tokens=64
        )
        assert {each.text for each in many.choices} == {"bird catches the worm.", "make light work."}
        with pytest.raises(openai.APIStatusError, match=r"config\.yaml:2:8: order"):
            served.client.completions.create(model="wrong", prompt="x")
        assert served.client.completions.create(model="proverbs", prompt="Where ").choices[0].text


@asynccontextmanager
async def running(repository: Path, state: Path, **settings: Any) -> AsyncIterator[Runner]:
    registry = Registry((), elsewhere=Environments(state).plugins())
    async with Runner(RunnerSettings(repository=repository, state_dir=state, **settings), registry) as runner:
        yield runner


async def test_an_environment_that_the_configuration_names_runs_the_worker(made: Made, yard: Yard) -> None:
    yard.model(environment="markov")
    async with running(yard.root, made.state) as runner:
        assert (await ask(runner)).text == "hello there"
        [pid] = worker_pids()
        assert Path(f"/proc/{pid}/cmdline").read_bytes().startswith(str(made.environment.python).encode())


async def test_a_model_that_names_no_environment_there_is_says_so_and_the_others_serve(
    made: Made, yard: Yard
) -> None:
    yard.model(environment="markow")
    yard.model("other")
    async with running(yard.root, made.state) as runner:
        with pytest.raises(LoadFailed, match="there is no environment 'markow'; did you mean 'markov'"):
            await ask(runner)
        assert (await ask(runner, model="other")).text == "hello there"
        status = next(row for row in runner.index() if row.name == "echo").versions[0]
        assert status.state == "UNAVAILABLE" and "'markow'" in status.reason


async def test_a_workers_half_of_another_version_is_refused_with_the_command_that_mends_it(
    made: Made, models: Path, tmp_path: Path
) -> None:
    place = tmp_path / "environments" / "markov"
    shutil.copytree(
        made.environment.folder, place, symlinks=True, copy_function=lambda a, b: Path(b).hardlink_to(a)
    )
    record = made.environment.record
    assert record is not None
    half = msgspec.structs.replace(
        record.half, folder=str(place / "modelyard"), stamp="tampered", version="0.0.1"
    )
    write(place / RECORD, msgspec.structs.replace(record, half=half))
    async with running(models, tmp_path) as runner:
        with pytest.raises(LoadFailed) as caught:
            await ask(runner, TextPrompt("Still "), model="proverbs")
    assert caught.value.message == (
        "environment 'markov' has the worker's half of Modelyard 0.0.1, and this server is "
        f"{record.half.version}; run `modelyard env create markov --refresh`"
    )


async def test_a_worker_of_another_protocol_says_so_and_what_mends_it(made: Made, tmp_path: Path) -> None:
    start = msgspec.structs.replace(make_start(), protocol=PROTOCOL + 1)
    launch = Launch(
        interpreter=str(made.environment.python), start=start, environment={}, log_path=tmp_path / "log"
    )
    worker = WorkerProcess("echo", log_path=launch.log_path, on_stats=lambda _: None)
    await worker.spawn(launch.interpreter, launch.start, environment={})
    words = (
        f"the worker speaks protocol {PROTOCOL}, this server {PROTOCOL + 1}; "
        "run `modelyard env create markov --refresh`"
    )
    with pytest.raises(LoadFailed, match=words):
        await worker.ready
    await worker.stop()


async def test_a_model_without_its_engine_is_unavailable_with_the_command_that_installs_it(
    yard: Yard, make_runner: MakeRunner
) -> None:
    yard.model("wants-vllm")
    folder = yard.root / "wants-vllm"
    shutil.copytree(PLUGIN.parents[1] / "examples" / "demo_model" / "hf", folder / "1", dirs_exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"backend": "vllm"}))
    async with make_runner() as runner:
        with pytest.raises(
            LoadFailed, match=r"^backend vllm is not installed here; run `modelyard env create vllm`$"
        ):
            await ask(runner, model="wants-vllm")


async def test_code_that_came_with_weights_runs_only_where_the_server_allows_it(
    yard: Yard, make_runner: MakeRunner
) -> None:
    yard.model(trust_remote_code=True)
    async with make_runner() as runner:
        with pytest.raises(LoadFailed, match="start it with --allow-remote-code, or take the key out"):
            await ask(runner)
        assert runner.index()[0].versions[0].state == "UNAVAILABLE"
    async with make_runner(allow_remote_code=True) as runner:
        assert (await ask(runner)).text == "hello there"
