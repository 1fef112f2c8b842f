"""Things that happen at the same time: changes during loads, evictions, stops with answers outstanding."""

import asyncio
import os
import signal
import socket

import pytest

from backends.contract import OVERHEAD_BYTES
from runner.api import RunnerApi
from runner.errors import InsufficientMemory, LoadFailed, ModelNotReady, RunnerError
from runner.runner import Runner
from runner.wire.requests import TextPrompt
from tests.runner.asking import ask, endless, metric, until
from tests.runner.conftest import MakeRunner, Yard
from tests.runner.test_lifecycle import row, states
from tests.runner.test_workers import worker_pids


def state_of(runner: Runner, name: str = "echo") -> str:
    return row(runner, name).versions[0].state


async def until_text(runner: RunnerApi, text: str, *, timeout_s: float = 20) -> None:
    """Until the model answers `text` to "abcdef"."""
    async with asyncio.timeout(timeout_s):
        while (await ask(runner, "abcdef")).text != text:
            await asyncio.sleep(0.02)


async def test_a_change_during_the_first_load_is_not_lost(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model(load_s=1.0)
    async with make_runner() as runner:
        first = asyncio.create_task(ask(runner, "abcdef"))
        await until(lambda: state_of(runner) == "LOADING")
        yard.model(parameters={"max_tokens": 2})
        await first
        await until_text(runner, "ab")


async def test_a_change_during_a_reload_is_not_lost(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model()
    async with make_runner() as runner:
        await ask(runner)
        yard.model(parameters={"max_tokens": 4}, load_s=1.0)
        await until(lambda: row(runner).versions[0].progress is not None)
        yard.model(parameters={"max_tokens": 2})
        await until_text(runner, "ab")


async def test_a_load_after_an_unload_during_the_load_holds(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model(load_s=0.7)
    async with make_runner(control_mode="explicit") as runner:
        first = asyncio.create_task(runner.load("echo"))
        await until(lambda: state_of(runner) == "LOADING")
        await runner.unload("echo")
        await runner.load("echo")
        await first
        assert states(runner) == {1: "READY"}
        assert (await ask(runner)).text == "hello there"


async def test_an_unload_during_a_load_is_told_to_who_asked_for_it(
    yard: Yard, make_runner: MakeRunner
) -> None:
    yard.model(load_s=0.5)
    async with make_runner(control_mode="explicit") as runner:
        load = asyncio.create_task(runner.load("echo"))
        await until(lambda: state_of(runner) == "LOADING")
        await runner.unload("echo")
        with pytest.raises(ModelNotReady, match="unloaded"):
            await load
        await until(lambda: states(runner) == {1: "UNAVAILABLE"})


async def test_a_preloaded_model_that_nobody_asked_is_handed_over_too(
    yard: Yard, make_runner: MakeRunner
) -> None:
    folder = yard.model(preload=True)
    async with make_runner() as runner:
        await until(lambda: states(runner) == {1: "READY"})
        (folder / "2").mkdir()
        await until(lambda: states(runner) == {1: "UNAVAILABLE", 2: "READY"})


async def test_a_preloaded_model_that_nobody_asked_survives_a_broken_new_version(
    yard: Yard, make_runner: MakeRunner
) -> None:
    folder = yard.model(preload=True)
    async with make_runner() as runner:
        await until(lambda: states(runner) == {1: "READY"})
        (folder / "config.yaml").write_text("backend: echo\npreload: true\nfail: {load: broken}\n")
        (folder / "2").mkdir()
        await until(lambda: any(v.version == 2 and "broken" in v.reason for v in row(runner).versions))
        assert (await ask(runner)).version == 1


async def test_one_version_can_be_unloaded(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model("echo", 1, 2, version_policy={"all": {}})
    async with make_runner(control_mode="explicit") as runner:
        await runner.load("echo")
        await runner.unload("echo:1")
        await until(lambda: states(runner) == {1: "UNAVAILABLE", 2: "READY"})


async def test_a_new_version_never_evicts_the_old_one(yard: Yard, make_runner: MakeRunner) -> None:
    folder = yard.model()
    async with make_runner(memory_budget_bytes=int(1.5 * OVERHEAD_BYTES)) as runner:
        await ask(runner)
        (folder / "2").mkdir()
        await until(lambda: any(v.version == 2 and v.reason for v in row(runner).versions))
        assert (await ask(runner)).version == 1


async def test_only_on_demand_evicts(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model("one")
    yard.model("two")
    async with make_runner(control_mode="explicit", memory_budget_bytes=int(1.5 * OVERHEAD_BYTES)) as runner:
        await runner.load("one")
        with pytest.raises(InsufficientMemory):
            await runner.load("two")
        assert (await ask(runner, model="one")).text == "hello there"


async def test_memory_that_is_being_given_back_is_waited_for(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model("one")
    yard.model("two")
    async with make_runner(control_mode="explicit", memory_budget_bytes=int(1.5 * OVERHEAD_BYTES)) as runner:
        await runner.load("one")
        await runner.unload("one")
        await runner.load("two")
        assert (await ask(runner, model="two")).text == "hello there"


async def test_a_refusal_for_memory_does_not_make_a_model_unready(
    yard: Yard, make_runner: MakeRunner
) -> None:
    yard.model("busy", delay_s=0.005)
    yard.model("late")
    async with make_runner(memory_budget_bytes=int(1.5 * OVERHEAD_BYTES)) as runner:
        stream = asyncio.create_task(ask(runner, model="busy", **endless()))
        await until(lambda: metric(runner, "running_sequences", model="busy") == 1)
        with pytest.raises(InsufficientMemory):
            await ask(runner, model="late")
        assert runner.model_ready("late")
        stream.cancel()
        await asyncio.gather(stream, return_exceptions=True)
        assert (await ask(runner, model="late")).text == "hello there"


async def test_a_model_renamed_while_it_loads_leaves_no_worker_behind(
    yard: Yard, make_runner: MakeRunner
) -> None:
    folder = yard.model(load_s=1.0)
    async with make_runner() as runner:
        asked = asyncio.create_task(ask(runner))
        await until(lambda: state_of(runner) == "LOADING")
        (folder / "config.yaml").write_text("backend: echo\nname: renamed\n")
        await until(lambda: any(model.name == "renamed" for model in runner.index()))
        with pytest.raises(RunnerError, match="removed"):
            await asked
        await until(lambda: not worker_pids())
        assert (await ask(runner, model="renamed")).text == "hello there"
    assert not worker_pids()


async def test_stopping_while_a_model_loads_answers_who_waits(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model(load_s=60)
    async with make_runner() as runner:
        asked = asyncio.create_task(ask(runner))
        await until(lambda: bool(worker_pids()))
    with pytest.raises(ModelNotReady, match="stopping"):
        await asked


async def test_an_unload_with_an_unanswered_call_does_not_hang(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model()
    async with make_runner(stuck_s=0.3) as runner:
        await ask(runner)
        (pid,) = worker_pids()
        os.kill(pid, signal.SIGSTOP)
        asked = asyncio.create_task(runner.tokenize("echo", TextPrompt("x")))
        await until(lambda: runner._catalog.models["echo"].slots.loaded[0].active == 1)
        await runner.unload("echo")
        with pytest.raises(ModelNotReady):
            await asked


async def test_a_worker_that_cannot_be_started_again_refuses_until_it_can(
    yard: Yard, make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    yard.model()
    async with make_runner() as runner:
        await ask(runner)
        real = socket.socketpair

        def no_files_left(*_: object) -> object:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr("runner.process.socket.socketpair", no_files_left)
        os.kill(worker_pids()[0], signal.SIGKILL)
        with pytest.raises(LoadFailed, match="Too many open files"):
            await ask(runner)
        assert not runner.model_ready("echo")
        assert row(runner).versions[0].state == "UNAVAILABLE"
        monkeypatch.setattr("runner.process.socket.socketpair", real)
        await until(lambda: runner.model_ready("echo"))
        assert (await ask(runner)).text == "hello there"


async def test_what_was_loaded_on_request_stays_loadable_while_the_watcher_looks(
    yard: Yard, make_runner: MakeRunner
) -> None:
    async with make_runner(control_mode="on-demand", poll_s=0.05) as runner:
        yard.model("fresh")
        await runner.load("fresh")
        for _ in range(60):
            assert row(runner, "fresh").ready and not row(runner, "fresh").reason
            await asyncio.sleep(0.01)


async def test_explicit_mode_leaves_models_alone_that_were_not_named(
    yard: Yard, make_runner: MakeRunner
) -> None:
    yard.model("one")
    yard.model("two")
    async with make_runner(control_mode="explicit") as runner:
        await runner.load("one")
        yard.model("one", parameters={"max_tokens": 2})
        await runner.load("two")
        assert (await ask(runner, "abcdef", model="one")).text == "abcdef"
        await runner.load("one")
        assert (await ask(runner, "abcdef", model="one")).text == "ab"


async def test_a_preloaded_model_that_nobody_asks_is_unloaded_after_its_ttl(
    yard: Yard, make_runner: MakeRunner
) -> None:
    yard.model(ttl_s=0.3, preload=True)
    async with make_runner() as runner:
        await until(lambda: states(runner) == {1: "READY"})
        await until(lambda: states(runner) == {1: "UNAVAILABLE"})


async def test_the_loaded_metric_counts_a_reloaded_version_once(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model()
    async with make_runner() as runner:
        await ask(runner)
        yard.model(parameters={"max_tokens": 2})
        await until_text(runner, "ab")
        await until(lambda: len(worker_pids()) == 1)
        await until(lambda: metric(runner, "model_loaded") == 1)


async def test_names_with_absurd_versions_are_only_names(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model("one")
    yard.model("two")
    async with make_runner() as runner:
        with pytest.raises(RunnerError, match="no model"):
            runner.resolve_name("x:" + "1" * 5000)


async def test_an_unload_waits_for_answers_as_long_as_they_go_on(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model(delay_s=0.005, context_size=300)
    async with make_runner(control_mode="explicit", drain_s=0.1, stuck_s=0.5) as runner:
        await runner.load("echo")
        stream = asyncio.create_task(ask(runner, **endless()))
        await until(lambda: metric(runner, "running_sequences") == 1)
        await runner.unload("echo")
        assert state_of(runner) == "UNLOADING"
        assert (await stream).finish == {0: "length"}
        await until(lambda: state_of(runner) == "UNAVAILABLE")


async def test_the_end_of_the_server_waits_no_longer_than_it_was_told(
    yard: Yard, make_runner: MakeRunner
) -> None:
    yard.model(delay_s=0.02)
    async with make_runner(drain_s=0.2) as runner:
        await ask(runner)
        leaving = asyncio.create_task(ask(runner, **endless()))
        await until(lambda: metric(runner, "running_sequences") == 1)
        yard.model(delay_s=0.01)  # what is on its way out already is not waited for either
        await until(lambda: len(runner._catalog.models["echo"].slots.loaded) == 2)
    with pytest.raises(ModelNotReady, match="unloaded before"):
        await leaving


async def test_a_hand_over_refused_for_want_of_memory_is_made_up_for(
    yard: Yard, make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.retry.FIRST_PAUSE_S", 0.05)
    folder = yard.model("one")
    yard.model("two", delay_s=0.005)
    async with make_runner(memory_budget_bytes=int(2.5 * OVERHEAD_BYTES)) as runner:
        await ask(runner, model="one")
        stream = asyncio.create_task(ask(runner, model="two", **endless()))
        await until(lambda: metric(runner, "running_sequences", model="two") == 1)
        (folder / "2").mkdir()
        await until(lambda: "memory budget" in (row(runner, "one").versions[-1].reason or ""))
        stream.cancel()
        await until(lambda: states(runner, "one").get(2) == "READY")
        assert (await ask(runner, model="one")).version == 2


async def test_a_load_that_waits_for_memory_holds_up_no_other(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model("leaving", delay_s=0.005)
    yard.model("large", instance_group={"count": 2})
    yard.model("small")
    async with (
        make_runner(control_mode="explicit", memory_budget_bytes=int(2.5 * OVERHEAD_BYTES)) as runner,
        asyncio.TaskGroup() as group,
    ):
        await runner.load("leaving")
        stream = group.create_task(ask(runner, model="leaving", **endless()))
        await until(lambda: metric(runner, "running_sequences", model="leaving") == 1)
        await runner.unload("leaving")
        waiting = group.create_task(runner.load("large"))
        await until(lambda: state_of(runner, "large") == "LOADING")
        await runner.load("small")
        assert not waiting.done()
        await runner.unload("small")
        stream.cancel()
        await waiting


async def test_a_worker_that_has_ended_is_never_killed_again(
    yard: Yard, make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    yard.model()
    async with make_runner() as runner:
        await ask(runner)
        (instance,) = runner._catalog.models["echo"].slots.loaded[0].instances
        process = await instance.process()
        await process.stop()
        killed: list[int] = []
        monkeypatch.setattr(os, "killpg", lambda pid, number: killed.append(pid))
        process.kill()
        await process.stop()
        monkeypatch.undo()
        assert killed == [], "its number may be another's by now"
