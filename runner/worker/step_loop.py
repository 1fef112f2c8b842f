"""The engine's thread for step engines: take what came in, plan, step, commit, report. All events of a step
leave in one frame, the worker's stats last; short steps share one (`outbox.py`).

A stop text is found here and not by the scheduler, which knows tokens only. An engine that raises is broken:
every request fails and the worker ends, to be started anew.
"""

import logging
import queue
from collections.abc import Callable
from collections.abc import Sequence as List
from typing import NamedTuple

from backends.contract import EngineError, EngineInfo, StepEngine
from runner.errors import WireError
from runner.wire.messages import CallFailed, Done, FromWorker, SchedulerLimits, WorkerStats
from runner.worker import answers
from runner.worker.answers import Sender
from runner.worker.embedding import Embedding
from runner.worker.jobs import Job
from runner.worker.outbox import HELD_S, Outbox
from runner.worker.prompt_cache import PromptCache
from runner.worker.scheduler import MOVED_TOKENS, Output, Scheduler, keeps_snapshots
from runner.worker.sequence import Phase, Sequence
from runner.worker.turned_away import waited_too_long

logger = logging.getLogger(__name__)

EMBED_SHARE = 4
"""Beside running streams, embeddings get one part in so many of a step's tokens."""

CLOSING_S = 4.0
"""So long the disk may take for what it still is to have when the worker ends; the server waits a little longer."""


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
        self._inbox: queue.SimpleQueue[Callable[[], List[FromWorker]]] = queue.SimpleQueue()
        self.scheduler = Scheduler(engine, info, limits, prompts=self._prompts(info, limits))
        self.num_lanes = min(limits.max_lanes, info.lanes)
        self._engine = engine
        self._sender = sender
        self._outbox = Outbox(sender, clock=clock)
        self._clock = clock
        self._members: dict[int, Member] = {}
        self._calls: dict[int, List[Sequence]] = {}  # those in the inbox too
        self._embeds: dict[int, Embedding] = {}
        self._embed_tokens = limits.max_batch_tokens
        self._is_stopping = False
        self._failure: WireError | None = None
        self._last_step = (0.0, 0, 0)
        self._step_s = 0.0
        self._is_decode = False  # the last step carried no prefill

    @property
    def is_broken(self) -> bool:
        """The engine raised: the process is about to end."""
        return self._failure is not None

    @property
    def num_sequences(self) -> int:
        """Sequences not yet finished, running, waiting or still in the inbox."""
        calls = self._calls.copy().values()
        return sum(seq.phase is not Phase.FINISHED for sequences in calls for seq in sequences)

    def num_waiting(self, level: int) -> int:
        """Those of a priority level that are waiting or still in the inbox."""
        calls = self._calls.copy().values()
        return sum(
            seq.phase is Phase.WAITING and seq.priority == level for sequences in calls for seq in sequences
        )

    @property
    def num_embeds(self) -> int:
        """Calls for vectors that the loop has taken and not yet answered."""
        return len(self._embeds)

    def submit(self, job: Job, sequences: List[Sequence]) -> None:
        self._calls[job.call] = sequences
        self._inbox.put(lambda: self._submit(job, sequences))
        if self._failure is not None:
            # `run` may have looked for the last time.
            answers.fail_calls(self._calls, self._failure, self._sender)

    def cancel(self, call: int) -> None:
        self._inbox.put(lambda: self._cancel(call))

    def embed(self, call: int, batch: List[List[int]], *, dimensions: int | None = None) -> None:
        embedding = Embedding(call, batch, dimensions=dimensions)
        self._inbox.put(lambda: self._take_embed(embedding))

    def reset_cache(self, call: int) -> None:
        self._inbox.put(lambda: self._reset_cache(call))

    def stop(self) -> None:
        self._inbox.put(self._stop)

    def run(self) -> bool:
        """Serve until `stop`. False where the engine broke: it is logged, and every call has failed."""
        try:
            while not self._is_stopping:
                messages = [*self._take_inbox(), *self._expire()]
                # A piece each turn, and answered before the step: vectors must neither wait nor hold streams up.
                if self._embeds:
                    self._outbox.put(self._embed_piece(), may_wait=False)
                messages += self._step()
                # A first token never waits: it comes from a step with prefill.
                self._outbox.put([*messages, self._stats()], may_wait=self._is_decode)
        except Exception as error:
            logger.exception("the engine failed")
            self._failure = answers.broken_error(error).to_wire()
            self._outbox.flush()
            answers.fail_calls(self._calls, self._failure, self._sender)
        else:
            self._outbox.flush()
            self.scheduler.lanes.close(CLOSING_S)
        return not self.is_broken

    def warm_up(self, job: Job, sequences: List[Sequence]) -> None:
        """Run one job to its end without reporting it. Raises EngineError where it fails."""
        self._calls[job.call] = sequences
        self._submit(job, sequences)
        while self._calls:
            for message in self._step():
                if isinstance(message, CallFailed):
                    raise EngineError(f"the warm-up request failed: {message.error.message}")

    def _prompts(self, info: EngineInfo, limits: SchedulerLimits) -> PromptCache | None:
        """The prompts on disk, where the engine wants that. Raises EngineError."""
        if info.prompt_cache is None:
            return None
        if not limits.prefix_cache or info.prefix == "none":
            logger.warning("the prompt cache has no effect: %s", _no_prefixes(limits))
            return None
        return PromptCache(
            info.prompt_cache,
            takes_snapshots=keeps_snapshots(info, limits),
            # Whoever waits for messages has a look at what else there is to write.
            caught_up=lambda: self._inbox.put(lambda: ()),
        )

    def _take_inbox(self) -> list[FromWorker]:
        messages: list[FromWorker] = []
        is_idle = not self.scheduler.has_work and not self._embeds
        if is_idle:
            self._outbox.flush()
        wait = is_idle and not self.scheduler.lanes.write_back(MOVED_TOKENS)
        while True:
            try:
                act = self._inbox.get(block=wait)
            except queue.Empty:
                return messages
            messages += act()
            wait = False

    def _submit(self, job: Job, sequences: List[Sequence]) -> List[FromWorker]:
        for index, seq in enumerate(sequences):
            self._members[seq.id] = Member(job, index)
            self.scheduler.add(seq)
        return ()

    def _cancel(self, call: int) -> List[FromWorker]:
        self._embeds.pop(call, None)
        self._forget(call)
        return ()

    def _take_embed(self, embedding: Embedding) -> List[FromWorker]:
        self._embeds[embedding.call] = embedding
        return ()

    def _embed_piece(self) -> List[FromWorker]:
        self._outbox.flush()
        embedding = self._embeds.pop(next(iter(self._embeds)))
        share = EMBED_SHARE if self.scheduler.has_work else 1
        answer = embedding.compute(self._engine, most_tokens=self._embed_tokens // share)
        if answer is None:
            self._embeds[embedding.call] = embedding  # behind the others
            return ()
        return (answer,)

    def _reset_cache(self, call: int) -> List[FromWorker]:
        self.scheduler.lanes.forget_prefixes()
        return (Done(call),)

    def _stop(self) -> List[FromWorker]:
        self._is_stopping = True
        return ()

    def _step(self) -> list[FromWorker]:
        plan = self.scheduler.plan(self._clock())
        outputs = self.scheduler.take_failures()
        if plan is not None:
            self._is_decode = plan.num_tokens == len(plan.rows)
            if not (self._is_decode and self._step_s < HELD_S):
                self._outbox.flush()  # this step may be long
            began = self._clock()
            result = self._engine.step(plan)
            elapsed_s = self._step_s = self._clock() - began
            outputs += self.scheduler.commit(plan, result, elapsed_s=elapsed_s)
            if result.fit:
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
            return (job.fail(output.error),)
        if index == 0 and seq.first_planned_at is not None:
            job.cached_tokens = seq.cached_tokens
            job.queue_s = seq.first_planned_at - seq.submitted_at
        messages: list[FromWorker] = []
        # One by one, as a stop text among several tokens ends the answer before the others.
        for part in output.parts():
            messages += job.feed(
                index,
                part.tokens,
                logprobs=part.logprobs,
                prompt_logprobs=part.prompt_logprobs,
                finish=part.finish,
                stop_token_ids=seq.limits.stop_token_ids,
            )
            if job.samples[index].is_finished:
                break
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
            if seq.limits.is_delayable:
                self.scheduler.delay(seq, self._clock())
            elif member is not None and not self._has_begun(member.job.call):
                messages.append(member.job.fail(waited_too_long()))
                self._forget(member.job.call)
        return messages

    def _has_begun(self, call: int) -> bool:
        return any(seq.first_planned_at is not None for seq in self._calls[call])

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
            offloaded_bytes=scheduler.lanes.store.used_bytes,
            guessed_tokens_total=totals.guessed_tokens,
            right_guesses_total=totals.right_guesses,
        )


def _no_prefixes(limits: SchedulerLimits) -> str:
    if not limits.prefix_cache:
        return "scheduler.prefix_cache is false"
    return "this model's states cannot be kept"
