"""Loading, versions, hand-over, memory and control modes, with real workers."""

import asyncio
import re
import shutil

import pytest

from backends.contract import OVERHEAD_BYTES
from runner.api import ModelStatus
from runner.errors import (
    ActionNotAllowed,
    InsufficientMemory,
    LoadFailed,
    ModelDisabled,
    ModelNotFound,
    ModelNotReady,
)
from runner.runner import Runner
from tests.runner.asking import Answer, ask, endless, metric, until
from tests.runner.conftest import MakeRunner, Yard


def row(runner: Runner, name: str = "echo") -> ModelStatus:
    return next(row for row in runner.index() if row.name == name)


def states(runner: Runner, name: str = "echo") -> dict[int | None, str]:
    return {version.version: version.state for version in row(runner, name).versions}


async def test_nothing_is_loaded_before_the_first_request(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model()
    async with make_runner() as runner:
        assert states(runner) == {1: "UNAVAILABLE"} and row(runner).ready
        await ask(runner)
        assert states(runner) == {1: "READY"}


async def test_preload_loads_at_the_start(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model(preload=True)
    async with make_runner() as runner:
        await until(lambda: states(runner) == {1: "READY"})


async def test_requests_that_come_together_load_once(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model(load_s=0.3)
    async with make_runner() as runner:
        answers = await asyncio.gather(*(ask(runner, f"request {i}") for i in range(6)))
        assert [answer.text for answer in answers] == [f"request {i}" for i in range(6)]
    logs = list((yard.root.parent / "state" / "logs").glob("*.log"))
    assert len(logs) == 1


async def test_progress_is_shown_while_a_model_loads(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model(load_s=1.0)
    async with make_runner() as runner, asyncio.TaskGroup() as group:
        group.create_task(ask(runner))
        await until(lambda: row(runner).versions[0].state == "LOADING")
        await until(lambda: 0 < (row(runner).versions[0].progress or 0) < 1)


async def test_a_load_that_takes_long_tells_the_log_how_far_it_is(
    yard: Yard,
    make_runner: MakeRunner,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "runner")
    monkeypatch.setattr("runner.process.PROGRESS_S", 0.1)
    yard.model(load_s=0.6)
    async with make_runner() as runner:
        await ask(runner)
    assert re.search(r"worker echo:1/0 has loaded [1-9]\d %", caplog.text)


async def test_a_model_that_cannot_be_loaded_says_why_and_the_others_serve(
    yard: Yard, make_runner: MakeRunner
) -> None:
    yard.model("bad", fail={"load": "the weights are cheese"})
    yard.model("good")
    async with make_runner() as runner:
        with pytest.raises(LoadFailed, match="cheese"):
            await ask(runner, model="bad")
        assert row(runner, "bad").versions[0].reason == "the weights are cheese"
        assert not row(runner, "bad").ready
        assert (await ask(runner, model="good")).text == "hello there"


async def test_a_mended_model_is_loaded_at_the_next_request(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model(fail={"load": "no"})
    async with make_runner() as runner:
        with pytest.raises(LoadFailed):
            await ask(runner)
        yard.model()
        await until(lambda: runner.model_ready("echo"))
        assert (await ask(runner)).text == "hello there"


async def test_a_corrupt_configuration_is_located_and_hides_nobody(
    yard: Yard, make_runner: MakeRunner
) -> None:
    yard.model("good")
    (yard.model("bad") / "config.yaml").write_text("backend: echo\ncontxt_size: 5\n")
    async with make_runner() as runner:
        assert "config.yaml:2:1" in row(runner, "bad").reason
        assert 'did you mean "context_size"?' in row(runner, "bad").reason
        with pytest.raises(LoadFailed, match="contxt_size"):
            await ask(runner, model="bad")
        assert (await ask(runner, model="good")).text == "hello there"


async def test_a_new_version_takes_over_without_a_failed_request(yard: Yard, make_runner: MakeRunner) -> None:
    folder = yard.model(delay_s=0.002)
    async with make_runner() as runner:
        await ask(runner)
        answers: list[Answer] = []
        is_done = asyncio.Event()

        async def keep_asking(number: int) -> None:
            while not is_done.is_set():
                answers.append(await ask(runner, f"client {number}"))

        async with asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(keep_asking(number))
            (folder / "2").mkdir()
            await until(lambda: any(answer.version == 2 for answer in answers))
            await until(lambda: states(runner).get(1) != "READY")
            is_done.set()
        assert {answer.version for answer in answers} == {1, 2}
        assert all(answer.text.startswith("client ") for answer in answers)
        order = [answer.version for answer in answers]
        assert order.count(2) and set(order[order.index(2) + 4 :]) == {2}, "the old version came back"
        await until(lambda: states(runner) == {1: "UNAVAILABLE", 2: "READY"})


async def test_a_stream_that_runs_ends_on_the_version_it_began_with(
    yard: Yard, make_runner: MakeRunner
) -> None:
    folder = yard.model(delay_s=0.005, context_size=300)
    async with make_runner(drain_s=0.1, stuck_s=0.5) as runner, asyncio.TaskGroup() as group:
        stream = group.create_task(ask(runner, **endless()))
        await until(lambda: metric(runner, "running_sequences") == 1)
        (folder / "2").mkdir()
        await until(lambda: states(runner).get(2) == "READY")
        assert (await ask(runner)).version == 2
        answer = await stream
        assert answer.version == 1 and answer.finish == {0: "length"}


async def test_a_new_version_that_fails_leaves_the_old_one_serving(
    yard: Yard, make_runner: MakeRunner
) -> None:
    folder = yard.model()
    async with make_runner() as runner:
        await ask(runner)
        (folder / "config.yaml").write_text("backend: echo\nfail: {load: broken}\n")
        (folder / "2").mkdir()
        await until(lambda: any(v.version == 2 and "broken" in v.reason for v in row(runner).versions))
        assert (await ask(runner)).version == 1


async def test_a_changed_configuration_is_loaded_beside_the_old_one(
    yard: Yard, make_runner: MakeRunner
) -> None:
    yard.model()
    async with make_runner() as runner:
        await ask(runner)
        yard.model(parameters={"max_tokens": 2})
        async with asyncio.timeout(20):
            while (await ask(runner, "abcdef")).text != "ab":
                await asyncio.sleep(0.02)


async def test_versions_are_asked_for_by_name(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model("echo", 1, 2, version_policy={"all": {}})
    async with make_runner() as runner:
        assert (await ask(runner, model="echo:1")).version == 1
        assert (await ask(runner, model="echo")).version == 2
        with pytest.raises(ModelNotFound, match="no version 3; served versions: 1, 2"):
            await ask(runner, model="echo:3")


async def test_the_default_version_can_be_chosen(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model("echo", 1, 2, version_policy={"all": {}}, default_version=1)
    async with make_runner() as runner:
        assert (await ask(runner, model="echo")).version == 1


async def test_a_removed_model_finishes_what_runs_and_is_gone(yard: Yard, make_runner: MakeRunner) -> None:
    folder = yard.model(delay_s=0.005, context_size=200)
    yard.model("other")
    async with make_runner() as runner, asyncio.TaskGroup() as group:
        stream = group.create_task(ask(runner, **endless()))
        await until(lambda: metric(runner, "running_sequences") == 1)
        shutil.rmtree(folder)
        await until(lambda: all(row.name != "echo" for row in runner.index()))
        with pytest.raises(ModelNotFound):
            await ask(runner)
        assert (await stream).finish == {0: "length"}


async def test_idle_models_are_evicted_least_recently_used_first(yard: Yard, make_runner: MakeRunner) -> None:
    for name in ("one", "two", "three"):
        yard.model(name)
    async with make_runner(memory_budget_bytes=int(2.5 * OVERHEAD_BYTES)) as runner:
        for name in ("one", "two", "one", "three"):
            await ask(runner, model=name)
        assert [states(runner, name)[1] for name in ("one", "two", "three")] == [
            "READY",
            "UNAVAILABLE",
            "READY",
        ]
        assert row(runner, "two").versions[0].reason == "evicted to make room"
        assert (await ask(runner, model="two")).text == "hello there"


async def test_pinned_and_busy_models_stay_and_the_refusal_has_the_numbers(
    yard: Yard, make_runner: MakeRunner
) -> None:
    yard.model("pinned", pinned=True)
    yard.model("busy", delay_s=0.005)
    yard.model("late")
    async with (
        make_runner(memory_budget_bytes=int(2.5 * OVERHEAD_BYTES)) as runner,
        asyncio.TaskGroup() as group,
    ):
        await ask(runner, model="pinned")
        stream = group.create_task(ask(runner, model="busy", **endless()))
        await until(lambda: metric(runner, "running_sequences", model="busy") == 1)
        with pytest.raises(InsufficientMemory, match=r"160 MiB .* of the memory budget of 400 MiB"):
            await ask(runner, model="late")
        stream.cancel()


async def test_an_idle_model_with_a_ttl_is_unloaded(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model(ttl_s=0.2)
    async with make_runner() as runner:
        await ask(runner)
        await until(lambda: states(runner) == {1: "UNAVAILABLE"})
        assert (await ask(runner)).text == "hello there"


async def test_explicit_mode_loads_by_request_only(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model()
    async with make_runner(control_mode="explicit") as runner:
        with pytest.raises(ModelNotReady, match="not loaded"):
            await ask(runner)
        await runner.load("echo")
        assert (await ask(runner)).text == "hello there"
        await runner.unload("echo")
        await until(lambda: states(runner) == {1: "UNAVAILABLE"})
        assert row(runner).versions[0].reason == "unloaded"
        with pytest.raises(ModelNotReady):
            await ask(runner)


async def test_explicit_load_sees_what_was_just_put_there(yard: Yard, make_runner: MakeRunner) -> None:
    async with make_runner(control_mode="explicit") as runner:
        yard.model("fresh")
        await runner.load("fresh")
        assert (await ask(runner, model="fresh")).text == "hello there"


async def test_mode_none_loads_all_at_start_and_refuses_control(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model("one")
    yard.model("two")
    async with make_runner(control_mode="none") as runner:
        await until(runner.is_ready)
        assert states(runner, "one") == states(runner, "two") == {1: "READY"}
        with pytest.raises(ActionNotAllowed):
            await runner.load("one")


async def test_mode_poll_loads_what_appears(yard: Yard, make_runner: MakeRunner) -> None:
    async with make_runner(control_mode="poll") as runner:
        yard.model()
        await until(lambda: bool(runner.index()) and states(runner) == {1: "READY"})


async def test_a_disabled_model_is_listed_and_refused(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model(disabled=True)
    async with make_runner() as runner:
        assert row(runner).disabled
        with pytest.raises(ModelDisabled):
            await ask(runner)


async def test_a_failed_warm_up_keeps_a_model_from_ready(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model("good", warmup=["hello"])
    yard.model("bad", warmup=["explode"], fail={"row": "explode"})
    async with make_runner() as runner:
        assert (await ask(runner, model="good")).text == "hello there"
        with pytest.raises(LoadFailed, match="warm-up"):
            await ask(runner, model="bad")


async def test_two_instances_share_the_requests(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model(instance_group={"count": 2}, delay_s=0.01, scheduler={"max_lanes": 1})
    async with make_runner() as runner, asyncio.TaskGroup() as group:
        streams = [group.create_task(ask(runner, **endless())) for _ in range(2)]
        await until(lambda: metric(runner, "running_sequences") == 2)
        for stream in streams:
            stream.cancel()


async def test_one_model_alone_answers_to_every_name(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model()
    async with make_runner() as runner:
        assert runner.resolve_name("gpt-4o") == "echo"
        assert runner.resolve_name(None) == "echo"
    async with make_runner(single_model_fallback="missing") as runner:
        assert runner.resolve_name(None) == "echo"
        with pytest.raises(ModelNotFound):
            runner.resolve_name("gpt-4o")


async def test_a_bearer_token_names_a_model(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model("one")
    yard.model("two", aliases=["zwei"])
    async with make_runner() as runner:
        assert runner.resolve_name(None, bearer="two") == "two"
        assert runner.resolve_name("one", bearer="two") == "one"
        assert runner.resolve_name(None, bearer="zwei") == "zwei"
        with pytest.raises(ModelNotFound, match="names no model; there are one, two"):
            runner.resolve_name(None, bearer="nonsense")
