"""The runner as clients may see it: no words of it tell where on this machine anything lies.

Where errors are to be opaque they say what kind they are, and nothing of the inside: reasons and the names of other
models go to the log. Errors about the request itself stay as they are.
"""

import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from adapters.asgi import closing
from runner.api import (
    NOT_LOADED,
    UNLOADED,
    EmbedResult,
    ModelConfigInfo,
    ModelMetadata,
    ModelStats,
    ModelStatus,
    RunnerApi,
    TokenizeResult,
    VersionStatus,
)
from runner.errors import InvalidRequest, RunnerError
from runner.wire.requests import Event, GenerateRequest, Prompt

_HARMLESS = ("", NOT_LOADED, UNLOADED)

logger = logging.getLogger(__name__)


class DiscreetRunner:
    """Implements `runner.api.RunnerApi` by another one. `folders` are cut off from the paths in its words."""

    def __init__(self, runner: RunnerApi, *, folders: Sequence[Path], is_opaque: bool) -> None:
        self._runner = runner
        self._folders = sorted((f"{folder}/" for folder in folders), key=len, reverse=True)
        self._is_opaque = is_opaque

    async def generate(self, model: str, request: GenerateRequest) -> AsyncIterator[Event]:
        with self._discreet(f"request {request.request_id} to {model}"):
            async with closing(self._runner.generate(model, request)) as events:
                async for event in events:
                    yield event

    async def embed(
        self, model: str, prompts: Sequence[Prompt], *, dimensions: int | None = None
    ) -> EmbedResult:
        with self._discreet(model):
            return await self._runner.embed(model, prompts, dimensions=dimensions)

    async def tokenize(
        self, model: str, prompt: Prompt, *, add_special_tokens: bool = True, with_pieces: bool = False
    ) -> TokenizeResult:
        with self._discreet(model):
            return await self._runner.tokenize(
                model, prompt, add_special_tokens=add_special_tokens, with_pieces=with_pieces
            )

    async def detokenize(self, model: str, tokens: Sequence[int]) -> str:
        with self._discreet(model):
            return await self._runner.detokenize(model, tokens)

    def resolve_name(self, model: str | None, *, bearer: str | None = None) -> str:
        with self._discreet("a name"):
            return self._runner.resolve_name(model, bearer=bearer)

    def request_defaults(self, model: str) -> Mapping[str, Any]:
        return self._runner.request_defaults(model)

    def index(self) -> tuple[ModelStatus, ...]:
        return tuple(map(self._status, self._runner.index()))

    def is_live(self) -> bool:
        return self._runner.is_live()

    def is_ready(self) -> bool:
        return self._runner.is_ready()

    def model_ready(self, model: str) -> bool:
        return self._runner.model_ready(model)

    async def metadata(self, model: str) -> ModelMetadata:
        with self._discreet(model):
            return await self._runner.metadata(model)

    async def model_config(self, model: str) -> ModelConfigInfo:
        with self._discreet(model):
            return await self._runner.model_config(model)

    def statistics(self, model: str | None = None) -> tuple[ModelStats, ...]:
        with self._discreet("statistics"):
            return self._runner.statistics(model)

    async def load(
        self, model: str, *, config: str | None = None, files: Mapping[str, bytes] | None = None
    ) -> None:
        with self._discreet(model):
            await self._runner.load(model, config=config, files=files)

    async def unload(self, model: str) -> None:
        with self._discreet(model):
            await self._runner.unload(model)

    async def reset_cache(self, model: str) -> None:
        with self._discreet(model):
            await self._runner.reset_cache(model)

    def metrics(self) -> bytes:
        return self._runner.metrics()

    @contextmanager
    def _discreet(self, what: str) -> Iterator[None]:
        try:
            yield
        except InvalidRequest:
            raise
        except RunnerError as error:
            if self._is_opaque:
                logger.warning("%s: %s: %s", what, type(error).__name__, error.message)
            message = "" if self._is_opaque else self._cut(error.message)  # without one it is the class's own
            if message == error.message:
                raise
            fields = {name: getattr(error, name) for name in error.fields}
            if self._is_opaque:
                fields.pop("hint", None)
            raise type(error)(message, **fields) from None

    def _cut(self, text: str) -> str:
        for folder in self._folders:
            text = text.replace(folder, "")
        return text

    def _status(self, model: ModelStatus) -> ModelStatus:
        versions = tuple(
            version if version.reason in _HARMLESS else replace(version, reason=self._reason(version))
            for version in model.versions
        )
        if not model.reason and versions == model.versions:
            return model
        reason = "it cannot be served" if model.reason and self._is_opaque else self._cut(model.reason)
        return replace(model, versions=versions, reason=reason)

    def _reason(self, version: VersionStatus) -> str:
        hides = self._is_opaque and version.state == "UNAVAILABLE"
        return "it failed" if hides else self._cut(version.reason)
