"""Prefix reuse on engines whose states cannot be cut: which states are kept, and who goes on from them."""

from typing import Any

from runner.worker.scheduler import Scheduler
from runner.worker.sequence import Sequence
from tests.support import make_scheduler, make_sequence, run_to_end, step

QUESTION = "what is it that is asked here? "
SYSTEM = "a system prompt that all of them share, "


def tip_scheduler(**given: Any) -> Scheduler:
    return make_scheduler(options={"prefix": "tip"}, **{"offload_bytes": 100_000, **given})


def alone(prompt: str | list[int], **given: Any) -> list[int]:
    scheduler = make_scheduler()
    scheduler.add(make_sequence(1, prompt, **given))
    return run_to_end(scheduler)[1]


def answer(scheduler: Scheduler, number: int, prompt: str | list[int], **given: Any) -> Sequence:
    """Runs one sequence alone to its end; the right answer is checked."""
    seq = make_sequence(number, prompt, **given)
    scheduler.add(seq)
    told = {name: given[name] for name in ("max_tokens",) if name in given}
    assert run_to_end(scheduler)[number] == alone(prompt, **told)
    return seq


def test_a_second_turn_goes_on_behind_the_first_answer() -> None:
    scheduler = tip_scheduler()
    first = answer(scheduler, 1, QUESTION)
    second = answer(scheduler, 2, [*first.tokens, *b" and the next question"])
    assert second.cached_tokens == first.num_tokens - 1  # the last token was drawn, and never computed
    third = answer(scheduler, 3, [*second.tokens, *b" and one more"])
    assert third.cached_tokens == second.num_tokens - 1


def test_a_turn_that_is_repeated_otherwise_goes_on_behind_the_last_turn_that_is_the_same() -> None:
    scheduler = tip_scheduler()
    answer(scheduler, 1, QUESTION + "<think>", turn_tokens=len(QUESTION))
    second = answer(scheduler, 2, QUESTION + "an answer that was cut, and a question")
    assert second.cached_tokens == len(QUESTION)


def test_the_same_prompt_again_goes_on_at_its_end() -> None:
    scheduler = tip_scheduler()
    answer(scheduler, 1, QUESTION)
    assert answer(scheduler, 2, QUESTION).cached_tokens == len(QUESTION) - 1


def test_prefill_ends_where_a_state_is_kept_and_one_that_is_near_serves_for_two() -> None:
    scheduler = tip_scheduler()
    scheduler.add(make_sequence(1, "p" * 60, turn_tokens=20, max_tokens=1))
    scheduler.add(make_sequence(2, "q" * 60, turn_tokens=50, max_tokens=1))
    sizes: dict[int, list[int]] = {1: [], 2: []}
    while scheduler.has_work:
        plan, _ = step(scheduler)
        assert plan is not None
        for row in plan.rows:
            sizes[row.seq].append(len(row.tokens))
    assert sizes[1][0] == 20 and sum(sizes[1][:-1]) == 59
    assert sum(sizes[2][:-1]) == 50 and sizes[2][-1] == 10
    assert scheduler.lanes.store.match((None, None), [ord("q")] * 59).length == 50


def test_a_third_prompt_begins_where_two_before_it_parted() -> None:
    scheduler = tip_scheduler()
    hits = [
        answer(scheduler, number, SYSTEM + tail).cached_tokens
        for number, tail in enumerate(("one asks this", "two asks that", "three asks more"), 1)
    ]
    assert hits == [0, 0, len(SYSTEM)]


def test_prompts_that_come_together_wait_for_the_state_that_they_share() -> None:
    scheduler = tip_scheduler()
    sequences = [make_sequence(number, f"{SYSTEM}{number}{number * 7}") for number in (1, 2, 3)]
    for seq in sequences:
        scheduler.add(seq)
    plan, _ = step(scheduler)
    assert plan is not None and [row.seq for row in plan.rows] == [1]
    outputs = run_to_end(scheduler)
    assert [seq.cached_tokens for seq in sequences] == [0, len(SYSTEM), len(SYSTEM)]
    assert outputs[3][-7:] == alone(f"{SYSTEM}321")[-7:]


def test_nobody_waits_for_a_state_that_is_past_or_that_a_lower_priority_computes() -> None:
    scheduler = tip_scheduler()
    scheduler.add(make_sequence(1, SYSTEM + "first", max_tokens=50))
    for _ in range(4):
        step(scheduler)
    scheduler.add(make_sequence(2, SYSTEM + "2"))
    plan, _ = step(scheduler)
    assert plan is not None and [row.seq for row in plan.rows] == [1, 2]
    run_to_end(scheduler)
    scheduler.add(make_sequence(3, "S" * 2000, priority=9, max_tokens=1))
    step(scheduler)
    scheduler.add(make_sequence(4, "S" * 2000, priority=0, max_tokens=1))
    plan, _ = step(scheduler)
    assert plan is not None and 4 in [row.seq for row in plan.rows]


def test_samples_of_one_prompt_compute_it_once() -> None:
    scheduler = tip_scheduler()
    sequences = [make_sequence(number, QUESTION) for number in (1, 2, 3)]
    for seq in sequences:
        scheduler.add(seq)
    assert set(map(tuple, run_to_end(scheduler).values())) == {tuple(alone(QUESTION))}
    assert [seq.cached_tokens for seq in sequences] == [0, *[len(QUESTION) - 1] * 2]


def test_who_waits_for_a_state_goes_on_when_its_computer_is_cancelled() -> None:
    scheduler = tip_scheduler(max_batch_tokens=16)
    first = make_sequence(1, SYSTEM + "1")
    scheduler.add(first)
    scheduler.add(make_sequence(2, SYSTEM + "2"))
    step(scheduler)
    scheduler.finish(first)
    assert run_to_end(scheduler)[2] == alone(SYSTEM + "2")


def test_a_preempted_sequence_goes_on_from_its_state() -> None:
    prompts = {1: "a first prompt, to be sure", 2: "another prompt, not like it"}
    scheduler = tip_scheduler(kv_tokens=64)
    for number, prompt in prompts.items():
        scheduler.add(make_sequence(number, prompt, max_tokens=20))
    computed = 0
    outputs: dict[int, list[int]] = {1: [], 2: []}
    while scheduler.has_work:
        plan, gained = step(scheduler)
        computed += plan.num_tokens if plan is not None else 0
        for output in gained:
            outputs[output.seq.id] += output.tokens
    assert scheduler.totals.preemptions >= 1
    assert computed == sum(len(prompt) + 19 for prompt in prompts.values())  # nothing was computed twice
    assert outputs == {number: alone(prompt, max_tokens=20) for number, prompt in prompts.items()}


def test_a_finished_lane_is_free_at_once() -> None:
    scheduler = tip_scheduler()
    answer(scheduler, 1, QUESTION)
    assert scheduler.lanes.num_idle == 0 and scheduler.lanes.used_tokens == 0
    assert scheduler.lanes.store.used_bytes > 0


def test_prompt_logprobs_and_other_salts_take_no_hit() -> None:
    scheduler = tip_scheduler()
    answer(scheduler, 1, QUESTION)
    assert answer(scheduler, 2, QUESTION, prompt_logprobs=0).cached_tokens == 0
    assert answer(scheduler, 3, QUESTION, cache_salt="other").cached_tokens == 0


def test_states_too_short_to_be_worth_it_are_not_kept() -> None:
    scheduler = tip_scheduler()
    answer(scheduler, 1, "short", max_tokens=4)
    assert scheduler.lanes.store.used_bytes == 0


def test_without_room_or_leave_for_states_nothing_is_kept() -> None:
    for limits in ({"offload_bytes": 0}, {"prefix_cache": False}):
        scheduler = tip_scheduler(**limits)
        for number in (1, 2):
            assert answer(scheduler, number, QUESTION).cached_tokens == 0
        assert scheduler.lanes.store.used_bytes == 0


def test_forgetting_prefixes_forgets_states() -> None:
    scheduler = tip_scheduler()
    answer(scheduler, 1, QUESTION)
    scheduler.lanes.forget_prefixes()
    assert answer(scheduler, 2, QUESTION).cached_tokens == 0
