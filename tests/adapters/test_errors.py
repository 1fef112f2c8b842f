import pytest

from adapters.kserve import errors as kserve
from adapters.openai import errors as openai
from runner import errors


def test_every_runner_error_has_a_status_in_both_protocols():
    known = set(errors.error_classes().values())
    assert set(openai.TABLE) == known
    assert set(kserve.TABLE) == known


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
        (errors.WorkerCrashed("x"), 500, "server_error", "backend_crashed"),
        (errors.DeadlineExceeded("x"), 504, "server_error", "deadline_exceeded"),
    ],
)
def test_an_error_becomes_the_status_of_the_contract(error, status, type_, code):
    answer = openai.to_api_error(error)
    assert (answer.status, answer.type, answer.code) == (status, type_, code)
    assert set(answer.body()["error"]) == {"message", "type", "param", "code"}


def test_an_error_that_knows_when_tells_clients_to_come_back_in_whole_seconds():
    assert openai.to_api_error(errors.Overloaded("x", retry_after_s=1.2)).headers == {"retry-after": "2"}
    assert openai.to_api_error(errors.ModelNotReady("x", retry_after_s=0.0)).headers == {"retry-after": "1"}


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
