"""The engine's thread for step engines: take what came in, plan, step, commit, report. All events of a step
leave in one frame.

A stop text is found here and not by the scheduler, which knows tokens only. An engine that raises is broken:
every request fails and the worker ends, to be started anew.
"""

import logging
import queue
from collections.abc import Callable
from collections.abc import Sequence as List
from typing import NamedTuple, Protocol

from backends.contract import EngineError, EngineInfo, StepEngine, UnsupportedError
from runner.errors import DeadlineExceeded, GenerationFailed, UnsupportedFeature
from runner.wire.messages import (
    CallFailed,
    Done,
    Dropped,
    Embedded,
    FromWorker,
    SchedulerLimits,
    WorkerStats,
)
from runner.worker.jobs import Job
from runner.worker.scheduler import Output, Scheduler
from runner.worker.sequence import Sequence

logger = logging.getLogger(__name__)


class Sender(Protocol):
    """Where frames go."""

    def send(self, messages: List[FromWorker]) -> None: ...


class Member(NamedTuple):
    """Which sample of which job a sequence is."""

    job: Job
    sample: int


class StepLoop:
    """Owns the scheduler. The public methods but `run` and `warm_up` may be called from any thread."""

    def __init__(
        self,
        engine: StepEngine,
        info: EngineInfo,
        limits: SchedulerLimits,
        *,
        sender: Sender,
        clock: Callable[[], float],
    ) -> None:
        self.scheduler = Scheduler(engine, info, limits)
        self._engine = engine
        self._info = info
        self._sender = sender
        self._clock = clock
        self._inbox: queue.SimpleQueue[Callable[[], List[FromWorker]]] = queue.SimpleQueue()
        self._members: dict[int, Member] = {}
        self._calls: dict[int, list[Sequence]] = {}
        self._is_stopping = False
        self.is_broken = False  # the engine raised: the process is about to end
        self._last_step = (0.0, 0, 0)

    @property
    def queue_length(self) -> int:
        """Sequences that wait for a lane, roughly: another thread may be changing it."""
        return len(self.scheduler.waiting) + self._inbox.qsize()

    def submit(self, job: Job, sequences: List[Sequence]) -> None:
        self._inbox.put(lambda: self._submit(job, sequences))

    def cancel(self, call: int) -> None:
        self._inbox.put(lambda: self._cancel(call))

    def embed(self, call: int, batch: List[List[int]]) -> None:
        self._inbox.put(lambda: self._embed(call, batch))

    def reset_cache(self, call: int) -> None:
        self._inbox.put(lambda: self._reset_cache(call))

    def stop(self) -> None:
        self._inbox.put(self._stop)

    def run(self) -> None:
        """Serve until `stop`. Raises what the engine raised, after failing every request."""
        try:
            while not self._is_stopping:
                messages = [*self._take_inbox(), *self._expire()]
                messages += self._step()
                if messages:
                    messages.append(self._stats())
                self._sender.send(messages)
        except Exception as error:
            logger.exception("the engine failed")
            self.is_broken = True
            failed = GenerationFailed(f"the engine failed: {error or type(error).__name__}").to_wire()
            self._sender.send([CallFailed(call, failed) for call in self._calls])
            raise

    def warm_up(self, job: Job, sequences: List[Sequence]) -> None:
        """Run one job to its end without reporting it. Raises EngineError where it fails."""
        self._submit(job, sequences)
        while self._calls:
            for message in self._step():
                if isinstance(message, CallFailed):
                    raise EngineError(f"the warm-up request failed: {message.error.message}")

    def _take_inbox(self) -> list[FromWorker]:
        messages: list[FromWorker] = []
        wait = not self.scheduler.has_work
        while True:
            try:
                act = self._inbox.get(block=wait)
            except queue.Empty:
                return messages
            messages += act()
            wait = False

    def _submit(self, job: Job, sequences: List[Sequence]) -> List[FromWorker]:
        self._calls[job.call] = list(sequences)
        for index, seq in enumerate(sequences):
            self._members[seq.id] = Member(job, index)
            self.scheduler.add(seq)
        return ()

    def _cancel(self, call: int) -> List[FromWorker]:
        self._forget(call)
        return (Dropped(call),)

    def _embed(self, call: int, batch: List[List[int]]) -> List[FromWorker]:
        try:
            vectors = self._engine.embed(batch)
        except UnsupportedError as error:
            return (CallFailed(call, UnsupportedFeature(str(error)).to_wire()),)
        return (Embedded(call, tuple(map(tuple, vectors)), sum(map(len, batch))),)

    def _reset_cache(self, call: int) -> List[FromWorker]:
        self.scheduler.lanes.evict_all()
        return (Done(call),)

    def _stop(self) -> List[FromWorker]:
        self._is_stopping = True
        return ()

    def _step(self) -> list[FromWorker]:
        plan = self.scheduler.plan(self._clock())
        if plan is None:
            return []
        began = self._clock()
        result = self._engine.step(plan)
        elapsed_s = self._clock() - began
        outputs = self.scheduler.commit(plan, result, elapsed_s=elapsed_s)
        self._last_step = (elapsed_s, plan.num_tokens, len(plan.rows))
        messages: list[FromWorker] = []
        for output in outputs:
            messages += self._report(output)
        return messages

    def _report(self, output: Output) -> List[FromWorker]:
        seq = output.seq
        member = self._members.get(seq.id)
        if member is None:
            return ()  # a sibling's failure ended the call in this very step
        job, index = member
        if output.error is not None:
            self._forget(job.call)
            return (job.fail(GenerationFailed(output.error)),)
        if index == 0 and seq.first_planned_at is not None:
            job.cached_tokens = seq.cached_tokens
            job.queue_s = seq.first_planned_at - seq.submitted_at
        messages = job.feed(
            index,
            output.tokens,
            logprobs=output.logprobs,
            prompt_logprobs=output.prompt_logprobs,
            finish=output.finish,
            stop_token_ids=seq.limits.stop_token_ids,
        )
        if job.samples[index].is_finished:
            self.scheduler.finish(seq)
            del self._members[seq.id]
            if job.is_finished:
                del self._calls[job.call]
        return messages

    def _expire(self) -> list[FromWorker]:
        messages: list[FromWorker] = []
        for seq in self.scheduler.expired(self._clock()):
            member = self._members.get(seq.id)
            if member is not None:
                error = DeadlineExceeded(
                    "the request waited longer in the queue than scheduler.queue_timeout_s"
                )
                messages.append(member.job.fail(error))
                self._forget(member.job.call)
        return messages

    def _forget(self, call: int) -> None:
        for seq in self._calls.pop(call, ()):
            self._members.pop(seq.id, None)
            self.scheduler.finish(seq)

    def _stats(self) -> WorkerStats:
        scheduler, totals = self.scheduler, self.scheduler.totals
        step_s, step_tokens, step_rows = self._last_step
        self._last_step = (0.0, 0, 0)
        return WorkerStats(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            kv_tokens_used=scheduler.lanes.used_tokens,
            kv_tokens_total=scheduler.lanes.kv_tokens,
            lanes_cached=scheduler.lanes.num_idle,
            steps_total=totals.steps,
            preemptions_total=totals.preemptions,
            prefix_hit_tokens_total=totals.prefix_hit_tokens,
            prompt_tokens_total=totals.prompt_tokens,
            generated_tokens_total=totals.generated_tokens,
            step_s=step_s,
            step_tokens=step_tokens,
            step_rows=step_rows,
        )
