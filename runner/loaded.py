"""A loaded version: its instances, who uses them, and how it is let go."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator

from backends.contract import EngineInfo
from repository.config import ModelConfig
from runner.errors import ModelNotReady, Overloaded, RunnerError
from runner.instance import Instance
from runner.launch import LaunchPlan
from runner.pace import Pace
from runner.placement import NO_CONTENT, Content, PrefillRate, SeenPrompts, pick_instance, seen_blocks
from runner.wire.messages import SchedulerLimits
from runner.wire.requests import Usage


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
        self.prefill = PrefillRate()
        self._pace = Pace(clock)
        self._idle = asyncio.Event()
        self._idle.set()
        if len(instances) > 1 and info.prefix != "none" and self.limits.prefix_cache:
            most_blocks = seen_blocks(info.kv_tokens, offloads=plan.offload_bytes > 0)
            for instance in instances:
                instance.seen = SeenPrompts(most_blocks)

    @property
    def key(self) -> str:
        return f"{self.name}:{self.version}"

    @property
    def config(self) -> ModelConfig:
        """The one that it was loaded from."""
        return self.source[1] or ModelConfig()

    @property
    def active(self) -> int:
        """Requests that hold it."""
        return sum(instance.active for instance in self.instances)

    @property
    def limits(self) -> SchedulerLimits:
        """Those of each instance."""
        return self.plan.launches[0].start.limits

    @property
    def lanes(self) -> int:
        """How many sequences each instance runs at once."""
        return min(self.limits.max_lanes, self.info.lanes)

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
        return self.is_open and self.active == 0 and not self.config.pinned

    @contextlib.contextmanager
    def lease(self, content: Content = NO_CONTENT, *, only: Instance | None = None) -> Iterator["Lease"]:
        """Hold the instance that suits a prompt best, or this one. Raises ModelNotReady once the version is closed.
        An Overloaded that passes through is told when to come back."""
        if not self.is_open:
            raise ModelNotReady(f"{self.key} is being unloaded", retry_after_s=1.0)
        self._idle.clear()
        self.last_used = self._clock()
        lease = Lease(self, content, only=only)
        is_turned_away = False
        try:
            yield lease
        except Overloaded as error:
            is_turned_away = True
            if error.retry_after_s is None:
                error.retry_after_s = self.config.scheduler.retry_after_s or self._pace.wait_s(self.active)
            raise
        finally:
            lease.end()
            self.last_used = self._clock()
            if not is_turned_away:
                self._pace.ended(still_active=self.active)
            if self.active == 0:
                self._idle.set()

    def pick(self, content: Content) -> Instance:
        """The instance that suits a prompt best now."""
        if len(self.instances) == 1:
            return self.instances[0]
        prospects = [instance.prospect(content, lanes=self.lanes) for instance in self.instances]
        index = pick_instance(
            prospects,
            content.size_bytes,
            prefill_s=self.prefill.byte_s,
            turn_s=len(self.instances) * self._pace.gap_s,
        )
        return self.instances[index]

    def close_to_new(self) -> None:
        self.is_open = False

    async def drain(self, stuck_s: float) -> bool:
        """Wait until nobody holds it, however long that takes. False where its workers said nothing for `stuck_s`,
        or `abandon` came first."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not self._idle.is_set():
            heard = max(began, *(instance.heard_at for instance in self.instances))
            if loop.time() - heard >= stuck_s:
                return False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(heard + stuck_s):
                    await self._idle.wait()
        return self.active == 0

    def abandon(self) -> None:
        """Let `drain` end now, whoever still holds it."""
        self._idle.set()

    async def stop(self) -> None:
        """End the workers. Requests still running on them fail."""
        self.is_open = False
        await asyncio.gather(*(instance.stop() for instance in self.instances))


class Lease:
    """A request's hold on an instance, and the share of its work that is still to be done there."""

    def __init__(self, loaded: LoadedVersion, content: Content, *, only: Instance | None) -> None:
        self._loaded = loaded
        self._content = content
        self._only = only
        self._backlog_bytes = 0
        self.instance = self._take()

    def move(self) -> None:
        """The worker died before it had answered: go to another instance, or to its own successor."""
        self.end()
        self.instance = self._take()

    def begin(self) -> None:
        """The prompt is computed: the first token is there."""
        self.instance.backlog_bytes -= self._backlog_bytes
        self._backlog_bytes = 0

    def learn(self, usage: Usage, *, prefill_s: float) -> None:
        """How long the prompt took, of which `usage` tells what was cached."""
        share = 1 - usage.cached_tokens / max(1, usage.prompt_tokens)
        self._loaded.prefill.record(self._content, computed_share=share, elapsed_s=prefill_s)

    def end(self) -> None:
        self.begin()
        self.instance.active -= 1

    def _take(self) -> Instance:
        instance = self._only or self._loaded.pick(self._content)
        instance.active += 1
        self._backlog_bytes = self._content.size_bytes - instance.seen.cached_bytes(self._content)
        instance.backlog_bytes += self._backlog_bytes
        instance.seen.add(self._content)
        return instance
