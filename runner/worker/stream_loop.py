"""The engine's thread for stream engines: an event loop with one task per sample. Reports as the step loop does,
but cannot plan: the engine batches by itself.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from collections.abc import Sequence as List

from backends.contract import (
    EngineError,
    EngineInfo,
    EngineRequest,
    StreamEngine,
    UnsupportedError,
)
from runner.errors import GenerationFailed, UnsupportedFeature
from runner.wire.messages import CallFailed, Done, Dropped, Embedded, FromWorker, WorkerStats
from runner.worker.jobs import Job
from runner.worker.step_loop import Sender

logger = logging.getLogger(__name__)


class StreamLoop:
    """One task per call; its samples are tasks of a group. The public methods but `run` and `warm_up` may be
    called from any thread."""

    def __init__(
        self, engine: StreamEngine, info: EngineInfo, *, sender: Sender, clock: Callable[[], float]
    ) -> None:
        self._engine = engine
        self._info = info
        self._sender = sender
        self._clock = clock
        self._loop = asyncio.new_event_loop()
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._stopped = asyncio.Event()
        self._failure: BaseException | None = None
        self.is_broken = False  # the engine raised: the process is about to end
        self._prompt_tokens = 0
        self._generated_tokens = 0

    @property
    def queue_length(self) -> int:
        """The engine's own queue is not known here; calls beyond its lanes are taken to wait."""
        return max(0, len(self._calls) - self._info.lanes)

    def submit(self, job: Job, requests: List[EngineRequest]) -> None:
        self._loop.call_soon_threadsafe(self._submit, job, requests)

    def cancel(self, call: int) -> None:
        self._loop.call_soon_threadsafe(self._cancel, call)

    def embed(self, call: int, batch: List[List[int]]) -> None:
        self._loop.call_soon_threadsafe(self._embed, call, batch)

    def reset_cache(self, call: int) -> None:
        self._loop.call_soon_threadsafe(self._sender.send, [Done(call)])

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)

    def run(self) -> None:
        """Serve until `stop`. Raises what broke the engine, after failing every request."""
        self._loop.run_until_complete(self._stopped.wait())
        for task in self._calls.values():
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*self._calls.values(), return_exceptions=True))
        if self._failure is not None:
            raise self._failure

    def warm_up(self, job: Job, requests: List[EngineRequest]) -> None:
        """Run one job to its end without reporting it. Raises EngineError where it fails."""
        self._loop.run_until_complete(self._generate(job, requests, _Nowhere()))

    def _submit(self, job: Job, requests: List[EngineRequest]) -> None:
        self._calls[job.call] = self._loop.create_task(self._serve(job, requests))

    def _cancel(self, call: int) -> None:
        task = self._calls.get(call)
        if task is None:
            self._report([Dropped(call)])
        else:
            task.cancel()

    def _embed(self, call: int, batch: List[List[int]]) -> None:
        try:
            vectors = self._engine.embed(batch)
        except UnsupportedError as error:
            self._report([CallFailed(call, UnsupportedFeature(str(error)).to_wire())])
        else:
            self._report([Embedded(call, tuple(map(tuple, vectors)), sum(map(len, batch)))])

    async def _serve(self, job: Job, requests: List[EngineRequest]) -> None:
        self._prompt_tokens += len(job.prompt)
        try:
            await self._generate(job, requests, self._sender)
        except asyncio.CancelledError:
            self._report([Dropped(job.call)])
        except EngineError as error:
            self._report([job.fail(GenerationFailed(str(error)))])
        except Exception as error:
            logger.exception("the engine failed")
            self._report([job.fail(GenerationFailed(f"the engine failed: {error or type(error).__name__}"))])
            self._failure = error
            self.is_broken = True
            self._stopped.set()
        finally:
            self._calls.pop(job.call, None)
            self._report([self._stats()])

    async def _generate(self, job: Job, requests: List[EngineRequest], sender: Sender) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for index, request in enumerate(requests):
                    group.create_task(self._sample(job, index, request, sender))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _sample(self, job: Job, index: int, request: EngineRequest, sender: Sender) -> None:
        async with contextlib.aclosing(self._engine.generate(request)) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                self._generated_tokens += len(chunk.tokens)
                if index == 0 and chunk.cached_tokens is not None:
                    job.cached_tokens = chunk.cached_tokens
                messages = job.feed(
                    index,
                    chunk.tokens,
                    logprobs=chunk.logprobs,
                    prompt_logprobs=chunk.prompt_logprobs,
                    finish=chunk.finish,
                    text=chunk.text,
                    stop_token_ids=frozenset(request.stop_token_ids),
                )
                if messages:
                    sender.send([*messages, self._stats()])
                if job.samples[index].is_finished:
                    return
        raise EngineError("the engine ended a sequence without saying why")

    def _report(self, messages: List[FromWorker]) -> None:
        self._sender.send(messages)

    def _stats(self) -> WorkerStats:
        return WorkerStats(
            running=len(self._calls),
            prompt_tokens_total=self._prompt_tokens,
            generated_tokens_total=self._generated_tokens,
        )


class _Nowhere:
    def send(self, messages: List[FromWorker]) -> None:
        pass
