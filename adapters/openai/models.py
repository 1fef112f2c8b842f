"""`GET /models` and `/models/{id}`: what is there, told without loading anything."""

import time
from collections.abc import Iterable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from adapters.asgi import ApiError, JsonResponse
from adapters.keys import require_model, visible_models
from adapters.openai.errors import to_api_error
from adapters.openai.ignored import ignored_header
from runner.api import ModelStatus, RunnerApi
from runner.errors import ModelNotFound
from runner.names import MOST_LETTERS


class ModelsEndpoint:
    def __init__(self, runner: RunnerApi) -> None:
        self._runner = runner

    async def list_models(self, request: Request) -> Response:
        models = [model_body(model) for model in visible_models(request, self._runner.index())]
        page = {
            "object": "list",
            "data": models,
            "has_more": False,
            "first_id": models[0]["id"] if models else None,
            "last_id": models[-1]["id"] if models else None,
        }
        return JsonResponse(page, headers=ignored_header(sorted(request.query_params)))

    async def get_model(self, request: Request) -> Response:
        """One model by name, alias or `name:version`; unlike a request to generate it never falls back."""
        name = request.path_params["model"]
        model = find_model(self._runner.index(), name)
        if model is None:
            raise to_api_error(
                ModelNotFound(
                    f'There is no model "{name[:MOST_LETTERS]}". GET /v1/models lists all.', model=name
                )
            )
        require_model(request, name, self._runner.index)
        return JsonResponse(model_body(model) | {"id": name})

    async def delete_model(self, request: Request) -> Response:
        """Refused for everybody: what is in the repository belongs to whoever put it there."""
        name = request.path_params["model"]
        raise ApiError(
            403,
            f'"{name[:MOST_LETTERS]}" is not deleted: nothing is removed from the repository through the API. Remove '
            "its folder there, or unload it with POST /v2/repository/models/NAME/unload.",
            type="permission_error",
            code="action_not_allowed",
            param="model",
        )


def model_body(model: ModelStatus) -> dict[str, Any]:
    """OpenAI's model object and Anthropic's in one, and what Modelyard knows besides. `progress`: 0 to 1 while a
    version loads."""
    versions = []
    for version in model.versions:
        entry: dict[str, Any] = {"version": version.version, "state": version.state}
        if version.reason:
            entry["reason"] = version.reason
        if version.progress is not None:
            entry["progress"] = round(version.progress, 3)
        versions.append(entry)
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "modelyard",
        "type": "model",
        "display_name": model.name,
        "lifecycle": "active",
        "max_input_tokens": model.context_tokens,
        "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(model.created)),
        "ready": model.ready,
        "reason": model.reason or None,
        "disabled": model.disabled,
        "description": model.description or None,
        "usage": model.usage or None,
        "backend": model.backend or None,
        "context_length": model.context_tokens,
        "aliases": list(model.aliases),
        "default_version": model.default_version,
        "versions": versions,
    }


def find_model(index: Iterable[ModelStatus], name: str) -> ModelStatus | None:
    """The model that `name`, an alias or `name:version` stands for."""
    base, _, number = name.partition(":")
    for model in index:
        if name == model.name or name in model.aliases:
            return model
        known = base == model.name or base in model.aliases
        if known and any(number == str(version.version) for version in model.versions):
            return model
    return None


def loading_note(index: Iterable[ModelStatus], name: str) -> str:
    """What a client that waits for `name` is told: "downloading 34 % (0.7 of 2.1 GB)", "loading 42 %" or "queued"."""
    model = find_model(index, name)
    for version in model.versions if model is not None else ():
        if version.state == "LOADING":
            if version.reason:
                return version.reason
            return "loading" if version.progress is None else f"loading {version.progress * 100:.0f} %"
    return "queued"
