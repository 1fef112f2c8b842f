"""What a request becomes: defaults, capabilities and limits."""

import msgspec
import pytest

from backends.echo.engine import EchoEngine
from backends.echo.stream import EchoStreamEngine
from runner.errors import UnsupportedFeature
from runner.wire.requests import GenerateRequest, TextPrompt
from tests.support import echo_engine, make_intake, make_start


def request(**given: object) -> GenerateRequest:
    return GenerateRequest(prompt=TextPrompt("hello"), **given)  # type: ignore[arg-type]


def engine_without(capability: str) -> EchoEngine:
    engine = echo_engine()
    left = engine.info.capabilities - {capability}
    engine.info = msgspec.structs.replace(engine.info, capabilities=left)
    return engine


@pytest.mark.parametrize(
    ("capability", "given", "param"),
    [
        ("mask", {"min_tokens": 3}, "min_tokens"),
        ("logit_bias", {"sampling": {"logit_bias": {1: 2.0}}}, "logit_bias"),
        ("logprobs", {"logprobs": 1}, "logprobs"),
    ],
)
def test_what_the_engine_lacks_is_refused_by_name(
    capability: str, given: dict[str, object], param: str
) -> None:
    with pytest.raises(UnsupportedFeature, match=param) as caught:
        make_intake(engine_without(capability)).job(1, request(**given))
    assert caught.value.param == param
    assert make_intake(echo_engine()).job(1, request(**given)).prompt


def test_a_bias_that_the_configuration_asks_for_is_refused_too() -> None:
    intake = make_intake(engine_without("logit_bias"), make_start(defaults={"logit_bias": {1: 1.0}}))
    with pytest.raises(UnsupportedFeature, match="logit_bias"):
        intake.job(1, request())


def test_the_end_can_be_ignored_without_a_bias() -> None:
    intake = make_intake(engine_without("logit_bias"))
    (sequence,) = intake.sequences(intake.job(1, request(ignore_eos=True)))
    assert not sequence.limits.eos_ids and not sequence.sampling.logit_bias


def test_what_is_not_given_comes_from_the_configuration() -> None:
    intake = make_intake(echo_engine(), make_start(defaults={"min_tokens": 5, "ignore_eos": True}))
    (sequence,) = intake.sequences(intake.job(1, request()))
    assert sequence.limits.min_tokens == 5 and not sequence.limits.eos_ids


def test_a_request_overrides_the_configuration_with_nothing() -> None:
    intake = make_intake(echo_engine(), make_start(defaults={"min_tokens": 5, "ignore_eos": True}))
    (sequence,) = intake.sequences(intake.job(1, request(min_tokens=0, ignore_eos=False)))
    assert sequence.limits.min_tokens == 0 and sequence.limits.eos_ids


def test_a_stream_engine_is_told_the_callers_request_id() -> None:
    engine = EchoStreamEngine()
    engine.load(make_start().load, lambda _: None)
    intake = make_intake(engine)
    named = intake.engine_requests(intake.job(7, request(request_id="mine", n=2)))
    assert [one.request_id for one in named] == ["mine-0", "mine-1"]
    (unnamed,) = intake.engine_requests(intake.job(7, request()))
    assert unnamed.request_id == "7-0"
