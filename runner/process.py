"""One worker process as the server sees it: spawn, talk, notice its death, end it.

Death is noticed by waiting on the process, for a child that the engine forked may keep the socket open. The
whole process group is ended, so that such children go too.
"""

import asyncio
import collections
import contextlib
import itertools
import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from runner.errors import (
    EngineUnavailable,
    InvalidRequest,
    LoadFailed,
    ModelNotReady,
    RunnerError,
    WorkerCrashed,
    from_wire,
)
from runner.ledger import mebibytes
from runner.wire.frames import MAX_FRAME_BYTES, ProtocolError, encode, server_decoder
from runner.wire.messages import (
    PROTOCOL,
    CallFailed,
    Cancel,
    FromWorker,
    Loading,
    LoadRefused,
    Ready,
    Start,
    Stop,
    ToWorker,
    WorkerStats,
)

logger = logging.getLogger(__name__)

STOP_GRACE_S = 5.0
LAST_WORDS_S = 1.0
ENGINE_RETRY_S = 10.0
PROGRESS_S = 5.0
"""A load that takes long tells the log how far it is, no more often than this."""


class Call:
    """The answers to one message, in order. `get` waits for the next; it raises once the worker failed it."""

    __slots__ = ("_items", "_waiter", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self._items: collections.deque[FromWorker | RunnerError] = collections.deque()
        self._waiter: asyncio.Future[None] | None = None

    def put(self, item: FromWorker | RunnerError) -> None:
        self._items.append(item)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> FromWorker:
        """The next answer. Raises RunnerError where the call failed."""
        while not self._items:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        item = self._items.popleft()
        if isinstance(item, RunnerError):
            raise item
        return item


class WorkerProcess(asyncio.Protocol):
    """A started worker. `ready` resolves when the model is loaded, or fails with LoadFailed."""

    def __init__(self, name: str, *, log_path: Path, on_stats: Callable[[WorkerStats], None]) -> None:
        loop = self._loop = asyncio.get_running_loop()
        self.name = name
        self.progress: float = 0.0
        self.heard_at = loop.time()
        self._told_at = loop.time()
        self.ready: asyncio.Future[Ready] = loop.create_future()
        self.exited: asyncio.Future[int] = loop.create_future()
        self.log_path = log_path
        self._on_stats = on_stats
        self._decoder = server_decoder()
        self._transport: asyncio.Transport | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._waiting: asyncio.Task[None] | None = None
        self._disconnected: asyncio.Future[None] = loop.create_future()
        self._numbers = itertools.count(1)
        self._calls: dict[int, Call] = {}
        self._is_stopping = False

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process is not None and not self.exited.done()

    async def spawn(self, interpreter: str, start: Start, *, environment: Mapping[str, str]) -> None:
        """Start the process and send it its first frame."""
        try:
            self.log_path.parent.mkdir(parents=True, exist_ok=True)
            log = self.log_path.open("ab")
        except OSError as error:
            raise LoadFailed(
                f"the worker's log {self.log_path} cannot be written: {error.strerror}"
            ) from error
        with log:
            ours, theirs = socket.socketpair()
            with theirs:
                try:
                    await self._spawn(interpreter, theirs, log, environment)
                except BaseException:
                    ours.close()
                    raise
        logger.debug("worker %s is pid %d, started with %s", self.name, self.pid, interpreter)
        self._waiting = asyncio.create_task(self._wait(), name=f"wait {self.name}")
        self._transport, _ = await self._loop.create_connection(lambda: self, sock=ours)
        self.send(start)

    async def _spawn(
        self, interpreter: str, theirs: socket.socket, log: BinaryIO, environment: Mapping[str, str]
    ) -> None:
        try:
            self._process = await asyncio.create_subprocess_exec(
                interpreter,
                "-I",
                "-m",
                "runner.worker",
                str(theirs.fileno()),
                self.name,  # for whoever looks at the list of processes
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except OSError as error:
            raise LoadFailed(
                f"the worker could not be started with {interpreter}: {error.strerror}"
            ) from error

    def send(self, message: ToWorker) -> None:
        """Queue one message; what a dead worker is sent is dropped, as its calls have failed already."""
        self._write(encode([message]))

    def _write(self, frame: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)

    def call(self, make: Callable[[int], ToWorker]) -> Call:
        """Send the message that `make` builds for a new call number. End it with `hang_up`. Raises InvalidRequest
        where a worker could not read it."""
        if not self.is_alive:
            raise WorkerCrashed
        call = Call(next(self._numbers))
        try:
            frame = encode([make(call.number)])
        except (OverflowError, RecursionError):
            raise InvalidRequest(
                "the request holds an integer of more than 64 bits, or is nested too deeply"
            ) from None
        if len(frame) > MAX_FRAME_BYTES:
            raise InvalidRequest(
                f"the request is {mebibytes(len(frame))} large; at most {mebibytes(MAX_FRAME_BYTES)} can be served"
            )
        self._write(frame)
        self._calls[call.number] = call
        return call

    def hang_up(self, call: Call, *, cancel: bool) -> None:
        """Forget a call; with `cancel` the worker stops working on it."""
        if self._calls.pop(call.number, None) is not None and cancel:
            self.send(Cancel(call.number))

    async def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """End the process and its group, politely at first."""
        self._is_stopping = True
        if self._process is None:
            return
        self.send(Stop())
        try:
            async with asyncio.timeout(grace_s):
                await asyncio.shield(self.exited)
        except TimeoutError:
            logger.warning(
                "worker %s (pid %d) did not stop in %g s; killing it", self.name, self.pid, grace_s
            )
        self.kill()
        if self._waiting is not None:
            await self._waiting

    def kill(self) -> None:
        """End the whole process group at once."""
        if self._process is not None and not self.exited.done():  # its number is nobody else's
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._loop.time()
        try:
            for message in self._decoder.feed(data):
                self._dispatch(message)
        except ProtocolError:
            logger.exception("worker %s sent what is not a frame; ending it", self.name)
            self.kill()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._disconnected.done():
            self._disconnected.set_result(None)

    def _dispatch(self, message: FromWorker) -> None:
        match message:
            case WorkerStats():
                self._on_stats(message)
            case Loading(fraction):
                self._note_progress(fraction)
            case Ready():
                self.progress = 1.0
                if message.protocol != PROTOCOL:
                    words = f"the worker speaks protocol {message.protocol}, this server {PROTOCOL}"
                    self._refuse(LoadFailed(words))
                elif not self.ready.done():
                    self.ready.set_result(message)
            case LoadRefused(reason, may_pass):
                passing = EngineUnavailable(reason, retry_after_s=ENGINE_RETRY_S)
                self._refuse(passing if may_pass else LoadFailed(reason))
            case CallFailed(number, error):
                self._answer(number, from_wire(error))
            case _:
                self._answer(message.call, message)

    def _note_progress(self, fraction: float) -> None:
        self.progress = fraction
        now = self._loop.time()
        if now - self._told_at >= PROGRESS_S:
            self._told_at = now
            logger.info("worker %s has loaded %.0f %%", self.name, 100 * fraction)

    def _answer(self, number: int, item: FromWorker | RunnerError) -> None:
        call = self._calls.get(number)
        if call is not None:
            call.put(item)

    def _refuse(self, error: LoadFailed) -> None:
        if not self.ready.done():
            self.ready.set_exception(error)
            self.ready.exception()  # whoever waits gets it; nobody waiting is no error

    async def _wait(self) -> None:
        assert self._process is not None
        status = await self._process.wait()
        self.kill()  # children of the engine that outlived it
        with contextlib.suppress(TimeoutError):  # what it said last may be in the socket still
            async with asyncio.timeout(LAST_WORDS_S):
                await self._disconnected
        self.exited.set_result(status)
        if self._transport is not None:
            self._transport.close()
        how = _how(status)
        logger.debug("worker %s (pid %d) has ended with %s", self.name, self.pid, how)
        self._refuse(LoadFailed(f"the worker ended with {how} while loading; its log is {self.log_path}"))
        error: RunnerError
        if self._is_stopping:
            error = ModelNotReady("the model was unloaded before the request was finished", retry_after_s=1.0)
        else:
            error = WorkerCrashed(f"the worker of this model ended with {how} during the request")
            logger.error("worker %s (pid %d) ended with %s; log: %s", self.name, self.pid, how, self.log_path)
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.put(error.copy())


def _how(status: int) -> str:
    """How a process ended, in words."""
    if status >= 0:
        return f"status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"
