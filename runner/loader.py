"""Loads and unloads versions within the memory budget. Whose turn it is to be loaded is decided elsewhere."""

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import msgspec

from backends.registry import Registry
from repository.snapshot import ModelEntry, VersionEntry
from runner.environments.interpreters import Interpreters
from runner.errors import InsufficientMemory
from runner.fetching import Fetcher, Transfer
from runner.gpus import Gpus
from runner.instance import Instance
from runner.launch import LaunchPlan, plan_launch
from runner.ledger import Candidate, Ledger
from runner.loaded import LoadedVersion
from runner.metrics import Metrics
from runner.tallies import Statistics

logger = logging.getLogger(__name__)

FREEING_S = 30.0
"""How long memory that is being given back is waited for."""


class Loading(msgspec.Struct):
    """A load under way. `progress`: 0..1 of what is still coming from the network, then over all instances.
    `is_fetching`: nothing is started yet, so that it may be given up without loss."""

    instances: tuple[Instance, ...] = ()
    transfer: Transfer | None = None
    is_fetching: bool = False

    @property
    def note(self) -> str:
        """What it is doing, for people."""
        return f"loading ({self.progress * 100:.0f} %)" if self.transfer is None else str(self.transfer)

    @property
    def progress(self) -> float:
        if self.transfer is not None:
            return self.transfer.share
        return min((instance.progress for instance in self.instances), default=0.0)


class Loader:
    """Owns the ledger. `in_use` lists every version whose workers live; `evict` closes an idle one at once and
    returns when it is gone (None: nothing is evicted, a newcomer that does not fit is refused)."""

    def __init__(
        self,
        *,
        registry: Registry,
        interpreters: Interpreters,
        ledger: Ledger,
        metrics: Metrics,
        statistics: Statistics,
        cores: int,
        gpus: Gpus,
        allow_remote_code: bool = False,
        state_dir: Path,
        fetcher: Fetcher,
        in_use: Callable[[], Iterable[LoadedVersion]],
        evict: Callable[[LoadedVersion], Awaitable[None]] | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ledger = ledger
        self._registry = registry
        self._interpreters = interpreters
        self._allow_remote_code = allow_remote_code
        self._metrics = metrics
        self._statistics = statistics
        self._gpus = gpus
        self._cores = cores
        self._state_dir = state_dir
        self._fetcher = fetcher
        self._in_use = in_use
        self._evict = evict
        self._clock = clock
        self._room = asyncio.Lock()
        self._is_freed = asyncio.Event()
        self._starting: dict[str, tuple[str, frozenset[str]]] = {}  # name and groups, by ledger key
        self._serials = itertools.count(1)

    async def load(self, entry: ModelEntry, version: VersionEntry, loading: Loading) -> LoadedVersion:
        """Fetch what is to come from the network, and start the version's workers. Raises LoadFailed, ModelNotFound or
        InsufficientMemory; nothing is left running then."""
        version = await self._fetch(version, loading)
        serial = next(self._serials)
        key = f"{entry.name}:{version.number}#{serial}"
        began = self._clock()
        plan = await self._reserve(entry, version, key)
        observer = self._metrics.worker_observer(self._statistics.of(entry.name, version.number))
        instances = tuple(
            Instance(
                f"{entry.name}:{version.number}/{index}",
                launch,
                observer=observer,
                on_restart=self._metrics.restart_counter(entry.name, version.number),
                clock=self._clock,
            )
            for index, launch in enumerate(plan.launches)
        )
        loading.instances = instances
        logger.info("loading %s version %d (backend %s)", entry.name, version.number, plan.backend)
        try:
            async with asyncio.TaskGroup() as group:
                starting = [group.create_task(instance.start()) for instance in instances]
        except BaseExceptionGroup as errors:
            await self._abandon(key, instances)
            raise errors.exceptions[0] from None
        except BaseException:
            await self._abandon(key, instances)
            raise
        info = starting[0].result()
        each = info.weights_bytes + info.kv_bytes + plan.offload_bytes + plan.overhead_bytes
        self.ledger.reserve(key, len(instances) * each)
        self._metrics.loaded(entry.name, version.number, self._clock() - began)
        logger.info(
            "%s version %d is ready after %.1f s: %s, context %d tokens, KV pool %d tokens",
            entry.name,
            version.number,
            self._clock() - began,
            info.description or info.engine,
            info.context_tokens,
            info.kv_tokens,
        )
        self._starting.pop(key, None)
        return LoadedVersion(
            entry.name,
            version.number,
            source=(version.stamp, entry.config),
            ledger_key=key,
            plan=plan,
            instances=instances,
            info=info,
            clock=self._clock,
        )

    async def unload(self, loaded: LoadedVersion) -> None:
        """End the version's workers and give their memory back."""
        await loaded.stop()
        self.ledger.release(loaded.ledger_key)
        self._is_freed.set()
        self._metrics.unloaded(loaded.name, loaded.version)
        logger.info("%s version %d is unloaded", loaded.name, loaded.version)

    async def _fetch(self, version: VersionEntry, loading: Loading) -> VersionEntry:
        def move(transfer: Transfer) -> None:
            loading.transfer = transfer

        loading.is_fetching = True
        try:
            return await self._fetcher.bring(version, move)
        finally:
            loading.transfer, loading.is_fetching = None, False

    async def _plan(self, entry: ModelEntry, version: VersionEntry) -> LaunchPlan:
        idle = sum(self.ledger.reserved_bytes(loaded.ledger_key) for loaded in self._evictable(entry.name))
        live = [launch.start.load.threads for loaded in self._in_use() for launch in loaded.plan.launches]
        return await asyncio.to_thread(
            plan_launch,
            entry,
            version,
            registry=self._registry,
            free_bytes=self.ledger.free_bytes + idle,
            cores=self._cores,
            live_threads=live,
            interpreters=self._interpreters,
            state_dir=self._state_dir,
            gpus=self._gpus,
            allow_remote_code=self._allow_remote_code,
        )

    def _evictable(self, name: str) -> list[LoadedVersion]:
        """Idle versions of other models: evicting a model's own would leave it with nothing if the load fails."""
        if self._evict is None:
            return []
        return [loaded for loaded in self._in_use() if loaded.is_evictable and loaded.name != name]

    async def _reserve(self, entry: ModelEntry, version: VersionEntry, key: str) -> LaunchPlan:
        """Plan the load and book its memory in one go. Memory that is being given back already is waited for before
        anybody is refused, and holds up no load that fits."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + FREEING_S
        while True:
            async with self._room:
                self._is_freed.clear()
                plan = await self._plan(entry, version)
                try:
                    await self._make_way(entry)
                    await self._make_room(entry.name, plan)
                except InsufficientMemory:
                    if loop.time() >= deadline or all(loaded.is_open for loaded in self._in_use()):
                        raise
                else:
                    self.ledger.reserve(key, plan.estimate_bytes)
                    if entry.config is not None:
                        self._starting[key] = entry.name, frozenset(entry.config.concurrency_groups)
                    return plan
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await self._is_freed.wait()

    async def _make_way(self, entry: ModelEntry) -> None:
        """Evict idle models that may not be loaded together with this one. Raises InsufficientMemory where one is
        busy."""
        groups = {*entry.config.concurrency_groups} if entry.config is not None else set()
        rivals = [
            loaded
            for loaded in self._in_use()
            if loaded.name != entry.name and not groups.isdisjoint(loaded.config.concurrency_groups)
        ]
        starting = [
            name for name, others in self._starting.values() if name != entry.name and groups & others
        ]
        busy = [
            *starting,
            *(loaded.name for loaded in rivals if self._evict is None or not loaded.is_evictable),
        ]
        if busy:
            raise InsufficientMemory(
                f"{entry.name} shares a concurrency group with {busy[0]}, which is loaded and busy or pinned; they are "
                "not loaded together. Wait, or unload it",
                retry_after_s=10.0,
            )
        for loaded in rivals:
            loaded.close_to_new()
            logger.info("evicting %s, which shares a concurrency group with %s", loaded.key, entry.name)
        if rivals and self._evict is not None:
            await asyncio.gather(*[self._evict(loaded) for loaded in rivals])

    async def _make_room(self, name: str, plan: LaunchPlan) -> None:
        """Evict what must go. Raises InsufficientMemory."""
        idle = {loaded.ledger_key: loaded for loaded in self._evictable(name)}
        candidates = [Candidate(key, loaded.last_used) for key, loaded in idle.items()]
        keys = self.ledger.evictions(name, plan.estimate_bytes, candidates)
        for key in keys:
            loaded = idle[key]
            loaded.close_to_new()  # before anybody can take it up again
            logger.info("evicting %s version %d to make room for %s", loaded.name, loaded.version, name)
        if keys and self._evict is not None:
            await asyncio.gather(*[self._evict(idle[key]) for key in keys])

    async def _abandon(self, key: str, instances: Iterable[Instance]) -> None:
        await asyncio.gather(*(instance.stop() for instance in instances))
        self._starting.pop(key, None)
        self.ledger.release(key)
        self._is_freed.set()
