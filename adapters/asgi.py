"""What every HTTP face needs of ASGI: bodies with limits, answers, request ids, noticing that a client left.

Knows which face a path belongs to and the shape of its errors (OpenAI's object, KServe's flat string, Anthropic's
object with a type), but no route and no model.
"""

import asyncio
import enum
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

T = TypeVar("T")

_REQUEST_ID = re.compile(r"[!-~]{1,128}")
_DRAINED_LIMITS = 4
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class ApiError(Exception):
    """An answer that is not 200, in terms of OpenAI's error object; the other protocols show what they have."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """OpenAI's error object, all four keys."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class ClientGoneError(Exception):
    """The client left before its answer was ready."""


class JsonResponse(Response):
    """Compact JSON by msgspec."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return msgspec.json.encode(content)


class Face(enum.Enum):
    """A protocol that clients speak."""

    OPENAI = enum.auto()
    KSERVE = enum.auto()
    ANTHROPIC = enum.auto()


def face_of(path: str) -> Face:
    """Whose clients ask for `path`: OpenAI's where nothing else is known."""
    if path == "/v2" or path.startswith("/v2/"):
        return Face.KSERVE
    if path == "/v1/messages" or path.startswith("/v1/messages/"):
        return Face.ANTHROPIC
    return Face.OPENAI


def error_response(scope: Scope, error: ApiError) -> Response:
    """The error in the shape that the clients of the asked path know."""
    match face_of(scope["path"]):
        case Face.OPENAI:
            content = error.body()
        case Face.KSERVE:
            content = {"error": error.message}
        case Face.ANTHROPIC:
            content = anthropic_error_body(error, request_id=scope.get("state", {}).get("request_id"))
    return JsonResponse(content, status_code=error.status, headers=error.headers)


def anthropic_error_body(error: ApiError, *, request_id: str | None) -> dict[str, Any]:
    """Anthropic's error object; its types go by status."""
    kind = _ANTHROPIC_TYPES.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
    return {
        "type": "error",
        "error": {"type": kind, "message": error.message},
        "request_id": request_id,
    }


async def read_body(request: Request, *, limit_bytes: int, timeout_s: float) -> bytes:
    """The whole request body. Raises ApiError 413 over `limit_bytes`, 408 when it takes over `timeout_s`, and
    ClientGoneError.

    What is over the limit is read and dropped up to a point: a client that is still sending would see a reset
    connection in place of the answer.
    """
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientGoneError
                chunk = message.get("body", b"")
                size += len(chunk)
                if size <= limit_bytes:
                    chunks.append(chunk)
                elif size > _DRAINED_LIMITS * limit_bytes:
                    break
                if not message.get("more_body", False):
                    break
    except TimeoutError:
        raise ApiError(
            408,
            f"The request body did not arrive within {timeout_s:g} s.",
            code="request_timeout",
            headers={"connection": "close"},
        ) from None
    if size > limit_bytes:
        raise ApiError(
            413,
            f"The request body is larger than {limit_bytes} bytes, the most this server reads.",
            code="request_too_large",
            headers={"connection": "close"},
        )
    return b"".join(chunks)


async def wait_for_disconnect(receive: Receive) -> None:
    """Return once the client has left. Call it after the body was read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def or_disconnect(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Run `work`, cancelled when the client leaves: ClientGoneError is raised then."""

    async def guarded() -> tuple[T | None, Exception | None]:
        try:
            return await work, None
        except Exception as error:  # carried out of the task group as it is, not as a group of one
            return None, error

    async with asyncio.TaskGroup() as tasks:
        working = tasks.create_task(guarded())
        listening = tasks.create_task(wait_for_disconnect(receive))
        await asyncio.wait({working, listening}, return_when=asyncio.FIRST_COMPLETED)
        working.cancel()
        listening.cancel()
    if working.cancelled():
        raise ClientGoneError
    result, error = working.result()
    if error is not None:
        raise error
    return result  # type: ignore[return-value]  # None only where T allows it


async def gathered(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all, in order. Raises the first error; the others are cancelled then."""
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(one) for one in work]
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    return [task.result() for task in running]


@asynccontextmanager
async def closing(events: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """Close `events` at the end: closing is what cancels the work behind them."""
    try:
        yield events
    finally:
        close: Callable[[], Awaitable[None]] | None = getattr(events, "aclose", None)
        if close is not None:
            await close()


class Boundary:
    """The outermost layer: gives every request an id, every answer its `x-request-id`, and both a line in the access
    log."""

    def __init__(self, app: ASGIApp, *, access_log: bool) -> None:
        self._app = app
        self._access_log = access_log
        self._logger = logging.getLogger("modelyard.http")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        tag = [(b"x-request-id", request_id.encode())]
        if face_of(scope["path"]) is Face.ANTHROPIC:
            tag.append((b"request-id", request_id.encode()))
        began = time.monotonic()

        async def tagged(message: Message) -> None:
            if message["type"] == "http.response.start":
                scope["state"]["status"] = message["status"]
                message["headers"] = [*message.get("headers", ()), *tag]
            await send(message)

        try:
            await self._app(scope, receive, tagged)
        except ClientGoneError:
            scope["state"]["status"] = 499
        if self._access_log:
            took_s = time.monotonic() - began
            status = scope["state"].get("status", 0)
            fields = {
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "duration_s": round(took_s, 4),
                "request_id": request_id,
            }
            if (key := scope["state"].get("api_key")) is not None:
                fields["api_key"] = key.name
            self._logger.info(
                "%s %s %d %.3fs", scope["method"], scope["path"], status, took_s, extra={"fields": fields}
            )


class Failsafe:
    """Gives every unexpected exception a log entry and a 500, inside of all that has to see every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._logger = logging.getLogger("modelyard.http")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        except ClientGoneError:
            raise
        except Exception:
            request_id = scope["state"]["request_id"]
            self._logger.exception("request %s to %s failed", request_id, scope["path"])
            if "status" in scope["state"]:
                return  # the answer has begun
            error = ApiError(
                500,
                f"Something went wrong in the server; its log has the details under {request_id}.",
                type="server_error",
                code="internal_error",
            )
            await error_response(scope, error)(scope, receive, send)


def new_request_id() -> str:
    return "req_" + secrets.token_hex(12)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            text: str = value.decode("latin-1")
            if _REQUEST_ID.fullmatch(text):
                return text
    return new_request_id()
