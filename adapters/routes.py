"""What a route is: one value that the application serves and that `/openapi.json` describes, so that the two
cannot differ.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp

from adapters.keys import require_admin

Endpoint = Callable[[Request], Awaitable[ASGIApp]]


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path.

    `path` is Starlette's, without prefix, and knows `digits` too; it is served under every one of `prefixes` and
    described under the first. `body` and `answer` are the types of the JSON that comes and goes; a tuple of bodies
    means any of them, None for `answer` that it is not described further. `media` None: the answer has no body.
    `query`: parameters with their descriptions. `admin`: on a server with API keys, only admins may.
    """

    method: str
    path: str
    endpoint: Endpoint
    summary: str
    prefixes: tuple[str, ...] = ("",)
    body: Any = None
    answer: Any = None
    media: str | None = "application/json"
    streams: bool = False
    admin: bool = False
    example: dict[str, Any] | None = None
    query: dict[str, str] = {}


def get(path: str, endpoint: Endpoint, summary: str, **given: Any) -> Operation:
    return Operation(method="GET", path=path, endpoint=endpoint, summary=summary, **given)


def post(path: str, endpoint: Endpoint, summary: str, **given: Any) -> Operation:
    return Operation(method="POST", path=path, endpoint=endpoint, summary=summary, **given)


def delete(path: str, endpoint: Endpoint, summary: str, **given: Any) -> Operation:
    return Operation(method="DELETE", path=path, endpoint=endpoint, summary=summary, **given)


def under(prefixes: tuple[str, ...], operations: Iterable[Operation]) -> list[Operation]:
    """The same operations served under `prefixes`."""
    return [msgspec.structs.replace(operation, prefixes=prefixes) for operation in operations]


class Digits(Convertor[str]):
    """A number of any length, as text: Starlette's own makes an int of it, and fails where that is too long."""

    regex = "[0-9]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


def starlette_routes(operations: Iterable[Operation]) -> list[Route]:
    """A route per path, in the order of `operations`, which knows all methods of it."""
    register_url_convertor("digits", Digits())
    paths: dict[str, dict[str, Endpoint]] = {}
    for operation in operations:
        for prefix in operation.prefixes:
            methods = paths.setdefault(prefix + operation.path, {})
            if operation.method in methods:
                raise ValueError(f"two operations are {operation.method} {prefix}{operation.path}")
            endpoint = operation.endpoint
            methods[operation.method] = _for_admins(endpoint) if operation.admin else endpoint
    return [Route(path, _by_method(methods), methods=list(methods)) for path, methods in paths.items()]


def _for_admins(endpoint: Endpoint) -> Endpoint:
    async def answer(request: Request) -> ASGIApp:
        require_admin(request)
        return await endpoint(request)

    return answer


def _by_method(endpoints: dict[str, Endpoint]) -> Endpoint:
    async def answer(request: Request) -> ASGIApp:
        return await endpoints["GET" if request.method == "HEAD" else request.method](request)

    return answer
