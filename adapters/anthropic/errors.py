"""Which status of Anthropic's API each RunnerError gets; the type of its error object goes by the status."""

from collections.abc import Mapping
from types import MappingProxyType

from adapters.asgi import ApiError
from adapters.openai import errors as openai_errors
from runner import errors

INVALID = 400
FORBIDDEN = 403
INTERNAL = 500
OVERLOADED = 529

TABLE: Mapping[type[errors.RunnerError], int] = MappingProxyType(
    {
        errors.RunnerError: INTERNAL,
        errors.InvalidRequest: INVALID,
        errors.ContextLengthExceeded: INVALID,
        errors.UnsupportedFeature: INVALID,
        errors.WrongKind: INVALID,
        errors.ModelNotFound: 404,
        errors.ModelDisabled: FORBIDDEN,
        errors.ModelNotReady: OVERLOADED,
        errors.ModelNotLoaded: INTERNAL,
        errors.LoadFailed: INTERNAL,
        errors.EngineUnavailable: OVERLOADED,
        errors.WeightsUnavailable: OVERLOADED,
        errors.InsufficientMemory: OVERLOADED,
        errors.Overloaded: 429,
        errors.DeadlineExceeded: 504,
        errors.GenerationFailed: INTERNAL,
        errors.WorkerCrashed: INTERNAL,
        errors.ActionNotAllowed: FORBIDDEN,
    }
)


def to_api_error(error: errors.RunnerError) -> ApiError:
    """The answer to `error`, with the headers about trying again that OpenAI's clients get too."""
    status = next(TABLE[cls] for cls in type(error).__mro__ if cls in TABLE)
    return ApiError(status, error.message, headers=openai_errors.to_api_error(error).headers)
