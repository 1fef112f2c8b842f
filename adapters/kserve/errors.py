"""Which status of the KServe protocol each RunnerError gets; the body is the message as a flat string."""

from collections.abc import Mapping
from types import MappingProxyType

from adapters.asgi import ApiError
from runner import errors

UNAVAILABLE = 503
INVALID = 400
NOT_FOUND = 404
INTERNAL = 500

TABLE: Mapping[type[errors.RunnerError], int] = MappingProxyType(
    {
        errors.RunnerError: INTERNAL,
        errors.InvalidRequest: INVALID,
        errors.ContextLengthExceeded: INVALID,
        errors.UnsupportedFeature: INVALID,
        errors.ModelNotFound: NOT_FOUND,
        errors.ModelDisabled: INVALID,
        errors.ModelNotReady: UNAVAILABLE,
        errors.LoadFailed: INVALID,
        errors.InsufficientMemory: UNAVAILABLE,
        errors.Overloaded: UNAVAILABLE,
        errors.DeadlineExceeded: UNAVAILABLE,
        errors.GenerationFailed: INTERNAL,
        errors.WorkerCrashed: INTERNAL,
        errors.ActionNotAllowed: UNAVAILABLE,
    }
)


def to_api_error(error: errors.RunnerError) -> ApiError:
    """The answer to `error` under /v2."""
    status = next(TABLE[cls] for cls in type(error).__mro__ if cls in TABLE)
    return ApiError(status, error.message, type="server_error")
