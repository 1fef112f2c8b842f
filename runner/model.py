"""One model of the repository: its versions, which of them answers, and the hand-over between them.

A new version loads beside the old one, takes over when it is ready, and then the old one drains and unloads.
A load is single-flight: whoever needs the version meanwhile waits for the same one.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Literal

import msgspec

from repository.config import ModelConfig
from repository.snapshot import ModelEntry
from runner.api import NOT_LOADED, UNLOADED, ModelStatus, VersionStatus
from runner.calls import before
from runner.errors import (
    DeadlineExceeded,
    EngineUnavailable,
    InsufficientMemory,
    LoadFailed,
    ModelDisabled,
    ModelNotFound,
    ModelNotLoaded,
    ModelNotReady,
    RunnerError,
    WeightsUnavailable,
)
from runner.loaded import LoadedVersion
from runner.loader import Loader
from runner.offer import Offer, draw, offer_of
from runner.overrides import Override
from runner.pace import load_wait_s
from runner.retry import Retry
from runner.slots import RETRY_AFTER_S, Flight, Slot, Slots, Source, Spawn

logger = logging.getLogger(__name__)

Follow = Literal["nothing", "loaded", "everything"]
"""What is loaded again when the disk changes."""


class Model:
    """`entry` is what holds: `disk_entry`, which the repository says, or what a load request gave instead.

    `spawn` starts a task that outlives the request which caused it.
    """

    def __init__(
        self,
        entry: ModelEntry,
        *,
        loader: Loader,
        spawn: Spawn,
        loads_on_demand: bool,
        stuck_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._spawn = spawn
        self._loads_on_demand = loads_on_demand
        self._clock = clock
        self.slots = Slots(
            loader=loader,
            spawn=spawn,
            stuck_s=stuck_s,
            clock=clock,
            on_loaded=self._note_default,
            on_empty=self.forget_override,
        )
        self._last_default: LoadedVersion | None = None
        self._closed: RunnerError | None = None
        self._override: Override | None = None
        self._sent_for: dict[int, float] = {}  # when versions that others stood in for were last loaded
        self._retry = Retry()
        self.disk_entry = entry
        self.offer = Offer()
        self._set_entry(entry)

    def _set_entry(self, entry: ModelEntry) -> None:
        self.entry = entry
        self.config = entry.config or ModelConfig()
        offer = offer_of(entry)
        if offer.problem and self.offer.weights:  # what served the plain name goes on
            offer = msgspec.structs.replace(offer, weights=self.offer.weights)
        self.offer = offer
        self._created = _modified(entry)

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def is_settled(self) -> bool:
        """Nothing of it is loading, unloading or failed (Triton's strict readiness)."""
        statuses = [slot.status() for slot in self.slots]
        return all(
            status.state == "READY" or (status.state == "UNAVAILABLE" and status.reason == UNLOADED)
            for status in statuses
        )

    @property
    def has_failed_lately(self) -> bool:
        """A load has failed, and is not tried again yet."""
        return any(slot.failure and self._clock() - slot.failed_at < RETRY_AFTER_S for slot in self.slots)

    @property
    def _default(self) -> LoadedVersion | None:
        """What has answered for the plain name and still can."""
        last = self._last_default
        return last if last is not None and last.is_open else None

    def _note_default(self, slot: Slot, replaced: LoadedVersion | None) -> None:
        if slot.number == self.offer.default_version or (
            replaced is not None and replaced is self._last_default
        ):
            self._last_default = slot.loaded

    def is_ready(self, version: int | None = None, *, loaded_only: bool) -> bool:
        """Whether a request would be answered: loaded, or (on demand) loadable."""
        if self.config.disabled or self._closed is not None:
            return False
        numbers = [*self.offer.weights] if version is None else [version]
        serving = [self._answering(number, is_plain=version is None) for number in numbers]
        answering = [each for each in serving if each is not None]
        if answering:
            return any(each.failure is None for each in answering)
        if loaded_only or not self._loads_on_demand or self.offer.problem:
            return False
        return any(number in self.offer.versions and self._is_loadable(number) for number in numbers)

    async def acquire(
        self, version: int | None = None, *, point: float | None = None, deadline: float | None = None
    ) -> LoadedVersion:
        """The version that answers, loaded if need be. Lease it before the next await. Where several share the plain
        name, `point` (0 up to 1) picks one of them; None is for what is no inference, which the main one answers.
        At the `deadline` (the loop's time) the load goes on, for who comes back.

        Raises ModelDisabled, ModelNotFound, ModelNotReady, LoadFailed, InsufficientMemory or DeadlineExceeded.
        """
        self._check_open()
        self.check_enabled()
        if version is not None or not self.offer.is_split:
            return await self._acquire(version, deadline=deadline)
        failures: list[RunnerError] = []
        for number in self._shared(point):
            try:
                return await self._acquire(None, stands_for=number, deadline=deadline)
            except DeadlineExceeded:
                raise
            except RunnerError as error:
                failures.append(error)
        raise failures[0]

    async def _acquire(
        self, version: int | None, *, stands_for: int | None = None, deadline: float | None = None
    ) -> LoadedVersion:
        """`stands_for`: the version that the plain name stands for this time."""
        number = stands_for or self.offer.default_version if version is None else version
        answering = self._answering(number, is_plain=version is None)
        if answering is not None:
            return answering
        if number is None or number not in self.offer.versions:
            if version is None:
                raise LoadFailed(f"model {self.name!r} cannot be served: {self.offer.problem}")
            have = ", ".join(map(str, self.offer.versions)) or "none"
            raise ModelNotFound(
                f"model {self.name!r} has no version {version}; served versions: {have}", model=self.name
            )
        slot = self.slots.get(number)
        if not self._loads_on_demand and (slot is None or slot.flight is None):
            reason = f": {slot.reason}" if slot is not None and slot.reason else ""
            raise ModelNotLoaded(
                f"model {self.name!r} version {number} is not loaded{reason}",
                model=self.name,
                version=version,
            )
        return await self.load(number, retry=False, deadline=deadline)

    def check_enabled(self) -> None:
        """Raises ModelDisabled."""
        if self.config.disabled:
            raise ModelDisabled(f"model {self.name!r} is disabled in its config.yaml")

    def still_loading(self, version: int | None = None) -> ModelNotReady | None:
        """What to tell who cannot wait any longer for the load under way; None where nothing is loading."""
        number = self.offer.default_version if version is None else version
        slot = self.slots.get(number)
        if slot is None or slot.flight is None:
            return None
        loading = slot.flight.loading
        return ModelNotReady(
            f"model {self.name!r} version {slot.number} is still {loading.note}; try again later",
            retry_after_s=load_wait_s(self._clock() - slot.flight.began, loading.progress),
        )

    def _answering(self, number: int | None, *, is_plain: bool) -> LoadedVersion | None:
        """The loaded version that answers now. For the plain name the old one serves until the new one is ready."""
        return self.slots.open(number) or (self._default if is_plain else None)

    def _shared(self, point: float | None) -> list[int]:
        """The versions that share the plain name, the one that `point` falls on first. Those that cannot answer now
        are passed over if others can, and sent for; all of the others count as used."""
        weights = self.offer.weights
        serving = [self.slots.open(number) for number in weights]
        able = {each.version: each for each in serving if each is not None and each.failure is None}
        if self._loads_on_demand:
            self._send_for(number for number in weights if number not in able)
        for each in able.values():
            each.last_used = self._clock()
        pool = {number: weights[number] for number in weights if number in able} or weights
        first = self.offer.default_version if point is None else draw(pool, point)
        return sorted(pool, key=lambda number: (number != first, -pool[number]))

    def _send_for(self, numbers: Iterable[int]) -> None:
        """Load versions in the background, none of them too often."""

        async def load(number: int) -> None:
            try:
                await self.load(number, retry=False)
            except RunnerError as error:
                logger.warning("%s version %d: %s; others stand in", self.name, number, error.message)

        now = self._clock()
        for number in numbers:
            slot, last = self.slots.get(number), self._sent_for.get(number)
            is_busy = slot is not None and slot.is_busy
            if not is_busy and (last is None or now - last >= RETRY_AFTER_S):
                self._sent_for[number] = now
                self._spawn(load(number))

    async def load(self, number: int, *, retry: bool = True, deadline: float | None = None) -> LoadedVersion:
        """Load a selected version as `entry` has it now, and wait for it. With `retry` a failure just now does
        not count. What comes back may be closed already, where something newer or an unload overtook it. A download
        that nobody waits for any more is given up, except for those whose `deadline` came.

        Raises LoadFailed, InsufficientMemory, ModelNotReady or DeadlineExceeded.
        """
        while True:
            self._check_open()
            source = self._source(number)
            slot = self.slots.make(number)
            if slot.flight is None and slot.open is not None and slot.open.source == source:
                return slot.open
            failure = slot.recent_failure(source, self._clock()) if slot.flight is None else None
            if failure is not None and not retry:
                raise failure.copy()
            if slot.flight is not None and slot.flight.is_given_up:
                await self._end_of(slot.flight, deadline)
                continue
            flight = slot.flight or self.slots.take_off(slot, self.entry, source, self._override)
            flight.is_unwanted = False
            flight.waiting += 1
            try:
                loaded = await before(deadline, asyncio.shield(flight.outcome))
            except asyncio.CancelledError:
                if flight.waiting == 1:
                    flight.stop_fetching()
                raise
            except DeadlineExceeded:
                raise
            except RunnerError as error:
                if self._closed is None and flight.source != self._source(number):
                    continue  # its files have changed meanwhile: it may have been mended
                raise error.copy() from None
            finally:
                flight.waiting -= 1
            if not loaded.is_open or loaded.source == self._source_or_none(number):
                return loaded
            retry = False

    async def _end_of(self, flight: Flight, deadline: float | None) -> None:
        """Wait until a load that was given up is over, however it ends. Raises DeadlineExceeded."""
        try:
            await before(deadline, asyncio.shield(flight.outcome))
        except DeadlineExceeded:
            raise
        except RunnerError:
            pass

    async def load_selected(self) -> None:
        """Load every version the policy serves, then retire the others. Raises the first failure, after trying
        all."""
        self.check_enabled()
        if self.offer.problem:
            raise LoadFailed(f"model {self.name!r} cannot be served: {self.offer.problem}")
        failures: list[RunnerError] = []
        for number in self.offer.versions:
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

    async def load_override(self, override: Override) -> None:
        """As `load_selected`, from what a load request gave. It holds until the next load, a change on disk or an
        unload; where it fails, what held before holds again."""
        before = self._override
        if before is not None:
            before.hold()
        self._use(override)
        try:
            await self.load_selected()
        except RunnerError:
            if self._override is override:
                self._use(before)
            raise
        finally:
            if before is not None:
                before.release()

    def forget_override(self) -> None:
        """From now on what is loaded is loaded from disk."""
        if self._override is not None:
            self._use(None)

    def _use(self, override: Override | None) -> None:
        old, self._override = self._override, override
        if override is not None:
            override.hold()
        self._set_entry(self.disk_entry if override is None else override.entry)
        if old is not None:
            old.release()

    def unload(self, version: int | None = None, *, reason: str = UNLOADED) -> None:
        """Begin to unload every version, or one: running requests finish, new ones find it gone."""
        self._retry.reset()
        for slot in self.slots:
            if version in (None, slot.number):
                self.slots.drop(slot, reason)

    def close(self, error: RunnerError, *, abort_loads: bool = False) -> None:
        """The model is gone, or the server stops: nothing is loaded any more, and what waits for a load gets
        `error`. With `abort_loads` loads under way end at once."""
        self._closed = error
        self.unload(reason=error.message)
        for slot in self.slots:
            if slot.flight is not None:
                slot.flight.fail(error.copy())
                if abort_loads and slot.flight.task is not None:
                    slot.flight.task.cancel()

    def apply(self, entry: ModelEntry, *, follow: Follow) -> None:
        """The disk says something new."""
        self._retry.reset()
        self.disk_entry = entry
        self._use(None)
        self.slots.forget_failures(self._source_or_none)
        self.slots.stop_stale_fetches(self._source_or_none)
        if self.config.disabled and follow != "nothing":
            self.unload()
        elif follow == "everything" or (follow == "loaded" and self.slots.is_busy):
            self._spawn(self.hand_over(load_all=follow == "everything"))

    async def hand_over(self, *, load_all: bool) -> None:
        """Load what is stale or new beside what serves, then retire what is not served any more. What cannot be had
        now, but perhaps later, is tried again."""
        self._retry.cancel()
        if self.offer.problem:
            logger.error("%s: %s; nothing of it is loaded anew", self.name, self.offer.problem)
            return
        in_use = [slot.number for slot in self.slots if slot.open is not None or slot.flight is not None]
        numbers = [number for number in self.offer.versions if load_all or number in in_use]
        has_old = any(number not in self.offer.versions for number in in_use)
        if has_old or self._default is not None:
            numbers += self.offer.weights
        may_pass = False
        for number in dict.fromkeys(numbers):
            try:
                await self.load(number, retry=False)
            except RunnerError as error:
                logger.debug("%s version %d is not taken up: %s", self.name, number, error)
                may_pass |= isinstance(error, EngineUnavailable | WeightsUnavailable | InsufficientMemory)
        self._retire_unselected()
        if not may_pass or self._closed is not None:
            self._retry.reset()
            return
        pause_s = self._retry.plan(lambda: self._spawn(self.hand_over(load_all=load_all)))
        logger.info("%s: trying again in %g s", self.name, pause_s)

    def _retire_unselected(self) -> None:
        default = self.offer.default_version
        slot = self.slots.get(default)
        if slot is None or slot.open is None:
            return  # the old version goes on serving
        self._last_default = slot.open
        for other in self.slots:
            if other.number not in self.offer.versions:
                self.slots.drop(other, UNLOADED)

    def _check_open(self) -> None:
        if self._closed is not None:
            raise self._closed.copy()

    def _source(self, number: int) -> Source:
        source = self._source_or_none(number)
        if self.offer.problem or source is None:
            reason = self.offer.problem or f"version {number} is not there any more"
            raise LoadFailed(f"model {self.name!r} cannot be served: {reason}")
        return source

    def _source_or_none(self, number: int) -> Source | None:
        version = self.entry.version(number)
        return None if version is None else (version.stamp, self.entry.config)

    def _is_loadable(self, number: int) -> bool:
        """Nothing is known that would make a load of it fail."""
        slot = self.slots.get(number)
        return slot is None or slot.failure is None or slot.failed_source != self._source_or_none(number)

    def status(self, *, loaded_only: bool) -> ModelStatus:
        """This model's row of the index."""
        numbers = sorted({*self.offer.versions, *self.slots.numbers})
        loaded = next((slot.open for slot in self.slots if slot.open is not None), None)
        return ModelStatus(
            name=self.name,
            versions=tuple(self._version_status(number) for number in numbers),
            default_version=self.offer.default_version,
            ready=self.is_ready(loaded_only=loaded_only),
            reason=self.offer.problem,
            description=self.config.description or "",
            usage=self.config.usage or "",
            backend=loaded.plan.backend if loaded is not None else (self.config.backend or ""),
            aliases=self.entry.aliases,
            context_tokens=(loaded.info.context_tokens or None) if loaded else self.config.context_size,
            created=self._created,
            disabled=self.config.disabled,
        )

    def _version_status(self, number: int) -> VersionStatus:
        slot = self.slots.get(number)
        if slot is None:
            reason = self.offer.problem or NOT_LOADED
            return VersionStatus(version=number, state="UNAVAILABLE", reason=reason)
        return slot.status()


def _modified(entry: ModelEntry) -> int:
    """When the newest version was last changed, in seconds since 1970."""
    path = entry.versions[-1].path if entry.versions else entry.path
    try:
        return int(path.stat().st_mtime)
    except OSError:
        return 0
