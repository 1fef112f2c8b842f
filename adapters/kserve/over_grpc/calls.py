"""What every call has in common: whose it is, how errors become statuses, the access log."""

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeVar

import grpc

from adapters.keys import ApiKey, KeyRing, shown_keys
from adapters.kserve.access import check_admin
from adapters.kserve.errors import Code, KServeError, to_kserve_error
from runner.errors import RunnerError

MOST_DETAILS = 4000
"""Details travel in a header, which clients take only up to a size."""

Needs = Literal["nothing", "key", "admin"]
Method = Callable[[Any, Any, Any], Awaitable[Any]]
Wrapped = TypeVar("Wrapped", bound=Method)

logger = logging.getLogger("modelyard.grpc")


class Access:
    """Who may call. `log`: every call leaves a line."""

    def __init__(self, keys: KeyRing, *, log: bool) -> None:
        self._keys = keys
        self.log = log

    def key(self, context: Any) -> ApiKey | None:
        """The caller's key; None where the server has no keys. Raises KServeError."""
        if self._keys.is_empty:
            return None
        metadata = [
            (name.encode(), value if isinstance(value, bytes) else value.encode())
            for name, value in context.invocation_metadata() or ()
        ]
        key = self._keys.find(shown_keys(metadata))
        if key is None:
            raise KServeError(
                Code.UNAUTHENTICATED,
                'This server asks for an API key; send it as the metadata "authorization: Bearer <key>".',
            )
        return key


def call(*, needs: Needs = "key") -> Callable[[Wrapped], Wrapped]:
    """A method of a servicer that has `access`; it gets the caller's key as `context.key`.

    `needs`: "key" of any kind, "admin" the key of one, "nothing" that anybody may call. What it raises becomes the
    call's status.
    """

    def wrap(method: Wrapped) -> Wrapped:
        @functools.wraps(method)
        async def answer(self: Any, request: Any, context: Any) -> Any:
            began, status = time.monotonic(), "OK"
            try:
                key = None if needs == "nothing" else self.access.key(context)
                if needs == "admin":
                    check_admin(key, method.__name__)
                return await method(self, request, Call(context, key))
            except asyncio.CancelledError:
                status = "CANCELLED"  # the client left, or its time is over
                raise
            except Exception as error:
                told = as_told(error)
                status = told.code.name
                await context.abort(grpc.StatusCode[status], told.message[:MOST_DETAILS])
            finally:
                if self.access.log:
                    took_s = time.monotonic() - began
                    fields = {"method": method.__name__, "status": status, "duration_s": round(took_s, 4)}
                    logger.info("%s %s %.3fs", method.__name__, status, took_s, extra={"fields": fields})

        return answer  # type: ignore[return-value]

    return wrap


class Call:
    """One call: gRPC's own `context`, and the caller's key."""

    def __init__(self, context: Any, key: ApiKey | None) -> None:
        self.context = context
        self.key = key


def as_told(error: Exception) -> KServeError:
    """`error` as clients are told of it; what nobody expected is logged."""
    if isinstance(error, KServeError):
        return error
    if isinstance(error, RunnerError):
        return to_kserve_error(error)
    logger.error("a call failed", exc_info=error)
    return KServeError(Code.INTERNAL, "Something went wrong in the server; its log has the details.")
