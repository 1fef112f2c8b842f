"""The versions of one model that are loaded, being loaded or on their way out, and what each says of itself.

Carries out what `runner.model` decides: starts loads, lets the old go when the new is there, unloads.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator

from repository.config import ModelConfig
from repository.snapshot import ModelEntry
from runner.api import UNLOADED, State, VersionStatus
from runner.errors import InsufficientMemory, LoadFailed, ModelNotReady, RunnerError
from runner.loaded import LoadedVersion
from runner.loader import Loader, Loading
from runner.overrides import Override

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 10.0
"""A failed load is not tried again by requests before this, unless its files change."""

Spawn = Callable[[Coroutine[object, object, None]], asyncio.Task[None]]
Source = tuple[str, ModelConfig | None]
"""What a version is loaded from: the stamp of its files and the configuration."""


class Flight:
    """A load under way. `outcome` is set in any case, even when the task is cancelled before it began."""

    def __init__(self, entry: ModelEntry, source: Source, override: Override | None, *, began: float) -> None:
        self.entry = entry
        self.source = source
        self.override = override
        self.began = began
        self.loading = Loading()
        self.outcome: asyncio.Future[LoadedVersion] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None] | None = None
        self.is_unwanted = False  # unloaded while it was still loading
        self.is_given_up = False  # it ends without a result
        self.waiting = 0  # those who want its outcome

    def stop_fetching(self) -> None:
        """Give it up while nothing but a download has begun, which a later load goes on with."""
        if self.loading.is_fetching and self.task is not None:
            self.is_given_up = True
            self.task.cancel()

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

    @property
    def is_busy(self) -> bool:
        """Something is loaded or being loaded."""
        return self.loaded is not None or self.flight is not None

    def recent_failure(self, source: Source, now: float) -> RunnerError | None:
        """How loading it from `source` failed a moment ago, if it did."""
        is_recent = self.failed_source == source and now - self.failed_at < RETRY_AFTER_S
        return self.failure if is_recent else None

    def status(self) -> VersionStatus:
        crashed = self.open.failure if self.open is not None else None
        if crashed is not None:
            return VersionStatus(version=self.number, state="UNAVAILABLE", reason=crashed.message)
        loading = self.flight.loading if self.flight is not None else None
        is_coming = self.state == "LOADING" and loading is not None and loading.transfer is not None
        return VersionStatus(
            version=self.number,
            state=self.state,
            reason=loading.note if loading is not None and is_coming else self.reason,
            progress=loading.progress if loading is not None else None,
        )


class Slots:
    """By version number; a version that was never to be loaded has none. `on_loaded` is told of a slot that has a
    new version, and the one it replaces; `on_empty` when nothing is loaded or being loaded any more."""

    def __init__(
        self,
        *,
        loader: Loader,
        spawn: Spawn,
        stuck_s: float,
        clock: Callable[[], float],
        on_loaded: Callable[[Slot, LoadedVersion | None], None],
        on_empty: Callable[[], None],
    ) -> None:
        self._loader = loader
        self._spawn = spawn
        self._stuck_s = stuck_s
        self._clock = clock
        self._on_loaded = on_loaded
        self._on_empty = on_empty
        self._slots: dict[int, Slot] = {}
        self._retiring: set[LoadedVersion] = set()
        self._overrides: dict[LoadedVersion, Override] = {}  # what those were loaded from that live

    def __iter__(self) -> Iterator[Slot]:
        return iter(list(self._slots.values()))

    def get(self, number: int | None) -> Slot | None:
        return self._slots.get(number) if number is not None else None

    def make(self, number: int) -> Slot:
        """The slot of a version, a new one where it has none."""
        return self._slots.setdefault(number, Slot(number))

    def open(self, number: int | None) -> LoadedVersion | None:
        """The loaded version of that number, if it takes requests."""
        slot = self.get(number)
        return slot.open if slot is not None else None

    @property
    def numbers(self) -> list[int]:
        return list(self._slots)

    @property
    def loaded(self) -> list[LoadedVersion]:
        """Every version whose workers live, retiring ones too."""
        return [slot.loaded for slot in self if slot.loaded is not None] + list(self._retiring)

    @property
    def is_busy(self) -> bool:
        """Something lives or is being loaded."""
        return bool(self._retiring) or any(slot.is_busy for slot in self)

    def take_off(self, slot: Slot, entry: ModelEntry, source: Source, override: Override | None) -> Flight:
        """Begin to load the slot's version of `entry`."""
        flight = slot.flight = Flight(entry, source, override, began=self._clock())
        if override is not None:
            override.hold()
        if slot.open is None:
            slot.state, slot.reason = "LOADING", ""
        flight.task = self._spawn(self._load(slot, flight))

        def landed(_: asyncio.Task[None]) -> None:
            if slot.flight is flight:  # it was cancelled
                slot.flight = None
                if slot.state == "LOADING":
                    slot.state, slot.reason = "UNAVAILABLE", UNLOADED
                flight.fail(ModelNotReady("the load was given up", retry_after_s=1.0))
                if override is not None:
                    override.release()

        flight.task.add_done_callback(landed)
        return flight

    def forget_failures(self, source_of: Callable[[int], Source | None]) -> None:
        """Loads that failed may succeed now where `source_of` gives another source than they had."""
        for slot in self:
            if slot.failure is not None and slot.failed_source != source_of(slot.number):
                slot.failure, slot.reason = None, ""
                if not slot.is_busy:
                    del self._slots[slot.number]

    def stop_stale_fetches(self, source_of: Callable[[int], Source | None]) -> None:
        """Give up downloads for what `source_of` does not say any more."""
        for slot in self:
            if slot.flight is not None and slot.flight.source != source_of(slot.number):
                slot.flight.stop_fetching()

    def drop(self, slot: Slot, reason: str) -> None:
        """Retire what is loaded, and what is being loaded as soon as it is; a download ends at once."""
        if slot.flight is not None:
            slot.flight.is_unwanted = True
            slot.flight.stop_fetching()
        self.retire(slot, reason)

    def retire(self, slot: Slot, reason: str) -> None:
        """Close what is loaded to new requests, and unload it when it has finished those it has."""
        loaded, slot.loaded = slot.loaded, None
        if loaded is None:
            return
        slot.state, slot.reason = "UNLOADING", reason

        def gone() -> None:
            if slot.state == "UNLOADING":
                slot.state = "UNAVAILABLE"

        self._let_go(loaded, gone)
        if not any(each.is_busy for each in self):
            self._on_empty()

    def abandon(self) -> None:
        """Wait no longer for the requests of what is on its way out."""
        for loaded in self._retiring:
            loaded.abandon()

    async def evict(self, loaded: LoadedVersion) -> None:
        """Unload an idle version to make room; it is closed before the first await."""
        for slot in self:
            if slot.loaded is loaded:
                self.retire(slot, "evicted to make room")
        while loaded in self._retiring:
            await loaded.gone.wait()

    async def _load(self, slot: Slot, flight: Flight) -> None:
        version, name = flight.entry.version(slot.number), flight.entry.name
        try:
            if version is None:
                raise LoadFailed(f"version {slot.number} is not there any more")
            loaded = await self._loader.load(flight.entry, version, flight.loading)
        except Exception as error:
            if not isinstance(error, RunnerError):
                logger.exception("loading %s version %d failed", name, slot.number)
                error = LoadFailed(f"loading failed: {type(error).__name__}: {error}")
            if not isinstance(error, InsufficientMemory):  # which the next request may find mended
                slot.failure, slot.failed_source, slot.failed_at = error, flight.source, self._clock()
            if slot.open is None:
                slot.state, slot.reason = "UNAVAILABLE", error.message
            logger.error("%s version %d: %s", name, slot.number, error.message)
            slot.flight = None
            flight.fail(error)
            if flight.override is not None:
                flight.override.release()
            return
        slot.flight = None
        if flight.override is not None:
            self._overrides[loaded] = flight.override
        old, slot.loaded = slot.loaded, loaded
        slot.state, slot.reason, slot.failure = "READY", "", None
        self._on_loaded(slot, old)
        if old is not None:
            self._let_go(old)
        if flight.is_unwanted:
            self.retire(slot, UNLOADED)
        elif not flight.outcome.done():
            self._arm_ttl(slot, loaded)
        if not flight.outcome.done():
            flight.outcome.set_result(loaded)

    def _let_go(self, loaded: LoadedVersion, then: Callable[[], None] = lambda: None) -> None:
        logger.debug("%s takes no more requests; %d still run", loaded.key, loaded.active)
        loaded.close_to_new()
        self._retiring.add(loaded)

        async def drain() -> None:
            try:
                if not await loaded.drain(self._stuck_s):
                    logger.warning("%s: %d requests are cut", loaded.key, loaded.active)
                await self._loader.unload(loaded)
            finally:
                self._retiring.discard(loaded)
                if loaded in self._overrides:
                    self._overrides.pop(loaded).release()
                loaded.gone.set()
                then()

        self._spawn(drain())

    def _arm_ttl(self, slot: Slot, loaded: LoadedVersion) -> None:
        """One timer per loaded version, which looks again when the idle time could be over."""
        config = loaded.source[1]
        ttl_s = config.ttl_s if config is not None and not config.pinned else None
        if ttl_s is None or slot.loaded is not loaded:
            return
        left_s = ttl_s - loaded.idle_s
        if left_s > 0 or loaded.active:
            asyncio.get_running_loop().call_later(max(left_s, 0.05 * ttl_s), self._arm_ttl, slot, loaded)
            return
        logger.info("%s was idle for %g s", loaded.key, ttl_s)
        self.retire(slot, UNLOADED)
