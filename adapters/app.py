"""The HTTP application: every route, who may ask, and how errors look. Holds no state of its own."""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from adapters.anthropic import errors as anthropic_errors
from adapters.anthropic.routes import anthropic_operations
from adapters.asgi import ApiError, Boundary, Face, Failsafe, error_response, face_of
from adapters.discreet import DiscreetRunner
from adapters.keys import KeyCheck, KeyRing
from adapters.kserve import errors as kserve_errors
from adapters.kserve.errors import KServeError
from adapters.kserve.face import KServe
from adapters.kserve.routes import kserve_operations
from adapters.openai import errors as openai_errors
from adapters.openai.responses.routes import response_operations
from adapters.openai.responses.store import ResponseStore
from adapters.openai.routes import openai_operations
from adapters.openai.service import Service
from adapters.openapi import OpenApiEndpoint
from adapters.routes import Operation, get, starlette_routes, under
from adapters.settings import AppSettings
from adapters.web.pages import WebEndpoints
from runner.api import RunnerApi
from runner.errors import RunnerError

_PREFIXES = ("/v1", "", "/openai/v1")
_TOLD_TO_PAGES = (
    "x-request-id",
    "request-id",
    "x-ignored-params",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
)


def build_app(
    runner: RunnerApi,
    settings: AppSettings,
    *,
    store: ResponseStore | None = None,
    kserve: KServe | None = None,
) -> Starlette:
    """The ASGI application that serves `runner` and keeps responses in `store`. `kserve`: what it shares with the
    gRPC server, where there is one. Raises KeyFileError."""
    app = Starlette(
        routes=starlette_routes(operations(outward(runner, settings), settings, store=store, kserve=kserve)),
        middleware=_middleware(settings),
        exception_handlers=dict.fromkeys((HTTPException, ApiError, RunnerError, KServeError), _answer),
    )
    app.router.redirect_slashes = False
    return app


def outward(runner: RunnerApi, settings: AppSettings) -> RunnerApi:
    """`runner` as clients may see it."""
    return DiscreetRunner(runner, folders=settings.private_folders, is_opaque=settings.opaque_errors)


def _middleware(settings: AppSettings) -> list[Middleware]:
    """From the outside in. A page's browser asks without its key whether it may ask, so CORS is before keys."""
    middleware = [Middleware(Boundary, access_log=settings.access_log)]
    if settings.cors_origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=settings.cors_origins,
                allow_methods=("GET", "POST", "DELETE"),
                allow_headers=("*",),
                expose_headers=_TOLD_TO_PAGES,
            )
        )
    middleware.append(Middleware(Failsafe))
    keys = KeyRing(settings.api_keys, settings.api_key_file)
    if not keys.is_empty:
        middleware.append(Middleware(KeyCheck, keys=keys))
    return middleware


def operations(
    runner: RunnerApi,
    settings: AppSettings,
    *,
    store: ResponseStore | None = None,
    kserve: KServe | None = None,
) -> list[Operation]:
    """All that the application answers."""
    service = Service(runner, settings)
    kserve = kserve or KServe(runner, server_version=settings.version)
    table: list[Operation] = []
    table += _web_operations(WebEndpoints(runner, settings), OpenApiEndpoint(table, version=settings.version))
    table += kserve_operations(kserve, settings)
    table += under(_PREFIXES, openai_operations(runner, service))
    table += under(_PREFIXES, response_operations(service, store))
    table += anthropic_operations(service)
    return table


def _web_operations(web: WebEndpoints, openapi: OpenApiEndpoint) -> list[Operation]:
    return [
        get("/", web.page, "A page to try models on", media="text/html"),
        get("/health", web.health, "Whether this server takes requests"),
        get("/version", web.version, "Name and version of the server"),
        get("/metrics", web.metrics, "Metrics in Prometheus' text format", media="text/plain"),
        get("/openapi.json", openapi.document, "This document"),
    ]


async def _answer(request: Request, error: Exception) -> Response:
    path = request.url.path
    match error:
        case ApiError():
            return error_response(request.scope, error)
        case RunnerError():
            return error_response(request.scope, _to_api_error(face_of(path), error))
        case KServeError():
            return error_response(request.scope, kserve_errors.to_api_error(error))
        case HTTPException():
            return error_response(request.scope, _not_served(request.method, path, error))
        case _:
            raise error


def _to_api_error(face: Face, error: RunnerError) -> ApiError:
    match face:
        case Face.OPENAI:
            return openai_errors.to_api_error(error)
        case Face.KSERVE:
            return kserve_errors.to_api_error(error)
        case Face.ANTHROPIC:
            return anthropic_errors.to_api_error(error)


def _not_served(method: str, path: str, error: HTTPException) -> ApiError:
    """A path or method without a route, in our words; /v2 keeps those that its clients know."""
    message, code = error.detail, None
    if face_of(path) is not Face.KSERVE:
        if error.status_code == 404:
            message, code = f"There is nothing at {method} {path}.", "unknown_url"
        elif error.status_code == 405:
            message, code = f"{path} does not take {method}.", "method_not_allowed"
    return ApiError(error.status_code, message, code=code, headers=error.headers)
