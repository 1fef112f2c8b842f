"""The engine's thread for stream engines: an event loop with one task per sample. Reports as the step loop does,
but cannot plan: the engine batches by itself. What is more than it runs at once waits here.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from collections.abc import Sequence as List
from typing import Any, NamedTuple

from backends.contract import EngineError, EngineInfo, EngineRequest, StreamEngine
from runner.errors import RunnerError, WireError
from runner.wire.messages import Done, FromWorker, SchedulerLimits, WorkerStats
from runner.worker import answers
from runner.worker.answers import Sender
from runner.worker.embedding import Embedding
from runner.worker.jobs import Job
from runner.worker.turned_away import waited_too_long
from runner.worker.turns import Place, Turns

logger = logging.getLogger(__name__)


class Serving(NamedTuple):
    """A call, and the places of its samples."""

    job: Job
    places: List[Place]


class StreamLoop:
    """One task per call; its samples are tasks of a group. The public methods but `run` and `warm_up` may be
    called from any thread."""

    def __init__(
        self, engine: StreamEngine, info: EngineInfo, limits: SchedulerLimits, *, sender: Sender
    ) -> None:
        self.num_lanes = min(limits.max_lanes, info.lanes)
        self._engine = engine
        self._sender = sender
        self._limits = limits
        self._loop = asyncio.new_event_loop()
        self._turns = Turns(self.num_lanes, self._loop)
        self._calls: dict[int, Serving] = {}  # those whose task is not yet made too
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._embeds: set[int] = set()
        self._stopped = asyncio.Event()
        self._failure: WireError | None = None
        self._prompt_tokens = 0
        self._generated_tokens = 0
        self._outbox = Outbox(self._loop, sender, stats=self._stats)

    @property
    def is_broken(self) -> bool:
        """The engine raised: the process is about to end."""
        return self._failure is not None

    @property
    def num_sequences(self) -> int:
        """Sequences not yet finished, running or waiting."""
        calls = self._calls.copy().values()
        return sum(not sample.is_finished for call in calls for sample in call.job.samples)

    def num_waiting(self, level: int) -> int:
        """Those of a priority level whose turn has not come."""
        calls = self._calls.copy().values()
        return sum(place.is_waiting and place.level == level for call in calls for place in call.places)

    @property
    def num_embeds(self) -> int:
        """Calls for vectors that the loop has taken and not yet answered."""
        return len(self._embeds)

    def submit(self, job: Job, requests: List[EngineRequest]) -> None:
        serving = self._calls[job.call] = self._serving(job)
        self._loop.call_soon_threadsafe(self._submit, serving, requests)
        if self._failure is not None:
            # `run` may have looked for the last time.
            answers.fail_calls(self._calls, self._failure, self._sender)

    def cancel(self, call: int) -> None:
        self._loop.call_soon_threadsafe(self._cancel, call)

    def embed(self, call: int, batch: List[List[int]], *, dimensions: int | None = None) -> None:
        embedding = Embedding(call, batch, dimensions=dimensions)
        self._loop.call_soon_threadsafe(self._take_embed, embedding)

    def reset_cache(self, call: int) -> None:
        self._loop.call_soon_threadsafe(self._take_reset, call)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)

    def run(self) -> bool:
        """Serve until `stop`. False where the engine broke: it is logged, and every call has failed."""
        self._loop.run_until_complete(self._run())
        return not self.is_broken

    def warm_up(self, job: Job, requests: List[EngineRequest]) -> None:
        """Run one job to its end without reporting it. Raises EngineError where it fails."""
        self._loop.run_until_complete(self._generate(self._serving(job), requests, _Nowhere()))

    async def _run(self) -> None:
        await self._stopped.wait()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._outbox.flush()

    def _serving(self, job: Job) -> Serving:
        level = job.request.priority
        queue = self._limits.queue(level)
        timeout_s = queue.timeout_for(job.request.queue_timeout_s)
        delays = queue.timeout_action == "delay"
        places = [
            self._turns.place(level, timeout_s=timeout_s, is_delayable=delays) for _ in range(job.request.n)
        ]
        return Serving(job, places)

    def _submit(self, serving: Serving, requests: List[EngineRequest]) -> None:
        if not self._stopped.is_set():
            self._start(serving.job.call, self._serve(serving, requests))

    def _start(self, call: int, work: Coroutine[Any, Any, None]) -> None:
        task = self._tasks[call] = self._loop.create_task(work)
        # Not a `finally` in the task: one that is cancelled before it has begun runs nothing of it.
        task.add_done_callback(lambda _: self._leave(call))

    def _leave(self, call: int) -> None:
        del self._tasks[call]
        self._calls.pop(call, None)
        self._embeds.discard(call)
        self._outbox.send([])

    def _cancel(self, call: int) -> None:
        if call in self._tasks:
            self._tasks[call].cancel()

    def _take_embed(self, embedding: Embedding) -> None:
        if not self._stopped.is_set():
            self._embeds.add(embedding.call)
            self._start(embedding.call, self._embed(embedding))

    def _take_reset(self, call: int) -> None:
        if not self._stopped.is_set():
            self._start(call, self._reset(call))

    async def _reset(self, call: int) -> None:
        try:
            await self._engine.reset_cache()
            self._outbox.send([Done(call)])
        except Exception as error:
            self._break(error)

    async def _embed(self, embedding: Embedding) -> None:
        """A piece in each turn of the event loop, so that what streams goes on."""
        try:
            answer = None
            while answer is None:
                answer = embedding.compute(self._engine)
                await asyncio.sleep(0)
            self._outbox.send([answer])
        except Exception as error:
            self._break(error)

    def _break(self, error: Exception) -> None:
        logger.error("the engine failed", exc_info=error)
        self._failure = answers.broken_error(error).to_wire()
        self._outbox.flush()
        answers.fail_calls(self._calls, self._failure, self._sender)
        self._stopped.set()

    async def _serve(self, serving: Serving, requests: List[EngineRequest]) -> None:
        job = serving.job
        try:
            await self._generate(serving, requests, self._outbox)
        except RunnerError as error:
            self._outbox.send([job.fail(error)])
        except EngineError as error:
            self._outbox.send([job.fail(answers.request_error(error))])
        except Exception as error:
            self._break(error)
        finally:
            self._prompt_tokens += job.prompt_tokens  # which a text_only engine tells with its answer

    async def _generate(self, serving: Serving, requests: List[EngineRequest], sender: Sender) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for index, request in enumerate(requests):
                    group.create_task(self._in_turn(serving, index, request, sender))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _in_turn(self, serving: Serving, index: int, request: EngineRequest, sender: Sender) -> None:
        place = serving.places[index]
        try:
            await self._turns.take(place)
        except TimeoutError:
            raise waited_too_long() from None
        try:
            for sibling in serving.places:
                sibling.deadline = None  # the call has begun
            if index == 0:
                serving.job.queue_s = self._loop.time() - place.submitted_at
            await self._sample(serving.job, index, request, sender)
        finally:
            self._turns.give_back()

    async def _sample(self, job: Job, index: int, request: EngineRequest, sender: Sender) -> None:
        async with contextlib.aclosing(self._engine.generate(request)) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                self._generated_tokens += len(chunk.tokens) + chunk.num_tokens
                if index == 0 and chunk.cached_tokens is not None:
                    job.cached_tokens = chunk.cached_tokens
                if chunk.prompt_tokens is not None:
                    job.prompt_tokens = chunk.prompt_tokens
                messages = job.feed(
                    index,
                    chunk.tokens,
                    logprobs=chunk.logprobs,
                    prompt_logprobs=chunk.prompt_logprobs,
                    finish=chunk.finish,
                    text=chunk.text,
                    num_text_tokens=chunk.num_tokens,
                    stop_token_ids=frozenset(request.stop_token_ids),
                )
                if messages:
                    sender.send(messages)
                if job.samples[index].is_finished:
                    return
        raise EngineError("the engine ended a sequence without saying why")

    def _stats(self) -> WorkerStats:
        return WorkerStats(
            running=self._turns.num_running,
            waiting=self._turns.num_waiting,
            prompt_tokens_total=self._prompt_tokens,
            generated_tokens_total=self._generated_tokens,
        )


class Outbox:
    """Sends what all say in one turn of the event loop as one frame, with the statistics. For the loop's thread."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sender: Sender, *, stats: Callable[[], WorkerStats]
    ) -> None:
        self._loop = loop
        self._sender = sender
        self._stats = stats
        self._messages: list[FromWorker] = []
        self._is_due = False

    def send(self, messages: List[FromWorker]) -> None:
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self.flush)
        self._messages += messages

    def flush(self) -> None:
        """Send now what waits, if anything does."""
        if self._is_due:
            self._is_due = False
            messages, self._messages = self._messages, []
            self._sender.send([*messages, self._stats()])


class _Nowhere:
    def send(self, messages: List[FromWorker]) -> None:
        pass
