"""Workers that die, and servers that die: nothing hangs, nothing is left behind."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from runner.errors import GenerationFailed, RunnerError, WorkerCrashed
from runner.runner import Runner
from tests.runner.asking import ask, endless, metric, until
from tests.runner.conftest import MakeRunner, Yard


def worker_pids() -> list[int]:
    """The workers of this process."""
    return [child.pid for child in psutil.Process().children() if "runner.worker" in _command(child)]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


async def test_killing_a_worker_ends_every_stream_and_the_next_request_succeeds(
    yard: Yard, make_runner: MakeRunner
) -> None:
    yard.model(delay_s=0.005)
    async with make_runner() as runner:
        streams = [asyncio.create_task(ask(runner, **endless())) for _ in range(16)]
        await until(lambda: metric(runner, "running_sequences") == 16)
        os.kill(worker_pids()[0], signal.SIGKILL)
        results = await asyncio.gather(*streams, return_exceptions=True)
        assert all(isinstance(result, WorkerCrashed) for result in results), results
        assert (await ask(runner)).text == "hello there"
        assert metric(runner, "worker_restarts_total") == 1


async def test_an_engine_that_raises_fails_its_requests_and_is_started_again(
    yard: Yard, make_runner: MakeRunner
) -> None:
    yard.model(fail={"step": "break it"})
    async with make_runner() as runner:
        with pytest.raises(GenerationFailed, match="the engine failed"):
            await ask(runner, "break it")
        assert (await ask(runner)).text == "hello there"


async def test_a_worker_that_exits_by_itself_is_started_again(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model(fail={"exit": "leave now"})
    async with make_runner() as runner:
        with pytest.raises(WorkerCrashed, match="status 70"):
            await ask(runner, "leave now")
        assert (await ask(runner)).text == "hello there"


async def test_the_stream_shape_serves_cancels_and_recovers_alike(
    yard: Yard, make_runner: MakeRunner
) -> None:
    yard.model(backend="echo-stream", fail={"step": "break it"})
    async with make_runner() as runner:
        assert (await ask(runner)).text == "hello there"
        assert (await ask(runner, "one STOP two", stop=("STOP",), n=2)).texts == {0: "one ", 1: "one "}
        stream = asyncio.create_task(ask(runner, **endless()))
        await until(lambda: metric(runner, "running_sequences") == 1)
        stream.cancel()
        await until(lambda: metric(runner, "running_sequences") == 0)
        with pytest.raises(RunnerError):
            await ask(runner, "break it")
        assert (await ask(runner)).text == "hello there"


async def test_leaving_the_runner_leaves_no_worker(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model()
    async with make_runner() as runner:
        await ask(runner)
        (pid,) = worker_pids()
    assert not psutil.pid_exists(pid)


async def test_leaving_the_runner_while_a_model_loads_ends_the_load(
    yard: Yard, make_runner: MakeRunner
) -> None:
    yard.model(load_s=60)
    async with make_runner() as runner:
        waiting = asyncio.create_task(ask(runner))
        await until(lambda: bool(worker_pids()))
        (pid,) = worker_pids()
    assert not psutil.pid_exists(pid)
    with pytest.raises((RunnerError, asyncio.CancelledError)):
        await waiting


async def test_fifty_workers_start_and_stop(yard: Yard, make_runner: MakeRunner) -> None:
    for number in range(50):
        yard.model(f"model-{number}")
    async with make_runner(memory_budget_bytes=2**40) as runner:
        limit = asyncio.Semaphore(8)

        async def ask_one(number: int) -> str:
            async with limit:
                return (await ask(runner, model=f"model-{number}")).text

        assert set(await asyncio.gather(*(ask_one(n) for n in range(50)))) == {"hello there"}
        assert len(worker_pids()) == 50


SERVER = """
    import asyncio, sys
    from importlib.metadata import EntryPoint
    from pathlib import Path
    from backends.registry import Registry
    from runner.runner import Runner
    from runner.settings import RunnerSettings
    from tests.runner.asking import ask

    async def main():
        forking = EntryPoint("forking", "tests.runner.forking:SPEC", "modelyard.backends")
        settings = RunnerSettings(repository=Path(sys.argv[1]), state_dir=Path(sys.argv[2]))
        async with Runner(settings, Registry([forking])) as runner:
            await ask(runner, model="forking")
            print("ready", flush=True)
            await asyncio.sleep(600)

    asyncio.run(main())
"""


async def test_killing_the_server_leaves_no_worker_and_no_child_of_one(yard: Yard, tmp_path: Path) -> None:
    folder = yard.model("forking", backend="forking")
    server = subprocess.Popen(  # noqa: ASYNC220  # starting it takes no time
        [sys.executable, "-c", textwrap.dedent(SERVER), str(yard.root), str(tmp_path / "state")],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert server.stdout is not None
    assert await asyncio.to_thread(server.stdout.readline) == b"ready\n"
    family = [child.pid for child in psutil.Process(server.pid).children(recursive=True)]
    family.append(int((folder / "1" / "child.pid").read_text()))
    assert len(set(family)) == 2
    server.kill()
    server.wait()
    server.stdout.close()
    await until(lambda: not any(map(_is_alive, family)), timeout_s=2)


async def test_unloading_ends_the_children_of_the_engine(yard: Yard, make_runner: MakeRunner) -> None:
    folder = yard.model("forking", backend="forking")
    async with make_runner() as runner:
        await ask(runner, model="forking")
        child = int((folder / "1" / "child.pid").read_text())
        assert _is_alive(child)
        await runner.unload("forking")
        await until(lambda: not _is_alive(child))


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_runner_is_what_adapters_expect() -> None:
    from runner.api import RunnerApi

    def takes(runner: RunnerApi) -> None: ...

    assert {name for name in vars(RunnerApi) if not name.startswith("_")} <= set(dir(Runner))
