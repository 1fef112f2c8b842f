"""All models that the repository holds, by name: looks at the disk, follows it, and hands each model its news.

What a model makes of it is `runner.model`'s; requests are `runner.runner`'s.
"""

import asyncio
import logging
from collections.abc import Callable

from repository.options import Schemas
from repository.problem import Problem
from repository.scan import RepositoryError, scan
from repository.snapshot import ModelEntry, Snapshot
from repository.watch import watch
from runner.api import ModelStatus
from runner.errors import ModelNotFound, RunnerError
from runner.guests import HOW_TO_ALLOW, HOW_TO_LOAD, guest_entry, is_guest_of_hub, is_on_hub
from runner.loaded import LoadedVersion
from runner.model import Follow, Model
from runner.names import ModelName, parse_name, unknown_model
from runner.settings import RunnerSettings

logger = logging.getLogger(__name__)

SETTLE_LOOKS = 5
SETTLE_PAUSE_S = 0.1


class Catalog:
    """`make_model` makes the model of an entry."""

    def __init__(
        self, settings: RunnerSettings, schemas: Schemas, *, make_model: Callable[[ModelEntry], Model]
    ) -> None:
        self._settings = settings
        self._schemas = schemas
        self._make_model = make_model
        self._snapshot: Snapshot | None = None
        self._models: dict[str, Model] = {}
        self._guests: set[str] = set()
        self._leaving: list[Model] = []
        self._scanning = asyncio.Lock()
        self._is_closed = False

    async def open(self) -> None:
        """Look for the first time. Raises RepositoryError."""
        self._apply(await asyncio.to_thread(scan, self._settings.repository, schemas=self._schemas))

    def close(self, error: RunnerError) -> None:
        """Nothing is loaded any more; who waits for a load gets `error`."""
        self._is_closed = True
        for model in self._all:
            model.close(error, abort_loads=True)

    def abandon(self) -> None:
        """Wait no longer for requests that still run."""
        for model in self._all:
            model.slots.abandon()

    @property
    def models(self) -> dict[str, Model]:
        return self._models

    @property
    def aliases(self) -> dict[str, str]:
        return self._snapshot.aliases if self._snapshot is not None else {}

    def shown_name(self, text: str, name: str) -> str:
        """What answers to `text` are named by: the model's `name`, or the redirect that it was asked by."""
        asked = parse_name(text).model
        return asked if self._snapshot is not None and asked in self._snapshot.redirects else name

    @property
    def in_use(self) -> list[LoadedVersion]:
        """Every version whose workers live."""
        return [loaded for model in self._all for loaded in model.slots.loaded]

    @property
    def _all(self) -> list[Model]:
        return [*self._models.values(), *self._leaving]

    def look_up(self, text: str) -> tuple[Model | None, ModelName]:
        """The model that a name or alias means, if there is one, and the name taken apart."""
        self._forget_guests()
        name = parse_name(text)
        return self._models.get(self.aliases.get(name.model, name.model)), name

    def find(self, text: str) -> tuple[Model, ModelName]:
        """As `look_up`. Raises ModelNotFound with close names."""
        found, name = self.look_up(text)
        if found is None:
            raise unknown_model(text, [*self._models, *self.aliases], more=self.hint_for(text))
        return found, name

    def find_or_invite(self, text: str) -> tuple[Model, ModelName]:
        """As `find`; a name on the hub becomes a guest, where that is allowed."""
        found, name = self.look_up(text)
        if found is None and self.may_come(text):
            found = self.invite(name.model)
        return (found, name) if found is not None else self.find(text)

    def invite(self, name: str) -> Model | None:
        """The guest of that name, which is on the hub; None where it is no such name, or that is not allowed."""
        found = self._models.get(name)
        if found is not None:
            return found if is_guest_of_hub(found.disk_entry) else None
        entry = guest_entry(name) if self._settings.allow_pull else None
        return self.add_guest(entry) if entry is not None else None

    def may_come(self, text: str) -> bool:
        """A request for that name fetches it from the hub."""
        return self._settings.allow_pull and self._settings.control_mode == "on-demand" and is_on_hub(text)

    def hint_for(self, text: str) -> str:
        """What helps to get a model that is not there, if anything."""
        if not is_on_hub(text):
            return ""
        return HOW_TO_LOAD if self._settings.allow_pull else HOW_TO_ALLOW

    @property
    def hub_guests(self) -> list[str]:
        """The guests that requests have named."""
        return [name for name in self._guests if is_guest_of_hub(self._models[name].disk_entry)]

    def is_on_disk(self, model: Model) -> bool:
        """The repository held it when it was last looked at."""
        return self._snapshot is not None and model.name in self._snapshot.models

    def add_guest(self, entry: ModelEntry) -> Model:
        """A model that is not in the repository, or the one that has its name already; it is forgotten once it is not
        loaded any more."""
        if (found := self._models.get(entry.name)) is not None:
            return found
        self._guests.add(entry.name)
        return self._add(entry)

    def _forget_guests(self) -> None:
        """Those that were loaded and are no more; one whose load failed is shown with its reason, for a moment where
        anybody can name it."""
        for name in [*self._guests]:
            model = self._models[name]
            is_spent = is_guest_of_hub(model.disk_entry) and not model.has_failed_lately
            if not model.slots.is_busy and (is_spent or not any(slot.failure for slot in model.slots)):
                self._guests.discard(name)
                del self._models[name]

    def _add(self, entry: ModelEntry) -> Model:
        model = self._models[entry.name] = self._make_model(entry)
        return model

    def index(self) -> tuple[ModelStatus, ...]:
        """Every model, by name, those that lost their name included."""
        self._forget_guests()
        loaded_only = self._settings.ready_means == "loaded"
        rows = [model.status(loaded_only=loaded_only) for model in self._models.values()]
        assert self._snapshot is not None
        served = {id(entry) for entry in self._snapshot.models.values()}
        rows += [
            ModelStatus(name=entry.name, versions=(), reason="; ".join(map(str, entry.problems)))
            for entry in self._snapshot.entries
            if id(entry) not in served
        ]
        return tuple(sorted(rows, key=lambda row: row.name))

    async def evict(self, loaded: LoadedVersion) -> None:
        for model in self._all:
            if loaded in model.slots.loaded:
                await model.slots.evict(loaded)

    async def follow(self) -> None:
        """Hand on what changes on disk; never ends."""
        changes = watch(
            self._settings.repository,
            poll_s=self._settings.poll_s,
            schemas=self._schemas,
            latest=lambda: self._snapshot,
            lock=self._scanning,
        )
        async for changed in changes:
            self._apply(changed)

    async def look_again(self, text: str) -> None:
        """Look at the disk now, until it keeps still: who asks for a load has perhaps just put the model there."""
        for _ in range(SETTLE_LOOKS):
            try:
                async with self._scanning:
                    snapshot = await asyncio.to_thread(
                        scan, self._settings.repository, self._snapshot, schemas=self._schemas
                    )
                    self._apply(snapshot, named=parse_name(text).model)
            except RepositoryError as error:
                logger.error("%s", error)
                return
            if not snapshot.is_moving:
                return
            await asyncio.sleep(SETTLE_PAUSE_S)

    def _apply(self, snapshot: Snapshot, *, named: str | None = None) -> None:
        """Take over a look at the disk. Where the disk is not followed, a model that serves stays as it is until it
        is `named`."""
        before, self._snapshot = self._snapshot, snapshot
        if self._is_closed or (before is snapshot and named is None):
            return
        known = set(_problems(before)) if before is not None else set()
        for problem in _problems(snapshot):
            if problem not in known:
                logger.warning("%s", problem)
        logger.debug("the repository has %d models", len(snapshot.models))
        follow = self._follow
        for name in [name for name in self._models if name not in snapshot.models]:
            model = self._models[name]
            if model.slots.is_busy and (follow == "nothing" or name in self._guests):
                continue
            del self._models[name]
            self._guests.discard(name)
            model.close(ModelNotFound(f"model {name!r} was removed from the repository", model=name))
            self._leaving.append(model)
        self._leaving = [model for model in self._leaving if model.slots.is_busy]
        named = snapshot.aliases.get(named, named) if named is not None else None
        for name, entry in snapshot.models.items():
            if name not in self._models:
                model = self._add(entry)
                if before is not None and follow != "nothing":
                    is_wanted = self.loads_at_start(model)
                    model.apply(entry, follow="everything" if is_wanted else follow)
                continue
            model = self._models[name]
            self._guests.discard(name)
            may_change = follow != "nothing" or name == named or not model.slots.is_busy
            if may_change and model.disk_entry is not entry and model.disk_entry != entry:
                model.apply(entry, follow=follow)

    @property
    def _follow(self) -> Follow:
        match self._settings.control_mode:
            case "on-demand":
                return "loaded"
            case "poll":
                return "everything"
            case _:
                return "nothing"

    def loads_at_start(self, model: Model) -> bool:
        """It is loaded as soon as it is seen."""
        settings = self._settings
        if model.config.disabled:
            return False
        match settings.control_mode:
            case "none" | "poll":
                return True
            case "explicit":
                return self._is_named(model)
            case _:
                return model.config.preload or self._is_named(model)

    def _is_named(self, model: Model) -> bool:
        """At the start it was asked for, by its name, an alias or `*`."""
        return not {"*", model.name, *model.entry.aliases}.isdisjoint(self._settings.load_models)


def _problems(snapshot: Snapshot) -> list[Problem]:
    return [problem for entry in snapshot.entries for problem in entry.all_problems]
