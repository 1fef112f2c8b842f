"""The HTTP application: every route, who may ask, and how errors look. Holds no state of its own."""

import hmac
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from adapters.asgi import ApiError, Boundary, error_response, is_kserve
from adapters.kserve import errors as kserve_errors
from adapters.kserve.repository import RepositoryEndpoints
from adapters.openai import errors as openai_errors
from adapters.openai.chat import ChatEndpoint
from adapters.openai.completions import CompletionsEndpoint
from adapters.openai.models import ModelsEndpoint
from adapters.openai.service import Service
from adapters.settings import AppSettings
from adapters.web.pages import WebEndpoints
from runner.api import RunnerApi
from runner.errors import RunnerError

_PREFIXES = ("/v1", "", "/openai/v1")
_OPEN_PATHS = frozenset({"/", "/health", "/v2/health/live", "/v2/health/ready"})


def build_app(runner: RunnerApi, settings: AppSettings) -> Starlette:
    """The ASGI application that serves `runner`."""
    middleware = [Middleware(Boundary, access_log=settings.access_log)]
    if settings.api_keys:
        middleware.append(Middleware(KeyCheck, keys=settings.api_keys))
    app = Starlette(
        routes=[
            *_web_routes(WebEndpoints(runner, settings)),
            *_kserve_routes(RepositoryEndpoints(runner, settings)),
            *_openai_routes(runner, Service(runner, settings)),
        ],
        middleware=middleware,
        exception_handlers=dict.fromkeys((HTTPException, ApiError, RunnerError), _answer),
    )
    app.router.redirect_slashes = False
    return app


class KeyCheck:
    """Lets in who shows one of `keys` as a bearer token or as `x-api-key`."""

    def __init__(self, app: ASGIApp, *, keys: tuple[str, ...]) -> None:
        self._app = app
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _OPEN_PATHS or self._is_allowed(scope["headers"]):
            await self._app(scope, receive, send)
            return
        error = ApiError(
            401,
            'This server asks for an API key; send it as the header "Authorization: Bearer <key>".',
            type="authentication_error",
            code="invalid_api_key",
            headers={"www-authenticate": "Bearer"},
        )
        await error_response(scope["path"], error)(scope, receive, send)

    def _is_allowed(self, headers: list[tuple[bytes, bytes]]) -> bool:
        shown = []
        for name, value in headers:
            if name == b"x-api-key":
                shown.append(value.strip())
            elif name == b"authorization" and value[:7].lower() == b"bearer ":
                shown.append(value[7:].strip())
        # Every key is compared with every one shown: neither the time nor the order tells which came near.
        matches = [hmac.compare_digest(key, one) for key in self._keys for one in shown]
        return any(matches)


def _openai_routes(runner: RunnerApi, service: Service) -> list[Route]:
    chat, completions, models = ChatEndpoint(service), CompletionsEndpoint(service), ModelsEndpoint(runner)
    routes: list[Route] = []
    for prefix in _PREFIXES:
        routes += [
            _post(f"{prefix}/chat/completions", chat.create),
            _post(f"{prefix}/completions", completions.create),
            _post(f"{prefix}/engines/{{model:path}}/completions", completions.create),
            _get(f"{prefix}/models", models.list_models),
            _get(f"{prefix}/models/{{model:path}}", models.get_model),
        ]
    return routes


def _kserve_routes(repository: RepositoryEndpoints) -> list[Route]:
    return [
        _get("/v2/health/live", repository.live),
        _get("/v2/health/ready", repository.ready),
        _get("/v2/models/{model:path}/versions/{version:int}/ready", repository.model_ready),
        _get("/v2/models/{model:path}/ready", repository.model_ready),
        _post("/v2/repository/index", repository.index),
        _post("/v2/repository/models/{model:path}/load", repository.load),
        _post("/v2/repository/models/{model:path}/unload", repository.unload),
    ]


def _web_routes(web: WebEndpoints) -> list[Route]:
    return [
        _get("/", web.page),
        _get("/health", web.health),
        _get("/version", web.version),
        _get("/metrics", web.metrics),
    ]


def _get(path: str, endpoint: Callable[..., Any]) -> Route:
    return Route(path, endpoint, methods=["GET"])


def _post(path: str, endpoint: Callable[..., Any]) -> Route:
    return Route(path, endpoint, methods=["POST"])


def _answer(request: Request, error: Exception) -> Response:
    path = request.url.path
    match error:
        case ApiError():
            return error_response(path, error)
        case RunnerError():
            to_api_error = kserve_errors.to_api_error if is_kserve(path) else openai_errors.to_api_error
            return error_response(path, to_api_error(error))
        case HTTPException():
            return error_response(path, _not_served(request.method, path, error))
        case _:
            raise error


def _not_served(method: str, path: str, error: HTTPException) -> ApiError:
    """A path or method without a route, in our words; /v2 keeps those that its clients know."""
    message, code = error.detail, None
    if not is_kserve(path):
        if error.status_code == 404:
            message, code = f"There is nothing at {method} {path}.", "unknown_url"
        elif error.status_code == 405:
            message, code = f"{path} does not take {method}.", "method_not_allowed"
    return ApiError(error.status_code, message, code=code, headers=error.headers)
