"""Loads with a configuration and files of their own."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from runner.errors import InvalidRequest, LoadFailed, ModelDisabled, ModelNotFound
from runner.runner import Runner
from tests.runner.asking import ask, endless, metric, until
from tests.runner.conftest import MakeRunner, Yard
from tests.runner.test_lifecycle import row, states
from tests.runner.test_workers import worker_pids


def laid_out(yard: Yard) -> list[Path]:
    """Every file and link below the state folder that came with a load."""
    return sorted(
        path for path in (yard.root.parent / "state").glob("overrides/*/*/**/*") if not path.is_dir()
    )


def config(**given: Any) -> str:
    return json.dumps(given)


async def says(runner: Runner) -> str:
    return (await ask(runner, "abcdef")).text


async def test_a_configuration_holds_for_one_load(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model(parameters={"max_tokens": 4})
    async with make_runner(control_mode="explicit") as runner:
        await runner.load("echo", config=config(parameters={"max_tokens": 2}))
        assert await says(runner) == "ab"
        await runner.load("echo")
        assert await says(runner) == "abcd"


async def test_a_configuration_outlives_changes_of_other_models(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model()
    async with make_runner() as runner:
        await runner.load("echo", config=config(parameters={"max_tokens": 2}))
        yard.model("other")
        await until(lambda: runner.model_ready("other"))
        assert await says(runner) == "ab"
        yard.model(parameters={"max_tokens": 3})
        await until(lambda: not runner._catalog.models["echo"]._override)
        async with asyncio.timeout(20):
            while await says(runner) != "abc":
                await asyncio.sleep(0.02)


async def test_a_configuration_is_forgotten_when_the_model_is_unloaded(
    yard: Yard, make_runner: MakeRunner
) -> None:
    yard.model()
    async with make_runner() as runner:
        await runner.load("echo", config=config(parameters={"max_tokens": 2}))
        await runner.unload("echo")
        assert await says(runner) == "abcdef"


FAILING = [
    ("{", "not JSON"),
    (config(delay_s="slow"), 'delay_s: expected a number of at least 0, found text "slow"'),
    (config(fail={"load": "no cheese"}), "no cheese"),
    (config(backend="llamacpp"), "no weights; the folder is empty"),
    (config(version_policy={"specific": {"versions": [7]}}), "there is no version 7"),
]


async def test_a_load_that_fails_leaves_what_serves_and_what_it_was_loaded_from(
    yard: Yard, make_runner: MakeRunner
) -> None:
    yard.model(parameters={"max_tokens": 2})
    async with make_runner(control_mode="explicit") as runner:
        await runner.load("echo", config=config(parameters={"max_tokens": 3}))
        for given, message in FAILING:
            with pytest.raises(LoadFailed, match=message):
                await runner.load("echo", config=given)
            assert await says(runner) == "abc"
            assert row(runner).ready and states(runner)[1] == "READY"
        await runner.load("echo", config=config(parameters={"max_tokens": 3}))  # the same: nothing to do
        assert metric(runner, "model_loaded") == 1


async def test_a_load_may_disable_a_model_for_itself_only(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model()
    async with make_runner(control_mode="explicit") as runner:
        with pytest.raises(ModelDisabled):
            await runner.load("echo", config=config(disabled=True))
        await runner.load("echo")
        assert await says(runner) == "abcdef"


async def test_files_are_laid_out_in_the_state_folder_and_removed_with_the_last_version(
    yard: Yard, make_runner: MakeRunner
) -> None:
    folder = yard.model("echo", 1, delay_s=0.005, context_size=200)
    (folder / "1" / "kept.txt").write_text("kept")
    async with make_runner(control_mode="explicit") as runner:
        await runner.load("echo", files={"1/new.txt": b"new", "2/other.txt": b"other"})
        assert states(runner) == {2: "READY"}
        assert [path.read_text() for path in laid_out(yard)] == ["kept", "new", "other"]
        stream = asyncio.create_task(ask(runner, **endless()))
        await until(lambda: metric(runner, "running_sequences") == 1)
        await runner.unload("echo")
        assert len(laid_out(yard)) == 3, "a stream still runs from them"
        assert (await stream).finish == {0: "length"}
        await until(lambda: not laid_out(yard))
        assert states(runner) == {1: "UNAVAILABLE", 2: "UNAVAILABLE"}
    assert sorted(path.name for path in folder.rglob("*")) == ["1", "config.yaml", "kept.txt"]


async def test_files_of_a_load_that_fails_are_removed(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model()
    async with make_runner(control_mode="explicit") as runner:
        with pytest.raises(LoadFailed):
            await runner.load("echo", config=config(fail={"load": "no"}), files={"1/x": b"x"})
        with pytest.raises(LoadFailed):
            await runner.load("echo", config="{", files={"1/x": b"x"})
        await until(lambda: not laid_out(yard))


async def test_files_of_a_later_load_replace_those_of_an_earlier_one(
    yard: Yard, make_runner: MakeRunner
) -> None:
    yard.model()
    async with make_runner(control_mode="explicit") as runner:
        await runner.load("echo", files={"1/one": b"1"})
        await runner.load("echo", files={"1/two": b"2"})
        await until(lambda: [path.name for path in laid_out(yard)] == ["two"])
        assert await says(runner) == "abcdef"


async def test_a_file_that_leads_elsewhere_is_refused_and_nothing_is_written(
    yard: Yard, make_runner: MakeRunner
) -> None:
    yard.model()
    async with make_runner(control_mode="explicit") as runner:
        before = sorted(yard.root.parent.rglob("*"))
        for name in ("../x", "/etc/passwd", "1/../../x", "1/" + "x" * 300, "x", "1/a\x00"):
            with pytest.raises(InvalidRequest):
                await runner.load("echo", config="{}", files={"1/good": b"x", name: b"x"})
        assert sorted(yard.root.parent.rglob("*")) == before


async def test_a_model_may_come_with_a_load_alone(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model("other")
    async with make_runner(control_mode="explicit", single_model_fallback="never") as runner:
        with pytest.raises(ModelNotFound):
            await runner.load("guest", config=config(backend="echo"))
        await runner.load("guest", config=config(backend="echo"), files={"1/weights.bin": b"none"})
        assert (await ask(runner, model="guest")).text == "hello there"
        await runner.load("other")
        assert (await ask(runner, model="guest")).text == "hello there"
        with pytest.raises(ModelNotFound):
            await runner.load("guest")
        await runner.unload("guest")
        await until(lambda: not laid_out(yard))
        assert [model.name for model in runner.index()] == ["other"]


async def test_a_model_that_came_with_a_load_outlives_looks_at_the_disk(
    yard: Yard, make_runner: MakeRunner
) -> None:
    async with make_runner() as runner:
        await runner.load("guest", config=config(backend="echo"), files={"1/weights.bin": b"none"})
        yard.model("other")
        await until(lambda: runner.model_ready("other"))
        assert (await ask(runner, model="guest")).text == "hello there"


async def test_overrides_are_of_a_whole_model(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model()
    async with make_runner(control_mode="explicit") as runner:
        with pytest.raises(InvalidRequest, match="name it without a version"):
            await runner.load("echo:1", config="{}")


async def test_what_a_killed_server_laid_out_is_removed_by_the_next(
    yard: Yard, make_runner: MakeRunner
) -> None:
    yard.model()
    left = yard.root.parent / "state" / "overrides" / "999999999-x" / "y" / "1"
    left.mkdir(parents=True)
    async with make_runner(control_mode="explicit") as runner:
        await runner.load("echo", files={"1/x": b"x"})
        assert not left.exists()
    assert not list((yard.root.parent / "state").glob("overrides/*"))


async def test_two_loads_of_one_new_name_at_once_are_one_model(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model()
    files = {"1/weights.bin": b"none"}
    given = config(backend="echo")
    async with make_runner(control_mode="explicit") as runner:
        await asyncio.gather(*(runner.load("new", config=given, files=files) for _ in range(2)))
        await until(lambda: len(worker_pids()) == 1)
        await runner.unload("new")
        await until(lambda: not worker_pids())
