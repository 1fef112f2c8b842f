"""One worker of a model version: started, and started again with growing pauses when it crashes."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from backends.contract import EngineInfo
from runner.errors import LoadFailed, ModelNotReady, RunnerError
from runner.metrics import WorkerObserver
from runner.placement import Content, Prospect, SeenPrompts
from runner.process import WorkerProcess
from runner.wire.messages import Start

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
STABLE_AFTER_S = 60.0


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """How to start a worker."""

    interpreter: str
    start: Start
    environment: dict[str, str]
    log_path: Path


class Instance:
    """A worker process that is kept alive. `active` counts the requests that use it, `backlog_bytes` what of their
    prompts is still to be computed; `seen` is what it may have cached."""

    def __init__(
        self,
        name: str,
        launch: Launch,
        *,
        observer: WorkerObserver,
        on_restart: Callable[[], None],
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.name = name
        self.launch = launch
        self.active = 0
        self.backlog_bytes = 0
        self.seen = SeenPrompts(0)
        self._observer = observer
        self._on_restart = on_restart
        self._clock = clock
        self._sleep = sleep
        self._process: WorkerProcess | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._available = asyncio.Event()
        self._failure: RunnerError | None = None

    @property
    def progress(self) -> float:
        """How far the load is, 0..1."""
        return self._process.progress if self._process is not None else 0.0

    @property
    def heard_at(self) -> float:
        """When its worker said something last, in the event loop's time."""
        return self._process.heard_at if self._process is not None else 0.0

    @property
    def is_available(self) -> bool:
        """Requests are answered at once."""
        is_alive = self._process is not None and self._process.is_alive
        return is_alive and self._available.is_set() and self._failure is None

    @property
    def failure(self) -> RunnerError | None:
        """Why requests are refused, if they are: it crashed and could not be started again so far, or stopped."""
        return self._failure

    def prospect(self, content: Content, *, lanes: int) -> Prospect:
        """What it would be for a prompt."""
        return Prospect(
            is_available=self.is_available,
            active=self.active,
            lanes=lanes,
            backlog_bytes=self.backlog_bytes,
            cached_bytes=self.seen.cached_bytes(content),
        )

    async def start(self) -> EngineInfo:
        """Spawn and load. Raises LoadFailed; nothing is left running then."""
        info = await self._spawn()
        self._supervisor = asyncio.create_task(self._supervise(), name=f"supervise {self.name}")
        return info

    async def process(self) -> WorkerProcess:
        """The live worker; waits while it is being restarted. Raises what keeps it from coming back."""
        if self._failure is None and self._process is not None and not self._process.is_alive:
            self._available.clear()  # the supervisor has not noticed yet
        await self._available.wait()
        if self._failure is not None:
            raise self._failure.copy()
        assert self._process is not None
        return self._process

    async def stop(self) -> None:
        """End the worker for good."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        self._failure = ModelNotReady("the model was unloaded", retry_after_s=1.0)
        self._available.set()  # whoever waits for a restart learns that there will be none
        if self._process is not None:
            await self._process.stop()
        self._observer.forget(self)

    async def _spawn(self) -> EngineInfo:
        process = WorkerProcess(
            self.name, log_path=self.launch.log_path, on_stats=lambda stats: self._observer(self, stats)
        )
        self._process = process
        try:
            await process.spawn(
                self.launch.interpreter, self.launch.start, environment=self.launch.environment
            )
            ready = await asyncio.shield(process.ready)
        except BaseException:
            process.kill()
            await process.stop()
            raise
        self._failure = None
        self._available.set()
        return ready.info

    async def _supervise(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            assert self._process is not None
            since = self._clock()
            await asyncio.shield(self._process.exited)
            self._available.clear()
            self._observer.forget(self)
            self.seen.clear()
            if self._clock() - since > STABLE_AFTER_S:
                pause_s = FIRST_PAUSE_S
            while True:
                logger.warning("restarting worker %s in %.1f s", self.name, pause_s)
                await self._sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                self._on_restart()
                try:
                    await self._spawn()
                except Exception as error:
                    if not isinstance(error, LoadFailed):
                        logger.exception("restarting worker %s failed", self.name)
                    reason = (
                        error.message if isinstance(error, LoadFailed) else f"{type(error).__name__}: {error}"
                    )
                    logger.error("worker %s could not be started again: %s", self.name, reason)
                    self._failure = LoadFailed(f"its worker crashed and could not be started again: {reason}")
                    self._available.set()  # nobody waits for a restart that may never succeed
                else:
                    break
