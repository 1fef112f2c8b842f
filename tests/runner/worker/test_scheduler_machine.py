"""Scheduler, lanes and prefix index under arbitrary histories: invariants hold, and nobody's answer changes."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from backends.contract import ResultRow, StepResult
from runner.worker.prefix_store import PrefixStore
from runner.worker.sequence import Sequence
from tests.support import make_scheduler, make_sequence, step

PROMPTS = st.one_of(
    st.text("ab", min_size=1, max_size=12),
    st.builds(lambda tail: "a shared beginning " + tail, st.text("xy", min_size=1, max_size=14)),
)
KV_TOKENS = 72
LONGEST_TURN = 40
MOST_STEPS = 400  # 40 sequences of 40 tokens at most, recomputed now and then


class SchedulerMachine(RuleBasedStateMachine):
    """A small pool and few lanes, so that eviction, preemption and waiting happen all the time."""

    prefix = "tokens"

    def __init__(self) -> None:
        super().__init__()
        self.sequences: dict[int, Sequence] = {}
        self.prompts: dict[int, tuple[str | list[int], int]] = {}
        self.finished: list[list[int]] = []
        self.outputs: dict[int, list[int]] = {}
        self.next_id = 1

    @initialize(offload_tokens=st.sampled_from([0, 30, 1000]), block_tokens=st.sampled_from([1, 4, 128]))
    def begin(self, offload_tokens: int, block_tokens: int) -> None:
        bytes_per_token = 4  # echo's
        self.scheduler = make_scheduler(
            lanes=6,
            kv_tokens=KV_TOKENS,
            options={"prefix": self.prefix},
            max_lanes=4,
            max_batch_tokens=16,
            offload_bytes=bytes_per_token * offload_tokens,
        )
        self.engine = self.scheduler.engine  # type: ignore[attr-defined]
        if isinstance(self.scheduler.lanes.store, PrefixStore):
            self.scheduler.lanes.store.block_tokens = block_tokens

    @rule(
        prompt=PROMPTS,
        max_tokens=st.integers(1, 14),
        priority=st.integers(1, 3),
        age_s=st.sampled_from([0.0, 20.0, 40.0]),
        salt=st.sampled_from([None, None, "s"]),
        turn_tokens=st.sampled_from([0, 17, 20, 24]),
    )
    def add(
        self,
        prompt: str,
        max_tokens: int,
        *,
        priority: int,
        age_s: float,
        salt: str | None,
        turn_tokens: int,
    ) -> None:
        given = {"priority": priority, "submitted_at": -age_s, "cache_salt": salt}
        self._add(prompt, max_tokens, turn_tokens=min(turn_tokens, len(prompt) - 1), **given)

    @precondition(lambda self: self.finished)
    @rule(data=st.data(), tail=st.text("xy", max_size=4), max_tokens=st.integers(1, 14))
    def follow_up(self, data: st.DataObject, tail: str, max_tokens: int) -> None:
        """The next turn repeats a prompt and its answer."""
        text = data.draw(st.sampled_from(self.finished))
        self._add([*text, *tail.encode()], max_tokens, turn_tokens=len(text))

    def _add(self, prompt: str | list[int], max_tokens: int, **given: Any) -> None:
        number, self.next_id = self.next_id, self.next_id + 1
        sequence = make_sequence(number, prompt, max_tokens=max_tokens, **given)
        self.sequences[number] = sequence
        self.prompts[number] = (prompt, max_tokens)
        self.outputs[number] = []
        self.scheduler.add(sequence)

    @precondition(lambda self: self.scheduler.has_work)
    @rule(steps=st.integers(1, 6), elapsed_s=st.sampled_from([None, 0.01, 0.2]))
    def step(self, steps: int, elapsed_s: float | None) -> None:
        for _ in range(steps):
            plan = self.scheduler.plan()
            self.scheduler.check_integrity()
            if plan is None:
                assert not self.scheduler.has_work, "work is left, but nothing is planned"
                return
            assert plan.num_tokens <= 16
            assert [row.seq for row in plan.rows], "an empty plan"
            result = self.engine.step(plan)
            assert result.fit, "a plan was over the pool"
            for output in self.scheduler.commit(plan, result, elapsed_s=elapsed_s):
                assert output.error is None
                self.outputs[output.seq.id] += output.tokens
                if output.finish:
                    self._check(output.seq.id)

    @precondition(lambda self: self.sequences)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.sequences)))
        self.scheduler.finish(self.sequences.pop(number))

    @precondition(lambda self: self.scheduler.has_work)
    @rule(times=st.integers(1, 12))
    def does_not_fit(self, times: int) -> None:
        """An engine that has less room than it said, for a while. Whoever is alone may fail, nobody else."""
        for _ in range(times):
            plan = self.scheduler.plan()
            if plan is None:
                return
            running = len(self.scheduler.running)
            for output in self.scheduler.commit(plan, StepResult(fit=False)):
                assert output.error is not None and running == 1 and plan.num_tokens == 1
                self.sequences.pop(output.seq.id)
            self.scheduler.check_integrity()

    @precondition(lambda self: self.scheduler.has_work)
    @rule()
    def a_row_fails(self) -> None:
        plan = self.scheduler.plan()
        if plan is None:
            return
        result = self.engine.step(plan)
        broken = ResultRow(seq=plan.rows[0].seq, error="broken")
        for output in self.scheduler.commit(plan, StepResult(rows=(broken, *result.rows[1:]))):
            self.outputs[output.seq.id] += output.tokens
            if output.error is not None:
                self.sequences.pop(output.seq.id)
            elif output.finish:
                self._check(output.seq.id)

    @precondition(lambda self: self.scheduler.waiting)
    @rule(data=st.data())
    def delay(self, data: st.DataObject) -> None:
        self.scheduler.delay(data.draw(st.sampled_from(self.scheduler.waiting)), 0.0)

    @rule(store_too=st.booleans())
    def reset_cache(self, store_too: bool) -> None:
        if store_too:
            self.scheduler.lanes.forget_prefixes()
        else:
            self.scheduler.lanes.evict_all()

    @invariant()
    def is_whole(self) -> None:
        self.scheduler.check_integrity()

    def teardown(self) -> None:
        for _ in range(MOST_STEPS):
            _, outputs = step(self.scheduler)
            for output in outputs:
                assert output.error is None
                self.outputs[output.seq.id] += output.tokens
        assert not self.scheduler.has_work, "the scheduler does not come to an end"
        for number in list(self.sequences):
            self._check(number)

    def _check(self, number: int) -> None:
        tokens = self.sequences.pop(number).tokens
        if len(tokens) <= LONGEST_TURN:
            self.finished.append(tokens)
        prompt, max_tokens = self.prompts[number]
        alone = make_scheduler(lanes=1, kv_tokens=KV_TOKENS, max_lanes=1)
        alone.add(make_sequence(1, prompt, max_tokens=max_tokens))
        said: list[int] = []
        while alone.has_work:
            said += [token for output in step(alone)[1] for token in output.tokens]
        assert self.outputs[number] == said, f"sequence {number} said something else"


class SnapshotMachine(SchedulerMachine):
    """The same over an engine whose states cannot be cut."""

    prefix = "tip"


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestSnapshots = SnapshotMachine.TestCase
TestSnapshots.settings = TestScheduler.settings
