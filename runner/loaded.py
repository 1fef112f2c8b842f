"""A loaded version: its instances, who uses them, and how it is let go."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator

from backends.contract import EngineInfo
from repository.config import ModelConfig
from runner.errors import ModelNotReady, RunnerError
from runner.instance import Instance
from runner.launch import LaunchPlan


class LoadedVersion:
    """One version's workers. Born READY; after `close_to_new` it only finishes what it has."""

    def __init__(
        self,
        name: str,
        version: int,
        *,
        source: tuple[str, ModelConfig | None],
        ledger_key: str,
        plan: LaunchPlan,
        instances: tuple[Instance, ...],
        info: EngineInfo,
        clock: Callable[[], float],
    ) -> None:
        self.name = name
        self.version = version
        self.source = source  # the files' stamp and the configuration it was loaded from
        self.ledger_key = ledger_key
        self.plan = plan
        self.instances = instances
        self.info = info
        self.is_open = True
        self.gone = asyncio.Event()  # its workers have ended and its memory is free
        self._clock = clock
        self.last_used = clock()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def key(self) -> str:
        return f"{self.name}:{self.version}"

    @property
    def active(self) -> int:
        """Requests that hold it."""
        return sum(instance.active for instance in self.instances)

    @property
    def request_timeout_s(self) -> float | None:
        return self.plan.launches[0].start.limits.request_timeout_s

    @property
    def failure(self) -> RunnerError | None:
        """Why no instance answers, if none does."""
        failures = [instance.failure for instance in self.instances]
        return failures[0] if all(failures) else None

    @property
    def idle_s(self) -> float:
        """Seconds since the last request ended; 0 while one runs."""
        return 0.0 if self.active else self._clock() - self.last_used

    @property
    def is_evictable(self) -> bool:
        """Nobody uses it, and its configuration does not pin it."""
        config = self.source[1]
        return self.is_open and self.active == 0 and not (config is not None and config.pinned)

    @contextlib.contextmanager
    def lease(self) -> Iterator[Instance]:
        """Hold the least busy instance. Raises ModelNotReady once the version is closed."""
        if not self.is_open:
            raise ModelNotReady(f"{self.key} is being unloaded", retry_after_s=1.0)
        instance = min(self.instances, key=lambda each: (not each.is_available, each.active))
        instance.active += 1
        self._idle.clear()
        self.last_used = self._clock()
        try:
            yield instance
        finally:
            instance.active -= 1
            self.last_used = self._clock()
            if self.active == 0:
                self._idle.set()

    def close_to_new(self) -> None:
        self.is_open = False

    async def drain(self, timeout_s: float) -> bool:
        """Wait until nobody holds it; False if that took longer than `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        """End the workers. Requests still running on them fail."""
        self.is_open = False
        await asyncio.gather(*(instance.stop() for instance in self.instances))
