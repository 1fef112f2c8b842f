"""The engine's own thread: everything that touches the GPU happens on it, loading included.

Requests go in and chunks come out without the thread ever waiting for whoever reads them; with nothing to compute it
sleeps. Knows no exllamav2, only something that works off jobs step by step.
"""

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

from backends.contract import EngineError, TokenChunk

logger = logging.getLogger(__name__)


class Job(Protocol):
    """One sequence inside the generator."""

    def take(self, result: dict[str, Any]) -> TokenChunk | None:
        """What it gained by the step that gave `result`. Raises EngineError where it has failed, it alone."""


class Generator(Protocol):
    """What is used of exllamav2's dynamic generator."""

    def enqueue(self, job: Any) -> Any: ...
    def cancel(self, job: Any) -> None: ...
    def num_remaining_jobs(self) -> int: ...
    def iterate(self) -> list[dict[str, Any]]: ...


class Stream:
    """Where one sequence's chunks arrive. `job` is for the engine's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.answers: asyncio.Queue[TokenChunk | BaseException] = asyncio.Queue()
        self.job: Job | None = None


class Delivery(NamedTuple):
    stream: Stream
    answer: TokenChunk | BaseException


Command = Callable[[Generator], None]


class EngineThread:
    """Loads a generator and drives it. `stream` is for one event loop."""

    def __init__(self, load: Callable[[], Generator]) -> None:
        self._load = load
        self._loaded: Future[None] = Future()
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="exllamav2", daemon=True)
        # From here on only for that thread.
        self._streams: dict[Job, Stream] = {}
        self._failure: Exception | None = None

    def start(self) -> None:
        """Return when the generator is there. Raises what loading it raised."""
        self._thread.start()
        self._loaded.result()

    def stop(self) -> None:
        """End the thread, after the step that it computes. What has not finished gets no more answers."""
        self._commands.put(None)
        self._thread.join()

    async def stream(self, make_job: Callable[[], Job]) -> AsyncIterator[TokenChunk]:
        """The chunks of one sequence; closing the iterator cancels it. `make_job` is called on the engine's thread.

        Raises EngineError where this sequence alone has failed, anything else where the engine is broken.
        """
        stream = Stream(asyncio.get_running_loop())
        self._commands.put(lambda generator: self._begin(generator, stream, make_job))
        is_finished = False
        try:
            while not is_finished:
                answer = await stream.answers.get()
                is_finished = isinstance(answer, BaseException) or answer.finish is not None
                if isinstance(answer, BaseException):
                    raise answer
                yield answer
        finally:
            if not is_finished:
                self._commands.put(lambda generator: self._cancel(generator, stream))

    # On the engine's thread

    def _run(self) -> None:
        try:
            generator = self._load()
        except BaseException as error:
            self._loaded.set_exception(error)
            return
        self._loaded.set_result(None)
        while self._obey(generator):
            try:
                self._step(generator)
            except Exception as error:
                logger.exception("a step failed")
                self._fail(error)

    def _obey(self, generator: Generator) -> bool:
        """Do what was asked for; with nothing to compute, wait for it. False at the end."""
        while True:
            is_idle = self._failure is not None or not generator.num_remaining_jobs()
            try:
                command = self._commands.get(block=is_idle)
            except queue.Empty:
                return True
            if command is None:
                return False
            command(generator)

    def _step(self, generator: Generator) -> None:
        deliveries: list[Delivery] = []
        for result in generator.iterate():
            stream = self._streams.get(result["job"])
            if stream is None or stream.job is None:
                continue
            try:
                answer: TokenChunk | EngineError | None = stream.job.take(result)
            except EngineError as error:
                answer = error
                generator.cancel(stream.job)
            if answer is None:
                continue
            if isinstance(answer, EngineError) or answer.finish is not None:
                del self._streams[stream.job]
            deliveries.append(Delivery(stream, answer))
        _post(deliveries)

    def _begin(self, generator: Generator, stream: Stream, make_job: Callable[[], Job]) -> None:
        error: Exception | None = self._failure
        if error is None:
            try:
                stream.job = make_job()
                generator.enqueue(stream.job)
                self._streams[stream.job] = stream
                return
            except EngineError as refusal:
                error = refusal
            except Exception as refusal:  # nothing is computed yet, so it is the request's fault
                logger.exception("exllamav2 refused a request")
                error = EngineError(f"exllamav2 refuses the request: {refusal or type(refusal).__name__}")
        _post([Delivery(stream, error)])

    def _cancel(self, generator: Generator, stream: Stream) -> None:
        if stream.job is not None and self._streams.pop(stream.job, None) is not None:
            try:
                generator.cancel(stream.job)
            except Exception as error:
                logger.exception("a sequence could not be taken out")
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        """The engine is broken: all streams, and those to come, get `error`."""
        self._failure = error
        streams, self._streams = self._streams, {}
        _post([Delivery(stream, error) for stream in streams.values()])


def _post(deliveries: Sequence[Delivery]) -> None:
    if deliveries:
        with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody listens any more
            deliveries[0].stream.loop.call_soon_threadsafe(_deliver, deliveries)


def _deliver(deliveries: Sequence[Delivery]) -> None:
    for stream, answer in deliveries:
        stream.answers.put_nowait(answer)
