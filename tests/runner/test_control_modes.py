"""Control modes and readiness, row by row as Triton has them."""

import asyncio
import os
import shutil
import signal
from typing import Any

import pytest

from runner.errors import ActionNotAllowed, LoadFailed, ModelDisabled, ModelNotFound, ModelNotLoaded
from runner.runner import Runner
from tests.runner.asking import ask, endless, metric, until
from tests.runner.conftest import MakeRunner, Yard
from tests.runner.test_lifecycle import row, states
from tests.runner.test_workers import worker_pids


def reasons(runner: Runner, name: str = "echo") -> dict[int | None, str]:
    return {version.version: version.reason for version in row(runner, name).versions}


def names(runner: Runner) -> list[str]:
    return [model.name for model in runner.index()]


async def test_a_model_never_loaded_does_not_count_for_readiness(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model("one")
    yard.model("two")
    async with make_runner(control_mode="explicit", load_models=("one",)) as runner:
        await until(runner.is_ready)
        assert states(runner, "one") == {1: "READY"} and states(runner, "two") == {1: "UNAVAILABLE"}


async def test_explicit_mode_loads_all_that_a_star_names(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model("one")
    yard.model("two")
    async with make_runner(control_mode="explicit", load_models=("*",)) as runner:
        await until(runner.is_ready)
        assert states(runner, "one") == states(runner, "two") == {1: "READY"}


async def test_loading_and_unloading_are_not_ready_and_unloaded_is(
    yard: Yard, make_runner: MakeRunner
) -> None:
    yard.model(load_s=0.3, delay_s=0.005, context_size=120)
    async with make_runner(control_mode="explicit") as runner:
        await until(runner.is_ready)
        load = asyncio.create_task(runner.load("echo"))
        await until(lambda: states(runner) == {1: "LOADING"})
        assert not runner.is_ready()
        await load
        assert runner.is_ready() and runner.model_ready("echo")
        stream = asyncio.create_task(ask(runner, **endless()))
        await until(lambda: metric(runner, "running_sequences") == 1)
        await runner.unload("echo")
        assert states(runner) == {1: "UNLOADING"} and not runner.is_ready()
        with pytest.raises(ModelNotLoaded):
            await ask(runner)
        assert (await stream).finish == {0: "length"}
        await until(lambda: states(runner) == {1: "UNAVAILABLE"})
        assert reasons(runner) == {1: "unloaded"}
        assert runner.is_ready() and not runner.model_ready("echo")


async def test_a_failed_load_is_not_ready_until_it_is_mended(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model(fail={"load": "no cheese"})
    async with make_runner(control_mode="explicit") as runner:
        with pytest.raises(LoadFailed):
            await runner.load("echo")
        assert reasons(runner) == {1: "no cheese"} and not runner.is_ready()
        yard.model()
        await runner.load("echo")
        assert runner.is_ready()


async def test_a_failed_model_that_is_removed_counts_no_more(yard: Yard, make_runner: MakeRunner) -> None:
    folder = yard.model(fail={"load": "no cheese"})
    yard.model("other")
    async with make_runner(control_mode="poll") as runner:
        await until(lambda: reasons(runner).get(1) == "no cheese")
        await until(lambda: states(runner, "other") == {1: "READY"})
        assert not runner.is_ready()
        shutil.rmtree(folder)
        await until(runner.is_ready)
        assert names(runner) == ["other"]


async def test_a_failed_version_that_is_removed_counts_no_more(yard: Yard, make_runner: MakeRunner) -> None:
    folder = yard.model("echo", 1, 2, version_policy={"all": {}}, parameters={"model": "weights"})
    (folder / "1" / "weights").mkdir()
    (folder / "1" / "weights" / "config.json").write_text("{}")
    async with make_runner(control_mode="poll") as runner:
        await until(lambda: 'no "weights"' in reasons(runner).get(2, ""))
        await until(lambda: states(runner) == {1: "READY", 2: "UNAVAILABLE"})
        assert not runner.is_ready()
        shutil.rmtree(folder / "2")
        await until(runner.is_ready)
        assert states(runner) == {1: "READY"}


async def test_a_removed_version_stays_as_unloaded(yard: Yard, make_runner: MakeRunner) -> None:
    folder = yard.model("echo", 1, 2, version_policy={"all": {}})
    async with make_runner(control_mode="poll") as runner:
        await until(lambda: states(runner) == {1: "READY", 2: "READY"})
        shutil.rmtree(folder / "1")
        await until(lambda: states(runner) == {1: "UNAVAILABLE", 2: "READY"})
        assert reasons(runner) == {1: "unloaded", 2: ""}
        assert runner.is_ready()
        with pytest.raises(ModelNotFound, match="no version 1"):
            await ask(runner, model="echo:1")


async def test_a_worker_that_cannot_come_back_is_not_ready(
    yard: Yard, make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    yard.model()
    async with make_runner(control_mode="none") as runner:
        await until(runner.is_ready)
        monkeypatch.setattr("runner.process.socket.socketpair", no_files_left)
        os.kill(worker_pids()[0], signal.SIGKILL)
        await until(lambda: not runner.is_ready())
        monkeypatch.undo()
        await until(runner.is_ready)


def no_files_left(*_: object) -> object:
    raise OSError(24, "Too many open files")


@pytest.mark.parametrize("mode", ["none", "poll"])
async def test_modes_that_load_everything_take_no_orders(
    yard: Yard, make_runner: MakeRunner, mode: str
) -> None:
    async with make_runner(control_mode=mode) as runner:
        for act in (runner.load, runner.unload):
            with pytest.raises(ActionNotAllowed, match="not allowed if polling is enabled"):
                await act("echo")


async def test_mode_none_does_not_follow_the_disk(yard: Yard, make_runner: MakeRunner) -> None:
    folder = yard.model()
    async with make_runner(control_mode="none") as runner:
        await until(runner.is_ready)
        assert runner._follower is None, "somebody looks at the disk"
        (folder / "2").mkdir()
        await ask(runner)
        assert states(runner) == {1: "READY"}


async def test_unloading_what_is_not_there_is_no_error(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model()
    async with make_runner(control_mode="explicit") as runner:
        await runner.unload("echo")
        await runner.unload("nothing")
        assert reasons(runner) == {1: "not loaded"}


async def test_explicit_mode_keeps_a_model_that_has_gone_from_disk_until_it_is_unloaded(
    yard: Yard, make_runner: MakeRunner
) -> None:
    folder = yard.model("one")
    yard.model("two")
    async with make_runner(control_mode="explicit") as runner:
        await runner.load("one")
        shutil.rmtree(folder)
        await runner.load("two")
        assert (await ask(runner, model="one")).text == "hello there"
        with pytest.raises(ModelNotFound):
            await runner.load("one")
        await runner.unload("one")
        await until(lambda: states(runner, "one") == {1: "UNAVAILABLE"})
        await runner.load("two")
        assert names(runner) == ["two"]


@pytest.mark.parametrize("changed", [{"disabled": True}, {"default_version": 1}])
async def test_explicit_mode_takes_no_news_of_a_model_that_was_not_named(
    yard: Yard, make_runner: MakeRunner, changed: dict[str, Any]
) -> None:
    policy = {"version_policy": {"all": {}}}
    yard.model("one", 1, 2, **policy)
    yard.model("two")
    async with make_runner(control_mode="explicit") as runner:
        await runner.load("one")
        yard.model("one", 1, 2, **policy, **changed)
        await runner.load("two")
        assert (await ask(runner, model="one")).version == 2


async def test_an_explicit_reload_that_fails_keeps_the_old_version(
    yard: Yard, make_runner: MakeRunner
) -> None:
    folder = yard.model(parameters={"max_tokens": 2})
    async with make_runner(control_mode="explicit") as runner:
        await runner.load("echo")
        yard.model(fail={"load": "no cheese"})
        with pytest.raises(LoadFailed, match="no cheese"):
            await runner.load("echo")
        assert (await ask(runner, "abcdef")).text == "ab" and states(runner) == {1: "READY"}
        (folder / "config.yaml").write_text("backend: ech\n")
        with pytest.raises(LoadFailed, match=r'config\.yaml:1:10: unknown backend "ech"'):
            await runner.load("echo")
        assert (await ask(runner, "abcdef")).text == "ab" and runner.model_ready("echo")


@pytest.mark.parametrize("mode", ["none", "poll", "explicit", "on-demand"])
async def test_a_disabled_model_is_never_loaded(yard: Yard, make_runner: MakeRunner, mode: str) -> None:
    yard.model(disabled=True, preload=True)
    yard.model("other", preload=True)
    async with make_runner(control_mode=mode, load_models=("*",) if mode == "explicit" else ()) as runner:
        await until(lambda: states(runner, "other") == {1: "READY"})
        assert reasons(runner) == {1: "not loaded"} and runner.is_ready()
        assert not runner.model_ready("echo")
        with pytest.raises(ModelDisabled):
            await ask(runner)
        if mode in ("explicit", "on-demand"):
            with pytest.raises(ModelDisabled):
                await runner.load("echo")


async def test_a_model_that_becomes_disabled_is_unloaded(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model()
    async with make_runner() as runner:
        await ask(runner)
        yard.model(disabled=True)
        await until(lambda: states(runner) == {1: "UNAVAILABLE"})
        yard.model()
        await until(lambda: not row(runner).disabled)
        assert (await ask(runner)).text == "hello there"


async def test_a_warm_up_runs_before_a_model_is_ready(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model(warmup=["hello", "again"], delay_s=0.05)
    async with make_runner(control_mode="explicit") as runner:
        load = asyncio.create_task(runner.load("echo"))
        await until(lambda: states(runner) == {1: "LOADING"})
        await until(lambda: row(runner).versions[0].progress == 1.0)
        assert states(runner) == {1: "LOADING"}, "the weights are there, but it is not warm"
        await load
        assert runner.is_ready()


@pytest.mark.parametrize("mode", ["on-demand", "explicit"])
@pytest.mark.parametrize("named", ["*", "echo", "nickname"])
async def test_a_model_may_be_named_for_the_start_in_any_way(
    yard: Yard, make_runner: MakeRunner, mode: str, named: str, caplog: pytest.LogCaptureFixture
) -> None:
    yard.model(aliases=["nickname"])
    async with make_runner(control_mode=mode, load_models=(named,)) as runner:
        await until(lambda: states(runner) == {1: "READY"})
    assert "there is no such model" not in caplog.text
