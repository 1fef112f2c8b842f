"""Whose turn it is where an engine batches by itself."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from runner.worker.sequence import PATIENCE_S
from runner.worker.turns import Place, Turns


def place(turns: Turns, level: int = 1, *, timeout_s: float | None = None, delays: bool = False) -> Place:
    return turns.place(level, timeout_s=timeout_s, is_delayable=delays)


class Line:
    """A lane, and those who want it. `order` says who had it."""

    def __init__(self, most: int = 1) -> None:
        self.turns = Turns(most, asyncio.get_running_loop())
        self.order: list[str] = []

    async def enter(self, name: str, own: Place, work: Callable[[], Awaitable[object]] | None = None) -> None:
        await self.turns.take(own)
        try:
            self.order.append(name)
            if work is not None:
                await work()
        finally:
            self.turns.give_back()


async def settle() -> None:
    """Let every task run as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_the_highest_level_goes_first_and_equals_in_the_order_they_came() -> None:
    line, ended = Line(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(line.enter("first", place(line.turns), ended.wait))
        await settle()
        for name, level in (("low", 3), ("plain", 2), ("plain too", 2), ("urgent", 1)):
            tasks.create_task(line.enter(name, place(line.turns, level)))
        await settle()
        assert (line.turns.num_running, line.turns.num_waiting) == (1, 4)
        ended.set()
    assert line.order == ["first", "urgent", "plain", "plain too", "low"]
    assert (line.turns.num_running, line.turns.num_waiting) == (0, 0)


async def test_nobody_gives_way_for_ever() -> None:
    line, ended = Line(), asyncio.Event()
    patient, late = place(line.turns, 2), place(line.turns, 1)
    late.due = patient.due + 1  # as if it had come after all patience was over
    assert patient.due - patient.submitted_at == PATIENCE_S
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(line.enter("first", place(line.turns), ended.wait))
        await settle()
        tasks.create_task(line.enter("late", late))
        tasks.create_task(line.enter("patient", patient))
        await settle()
        ended.set()
    assert line.order == ["first", "patient", "late"]


async def test_who_waits_too_long_is_turned_away_and_the_others_go_on() -> None:
    line, ended = Line(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(line.enter("first", place(line.turns), ended.wait))
        await settle()
        tasks.create_task(line.enter("second", place(line.turns)))
        with pytest.raises(TimeoutError):
            await line.enter("late", place(line.turns, timeout_s=0.0))
        ended.set()
    assert line.order == ["first", "second"]


async def test_who_may_be_delayed_goes_behind_those_that_came_since() -> None:
    line, ended = Line(), asyncio.Event()
    delayed = place(line.turns, timeout_s=0.01, delays=True)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(line.enter("first", place(line.turns), ended.wait))
        await settle()
        tasks.create_task(line.enter("delayed", delayed))
        tasks.create_task(line.enter("since", place(line.turns)))
        while delayed.deadline is not None:
            await asyncio.sleep(0)
        ended.set()
    assert line.order == ["first", "since", "delayed"]


async def test_a_deadline_that_was_taken_away_turns_nobody_away() -> None:
    line, ended = Line(), asyncio.Event()
    sibling = place(line.turns, timeout_s=0.01)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(line.enter("first", place(line.turns), ended.wait))
        await settle()
        tasks.create_task(line.enter("sibling", sibling))
        await settle()
        due, sibling.deadline = sibling.deadline, None
        while asyncio.get_running_loop().time() < due:
            await asyncio.sleep(0)
        await settle()
        ended.set()
    assert line.order == ["first", "sibling"]


async def test_who_leaves_keeps_nobody_from_a_turn() -> None:
    line, ended = Line(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(line.enter("first", place(line.turns), ended.wait))
        await settle()
        waiting = tasks.create_task(line.enter("gone", place(line.turns)))
        called = tasks.create_task(line.enter("called and gone", place(line.turns)))
        await settle()
        waiting.cancel()
        await settle()
        ended.set()
        await asyncio.sleep(0)  # the turn is given, and not yet taken
        called.cancel()
        tasks.create_task(line.enter("last", place(line.turns)))
    assert line.order[0] == "first" and line.order[-1] == "last"
    assert (line.turns.num_running, line.turns.num_waiting) == (0, 0)
