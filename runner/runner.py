"""`Runner`: the one object that adapters hold. Follows the repository, finds the model a request means, and
passes the request to its worker. Lifecycle is `runner.model`'s, memory `runner.loader`'s.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

import psutil

from backends.registry import Registry
from repository.problem import Problem
from repository.scan import RepositoryError, scan
from repository.snapshot import ModelEntry, Snapshot
from repository.watch import watch
from runner.api import EmbedResult, ModelMetadata, ModelStatus, TokenizeResult
from runner.errors import (
    ActionNotAllowed,
    DeadlineExceeded,
    ModelNotFound,
    ModelNotReady,
    RunnerError,
    WorkerCrashed,
)
from runner.instance import Instance
from runner.ledger import Ledger
from runner.loaded import LoadedVersion
from runner.loader import Loader
from runner.metrics import Metrics
from runner.model import Follow, Model
from runner.names import ModelName, choose_name, parse_name, unknown_model
from runner.process import Call, WorkerProcess
from runner.settings import RunnerSettings
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
SETTLE_LOOKS = 5
SETTLE_PAUSE_S = 0.1

Result = TypeVar("Result")


class Runner:
    """Use it as an async context manager: entering scans the repository and begins to follow it, leaving drains
    and ends every worker. Implements `runner.api.RunnerApi`."""

    def __init__(
        self, settings: RunnerSettings, registry: Registry, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._clock = clock
        self._metrics = Metrics()
        self._snapshot: Snapshot | None = None
        self._models: dict[str, Model] = {}
        self._leaving: list[Model] = []
        self._tasks: asyncio.TaskGroup | None = None
        self._follower: asyncio.Task[None] | None = None
        self._starter: asyncio.Task[None] | None = None
        self._scanning = asyncio.Lock()
        self._is_started = False
        self._is_closing = False
        self._loader = Loader(
            registry=registry,
            ledger=Ledger(settings.memory_budget_bytes or int(BUDGET_SHARE * psutil.virtual_memory().total)),
            metrics=self._metrics,
            cores=settings.cores or os.cpu_count() or 1,
            log_dir=settings.state_dir / "logs",
            in_use=self._in_use,
            evict=self._evict if settings.control_mode == "on-demand" else None,
            clock=clock,
        )

    async def __aenter__(self) -> Self:
        snapshot = await asyncio.to_thread(scan, self._settings.repository, schemas=self._schemas())
        self._tasks = await asyncio.TaskGroup().__aenter__()
        self._apply(snapshot)
        if self._settings.control_mode in ("on-demand", "poll"):
            self._follower = self._tasks.create_task(self._follow(), name="follow the repository")
        self._starter = self._tasks.create_task(self._start(), name="load at start")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_closing = True
        for task in (self._follower, self._starter):
            if task is not None:
                task.cancel()
        stopping = ModelNotReady("the server is stopping", retry_after_s=5.0)
        for model in [*self._models.values(), *self._leaving]:
            model.close(stopping, abort_loads=True)
        if self._tasks is not None:
            await self._tasks.__aexit__(None, None, None)

    # Requests

    async def generate(self, model: str, request: GenerateRequest) -> AsyncIterator[Event]:
        """Accepted, then Deltas, then Finished. Raises RunnerError; closing the iterator cancels the work."""
        began = self._clock()
        async with self._lease(model, timeout_s=request.timeout_s) as (loaded, instance):
            name, version = loaded.name, loaded.version
            observe = self._metrics.request(name, version)
            deadline = _deadline(
                request.timeout_s or loaded.request_timeout_s, waited_s=self._clock() - began
            )
            outcome = "cancelled"
            last = None
            opened: Opened | None = None
            try:
                opened = await _open(instance, lambda number: Submit(number, request), deadline)
                message = opened.first
                while True:
                    match message:
                        case CallAccepted(_, prompt_tokens, position):
                            yield Accepted(name, version, prompt_tokens, position)
                        case CallDelta(_, delta):
                            now = self._clock()
                            if last is None:
                                observe.first_token(now - began)
                            else:
                                observe.token(now - last)
                            last = now
                            yield delta
                        case CallFinished(_, finished):
                            outcome = "success"
                            observe.request(self._clock() - began)
                            observe.queue(finished.queue_s)
                            observe.prompt_tokens(finished.usage.prompt_tokens)
                            observe.output_tokens(finished.usage.completion_tokens)
                            yield finished
                            return
                        case other:
                            raise RunnerError(f"the worker answered with {type(other).__name__}")
                    message = await opened.next(deadline)
            except RunnerError as error:
                outcome = type(error).__name__
                raise
            finally:
                if opened is not None:
                    opened.close(cancel=outcome in ("cancelled", DeadlineExceeded.__name__))
                self._metrics.outcome(name, version, outcome)

    async def embed(self, model: str, prompts: Sequence[Prompt]) -> EmbedResult:
        async with self._lease(model) as (loaded, instance):
            answer = await _ask(instance, lambda number: Embed(number, tuple(prompts)))
            assert isinstance(answer, Embedded)
            return EmbedResult(model=loaded.name, vectors=answer.vectors, prompt_tokens=answer.prompt_tokens)

    async def tokenize(self, model: str, prompt: Prompt) -> TokenizeResult:
        async with self._lease(model) as (loaded, instance):
            answer = await _ask(instance, lambda number: Tokenize(number, prompt))
            assert isinstance(answer, Tokenized)
            return TokenizeResult(
                tokens=answer.tokens, text=answer.text, context_tokens=loaded.info.context_tokens
            )

    async def detokenize(self, model: str, tokens: Sequence[int]) -> str:
        async with self._lease(model) as (_, instance):
            answer = await _ask(instance, lambda number: Detokenize(number, tuple(tokens)))
            assert isinstance(answer, Detokenized)
            return answer.text

    async def reset_cache(self, model: str) -> None:
        found, name = self._find(model)
        for loaded in found.loaded:
            if name.version in (None, loaded.version):
                for instance in loaded.instances:
                    await _ask(instance, ResetCache)

    # What there is

    def resolve_name(self, model: str | None, *, bearer: str | None = None) -> str:
        """The name that an inference request means. Raises ModelNotFound with close names."""
        return choose_name(
            model,
            bearer,
            known=self._models,
            aliases=self._aliases,
            fallback=self._settings.single_model_fallback,
        )

    def index(self) -> tuple[ModelStatus, ...]:
        """Every model of the repository, by name, those that lost their name included."""
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

    def is_live(self) -> bool:
        return True

    def is_ready(self) -> bool:
        """Started, not stopping, and (except on demand) everything that was to be loaded is."""
        if not self._is_started or self._is_closing:
            return False
        if self._settings.control_mode == "on-demand":
            return True
        return all(model.is_settled for model in self._models.values())

    def model_ready(self, model: str) -> bool:
        found, name = self._look_up(model)
        if found is None or self._is_closing:
            return False
        return found.is_ready(name.version, loaded_only=self._settings.ready_means == "loaded")

    async def metadata(self, model: str) -> ModelMetadata:
        async with self._lease(model) as (loaded, _):
            found, _ = self._find(model)
            info = loaded.info
            return ModelMetadata(
                name=loaded.name,
                versions=tuple(found.selected),
                version=loaded.version,
                backend=loaded.plan.backend,
                engine=info.engine,
                context_tokens=info.context_tokens,
                vocabulary=info.vocabulary,
                eos_token=info.eos_token,
                bos_token=info.bos_token,
                chat_template=info.chat_template,
                capabilities=tuple(sorted(info.capabilities)),
            )

    def metrics(self) -> bytes:
        return self._metrics.render()

    # Control

    async def load(self, model: str) -> None:
        """Load the model's selected versions (or the one named) and wait until they are READY."""
        self._check_control()
        await self._rescan()
        found, name = self._find(model)
        if name.version is not None:
            await found.load(name.version)
        else:
            await found.load_selected()

    async def unload(self, model: str) -> None:
        """Begin to unload: running requests finish, new ones are refused (on demand: load it again)."""
        self._check_control()
        found, name = self._look_up(model)
        if found is not None:
            found.unload(name.version)

    # Inside

    @property
    def _aliases(self) -> dict[str, str]:
        return self._snapshot.aliases if self._snapshot is not None else {}

    def _look_up(self, model: str) -> tuple[Model | None, ModelName]:
        name = parse_name(model)
        return self._models.get(self._aliases.get(name.model, name.model)), name

    def _find(self, model: str) -> tuple[Model, ModelName]:
        found, name = self._look_up(model)
        if found is None:
            raise unknown_model(model, [*self._models, *self._aliases])
        return found, name

    @contextlib.asynccontextmanager
    async def _lease(
        self, model: str, *, timeout_s: float | None = None
    ) -> AsyncIterator[tuple[LoadedVersion, Instance]]:
        """Hold a loaded version of `model`, loading it first if need be, and one of its instances."""
        if self._is_closing:
            raise ModelNotReady("the server is stopping", retry_after_s=5.0)
        found, name = self._find(model)
        deadline = _deadline(timeout_s or found.config.scheduler.request_timeout_s)
        while True:
            found, name = self._find(model)
            loaded = await _before(deadline, found.acquire(name.version))
            if loaded.is_open:  # it may have been closed between two turns of the loop
                break
        with loaded.lease() as instance:
            yield loaded, instance

    def _check_control(self) -> None:
        if self._settings.control_mode in ("none", "poll"):
            raise ActionNotAllowed("explicit model load / unload is not allowed if polling is enabled")

    def _in_use(self) -> list[LoadedVersion]:
        return [loaded for model in [*self._models.values(), *self._leaving] for loaded in model.loaded]

    async def _evict(self, loaded: LoadedVersion) -> None:
        for model in [*self._models.values(), *self._leaving]:
            if loaded in model.loaded:
                await model.evict(loaded)

    def _schemas(self) -> dict[str, dict[str, object]]:
        return {name: spec.options for spec in self._registry.specs() for name in (spec.name, *spec.aliases)}

    async def _follow(self) -> None:
        changes = watch(
            self._settings.repository,
            poll_s=self._settings.poll_s,
            schemas=self._schemas(),
            latest=lambda: self._snapshot,
            lock=self._scanning,
        )
        async for changed in changes:
            self._apply(changed)

    async def _rescan(self) -> None:
        """Look at the disk now, until it keeps still: who asks for a load has perhaps just put the model there."""
        for _ in range(SETTLE_LOOKS):
            try:
                async with self._scanning:
                    snapshot = await asyncio.to_thread(
                        scan, self._settings.repository, self._snapshot, schemas=self._schemas()
                    )
                    self._apply(snapshot)
            except RepositoryError as error:
                logger.error("%s", error)
                return
            if not snapshot.is_moving:
                return
            await asyncio.sleep(SETTLE_PAUSE_S)

    def _apply(self, snapshot: Snapshot) -> None:
        before, self._snapshot = self._snapshot, snapshot
        if before is snapshot or self._is_closing:
            return
        known = set(_problems(before)) if before is not None else set()
        for problem in _problems(snapshot):
            if problem not in known:
                logger.warning("%s", problem)
        for name in [name for name in self._models if name not in snapshot.models]:
            gone = self._models.pop(name)
            gone.close(ModelNotFound(f"model {name!r} was removed from the repository", model=name))
            self._leaving.append(gone)
        self._leaving = [model for model in self._leaving if model.is_busy]
        follow = self._follows
        for name, entry in snapshot.models.items():
            model = self._models.get(name)
            if model is None:
                self._models[name] = model = self._model(entry)
                if before is not None and follow != "nothing":
                    is_wanted = self._loads_at_start(name, preload=model.config.preload)
                    model.apply(entry, follow="everything" if is_wanted else follow)
            elif model.entry is not entry and model.entry != entry:
                model.apply(entry, follow=follow)

    @property
    def _follows(self) -> Follow:
        match self._settings.control_mode:
            case "on-demand":
                return "loaded"
            case "poll":
                return "everything"
            case _:
                return "nothing"

    def _model(self, entry: ModelEntry) -> Model:
        return Model(
            entry,
            loader=self._loader,
            spawn=self._spawn,
            loads_on_demand=self._settings.control_mode == "on-demand",
            drain_s=self._settings.drain_s,
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

    def _loads_at_start(self, name: str, *, preload: bool) -> bool:
        match self._settings.control_mode:
            case "none" | "poll":
                return True
            case "explicit":
                return name in self._settings.load_models or "*" in self._settings.load_models
            case _:
                return preload or name in self._settings.load_models

    async def _start(self) -> None:
        for name in self._settings.load_models:
            if name != "*" and name not in self._models:
                logger.error("--load-model %s: there is no such model", name)
        for name, model in list(self._models.items()):
            if self._loads_at_start(name, preload=model.config.preload):
                try:
                    await model.load_selected()
                except RunnerError as error:
                    logger.error("%s is not loaded: %s", name, error.message)
        self._is_started = True


async def _before(deadline: float | None, work: Awaitable[Result]) -> Result:
    """The result of `work`. Raises DeadlineExceeded where the loop's time reaches `deadline` first."""
    try:
        async with asyncio.timeout_at(deadline):
            return await work
    except TimeoutError:
        raise DeadlineExceeded("the request's time ran out; it was cancelled") from None


def _problems(snapshot: Snapshot) -> list[Problem]:
    return [problem for entry in snapshot.entries for problem in entry.all_problems]


class Opened(NamedTuple):
    """A call whose first answer is there."""

    worker: WorkerProcess
    call: Call
    first: FromWorker

    async def next(self, deadline: float | None) -> FromWorker:
        return await (self.call.get() if deadline is None else _before(deadline, self.call.get()))

    def close(self, *, cancel: bool) -> None:
        self.worker.hang_up(self.call, cancel=cancel)


async def _open(instance: Instance, make: Callable[[int], ToWorker], deadline: float | None = None) -> Opened:
    """Send a message and wait for its first answer. A worker that dies before it answers has done nothing for
    this call yet: its successor is asked, once."""
    for is_second in (False, True):
        worker = await _before(deadline, instance.process())
        try:
            call = worker.call(make)
            try:
                return Opened(worker, call, await _before(deadline, call.get()))
            except BaseException:
                worker.hang_up(call, cancel=True)
                raise
        except WorkerCrashed:
            if is_second:
                raise
    raise AssertionError("unreachable")


async def _ask(instance: Instance, make: Callable[[int], ToWorker]) -> FromWorker:
    """Send one message and wait for its one answer."""
    opened = await _open(instance, make)
    opened.close(cancel=False)
    return opened.first


def _deadline(timeout_s: float | None, *, waited_s: float = 0.0) -> float | None:
    """The event loop's time at which `timeout_s`, of which `waited_s` have passed, is over."""
    return None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s - waited_s
