"""Which status, type and code of OpenAI's API each RunnerError gets: `TABLE` alone says so."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from adapters.asgi import ApiError
from runner import errors


class Answer(NamedTuple):
    """Status, `type` and `code` of an error object. `retry` False tells clients not to try again."""

    status: int
    type: str
    code: str
    retry: bool = True


INVALID = "invalid_request_error"
SERVER = "server_error"

TABLE: Mapping[type[errors.RunnerError], Answer] = MappingProxyType(
    {
        errors.RunnerError: Answer(500, SERVER, "internal_error"),
        errors.InvalidRequest: Answer(400, INVALID, "invalid_value"),
        errors.ContextLengthExceeded: Answer(400, INVALID, "context_length_exceeded"),
        errors.UnsupportedFeature: Answer(400, INVALID, "unsupported_parameter"),
        errors.WrongKind: Answer(400, INVALID, "unsupported_endpoint"),
        errors.ModelNotFound: Answer(404, INVALID, "model_not_found"),
        errors.ModelDisabled: Answer(403, "permission_error", "model_disabled"),
        errors.ModelNotReady: Answer(503, SERVER, "model_loading"),
        errors.ModelNotLoaded: Answer(503, SERVER, "model_not_loaded", retry=False),
        errors.LoadFailed: Answer(503, SERVER, "model_load_failed", retry=False),
        errors.EngineUnavailable: Answer(503, SERVER, "model_load_failed"),
        errors.WeightsUnavailable: Answer(503, SERVER, "model_load_failed"),
        errors.InsufficientMemory: Answer(503, SERVER, "insufficient_memory"),
        errors.Overloaded: Answer(429, "rate_limit_error", "queue_full"),
        errors.DeadlineExceeded: Answer(504, SERVER, "deadline_exceeded"),
        errors.GenerationFailed: Answer(500, SERVER, "generation_failed"),
        errors.WorkerCrashed: Answer(500, SERVER, "backend_crashed"),
        errors.ActionNotAllowed: Answer(403, "permission_error", "action_not_allowed"),
    }
)


def to_api_error(error: errors.RunnerError) -> ApiError:
    """The HTTP answer to `error`: `Retry-After` where it knows when, `x-should-retry: false` where never."""
    answer = next(TABLE[cls] for cls in type(error).__mro__ if cls in TABLE)
    headers = {} if answer.retry else {"x-should-retry": "false"}
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(retry_after_s)))
        headers["retry-after-ms"] = str(max(1, round(1000 * retry_after_s)))
    param = getattr(error, "param", None)
    if param is None and isinstance(error, errors.ModelNotFound):
        param = "model"
    return ApiError(
        answer.status, error.message, type=answer.type, code=answer.code, param=param, headers=headers
    )


def missing(param: str, message: str | None = None) -> ApiError:
    return ApiError(400, message or f"`{param}` is required.", code="missing_required_parameter", param=param)


def invalid(param: str, message: str) -> ApiError:
    return ApiError(400, message, code="invalid_value", param=param)


def unsupported(param: str, message: str | None = None) -> ApiError:
    return ApiError(
        400,
        message or f"`{param}` is not supported by this version of Modelyard; leave it out.",
        code="unsupported_parameter",
        param=param,
    )


def unknown_field(param: str) -> ApiError:
    """For servers that refuse what they do not know."""
    return ApiError(
        400,
        f"`{param}` is no field that this server knows; leave it out.",
        code="unknown_parameter",
        param=param,
    )
