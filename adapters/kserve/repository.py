"""Health, readiness and the repository extension of the KServe v2 protocol.

What a request to load or unload may carry besides a name comes with the rest of the protocol.
"""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from adapters.asgi import ApiError, JsonResponse, or_disconnect, read_body
from adapters.openai.models import find_model
from adapters.settings import AppSettings
from runner.api import NOT_LOADED, ModelStatus, RunnerApi
from runner.errors import ActionNotAllowed, LoadFailed, ModelNotFound

_UNLOAD_PARAMETERS = ("unload_dependents",)
_NEVER_LOADED = ("", NOT_LOADED)


class RepositoryEndpoints:
    def __init__(self, runner: RunnerApi, settings: AppSettings) -> None:
        self._runner = runner
        self._settings = settings

    async def live(self, request: Request) -> Response:
        return Response(status_code=200 if self._runner.is_live() else 400)

    async def ready(self, request: Request) -> Response:
        return Response(status_code=200 if self._runner.is_ready() else 400)

    async def model_ready(self, request: Request) -> Response:
        model, version = request.path_params["model"], request.path_params.get("version")
        if not self._runner.model_ready(model if version is None else f"{model}:{version}"):
            raise ApiError(400, "Model version not ready")
        return Response()

    async def index(self, request: Request) -> Response:
        """All models, or with `{"ready": true}` the versions that answer."""
        body = await self._read(request)
        only_ready = body.get("ready", False)
        if not isinstance(only_ready, bool):
            raise ApiError(400, "`ready` must be true or false")
        entries = [entry for model in self._runner.index() for entry in index_entries(model)]
        if only_ready:
            entries = [entry for entry in entries if entry.get("state") == "READY"]
        return JsonResponse(entries)

    async def load(self, request: Request) -> Response:
        """Returns when the model is READY."""
        model = request.path_params["model"]
        for name in await self._parameters(request):
            if name == "config" or name.startswith("file:"):
                raise ApiError(501, f"load parameter '{name}' is not supported by this version of Modelyard")
            raise ApiError(500, f"unrecognized load parameter '{name}'.")
        try:
            await or_disconnect(request.receive, self._runner.load(model))
        except ModelNotFound:
            message = f"failed to load '{model}', failed to poll from model repository"
            raise ApiError(500, message) from None
        except LoadFailed as error:
            raise ApiError(400, self._load_failure(model, error)) from None
        except ActionNotAllowed:
            raise _polling() from None
        return Response()

    async def unload(self, request: Request) -> Response:
        """Returns at once; running requests finish. A model that is not there is as good as unloaded."""
        for name in await self._parameters(request):
            if name not in _UNLOAD_PARAMETERS:
                raise ApiError(500, f"unrecognized unload parameter '{name}'.")
        try:
            await self._runner.unload(request.path_params["model"])
        except ModelNotFound:
            pass
        except ActionNotAllowed:
            raise _polling() from None
        return Response()

    def _load_failure(self, name: str, error: LoadFailed) -> str:
        model = find_model(self._runner.index(), name)
        numbers = [version.version for version in model.versions if version.reason] if model else []
        if not numbers or numbers[-1] is None:
            return f"load failed for model '{name}': {error.message}"
        state = f"version {numbers[-1]} is at UNAVAILABLE state: {error.message};"
        return f"load failed for model '{name}': {state}"

    async def _parameters(self, request: Request) -> dict[str, Any]:
        parameters = (await self._read(request)).get("parameters", {})
        if not isinstance(parameters, dict):
            raise ApiError(400, "`parameters` must be an object")
        return parameters

    async def _read(self, request: Request) -> dict[str, Any]:
        """The body's object; an empty body is an empty object."""
        body = await read_body(
            request,
            limit_bytes=self._settings.body_limit_bytes,
            timeout_s=self._settings.body_timeout_s,
        )
        if not body.strip():
            return {}
        try:
            return msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ApiError(500, f"failed to parse the request JSON buffer: {error}") from None


def index_entries(model: ModelStatus) -> list[dict[str, Any]]:
    """One entry per version; the bare name where nothing was ever loaded and nothing is wrong."""
    entries = []
    for version in model.versions:
        if version.state == "UNAVAILABLE" and version.reason in _NEVER_LOADED:
            continue
        entry = {"name": model.name, "version": str(version.version or ""), "state": version.state}
        entries.append(entry | {"reason": version.reason} if version.reason else entry)
    if entries:
        return entries
    if model.reason and not model.ready:
        return [{"name": model.name, "version": "", "state": "UNAVAILABLE", "reason": model.reason}]
    return [{"name": model.name}]


def _polling() -> ApiError:
    return ApiError(503, "explicit model load / unload is not allowed if polling is enabled")
