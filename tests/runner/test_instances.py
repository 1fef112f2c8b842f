"""Several workers of one version: who is sent what, and what one's death means to the others."""

import asyncio
import os
import signal

import psutil
import pytest

from runner.errors import WorkerCrashed
from runner.instance import Instance
from runner.runner import Runner
from runner.wire.requests import TextPrompt
from tests.runner.asking import Answer, ask, endless, metric, until
from tests.runner.conftest import MakeRunner, Yard
from tests.runner.test_workers import worker_pids


def instances(runner: Runner, name: str = "echo") -> tuple[Instance, ...]:
    (loaded,) = runner._catalog.models[name].slots.loaded
    return loaded.instances


def pid_of(instance: Instance) -> int:
    assert instance._process is not None
    return instance._process.pid


async def test_each_instance_sees_its_own_gpus(
    yard: Yard, make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    yard.model(instance_group={"count": 2, "gpus": [0, 1]})
    yard.model("cpu", instance_group={"kind": "cpu"})
    async with make_runner() as runner:
        await ask(runner)
        seen = [psutil.Process(pid_of(each)).environ()["CUDA_VISIBLE_DEVICES"] for each in instances(runner)]
        assert seen == ["4", "5"]
        await ask(runner, model="cpu")
        (worker,) = instances(runner, "cpu")
        assert psutil.Process(pid_of(worker)).environ()["CUDA_VISIBLE_DEVICES"] == ""


async def test_a_prompt_goes_where_its_beginning_is_cached(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model(instance_group={"count": 2}, delay_s=0.005, scheduler={"max_lanes": 4})
    one, two = "one " * 500, "two " * 500
    async with make_runner() as runner:

        async def first(text: str) -> Answer:
            return await ask(runner, TextPrompt(text), max_tokens=4, ignore_eos=True)

        await asyncio.gather(first(one), first(two))
        assert [len(each.seen) > 0 for each in instances(runner)] == [True, True], "both went to one"
        for text in (two, one, two):  # whichever was sent to the second instance, it is asked for first once
            again = await ask(runner, TextPrompt(text + "more"), max_tokens=1)
            assert again.finished is not None and again.finished.usage.cached_tokens >= len(text) - 1


async def test_a_cached_beginning_is_left_where_the_queue_is_long(
    yard: Yard, make_runner: MakeRunner
) -> None:
    yard.model(instance_group={"count": 2}, delay_s=0.005, scheduler={"max_lanes": 1})
    async with make_runner() as runner, asyncio.TaskGroup() as group:
        prompt = TextPrompt("go on " * 300)
        stream = group.create_task(ask(runner, **endless(prompt=prompt)))
        await until(lambda: metric(runner, "running_sequences") == 1)
        await ask(runner, prompt, max_tokens=1)
        assert not stream.done(), "with one lane each, it waited for the stream's end"
        stream.cancel()


async def test_what_an_instance_has_seen_is_forgotten_when_its_cache_is(
    yard: Yard, make_runner: MakeRunner
) -> None:
    yard.model(instance_group={"count": 2})
    async with make_runner() as runner:
        await ask(runner, TextPrompt("a long beginning " * 40))
        assert sum(len(each.seen) for each in instances(runner)) > 0
        await runner.reset_cache("echo")
        assert sum(len(each.seen) for each in instances(runner)) == 0
        await ask(runner, TextPrompt("a long beginning " * 40))
        (user,) = [each for each in instances(runner) if len(each.seen)]
        os.kill(pid_of(user), signal.SIGKILL)
        await until(lambda: not len(user.seen))


async def test_one_instance_that_dies_fails_its_own_requests_only(
    yard: Yard, make_runner: MakeRunner
) -> None:
    yard.model(instance_group={"count": 2}, delay_s=0.002)
    async with make_runner() as runner:
        await ask(runner)
        results: list[Answer | BaseException] = []
        is_killed = False

        async def keep_asking(number: int) -> None:
            for turn in range(25):
                began_after = is_killed
                try:
                    results.append(await ask(runner, f"client {number} turn {turn}"))
                except WorkerCrashed as error:
                    assert not began_after, "it was sent to a worker that was known to be dead"
                    results.append(error)

        async with asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(keep_asking(number))
            await until(lambda: len(results) > 20 and all(each.active for each in instances(runner)))
            victim = instances(runner)[0]
            num_active = victim.active
            os.kill(pid_of(victim), signal.SIGKILL)
            is_killed = True
        failed = [result for result in results if isinstance(result, BaseException)]
        assert len(results) == 6 * 25 and len(failed) <= num_active, failed
        await until(lambda: len(worker_pids()) == 2 and all(each.is_available for each in instances(runner)))
        assert metric(runner, "worker_restarts_total") == 1


async def test_a_request_that_its_worker_had_not_answered_goes_to_another_instance(
    yard: Yard, make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.instance.FIRST_PAUSE_S", 600.0)  # no successor in this test
    yard.model(instance_group={"count": 2})
    async with make_runner() as runner:
        await ask(runner)
        first, _ = instances(runner)
        os.kill(pid_of(first), signal.SIGSTOP)
        asked = asyncio.create_task(ask(runner, "who is there"))
        await until(lambda: first.active == 1)
        os.kill(pid_of(first), signal.SIGKILL)
        assert (await asked).text == "who is there"
        assert (await ask(runner, "still here")).text == "still here"
        assert runner.model_ready("echo")
