"""`Runner`: the one object that adapters hold. Finds the version and the instance that a request means and passes it
to its worker. What there is is `runner.catalog`'s, lifecycle `runner.model`'s, memory `runner.loader`'s.
"""

import asyncio
import contextlib
import functools
import logging
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import msgspec
import psutil

from backends.registry import Registry
from repository.snapshot import ModelEntry
from runner import triton_metrics
from runner.api import EmbedResult, ModelConfigInfo, ModelMetadata, ModelStats, ModelStatus, TokenizeResult
from runner.calls import ask, deadline_in, open_call
from runner.catalog import Catalog
from runner.describe import describe_config, describe_model
from runner.environments.folder import Environments
from runner.environments.interpreters import Interpreters
from runner.errors import (
    ActionNotAllowed,
    DeadlineExceeded,
    InvalidRequest,
    LoadFailed,
    ModelNotFound,
    ModelNotReady,
    RunnerError,
)
from runner.fetching import Fetcher
from runner.gpus import Gpus
from runner.guests import as_requested, new_remotes, refusal
from runner.ledger import Ledger
from runner.loaded import Lease, LoadedVersion
from runner.loader import Loader
from runner.metrics import Metrics
from runner.model import Model
from runner.names import choose_name, parse_name, unknown_model
from runner.offer import point_of
from runner.overrides import Overrides, absent
from runner.placement import NO_CONTENT, content_of
from runner.priorities import level_of, tier_of
from runner.record import RequestRecord
from runner.resolve import option_schemas
from runner.settings import RunnerSettings
from runner.tallies import Statistics
from runner.wire.messages import (
    CallAccepted,
    CallDelta,
    CallFinished,
    Detokenize,
    Detokenized,
    Embed,
    Embedded,
    FromWorker,
    ResetCache,
    Submit,
    Tokenize,
    Tokenized,
    ToWorker,
)
from runner.wire.requests import Accepted, Event, GenerateRequest, Prompt

logger = logging.getLogger(__name__)

BUDGET_SHARE = 0.8
EMBED_PROMPTS = 64


class Runner:
    """Use it as an async context manager: entering scans the repository and begins to follow it, leaving drains
    and ends every worker. Implements `runner.api.RunnerApi`.

    `clock` gives seconds, `wall_clock` those since 1970; `chance` numbers from 0 up to 1, by which requests are
    shared out between versions.
    """

    def __init__(
        self,
        settings: RunnerSettings,
        registry: Registry,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        chance: Callable[[], float] | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._wall_clock = wall_clock
        self._chance = chance or random.Random().random
        self._metrics = Metrics()
        self._statistics = Statistics()
        schemas = option_schemas(registry)
        self._catalog = Catalog(settings, schemas, make_model=self._make_model)
        self._overrides = Overrides(settings.state_dir, repository=settings.repository, schemas=schemas)
        self._tasks: asyncio.TaskGroup | None = None
        self._follower: asyncio.Task[None] | None = None
        self._starter: asyncio.Task[None] | None = None
        self._is_started = False
        self._is_closing = False
        self._loader = Loader(
            registry=registry,
            interpreters=Interpreters(Environments(settings.state_dir)),
            ledger=Ledger(settings.memory_budget_bytes or int(BUDGET_SHARE * psutil.virtual_memory().total)),
            metrics=self._metrics,
            statistics=self._statistics,
            cores=settings.cores or os.cpu_count() or 1,
            gpus=Gpus.here(),
            allow_remote_code=settings.allow_remote_code,
            state_dir=settings.state_dir,
            fetcher=Fetcher(settings.state_dir, keep_free_bytes=settings.keep_free_bytes),
            in_use=lambda: self._catalog.in_use,
            evict=self._catalog.evict if settings.control_mode == "on-demand" else None,
            clock=clock,
        )

    async def __aenter__(self) -> Self:
        await self._catalog.open()
        self._tasks = await asyncio.TaskGroup().__aenter__()
        if self._settings.control_mode in ("on-demand", "poll"):
            self._follower = self._tasks.create_task(self._catalog.follow(), name="follow the repository")
        self._starter = self._tasks.create_task(self._start(), name="load at start")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_closing = True
        for task in (self._follower, self._starter):
            if task is not None:
                task.cancel()
        self._catalog.close(ModelNotReady("the server is stopping", retry_after_s=5.0))
        end = asyncio.get_running_loop().call_later(self._settings.drain_s, self._catalog.abandon)
        try:
            if self._tasks is not None:
                await self._tasks.__aexit__(None, None, None)
        finally:
            end.cancel()
        self._overrides.close()

    # Requests

    async def generate(self, model: str, request: GenerateRequest) -> AsyncIterator[Event]:
        """Accepted, then Deltas, then Finished. Raises RunnerError; closing the iterator cancels the work."""
        began = self._clock()
        if (adapter := parse_name(model).adapter) is not None:
            request = msgspec.structs.replace(request, adapter=adapter)
        affinity = request.affinity or request.cache_salt
        point = self._chance() if affinity is None else point_of(affinity)
        async with self._lease(model, request, point=point) as (loaded, lease):
            if adapter is not None and adapter not in loaded.info.adapters:
                names = ", ".join(map(repr, loaded.info.adapters)) or "none at all"
                raise ModelNotFound(
                    f"model {loaded.name!r} has no adapter {adapter!r}; those it has: {names}", model=model
                )
            timeout_s = request.timeout_s or loaded.limits.request_timeout_s
            deadline = deadline_in(timeout_s, waited_s=self._clock() - began)
            with self._record(loaded, began) as record:
                level = level_of(request, loaded.limits)
                logger.debug(
                    "request %s to %s: level %d, instance %s",
                    request.request_id,
                    model,
                    level,
                    lease.instance.name,
                )
                leveled = msgspec.structs.replace(request, priority=level)
                shown = self._catalog.shown_name(model, loaded.name)
                with await open_call(lease, lambda number: Submit(number, leveled), deadline) as opened:
                    message = opened.first
                    while True:
                        match message:
                            case CallAccepted(_, prompt_tokens, position, idle):
                                tier = tier_of(level, loaded.limits)
                                yield Accepted(shown, loaded.version, prompt_tokens, position, tier, idle)
                            case CallDelta(_, delta):
                                lease.begin()
                                record.delta()
                                yield delta
                            case CallFinished(_, finished):
                                record.finished(finished, samples=request.n)
                                lease.learn(finished.usage, prefill_s=record.prefill_s)
                                yield finished
                                return
                            case other:
                                raise RunnerError(f"the worker answered with {type(other).__name__}")
                        message = await opened.next(deadline)

    async def embed(
        self, model: str, prompts: Sequence[Prompt], *, dimensions: int | None = None
    ) -> EmbedResult:
        """Vectors of `prompts`, a few of them in each call, so that a large batch holds up nobody else."""
        began = self._clock()
        async with self._lease(model, point=self._chance()) as (loaded, lease):
            deadline = deadline_in(loaded.limits.request_timeout_s, waited_s=self._clock() - began)
            vectors: list[bytes] = []
            prompt_tokens = 0
            with self._record(loaded, began) as record:
                for start in range(0, len(prompts), EMBED_PROMPTS):
                    piece = tuple(prompts[start : start + EMBED_PROMPTS])
                    make = functools.partial(Embed, prompts=piece, dimensions=dimensions)
                    answer = await ask(lease, make, deadline)
                    assert isinstance(answer, Embedded)
                    vectors += answer.vectors
                    prompt_tokens += answer.prompt_tokens
                record.embedded(len(vectors))
            return EmbedResult(
                model=self._catalog.shown_name(model, loaded.name),
                version=loaded.version,
                vectors=tuple(vectors),
                prompt_tokens=prompt_tokens,
            )

    async def tokenize(
        self, model: str, prompt: Prompt, *, add_special_tokens: bool = True, with_pieces: bool = False
    ) -> TokenizeResult:
        answer, loaded = await self._ask(
            model, lambda call: Tokenize(call, prompt, add_special_tokens, with_pieces)
        )
        assert isinstance(answer, Tokenized)
        return TokenizeResult(
            tokens=answer.tokens,
            text=answer.text,
            context_tokens=loaded.info.context_tokens,
            pieces=answer.pieces,
        )

    async def detokenize(self, model: str, tokens: Sequence[int]) -> str:
        answer, _ = await self._ask(model, lambda call: Detokenize(call, tuple(tokens)))
        assert isinstance(answer, Detokenized)
        return answer.text

    async def reset_cache(self, model: str) -> None:
        """Forget the idle prefixes of every instance of a loaded model or version."""
        found, name = self._catalog.find(model)
        for loaded in found.slots.loaded:
            if loaded.is_open and name.version in (None, loaded.version):
                deadline = deadline_in(loaded.limits.request_timeout_s)
                for instance in loaded.instances:
                    with loaded.lease(only=instance) as lease:
                        instance.seen.clear()
                        await ask(lease, ResetCache, deadline)

    # What there is

    def resolve_name(self, model: str | None, *, bearer: str | None = None) -> str:
        """The name that an inference request means. Raises ModelNotFound with close names."""
        return choose_name(
            model,
            bearer,
            known=self._catalog.models,
            aliases=self._catalog.aliases,
            fallback=self._settings.single_model_fallback,
            passing=self._catalog.hub_guests,
            may_come=self._catalog.may_come,
            hint_for=self._catalog.hint_for,
        )

    def request_defaults(self, model: str) -> Mapping[str, Any]:
        """What a configuration says of the shape of answers."""
        found, _ = self._catalog.look_up(model)
        return found.config.parameters.shape() if found is not None else {}

    def index(self) -> tuple[ModelStatus, ...]:
        """Every model of the repository, by name, those that lost their name included."""
        return self._catalog.index()

    def is_live(self) -> bool:
        return True

    def is_ready(self) -> bool:
        """Started, not stopping, and (except on demand) everything that was to be loaded is."""
        if not self._is_started or self._is_closing:
            return False
        if self._settings.control_mode == "on-demand":
            return True
        return all(model.is_settled for model in self._catalog.models.values())

    def model_ready(self, model: str) -> bool:
        found, name = self._catalog.look_up(model)
        if found is None or self._is_closing:
            return False
        return found.is_ready(name.version, loaded_only=self._settings.ready_means == "loaded")

    async def metadata(self, model: str) -> ModelMetadata:
        async with self._lease(model) as (loaded, _):
            found, _ = self._catalog.find(model)
            return describe_model(loaded, versions=found.offer.versions)

    async def model_config(self, model: str) -> ModelConfigInfo:
        async with self._lease(model) as (loaded, _):
            return describe_config(loaded)

    def statistics(self, model: str | None = None) -> tuple[ModelStats, ...]:
        """Of every loaded version, or of one model's. Raises ModelNotFound where nothing of that name is loaded."""
        found, name = self._catalog.find(model) if model is not None else (None, None)
        rows = [
            self._statistics.of(loaded.name, loaded.version).report(
                memory_bytes=self._loader.ledger.reserved_bytes(loaded.ledger_key)
            )
            for loaded in (found.slots.loaded if found is not None else self._catalog.in_use)
            if loaded.is_open and (name is None or name.version in (None, loaded.version))
        ]
        if model is not None and not rows:
            raise ModelNotFound(f"nothing of model {model!r} is loaded", model=model)
        return tuple(sorted(rows, key=lambda row: (row.model, row.version)))

    def metrics(self) -> bytes:
        rows = [each.report() for each in self._statistics]
        return self._metrics.render() + triton_metrics.render(rows)

    # Control

    async def load(
        self, model: str, *, config: str | None = None, files: Mapping[str, bytes] | None = None
    ) -> None:
        """Load the model's selected versions (or the one named) as they are on disk now, or with `config` and
        `files` in place of what is there, and wait until they are READY."""
        self._check_control()
        await self._catalog.look_again(model)
        found, name = self._catalog.look_up(model)
        is_on_disk = found is not None and self._catalog.is_on_disk(found)
        if config is not None or files:
            if name.version is not None:
                raise InvalidRequest("config and files are for a whole model; name it without a version")
            if not is_on_disk and not files:
                raise unknown_model(model, list(self._catalog.models))
            entry = found.disk_entry if found is not None and is_on_disk else None
            override = await self._overrides.make(name.model, entry, config, files or {})
            remotes = new_remotes(override.entry, entry)
            if problem := refusal(remotes, allow_pull=self._settings.allow_pull):
                override.hold()
                override.release()
                raise LoadFailed(problem)
            override.entry = as_requested(override.entry, remotes)
            if found is None or not is_on_disk:  # a guest may have gone, or come, meanwhile
                found = self._catalog.add_guest(absent(name.model))
            await found.load_override(override)
            return
        if not is_on_disk:
            found = self._catalog.invite(name.model)
        if found is None:
            more = self._catalog.hint_for(model)
            raise unknown_model(model, list(self._catalog.models), more=more)
        found.forget_override()
        if name.version is not None:
            found.check_enabled()
            await found.load(name.version)
        else:
            await found.load_selected()

    async def unload(self, model: str) -> None:
        """Begin to unload: running requests finish, new ones are refused (on demand: load it again)."""
        self._check_control()
        found, name = self._catalog.look_up(model)
        if found is not None:
            found.unload(name.version)

    # Inside

    @contextlib.asynccontextmanager
    async def _lease(
        self, model: str, request: GenerateRequest | None = None, *, point: float | None = None
    ) -> AsyncIterator[tuple[LoadedVersion, Lease]]:
        """Hold a loaded version of `model`, loading it first if need be, and the instance of it that suits the
        request best. `point` picks one of several versions that share the plain name."""
        if self._is_closing:
            raise ModelNotReady("the server is stopping", retry_after_s=5.0)
        found, name = self._catalog.find_or_invite(model)
        timeout_s = request.timeout_s if request is not None else None
        deadline = deadline_in(timeout_s or found.config.scheduler.request_timeout_s)
        while True:
            found, name = self._catalog.find_or_invite(model)
            try:
                loaded = await found.acquire(name.version, point=point, deadline=deadline)
            except DeadlineExceeded as error:
                raise found.still_loading(name.version) or error from None
            if loaded.is_open:  # it may have been closed between two turns of the loop
                break
        is_choice = request is not None and len(loaded.instances) > 1
        with loaded.lease(content_of(request) if request is not None and is_choice else NO_CONTENT) as lease:
            yield loaded, lease

    async def _ask(self, model: str, make: Callable[[int], ToWorker]) -> tuple[FromWorker, LoadedVersion]:
        """The one answer to a message, within the model's own time limit."""
        began = self._clock()
        async with self._lease(model) as (loaded, lease):
            deadline = deadline_in(loaded.limits.request_timeout_s, waited_s=self._clock() - began)
            return await ask(lease, make, deadline), loaded

    def _record(self, loaded: LoadedVersion, began: float) -> RequestRecord:
        return RequestRecord(
            self._metrics.request(loaded.name, loaded.version),
            self._statistics.of(loaded.name, loaded.version),
            began=began,
            clock=self._clock,
            wall_clock=self._wall_clock,
        )

    def _check_control(self) -> None:
        if self._settings.control_mode in ("none", "poll"):
            raise ActionNotAllowed("explicit model load / unload is not allowed if polling is enabled")

    def _make_model(self, entry: ModelEntry) -> Model:
        return Model(
            entry,
            loader=self._loader,
            spawn=self._spawn,
            loads_on_demand=self._settings.control_mode == "on-demand",
            stuck_s=self._settings.stuck_s,
            clock=self._clock,
        )

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        assert self._tasks is not None

        async def guarded() -> None:
            try:
                await work
            except Exception:
                logger.exception("a background task failed")

        return self._tasks.create_task(guarded())

    async def _start(self) -> None:
        """Load what is to be loaded at the start."""
        models = self._catalog.models
        for name in self._settings.load_models:
            if name != "*" and name not in models and name not in self._catalog.aliases:
                logger.error("--load-model %s: there is no such model", name)
        for model in list(models.values()):
            if self._catalog.loads_at_start(model):
                await model.hand_over(load_all=True)
        self._is_started = True
