"""One model of the repository: its versions' states, which of them answers, and the hand-over between them.

A new version loads beside the old one, takes over when it is ready, and then the old one drains and unloads.
A load is single-flight: whoever needs the version meanwhile waits for the same one.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Literal

from repository.config import ModelConfig
from repository.snapshot import ModelEntry
from runner.api import NOT_LOADED, UNLOADED, ModelStatus, State, VersionStatus
from runner.errors import (
    InsufficientMemory,
    LoadFailed,
    ModelDisabled,
    ModelNotFound,
    ModelNotReady,
    RunnerError,
)
from runner.loaded import LoadedVersion
from runner.loader import Loader, Loading

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 10.0
"""A failed load is not tried again by requests before this, unless its files change."""

Spawn = Callable[[Coroutine[object, object, None]], asyncio.Task[None]]
Source = tuple[str, ModelConfig | None]
"""What a version is loaded from: the stamp of its files and the configuration."""

Follow = Literal["nothing", "loaded", "everything"]
"""What is loaded again when the disk changes."""


class Flight:
    """A load under way. `outcome` is set in any case, even when the task is cancelled before it began."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.loading = Loading()
        self.outcome: asyncio.Future[LoadedVersion] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None] | None = None
        self.is_unwanted = False  # unloaded while it was still loading

    def fail(self, error: RunnerError) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(error)
            self.outcome.exception()  # nobody may be waiting any more


class Slot:
    """One version's state."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.state: State = "UNAVAILABLE"
        self.reason = ""
        self.loaded: LoadedVersion | None = None
        self.flight: Flight | None = None
        self.failure: RunnerError | None = None
        self.failed_source: Source | None = None
        self.failed_at = 0.0

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
        self._loader = loader
        self._spawn = spawn
        self._loads_on_demand = loads_on_demand
        self._drain_s = drain_s
        self._clock = clock
        self._slots: dict[int, Slot] = {}
        self._default: LoadedVersion | None = None  # what answers for the plain name
        self._retiring: set[LoadedVersion] = set()
        self._closed: RunnerError | None = None
        self._set_entry(entry)

    def _set_entry(self, entry: ModelEntry) -> None:
        self.entry = entry
        self.config = entry.config or ModelConfig()
        selection = entry.selection()
        self.selected = selection.versions  # what the policy serves, ascending
        self.default_version = selection.versions[-1] if selection.versions else None
        if self.config.default_version in selection.versions:
            self.default_version = self.config.default_version
        self.problem = ""  # why nothing of this model can be loaded as it is on disk
        if entry.problems:
            self.problem = "; ".join(map(str, entry.problems))
        elif selection.missing and not selection.versions:
            self.problem = f"version {selection.missing[0]} is not there"
        elif not selection.versions:
            self.problem = "it has no version that its policy serves"
        self._created = _modified(entry)

    @property
    def loaded(self) -> list[LoadedVersion]:
        """Every version whose workers live, retiring ones too."""
        return [slot.loaded for slot in self._slots.values() if slot.loaded is not None] + list(
            self._retiring
        )

    @property
    def is_busy(self) -> bool:
        """Something of it lives or is being loaded."""
        return bool(self.loaded) or any(slot.flight is not None for slot in self._slots.values())

    @property
    def is_settled(self) -> bool:
        """Nothing of it is loading, unloading or failed (Triton's strict readiness)."""
        return all(
            slot.state == "READY" or (slot.state == "UNAVAILABLE" and slot.reason == UNLOADED)
            for slot in self._slots.values()
        )

    def is_ready(self, version: int | None = None, *, loaded_only: bool) -> bool:
        """Whether a request would be answered: loaded, or (on demand) loadable."""
        if self.config.disabled or self._closed is not None:
            return False
        answering = self._answering(version)
        if answering is not None:
            return answering.failure is None
        number = version if version is not None else self.default_version
        if loaded_only or not self._loads_on_demand or self.problem or number not in self.selected:
            return False
        slot = self._slots.get(number) if number is not None else None
        return slot is None or slot.failure is None

    async def acquire(self, version: int | None = None) -> LoadedVersion:
        """The version that answers, loaded if need be. Lease it before the next await.

        Raises ModelDisabled, ModelNotFound, ModelNotReady, LoadFailed or InsufficientMemory.
        """
        self._check_open()
        if self.config.disabled:
            raise ModelDisabled(f"model {self.entry.name!r} is disabled in its config.yaml")
        answering = self._answering(version)
        if answering is not None:
            return answering
        number = self.default_version if version is None else version
        if number is None or number not in self.selected:
            if version is None:
                raise LoadFailed(f"model {self.entry.name!r} cannot be served: {self.problem}")
            have = ", ".join(map(str, self.selected)) or "none"
            raise ModelNotFound(
                f"model {self.entry.name!r} has no version {version}; served versions: {have}",
                model=self.entry.name,
            )
        slot = self._slots.get(number)
        if not self._loads_on_demand and (slot is None or slot.flight is None):
            reason = f": {slot.reason}" if slot is not None and slot.reason else ""
            raise ModelNotReady(f"model {self.entry.name!r} version {number} is not loaded{reason}")
        return await self.load(number, retry=False)

    def _answering(self, version: int | None) -> LoadedVersion | None:
        """The loaded version that answers now. For the plain name the old one serves until the new one is ready."""
        number = self.default_version if version is None else version
        slot = self._slots.get(number) if number is not None else None
        if slot is not None and slot.open is not None:
            return slot.open
        if version is None and self._default is not None and self._default.is_open:
            return self._default
        return None

    async def load(self, number: int, *, retry: bool = True) -> LoadedVersion:
        """Load a selected version as it is on disk now, and wait for it. With `retry` a failure just now does
        not count. What comes back may be closed already, where something newer or an unload overtook it.

        Raises LoadFailed, InsufficientMemory or ModelNotReady.
        """
        while True:
            self._check_open()
            source = self._source(number)
            slot = self._slots.setdefault(number, Slot(number))
            if slot.flight is None and slot.open is not None and slot.open.source == source:
                return slot.open
            if slot.flight is None:
                is_recent = slot.failed_source == source and self._clock() - slot.failed_at < RETRY_AFTER_S
                if slot.failure is not None and is_recent and not retry:
                    raise slot.failure.copy()
                self._take_off(slot, source)
            flight = slot.flight
            assert flight is not None
            flight.is_unwanted = False
            try:
                loaded = await asyncio.shield(flight.outcome)
            except RunnerError as error:
                if self._closed is None and flight.source != self._source(number):
                    continue  # its files have changed meanwhile: it may have been mended
                raise error.copy() from None
            if not loaded.is_open or loaded.source == self._source_or_none(number):
                return loaded
            retry = False

    async def load_selected(self) -> None:
        """Load every version the policy serves, then retire the others. Raises the first failure, after trying
        all."""
        if self.problem:
            raise LoadFailed(f"model {self.entry.name!r} cannot be served: {self.problem}")
        failures: list[RunnerError] = []
        for number in self.selected:
            try:
                loaded = await self.load(number)
                if not loaded.is_open:
                    raise ModelNotReady(
                        f"{loaded.key} was unloaded as soon as it was loaded", retry_after_s=1.0
                    )
            except RunnerError as error:
                failures.append(error)
        if failures:
            raise failures[0]
        self._retire_unselected()

    def unload(self, version: int | None = None, *, reason: str = UNLOADED) -> None:
        """Begin to unload every version, or one: running requests finish, new ones find it gone."""
        for slot in self._slots.values():
            if version in (None, slot.number):
                self._drop(slot, reason)

    def close(self, error: RunnerError, *, abort_loads: bool = False) -> None:
        """The model is gone, or the server stops: nothing is loaded any more, and what waits for a load gets
        `error`. With `abort_loads` loads under way end at once."""
        self._closed = error
        self.unload(reason=error.message)
        for slot in self._slots.values():
            if slot.flight is not None:
                slot.flight.fail(error.copy())
                if abort_loads and slot.flight.task is not None:
                    slot.flight.task.cancel()

    async def evict(self, loaded: LoadedVersion) -> None:
        """Unload an idle version to make room; it is closed before the first await."""
        for slot in self._slots.values():
            if slot.loaded is loaded:
                self._retire(slot, "evicted to make room")
        while loaded in self._retiring:
            await loaded.gone.wait()

    def apply(self, entry: ModelEntry, *, follow: Follow) -> None:
        """The disk says something new."""
        self._set_entry(entry)
        for slot in self._slots.values():
            if slot.failure is not None and slot.failed_source != self._source_or_none(slot.number):
                slot.failure, slot.reason = None, ""  # it may have been mended
        if follow == "everything" or (follow == "loaded" and self.is_busy):
            self._spawn(self._hand_over(load_all=follow == "everything"))

    async def _hand_over(self, *, load_all: bool) -> None:
        """Load what is stale or new beside what serves, then retire what is not served any more."""
        if self.problem:
            logger.warning("%s: %s; what is loaded goes on serving", self.entry.name, self.problem)
            return
        in_use = [
            slot.number for slot in self._slots.values() if slot.open is not None or slot.flight is not None
        ]
        numbers = [number for number in self.selected if load_all or number in in_use]
        has_old = any(number not in self.selected for number in in_use)
        if self.default_version is not None and (has_old or self._default is not None):
            numbers.append(self.default_version)
        for number in dict.fromkeys(numbers):
            try:
                await self.load(number, retry=False)
            except RunnerError as error:
                logger.error("%s version %d: %s", self.entry.name, number, error)
        self._retire_unselected()

    def _retire_unselected(self) -> None:
        slot = self._slots.get(self.default_version) if self.default_version is not None else None
        if slot is None or slot.open is None:
            return  # the old version goes on serving
        self._default = slot.open
        for other in self._slots.values():
            if other.number not in self.selected:
                self._drop(other, UNLOADED)

    def _check_open(self) -> None:
        if self._closed is not None:
            raise self._closed.copy()

    def _source(self, number: int) -> Source:
        source = self._source_or_none(number)
        if self.problem or source is None:
            reason = self.problem or f"version {number} is not there any more"
            raise LoadFailed(f"model {self.entry.name!r} cannot be served: {reason}")
        return source

    def _source_or_none(self, number: int) -> Source | None:
        version = self.entry.version(number)
        return None if version is None else (version.stamp, self.entry.config)

    def _take_off(self, slot: Slot, source: Source) -> None:
        flight = slot.flight = Flight(source)
        if slot.open is None:
            slot.state, slot.reason = "LOADING", ""
        flight.task = self._spawn(self._load(slot, flight))

        def landed(_: asyncio.Task[None]) -> None:
            if slot.flight is flight:  # it was cancelled
                slot.flight = None
                if slot.state == "LOADING":
                    slot.state, slot.reason = "UNAVAILABLE", UNLOADED
                flight.fail(ModelNotReady("the load was given up", retry_after_s=1.0))

        flight.task.add_done_callback(landed)

    async def _load(self, slot: Slot, flight: Flight) -> None:
        version = self.entry.version(slot.number)
        try:
            if version is None:
                raise LoadFailed(f"version {slot.number} is not there any more")
            loaded = await self._loader.load(self.entry, version, flight.loading)
        except Exception as error:
            if not isinstance(error, RunnerError):
                logger.exception("loading %s version %d failed", self.entry.name, slot.number)
                error = LoadFailed(f"loading failed: {type(error).__name__}: {error}")
            if not isinstance(error, InsufficientMemory):  # which the next request may find mended
                slot.failure, slot.failed_source, slot.failed_at = error, flight.source, self._clock()
            if slot.open is None:
                slot.state, slot.reason = "UNAVAILABLE", error.message
            logger.error("%s version %d: %s", self.entry.name, slot.number, error.message)
            slot.flight = None
            flight.fail(error)
            return
        slot.flight = None
        old, slot.loaded = slot.loaded, loaded
        slot.state, slot.reason, slot.failure = "READY", "", None
        if slot.number == self.default_version or (old is not None and self._default is old):
            self._default = loaded
        if old is not None:
            self._let_go(old)
        if flight.is_unwanted or self._closed is not None:
            self._retire(slot, UNLOADED)
        elif not flight.outcome.done():
            self._arm_ttl(loaded)
        if not flight.outcome.done():
            flight.outcome.set_result(loaded)

    def _drop(self, slot: Slot, reason: str) -> None:
        """Retire what is loaded, and what is being loaded as soon as it is."""
        if slot.flight is not None:
            slot.flight.is_unwanted = True
        self._retire(slot, reason)

    def _retire(self, slot: Slot, reason: str) -> None:
        loaded, slot.loaded = slot.loaded, None
        if loaded is None:
            return
        slot.state, slot.reason = "UNLOADING", reason
        if self._default is loaded:
            self._default = None

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
                loaded.gone.set()
                then()

        self._spawn(drain())

    def _arm_ttl(self, loaded: LoadedVersion) -> None:
        """One timer per loaded version, which looks again when the idle time could be over."""
        ttl_s = self.config.ttl_s
        if ttl_s is None or self.config.pinned or not loaded.is_open:
            return
        left_s = ttl_s - loaded.idle_s
        if left_s > 0 or loaded.active:
            asyncio.get_running_loop().call_later(max(left_s, 0.05 * ttl_s), self._arm_ttl, loaded)
            return
        for slot in self._slots.values():
            if slot.loaded is loaded:
                logger.info("%s was idle for %g s", loaded.key, ttl_s)
                self._retire(slot, UNLOADED)

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
        failure = slot.open.failure if slot.open is not None else None
        if failure is not None:
            return VersionStatus(version=number, state="UNAVAILABLE", reason=failure.message)
        return VersionStatus(
            version=number,
            state=slot.state,
            reason=slot.reason,
            progress=slot.flight.loading.progress if slot.flight is not None else None,
        )


def _modified(entry: ModelEntry) -> int:
    """When the newest version was last changed, in seconds since 1970."""
    path = entry.versions[-1].path if entry.versions else entry.path
    try:
        return int(path.stat().st_mtime)
    except OSError:
        return 0
