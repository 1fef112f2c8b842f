"""Priority levels, their queues and what becomes of who waits too long, through a real worker."""

import asyncio
from typing import Any

import pytest

from runner.errors import DeadlineExceeded, InvalidRequest, Overloaded
from runner.runner import Runner
from tests.runner.asking import ask, endless, metric, until
from tests.runner.conftest import MakeRunner, Yard

LEVELS = {"priority_levels": 3, "default_priority_level": 2, "max_lanes": 1}


@pytest.fixture(params=["echo", "echo-stream"])
def kind(request: pytest.FixtureRequest) -> str:
    """Queues are the same whoever batches."""
    name: str = request.param
    return name


async def until_waiting(runner: Runner, count: int) -> None:
    await until(lambda: metric(runner, "waiting_sequences") == count)


async def occupied(runner: Runner) -> asyncio.Task[Any]:
    """The one lane is taken by this stream."""
    stream = asyncio.create_task(ask(runner, **endless()))
    await until(lambda: metric(runner, "running_sequences") == 1)
    return stream


async def test_higher_levels_go_first_and_the_tier_is_told(
    yard: Yard, make_runner: MakeRunner, kind: str
) -> None:
    yard.model(backend=kind, delay_s=0.005, scheduler=LEVELS)
    async with make_runner() as runner, asyncio.TaskGroup() as group:
        stream = await occupied(runner)
        order: list[str] = []
        tiers: dict[str, str] = {}

        async def enter(name: str, **given: Any) -> None:
            answer = await ask(runner, name, max_tokens=1, **given)
            order.append(name)
            assert answer.accepted is not None
            tiers[name] = answer.accepted.service_tier

        waiting: list[tuple[str, dict[str, Any]]] = [
            ("flex", {"service_tier": "flex"}),
            ("plain", {}),
            ("urgent", {"service_tier": "priority"}),
            ("third", {"priority": 3}),
            ("first", {"priority": 1}),
        ]
        for number, (name, given) in enumerate(waiting, start=1):
            group.create_task(enter(name, **given))
            await until_waiting(runner, number)
        stream.cancel()
        await until(lambda: len(order) == 5)
        assert order == ["urgent", "first", "plain", "flex", "third"]
        assert tiers == {
            "flex": "flex",
            "plain": "default",
            "urgent": "priority",
            "third": "flex",
            "first": "priority",
        }


async def test_each_level_has_a_queue_of_its_own(yard: Yard, make_runner: MakeRunner, kind: str) -> None:
    policy = {"3": {"max_queue_size": 1}}
    yard.model(
        backend=kind,
        delay_s=0.005,
        scheduler={**LEVELS, "max_queue_size": 2, "priority_queue_policy": policy},
    )
    async with make_runner() as runner, asyncio.TaskGroup() as group:
        waiting = [await occupied(runner)]
        for number, priority in enumerate((3, 2, 2), start=1):
            waiting.append(group.create_task(ask(runner, **endless(priority=priority))))
            await until_waiting(runner, number)
        with pytest.raises(
            Overloaded, match=r"queue of priority level 3 is full \(1 sequences wait, .* is 1\)"
        ):
            await ask(runner, priority=3)
        with pytest.raises(
            Overloaded, match=r"queue of priority level 2 is full \(2 sequences wait, .* is 2\)"
        ):
            await ask(runner)
        waiting.append(group.create_task(ask(runner, priority=1)))
        await until_waiting(runner, 4)
        for each in waiting:
            each.cancel()


async def test_a_level_that_is_not_there_is_refused(yard: Yard, make_runner: MakeRunner, kind: str) -> None:
    yard.model(backend=kind)
    async with make_runner() as runner:
        with pytest.raises(InvalidRequest, match="this model has one level, 1"):
            await ask(runner, priority=2)
        assert (await ask(runner, priority=1, service_tier="flex")).text == "hello there"


@pytest.mark.parametrize("where", ["level", "request"])
async def test_a_queues_time_limit_is_the_shortest_that_holds(
    yard: Yard, make_runner: MakeRunner, where: str, kind: str
) -> None:
    policy = {"3": {"queue_timeout_s": 0.1}} if where == "level" else {}
    given = {"queue_timeout_s": 0.1 if where == "request" else 600.0, "priority": 3}
    yard.model(
        backend=kind,
        delay_s=0.005,
        scheduler={**LEVELS, "queue_timeout_s": 300, "priority_queue_policy": policy},
    )
    async with make_runner() as runner:
        stream = await occupied(runner)
        with pytest.raises(DeadlineExceeded, match="queue_timeout_s"):
            await ask(runner, **given)
        stream.cancel()


async def test_who_waited_too_long_is_delayed_where_that_is_asked_for(
    yard: Yard, make_runner: MakeRunner, kind: str
) -> None:
    scheduler = {"max_lanes": 1, "queue_timeout_s": 0.2, "timeout_action": "delay"}
    yard.model(backend=kind, delay_s=0.005, context_size=150, scheduler=scheduler)
    async with make_runner() as runner:
        await ask(runner)
        stream = await occupied(runner)
        answer = await ask(runner, "late but served")
        assert answer.text == "late but served" and stream.done()
        assert answer.finished is not None and answer.finished.queue_s > 0.2
