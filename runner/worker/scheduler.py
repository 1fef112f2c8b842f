"""The step scheduler: which tokens of which sequences the engine computes next.

`plan()` decides and hands out lanes, `commit()` applies what the engine gave; both run on the engine's thread.
A step has a token budget. Running streams get their one token first, then prefill fills the rest by rank, whether
it goes on or begins. Memory is booked as it is used: idle prefixes go first, then the youngest sequence is
preempted, to be restored or recomputed. As long as there is work, every plan computes something or a sequence fails.
"""

import bisect

import msgspec

from backends.contract import (
    EngineError,
    EngineInfo,
    PlanRow,
    StepEngine,
    StepPlan,
    StepResult,
    TokenLogprobs,
)
from runner.errors import GenerationFailed, RunnerError
from runner.wire.messages import SchedulerLimits
from runner.worker.answers import request_error
from runner.worker.booking import Booking
from runner.worker.drafting import WIDTHS, Drafting
from runner.worker.lanes import RESTORE_TOKENS, Lane, Lanes
from runner.worker.prefix_store import PrefixStore, Stored
from runner.worker.prompt_cache import PromptCache
from runner.worker.sequence import Phase, Sequence
from runner.worker.snapshot_store import SnapshotStore
from runner.worker.snapshots import Snapshots
from runner.worker.step_cost import StepCost

WAIT_TOKENS = 16
"""A prefix that another sequence is computing is waited for if it is this much longer than what is there."""

HEADROOM_TOKENS = 4
"""Free KV tokens per running sequence that an admission must leave, so that it does not preempt at once."""

MOVED_TOKENS = 512
"""A step may move about so many tokens' states out of the cache and as many into it: streams must not notice."""


WRITTEN_TOKENS = 128
"""The same for the disk, which is in no hurry."""


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """What one sequence gained in a step. `finish`: "stop" or "length"; `error` ends it too."""

    seq: Sequence
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] = ()
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    finish: str | None = None
    error: RunnerError | None = None

    def parts(self) -> "tuple[Output, ...]":
        """The same, token by token."""
        if len(self.tokens) < 2:
            return (self,)
        last = len(self.tokens) - 1
        return tuple(
            [
                Output(
                    seq=self.seq,
                    tokens=(token,),
                    logprobs=self.logprobs[at : at + 1],
                    prompt_logprobs=self.prompt_logprobs if at == 0 else (),
                    finish=self.finish if at == last else None,
                )
                for at, token in enumerate(self.tokens)
            ]
        )


class Totals(msgspec.Struct):
    """Counters since the start; tokens unless they say otherwise."""

    steps: int = 0
    preemptions: int = 0
    prefix_hit_tokens: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    guessed_tokens: int = 0
    right_guesses: int = 0


class Prefix(msgspec.Struct, frozen=True):
    """The best cached beginning: `available` tokens of `source`; `potential` once another sequence has them."""

    source: Lane | None
    available: int
    potential: int


class Scheduler:
    """Sequences waiting and running on one step engine."""

    def __init__(
        self,
        engine: StepEngine,
        info: EngineInfo,
        limits: SchedulerLimits,
        *,
        cost: StepCost | None = None,
        prompts: PromptCache | None = None,
    ) -> None:
        takes_snapshots = keeps_snapshots(info, limits)
        store = (SnapshotStore if takes_snapshots else PrefixStore)(limits.offload_bytes)
        self.lanes = Lanes(
            engine,
            info.lanes,
            info.kv_tokens,
            most_idle=limits.cached_lanes,
            shares_kv=info.shares_kv,
            store=store,
            prompts=prompts,
        )
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.totals = Totals()
        self._engine = engine
        self._vocabulary = info.vocabulary
        self._limits = limits
        self._max_running = min(limits.max_lanes, info.lanes)
        self._caches = limits.prefix_cache and info.prefix == "tokens"
        self._snapshots = Snapshots(self.lanes, store) if isinstance(store, SnapshotStore) else None
        self._cost = cost or StepCost()
        self._drafting = Drafting()
        self._sequences: dict[int, Sequence] = {}
        self._opened: set[int] = set()
        self._failures: list[Output] = []
        # The engine may have less room than it said: after a step that did not fit nobody is admitted until one
        # has, and where one sequence alone does not fit, its steps become smaller.
        self._is_tight = False
        self._most_tokens = limits.max_batch_tokens

    @property
    def has_work(self) -> bool:
        return bool(self._sequences)

    def add(self, seq: Sequence) -> None:
        """Queue a new sequence. One that does not fit the pool alone fails when its turn has come."""
        self._sequences[seq.id] = seq
        if self._snapshots is not None:
            self._snapshots.mark(seq)
        bisect.insort(self.waiting, seq, key=_rank)

    def finish(self, seq: Sequence, *, cache: bool = True) -> None:
        """Take `seq` out, wherever it is; its lane stays for its prefix where `cache` allows."""
        if self._sequences.pop(seq.id, None) is None:
            return
        (self.waiting if seq.phase is Phase.WAITING else self.running).remove(seq)
        self._leave_lane(seq, cache=cache)
        if seq.id in self._opened:
            self._opened.remove(seq.id)
            self._engine.close(seq.id)
        seq.phase = Phase.FINISHED

    def expired(self, now: float) -> list[Sequence]:
        """Sequences that have waited for their first lane for too long. The caller finishes or delays them."""
        return [
            seq
            for seq in self.waiting
            if seq.limits.queue_deadline is not None
            and now >= seq.limits.queue_deadline
            and seq.first_planned_at is None
        ]

    def delay(self, seq: Sequence, now: float) -> None:
        """Put the waiting `seq` behind those that came since."""
        self.waiting.remove(seq)
        seq.delay(now)
        bisect.insort(self.waiting, seq, key=_rank)

    def plan(self, now: float = 0.0) -> StepPlan | None:
        """The next step; None only when there is no work. Forks, evicts and preempts as it needs to. Sequences
        that cannot begin or go on end: look at `take_failures` afterwards."""
        while self._sequences:
            booking = self._book(now)
            is_empty = booking.is_empty
            self._bind(booking)
            if not booking.is_empty:
                self._guess(booking)
                # In the cache what is idle costs every step time: it leaves.
                self.lanes.offload(MOVED_TOKENS)
                self.lanes.write_back(WRITTEN_TOKENS)
                return booking.plan()
            if is_empty and not booking.restored and self._sequences:
                self._fail_for_want_of_room()
        return None

    def take_failures(self) -> list[Output]:
        """Sequences that ended in `plan`, nearly all of them with an error; they have left already."""
        failures, self._failures = self._failures, []
        return failures

    def commit(self, plan: StepPlan, result: StepResult, *, elapsed_s: float | None = None) -> list[Output]:
        """Apply what the engine made of `plan`; finished sequences have left when this returns."""
        if not result.fit:
            return self._relieve(plan)
        self._is_tight = False
        self._most_tokens = min(2 * self._most_tokens, self._limits.max_batch_tokens)
        self.totals.steps += 1
        outputs = []
        decodes = prefill = 0
        for row, got in zip(plan.rows, result.rows, strict=True):
            seq = self._sequences[row.seq]
            if seq.is_decoding:
                decodes += 1
            else:
                prefill += len(row.tokens)
            if got.error is not None:
                outputs.append(Output(seq=seq, error=GenerationFailed(got.error)))
                self.finish(seq, cache=False)
                continue
            assert seq.lane is not None
            self.lanes.advance(seq.lane, len(row.tokens) - row.drafts)
            if self._snapshots is not None:
                self._snapshots.keep_mark(seq)
            tokens, finish = seq.take(got.tokens)
            if row.drafts:
                self.totals.guessed_tokens += row.drafts
                self.totals.right_guesses += len(got.tokens) - 1
                self.lanes.advance(seq.lane, len(tokens) - 1, beyond=row.drafts - len(tokens) + 1)
            try:
                is_complete = seq.matcher is not None and finish != "stop" and seq.completes(tokens)
            except RunnerError as error:
                outputs.append(Output(seq=seq, error=error))
                self.finish(seq)
                continue
            if not seq.wants_output and seq.remaining == 0:
                finish = "length"
            prompt_logprobs = (
                self._new_prompt_logprobs(seq, row, got.prompt_logprobs) if got.prompt_logprobs else ()
            )
            if tokens or finish or prompt_logprobs:
                outputs.append(
                    Output(
                        seq=seq,
                        tokens=tokens,
                        logprobs=got.logprobs[: len(tokens)],
                        prompt_logprobs=prompt_logprobs,
                        finish=None if is_complete else finish,
                    )
                )
            if is_complete:
                # Apart from its last token, which is text and not what ended it.
                outputs.append(Output(seq=seq, finish="stop"))
            self.totals.generated_tokens += len(tokens)
            if finish or is_complete:
                self.finish(seq)
        self.totals.prompt_tokens += prefill
        if elapsed_s is not None:
            if plan.num_tokens == decodes + prefill:
                self._cost.record(decodes=decodes, prefill_tokens=prefill, elapsed_s=elapsed_s)
            if not prefill:
                self._drafting.record(tokens=plan.num_tokens, elapsed_s=elapsed_s)
        return outputs

    def find_prefix(self, seq: Sequence) -> Prefix:
        """The longest beginning of `seq` that some lane holds, and that a sequence before it is computing."""
        limit = seq.num_tokens - 1  # the last token is computed anew: its logits are wanted
        best = Prefix(None, 0, 0)
        if seq.prompt_logprobs is not None:
            return best
        if self._snapshots is not None:
            return Prefix(None, 0, self._snapshots.awaited(seq, self._sequences))
        if not self._caches:
            return best
        source, available, potential = None, 0, 0
        for depth, lanes in self.lanes.prefixes.match(seq.key, seq.tokens[:limit]):
            if depth <= available:
                break
            for index in lanes:
                lane = self.lanes[index]
                usable = min(depth, lane.length)
                # Among equals an idle lane is better: it can be taken over instead of copied.
                if usable > available or (usable == available > 0 and lane.is_idle):
                    source, available = lane, usable
                if lane.owner is not None and lane.length < depth and self._precedes(lane.owner, seq):
                    potential = max(potential, depth)
        return Prefix(source, available, max(potential, available))

    def check_integrity(self) -> None:
        """Raise AssertionError unless queues, sequences and lanes agree."""
        assert [*map(_rank, self.waiting)] == sorted(map(_rank, self.waiting)), "the queue is out of order"
        assert [*map(_rank, self.running)] == sorted(map(_rank, self.running)), "running is out of order"
        assert {s.id for s in (*self.waiting, *self.running)} == set(self._sequences), "a sequence is lost"
        assert len(self.running) <= self._max_running, "too many are running"
        for seq in self.waiting:
            assert seq.phase is Phase.WAITING and seq.lane is None, f"sequence {seq.id} waits with a lane"
        for seq in self.running:
            assert seq.phase is Phase.RUNNING and seq.lane is not None, (
                f"sequence {seq.id} runs without a lane"
            )
            assert seq.lane.owner == seq.id and seq.lane.tokens is seq.tokens, f"sequence {seq.id}: lane"
            assert seq.lane.length < seq.num_tokens, f"sequence {seq.id} has nothing to compute"
        owners = {s.id for s in self.running}
        assert all(
            lane.owner is None or lane.owner in owners
            for lane in map(self.lanes.__getitem__, range(len(self.lanes)))
        ), "a lane is owned by nobody"
        self.lanes.check_integrity()

    def _book(self, now: float) -> Booking:
        """One try at a plan; without rows where the first sequence does not fit."""
        booking = Booking(self._most_tokens, vocabulary=self._vocabulary)
        decoding = [seq for seq in self.running if seq.is_decoding]
        for seq in decoding:
            if seq.phase is Phase.RUNNING and booking.budget > 0 and self._make_room(seq, 1, booking):
                booking.add(seq, 1)
        if not self.waiting and len(decoding) == len(self.running):
            return booking
        if not booking.is_empty:
            newcomers = min(len(self.waiting) + len(self.running), self._max_running) - booking.tokens
            most = self._cost.prefill_tokens(booking.tokens, newcomers=newcomers)
            booking.budget = min(booking.budget, most)
        may_admit = True
        for seq in sorted((*self.waiting, *(seq for seq in self.running if not seq.is_decoding)), key=_rank):
            if booking.budget <= 0:
                return booking
            if seq.phase is Phase.WAITING and may_admit:
                may_admit = self._admit(seq, now)
            self._prefill(seq, booking, most=booking.share)
        # What is left over goes to whoever is nearest to the end of its prompt.
        for seq in sorted((seq for seq in self.running if not seq.is_decoding), key=_remaining):
            self._prefill(seq, booking, most=seq.remaining)
        return booking

    def _guess(self, booking: Booking) -> None:
        """Let a step without prefill verify guesses too, as many as are worth it."""
        asking = [seq for seq in self.running if seq.lookup is not None and booking.draws(seq)]
        if self._is_tight or not asking or booking.tokens > sum(booking.draws(seq) for seq in self.running):
            return
        guesses = [(seq, drafts) for seq in asking if (drafts := seq.guess(WIDTHS[-1]))]
        if not guesses:
            return
        choice = self._drafting.choose(
            [seq.chance for seq, _ in guesses],
            streams=booking.tokens,
            most=self._most_tokens - booking.tokens,
        )
        for seq, drafts in guesses:
            wanted = drafts[: choice.width] if seq.chance >= choice.chance else []
            if wanted and self.lanes.make_room(booking.tokens + len(wanted)):
                booking.guess(seq, wanted)

    def _bind(self, booking: Booking) -> None:
        """Give what is booked the masks of its grammars. Who has nothing left to say, or a grammar that cannot go
        on, leaves."""
        for seq in [seq for seq in self.running if seq.matcher is not None and booking.draws(seq)]:
            try:
                mask = seq.next_mask()
            except RunnerError as error:
                booking.drop(seq)
                self._fail(seq, error)
                continue
            if mask is not None:
                booking.allow(seq, mask)
                continue
            booking.drop(seq)
            self._failures.append(Output(seq=seq, finish="stop"))
            self.finish(seq)

    def _prefill(self, seq: Sequence, booking: Booking, *, most: int) -> None:
        """Book up to `most` tokens of `seq`, as budget and room allow, in place of what is booked already."""
        if seq.phase is not Phase.RUNNING or booking.budget <= 0 or booking.num_tokens(seq) >= most:
            return
        if not self._restore(seq, booking):
            return
        booking.drop(seq)
        count = min(seq.to_next_mark, most, booking.budget)
        if not self.lanes.make_room(booking.tokens + count):
            count = min(count, max(1, self.lanes.free_tokens - booking.tokens))
            if not self._make_room(seq, count, booking):
                return
        booking.add(seq, count)

    def _admit(self, seq: Sequence, now: float) -> bool:
        """Let `seq` begin if it can; False where whoever comes after it must wait too."""
        if len(self.running) >= (1 if self._is_tight else self._max_running):
            return False
        prefix, stored = self.find_prefix(seq), self._stored(seq)
        if prefix.potential >= max(prefix.available, stored.length) + WAIT_TOKENS:
            return True
        if not self._has_room(seq, prefix):
            return False
        self._start(seq, prefix, stored, now)
        return True

    def _has_room(self, seq: Sequence, prefix: Prefix) -> bool:
        new = seq.num_tokens - (prefix.available if self.lanes.shares_kv else 0)
        if not self.running:
            return self.lanes.make_room(new, keep=prefix.source) or self.lanes.make_room(new)
        promised = sum(other.remaining for other in self.running)
        return self.lanes.make_room(
            new + promised + HEADROOM_TOKENS * (len(self.running) + 1), keep=prefix.source
        )

    def _start(self, seq: Sequence, prefix: Prefix, stored: Stored, now: float) -> None:
        """Give `seq` a lane with its cached prefix in it; what is stored beyond comes back as it is prefilled. It
        fails where the engine refuses its sampling."""
        if seq.id not in self._opened:
            try:
                self._engine.open(seq.id, seq.sampling, seq.tokens[: seq.num_prompt])
            except EngineError as error:
                self._fail(seq, request_error(error))
                return
            self._opened.add(seq.id)
        source = prefix.source if prefix.source is not None and prefix.source.length else None
        kept = 0
        lane = None
        if source is None or not (source.is_idle and source.length == prefix.available):
            lane = self.lanes.acquire(seq.id, seq.key, seq.tokens, keep=source)
            if lane is not None and source is not None:
                kept = self.lanes.fork(source, lane, prefix.available)
        if lane is None:
            # Either nothing of the idle source is lost by going on in it, or it is the only lane left.
            assert source is not None and source.is_idle
            lane = source
            kept = self.lanes.take_over(source, seq.id, seq.key, seq.tokens, keep=prefix.available)
        seq.lane = lane
        seq.stored = stored
        seq.phase = Phase.RUNNING
        self.waiting.remove(seq)
        bisect.insort(self.running, seq, key=_rank)
        if seq.first_planned_at is None:
            seq.first_planned_at = now
            seq.cached_tokens = kept
            self.totals.prefix_hit_tokens += kept

    def _restore(self, seq: Sequence, booking: Booking) -> bool:
        """Bring back what is stored of `seq`; False where more of it is to come in the next step."""
        if seq.stored is None or seq.lane is None:
            return True
        before = seq.num_computed
        moved = self.lanes.restore(seq.lane, seq.stored, MOVED_TOKENS - booking.restored)
        booking.restored += moved
        if not seq.was_preempted:
            seq.cached_tokens += seq.num_computed - before
            self.totals.prefix_hit_tokens += seq.num_computed - before
        if booking.restored >= MOVED_TOKENS and seq.num_computed + RESTORE_TOKENS <= seq.stored.length:
            return False
        seq.stored = None
        return True

    def _stored(self, seq: Sequence) -> Stored:
        """The beginning of `seq` that is kept outside of the cache."""
        if seq.prompt_logprobs is not None:
            return Stored((), 0)
        return self.lanes.stored(seq.key, seq.tokens[: seq.num_tokens - 1])

    def _make_room(self, seq: Sequence, count: int, booking: Booking) -> bool:
        """Room for `count` more tokens of `seq`, at the cost of idle lanes, then of younger sequences, then of
        `seq` itself (which is then waiting, and the answer False)."""
        while not self.lanes.make_room(booking.tokens + count):
            victim = self.running[-1]
            if victim is seq and len(self.running) == 1:
                return False
            self._preempt(victim, booking)
            if victim is seq:
                return False
        return True

    def _preempt(self, seq: Sequence, booking: Booking | None = None) -> None:
        if booking is not None:
            booking.drop(seq)
        self.totals.preemptions += 1
        self.running.remove(seq)
        lane = seq.lane
        self._leave_lane(seq, cache=True)
        if lane is not None and lane.is_idle:
            self.lanes.evict(lane)
        seq.phase = Phase.WAITING
        seq.was_preempted = True
        bisect.insort(self.waiting, seq, key=_rank)

    def _relieve(self, plan: StepPlan) -> list[Output]:
        """The engine had no room after all: give it some, so that the next plan is smaller."""
        self._is_tight = True
        if any(row.drafts for row in plan.rows):
            return []  # the next plan has none
        if self.lanes.evict_all():
            return []
        if len(self.running) > 1:
            self._preempt(self.running[-1])
            return []
        if plan.num_tokens > 1:
            self._most_tokens = plan.num_tokens // 2
            return []
        self._fail_for_want_of_room()
        return self.take_failures()

    def _fail_for_want_of_room(self) -> None:
        """Whoever is first has all there is, and it is too little."""
        seq = (self.running or self.waiting)[0]
        message = (
            f"the engine has no room for {seq.num_tokens} tokens in a KV pool of {self.lanes.kv_tokens}; "
            "raise scheduler.kv_tokens or shorten the prompt"
        )
        self._fail(seq, GenerationFailed(message))

    def _fail(self, seq: Sequence, error: RunnerError) -> None:
        self._failures.append(Output(seq=seq, error=error))
        self.finish(seq, cache=False)

    def _precedes(self, owner: int, seq: Sequence) -> bool:
        return self._sequences[owner].rank < seq.rank

    def _leave_lane(self, seq: Sequence, *, cache: bool) -> None:
        if seq.lane is not None:
            if cache and self._snapshots is not None:
                self._snapshots.keep_end(seq)
            self.lanes.release(seq.lane, cache=cache and self._caches, to_disk=self._to_disk(seq))
            seq.lane = None

    def _to_disk(self, seq: Sequence) -> int:
        """How many tokens of `seq`, which is done, the disk is to have. What has a salt is nobody else's business."""
        prompts = self.lanes.prompts
        if prompts is None or prompts.is_read_only or seq.cache_salt is not None:
            return 0
        return seq.num_computed if prompts.whole_texts else min(seq.num_computed, seq.num_prompt)

    def _new_prompt_logprobs(
        self, seq: Sequence, row: PlanRow, got: tuple[TokenLogprobs, ...]
    ) -> tuple[TokenLogprobs, ...]:
        """Those not sent before: after preemption the prompt is computed again."""
        wanted = got[: max(0, seq.num_prompt - 1 - row.start)]
        new = wanted[max(0, seq.prompt_logprobs_sent - row.start) :]
        seq.prompt_logprobs_sent = max(seq.prompt_logprobs_sent, row.start + len(wanted))
        return new


def keeps_snapshots(info: EngineInfo, limits: SchedulerLimits) -> bool:
    """Whether prefixes are whole states here, in memory or on disk."""
    has_place = limits.offload_bytes > 0 or info.prompt_cache is not None
    return limits.prefix_cache and info.prefix == "tip" and has_place


def _remaining(seq: Sequence) -> int:
    return seq.remaining


def _rank(seq: Sequence) -> tuple[float, int]:
    return seq.rank
