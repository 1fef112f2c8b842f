"""One model of the repository: its versions' states, which of them answers, and the hand-over between them.

A new version loads beside the old one, takes over when it is ready, and then the old one drains and unloads.
A load is single-flight: whoever needs the version meanwhile waits for the same one.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine

from repository.config import ModelConfig
from repository.snapshot import ModelEntry, VersionEntry
from runner.api import NOT_LOADED, UNLOADED, ModelStatus, State, VersionStatus
from runner.errors import LoadFailed, ModelDisabled, ModelNotFound, ModelNotReady, RunnerError
from runner.loaded import LoadedVersion
from runner.loader import Loader, Loading

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 10.0
"""A failed load is not tried again by requests before this, unless its files change."""

Spawn = Callable[[Coroutine[object, object, None]], asyncio.Task[None]]


class Slot:
    """One version's state."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.state: State = "UNAVAILABLE"
        self.reason = ""
        self.loaded: LoadedVersion | None = None
        self.loading: Loading | None = None
        self.outcome: asyncio.Future[LoadedVersion] | None = None
        self.task: asyncio.Task[None] | None = None
        self.failed_source: object = None
        self.failed_at = 0.0
        self.failure: RunnerError | None = None
        self.is_unwanted = False  # unloaded while it was still loading

    @property
    def open(self) -> LoadedVersion | None:
        """The loaded version, if it takes requests."""
        return self.loaded if self.loaded is not None and self.loaded.is_open else None


class Model:
    """`spawn` starts a task that outlives the request which caused it."""

    def __init__(
        self,
        entry: ModelEntry,
        *,
        loader: Loader,
        spawn: Spawn,
        loads_on_demand: bool,
        drain_s: float,
        clock: Callable[[], float],
    ) -> None:
        self.entry = entry
        self._loader = loader
        self._spawn = spawn
        self._loads_on_demand = loads_on_demand
        self._drain_s = drain_s
        self._clock = clock
        self._slots: dict[int, Slot] = {}
        self._default: LoadedVersion | None = None  # what answered for the plain name last
        self._retiring: set[LoadedVersion] = set()
        self._created = _modified(entry)

    @property
    def config(self) -> ModelConfig:
        return self.entry.config or ModelConfig()

    @property
    def selected(self) -> list[int]:
        """Versions that the policy serves, ascending."""
        return self.entry.selection().versions

    @property
    def default_version(self) -> int | None:
        """What the plain name stands for once everything is loaded."""
        selected = self.selected
        if self.config.default_version in selected:
            return self.config.default_version
        return selected[-1] if selected else None

    @property
    def loaded(self) -> list[LoadedVersion]:
        """Every version whose workers live, retiring ones too."""
        return [slot.loaded for slot in self._slots.values() if slot.loaded is not None] + list(
            self._retiring
        )

    @property
    def problem(self) -> str:
        """Why nothing of this model can be loaded as it is on disk; empty if it can."""
        if self.entry.problems:
            return "; ".join(map(str, self.entry.problems))
        if not self.selected:
            missing = self.entry.selection().missing
            return (
                f"version {missing[0]} is not there"
                if missing
                else "it has no version that its policy serves"
            )
        return ""

    @property
    def is_settled(self) -> bool:
        """Nothing of it is loading, unloading or failed (Triton's strict readiness)."""
        return all(
            slot.state == "READY" or (slot.state == "UNAVAILABLE" and slot.reason == UNLOADED)
            for slot in self._slots.values()
        )

    def abort_loads(self) -> None:
        """End loads under way at once: the server is stopping."""
        for slot in self._slots.values():
            if slot.task is not None:
                slot.task.cancel()

    def is_ready(self, version: int | None = None, *, loaded_only: bool) -> bool:
        """Whether a request would be answered: loaded, or (on demand) loadable."""
        if self.config.disabled:
            return False
        number = version if version is not None else self.default_version
        slot = self._slots.get(number) if number is not None else None
        if slot is not None and slot.open is not None:
            return True
        if version is None and self._default is not None and self._default.is_open:
            return True
        if loaded_only or not self._loads_on_demand or self.problem or number not in self.selected:
            return False
        return slot is None or slot.failure is None

    async def acquire(self, version: int | None = None) -> LoadedVersion:
        """The version that answers, loaded if need be. Lease it before the next await.

        Raises ModelDisabled, ModelNotFound, ModelNotReady, LoadFailed or InsufficientMemory.
        """
        if self.config.disabled:
            raise ModelDisabled(f"model {self.entry.name!r} is disabled in its config.yaml")
        if version is None:
            number = self.default_version
            slot = self._slots.get(number) if number is not None else None
            if slot is not None and slot.open is not None:
                self._default = slot.open
                return slot.open
            if self._default is not None and self._default.is_open:
                return self._default  # the old one serves until the new one is ready
        else:
            number = version
            slot = self._slots.get(number)
            if slot is not None and slot.open is not None:
                return slot.open
        if number is None or number not in self.selected:
            if version is None:
                raise LoadFailed(f"model {self.entry.name!r} cannot be served: {self.problem}")
            have = ", ".join(map(str, self.selected)) or "none"
            raise ModelNotFound(
                f"model {self.entry.name!r} has no version {version}; served versions: {have}",
                model=self.entry.name,
            )
        if not self._loads_on_demand and (slot is None or slot.outcome is None):
            reason = f": {slot.reason}" if slot is not None and slot.reason else ""
            raise ModelNotReady(f"model {self.entry.name!r} version {number} is not loaded{reason}")
        loaded = await self.load(number, retry=False)
        if version is None and number == self.default_version:
            self._default = loaded
        return loaded

    async def load(self, number: int, *, retry: bool = True) -> LoadedVersion:
        """Load a selected version (again, if its files changed) and wait for it. With `retry` a failure just
        now does not count."""
        entry = self.entry.version(number)
        if self.problem or entry is None:
            raise LoadFailed(
                f"model {self.entry.name!r} cannot be served: {self.problem or 'no such version'}"
            )
        slot = self._slots.setdefault(number, Slot(number))
        source = (entry.stamp, self.entry.config)
        if slot.outcome is None:
            if slot.open is not None and slot.open.source == source:
                return slot.open
            recent = slot.failed_source == source and self._clock() - slot.failed_at < RETRY_AFTER_S
            if slot.failure is not None and recent and not retry:
                raise slot.failure
            slot.outcome = asyncio.get_running_loop().create_future()
            slot.loading = Loading()
            slot.is_unwanted = False
            if slot.open is None:
                slot.state, slot.reason = "LOADING", ""
            slot.task = self._spawn(self._load(slot, entry, slot.loading, slot.outcome))
        return await asyncio.shield(slot.outcome)

    async def load_selected(self, *, retry: bool = True) -> None:
        """Load every version the policy serves. Raises the first failure, after trying all."""
        failures: list[RunnerError] = []
        for number in self.selected:
            try:
                await self.load(number, retry=retry)
            except RunnerError as error:
                failures.append(error)
        if self.problem:
            raise LoadFailed(f"model {self.entry.name!r} cannot be served: {self.problem}")
        if failures:
            raise failures[0]

    def unload(self, reason: str = UNLOADED) -> None:
        """Begin to unload every version: running requests finish, new ones find it gone."""
        self._default = None
        for slot in self._slots.values():
            slot.is_unwanted = slot.outcome is not None
            if slot.loaded is not None:
                self._retire(slot, reason)

    def forget(self, loaded: LoadedVersion, reason: str) -> None:
        """`loaded` was evicted by the loader: it is gone."""
        loaded.close_to_new()
        for slot in self._slots.values():
            if slot.loaded is loaded:
                slot.loaded = None
                slot.state, slot.reason = "UNAVAILABLE", reason
        if self._default is loaded:
            self._default = None

    def apply(self, entry: ModelEntry, *, load_all: bool) -> None:
        """The disk says something new. Loaded versions are handed over in the background; with `load_all`
        everything that is selected gets loaded."""
        self.entry = entry
        self._created = _modified(entry)
        for slot in self._slots.values():
            version = entry.version(slot.number)
            if slot.failure is not None and (
                version is None or slot.failed_source != (version.stamp, entry.config)
            ):
                slot.failure, slot.reason = None, ""  # it may have been mended
        if load_all or any(slot.open is not None for slot in self._slots.values()):
            self._spawn(self._hand_over(load_all=load_all))

    async def _hand_over(self, *, load_all: bool) -> None:
        if self.problem:
            logger.warning("%s: %s; what is loaded goes on serving", self.entry.name, self.problem)
            return
        selected = self.selected
        stale = [number for number in selected if self._is_stale(number)]
        for number in selected if load_all else dict.fromkeys([*stale, *self._wanted_default()]):
            try:
                await self.load(number, retry=False)
            except RunnerError as error:
                logger.error("%s version %d: %s", self.entry.name, number, error)
        default = self.default_version
        slot = self._slots.get(default) if default is not None else None
        if slot is None or slot.open is None:
            return
        self._default = slot.open
        for slot in self._slots.values():
            if slot.open is not None and slot.number not in self.selected:
                self._retire(slot, UNLOADED)

    def _wanted_default(self) -> list[int]:
        """The default version, if an older one that was the default is loaded."""
        default = self.default_version
        return (
            [default] if default is not None and self._default is not None and self._default.is_open else []
        )

    def _is_stale(self, number: int) -> bool:
        slot, entry = self._slots.get(number), self.entry.version(number)
        if slot is None or slot.open is None or entry is None:
            return False
        return slot.open.source != (entry.stamp, self.entry.config)

    async def _load(
        self, slot: Slot, entry: VersionEntry, loading: Loading, outcome: asyncio.Future[LoadedVersion]
    ) -> None:
        source = (entry.stamp, self.entry.config)
        try:
            loaded = await self._loader.load(self.entry, entry, loading)
        except Exception as error:
            if not isinstance(error, RunnerError):
                logger.exception("loading %s version %d failed", self.entry.name, slot.number)
                error = LoadFailed(f"loading failed: {type(error).__name__}: {error}")
            slot.failure, slot.failed_source, slot.failed_at = error, source, self._clock()
            if slot.open is None:
                slot.state, slot.reason = "UNAVAILABLE", error.message
            logger.error("%s version %d: %s", self.entry.name, slot.number, error.message)
            outcome.set_exception(error)
            outcome.exception()  # nobody may be waiting any more
        else:
            old, slot.loaded = slot.loaded, loaded
            slot.state, slot.reason, slot.failure = "READY", "", None
            loaded.on_idle = self._on_idle
            if self._default is old:
                self._default = loaded if old is not None else self._default
            if old is not None:
                self._let_go(old)
            if slot.is_unwanted:
                self._retire(slot, UNLOADED)
            outcome.set_result(loaded)
        finally:
            slot.outcome = slot.loading = slot.task = None
            if not outcome.done():
                outcome.cancel()

    def _retire(self, slot: Slot, reason: str) -> None:
        if slot.loaded is None:
            return
        loaded, slot.loaded = slot.loaded, None
        slot.state, slot.reason = "UNLOADING", reason

        def gone() -> None:
            if slot.state == "UNLOADING":
                slot.state = "UNAVAILABLE"

        self._let_go(loaded, gone)

    def _let_go(self, loaded: LoadedVersion, then: Callable[[], None] = lambda: None) -> None:
        loaded.close_to_new()
        self._retiring.add(loaded)

        async def drain() -> None:
            try:
                if not await loaded.drain(self._drain_s):
                    logger.warning("%s: requests still ran after %g s", loaded.key, self._drain_s)
                await self._loader.unload(loaded)
            finally:
                self._retiring.discard(loaded)
                then()

        self._spawn(drain())

    def _on_idle(self, loaded: LoadedVersion) -> None:
        ttl_s = self.config.ttl_s
        if ttl_s is None or self.config.pinned:
            return
        since = loaded.last_used

        def expire() -> None:
            if loaded.is_open and loaded.active == 0 and loaded.last_used == since:
                for slot in self._slots.values():
                    if slot.loaded is loaded:
                        logger.info("%s was idle for %g s", loaded.key, ttl_s)
                        self._retire(slot, UNLOADED)

        asyncio.get_running_loop().call_later(ttl_s, expire)

    def status(self, *, loaded_only: bool) -> ModelStatus:
        """This model's row of the index."""
        numbers = sorted({*self.selected, *self._slots})
        loaded = next((slot.open for slot in self._slots.values() if slot.open is not None), None)
        return ModelStatus(
            name=self.entry.name,
            versions=tuple(self._version_status(number) for number in numbers),
            default_version=self.default_version,
            ready=self.is_ready(loaded_only=loaded_only),
            reason=self.problem,
            description=self.config.description or "",
            backend=loaded.plan.backend if loaded is not None else (self.config.backend or ""),
            aliases=self.entry.aliases,
            context_tokens=loaded.info.context_tokens if loaded is not None else self.config.context_size,
            created=self._created,
            disabled=self.config.disabled,
        )

    def _version_status(self, number: int) -> VersionStatus:
        slot = self._slots.get(number)
        if slot is None:
            return VersionStatus(version=number, state="UNAVAILABLE", reason=self.problem or NOT_LOADED)
        return VersionStatus(
            version=number,
            state=slot.state,
            reason=slot.reason,
            progress=slot.loading.progress if slot.loading is not None else None,
        )


def _modified(entry: ModelEntry) -> int:
    """When the newest version was last changed, in seconds since 1970."""
    path = entry.versions[-1].path if entry.versions else entry.path
    try:
        return int(path.stat().st_mtime)
    except OSError:
        return 0
