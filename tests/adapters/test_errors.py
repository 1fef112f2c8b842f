import pytest

from adapters.anthropic import errors as anthropic
from adapters.kserve import errors as kserve
from adapters.openai import errors as openai
from runner import errors


def test_every_runner_error_has_a_status_in_every_protocol():
    known = set(errors.error_classes().values())
    assert set(openai.TABLE) == known
    assert set(kserve.TABLE) == known
    assert set(anthropic.TABLE) == known


@pytest.mark.parametrize(
    ("error", "status", "type_", "code"),
    [
        (errors.InvalidRequest("x"), 400, "invalid_request_error", "invalid_value"),
        (errors.UnsupportedFeature("x"), 400, "invalid_request_error", "unsupported_parameter"),
        (errors.ContextLengthExceeded("x"), 400, "invalid_request_error", "context_length_exceeded"),
        (errors.ModelNotFound("x"), 404, "invalid_request_error", "model_not_found"),
        (errors.ModelDisabled("x"), 403, "permission_error", "model_disabled"),
        (errors.Overloaded("x"), 429, "rate_limit_error", "queue_full"),
        (errors.InsufficientMemory("x"), 503, "server_error", "insufficient_memory"),
        (errors.ModelNotReady("x"), 503, "server_error", "model_loading"),
        (errors.LoadFailed("x"), 503, "server_error", "model_load_failed"),
        (errors.EngineUnavailable("x"), 503, "server_error", "model_load_failed"),
        (errors.WeightsUnavailable("x"), 503, "server_error", "model_load_failed"),
        (errors.WorkerCrashed("x"), 500, "server_error", "backend_crashed"),
        (errors.DeadlineExceeded("x"), 504, "server_error", "deadline_exceeded"),
    ],
)
def test_an_error_becomes_the_status_of_the_contract(error, status, type_, code):
    answer = openai.to_api_error(error)
    assert (answer.status, answer.type, answer.code) == (status, type_, code)
    assert set(answer.body()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("wait_s", "seconds", "milliseconds"), [(1.2, "2", "1200"), (0.0, "1", "1"), (60.0, "60", "60000")]
)
def test_an_error_that_knows_when_tells_clients_to_come_back(wait_s, seconds, milliseconds):
    for error in (
        errors.Overloaded("x", retry_after_s=wait_s),
        errors.ModelNotReady("x", retry_after_s=wait_s),
        errors.EngineUnavailable("x", retry_after_s=wait_s),
    ):
        headers = openai.to_api_error(error).headers
        assert headers == {"retry-after": seconds, "retry-after-ms": milliseconds}


def test_a_failed_load_tells_clients_not_to_retry():
    assert openai.to_api_error(errors.LoadFailed("x")).headers == {"x-should-retry": "false"}


def test_a_new_kind_of_error_is_answered_as_its_nearest_ancestor():
    class Stranger(errors.Overloaded):
        """Something a later version raises."""

    try:
        assert openai.to_api_error(Stranger("x")).status == 429
    finally:
        del Stranger
        import gc

        gc.collect()  # the tree of errors is read from its live classes
