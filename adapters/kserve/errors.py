"""What can go wrong in the protocol's terms, and which of those each RunnerError is: `TABLE` alone says so.

Over HTTP the body is the message as a flat string; over gRPC it is the status' details.
"""

import enum
from collections.abc import Mapping
from types import MappingProxyType

from adapters.asgi import ApiError
from runner import errors


class Code(enum.Enum):
    """The name is gRPC's status, the value HTTP's."""

    INVALID_ARGUMENT = 400
    UNAUTHENTICATED = 401
    PERMISSION_DENIED = 403
    NOT_FOUND = 404
    INTERNAL = 500
    UNIMPLEMENTED = 501
    UNAVAILABLE = 503


class KServeError(Exception):
    """An answer that is not what was asked for."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


QUEUE_FULL = "Exceeds maximum queue size"
TIMED_OUT = "Request timeout expired"
POLLING = "explicit model load / unload is not allowed if polling is enabled"

TABLE: Mapping[type[errors.RunnerError], Code] = MappingProxyType(
    {
        errors.RunnerError: Code.INTERNAL,
        errors.InvalidRequest: Code.INVALID_ARGUMENT,
        errors.ContextLengthExceeded: Code.INVALID_ARGUMENT,
        errors.UnsupportedFeature: Code.INVALID_ARGUMENT,
        errors.WrongKind: Code.INVALID_ARGUMENT,
        errors.ModelNotFound: Code.NOT_FOUND,
        errors.ModelDisabled: Code.PERMISSION_DENIED,
        errors.ModelNotReady: Code.UNAVAILABLE,
        errors.ModelNotLoaded: Code.NOT_FOUND,
        errors.LoadFailed: Code.INVALID_ARGUMENT,
        errors.EngineUnavailable: Code.UNAVAILABLE,
        errors.WeightsUnavailable: Code.UNAVAILABLE,
        errors.InsufficientMemory: Code.UNAVAILABLE,
        errors.Overloaded: Code.UNAVAILABLE,
        errors.DeadlineExceeded: Code.UNAVAILABLE,
        errors.GenerationFailed: Code.INTERNAL,
        errors.WorkerCrashed: Code.INTERNAL,
        errors.ActionNotAllowed: Code.UNAVAILABLE,
    }
)


def to_kserve_error(error: errors.RunnerError) -> KServeError:
    """`error` in the protocol's terms, in the words that its clients look for where there are such."""
    code = next(TABLE[cls] for cls in type(error).__mro__ if cls in TABLE)
    match error:
        case errors.Overloaded():
            message = QUEUE_FULL
        case errors.DeadlineExceeded():
            message = TIMED_OUT
        case errors.ModelNotLoaded(model=str(model), version=None):
            message = f"Request for unknown model: '{model}' has no available versions"
        case errors.ModelNotLoaded(model=str(model), version=version):
            message = f"Request for unknown model: '{model}' version {version} is not at ready state"
        case errors.ActionNotAllowed():
            message = POLLING
        case _:
            message = error.message
    return KServeError(code, message)


def to_api_error(error: errors.RunnerError | KServeError) -> ApiError:
    """The answer to `error` under /v2."""
    told = error if isinstance(error, KServeError) else to_kserve_error(error)
    return ApiError(told.code.value, told.message, type="server_error")


def invalid(message: str) -> KServeError:
    return KServeError(Code.INVALID_ARGUMENT, message)


def unsupported(message: str) -> KServeError:
    return KServeError(Code.UNIMPLEMENTED, message)
