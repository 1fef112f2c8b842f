"""What a request becomes for vLLM, as data."""

import math
from typing import Any

import pytest

from backends.contract import Constraint, EngineRequest, Sampling, UnsupportedError
from backends.vllm.sampling import constraint_arguments, sampling_arguments


def arguments(
    sampling: Sampling | None = None, *, given: frozenset[str] = frozenset(), **fields: Any
) -> dict[str, Any]:
    request = EngineRequest(
        request_id="r",
        prompt=(1, 2),
        sampling=sampling or Sampling(),
        given=given,
        **{"max_tokens": 8, **fields},
    )
    return sampling_arguments(request, eos_ids=(2, 7))


def test_a_plain_request_changes_nothing() -> None:
    assert arguments() == {
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "seed": None,
        "logit_bias": None,
        "stop_token_ids": [2, 7],
        "ignore_eos": True,
        "max_tokens": 8,
        "min_tokens": 0,
        "logprobs": None,
        "prompt_logprobs": None,
        "detokenize": False,
    }


@pytest.mark.parametrize(
    ("sampling", "name", "value"),
    [
        (Sampling(temperature=0.0), "temperature", 0.0),
        (Sampling(top_k=-1), "top_k", 0),
        (Sampling(top_p=0.0), "top_p", 1e-6),
        (Sampling(seed=2**64 - 1), "seed", 2**63 - 1),
        (Sampling(seed=5), "seed", 5),
        (Sampling(repeat_penalty=1.3), "repetition_penalty", 1.3),
        (Sampling(repeat_penalty=1.3, repeat_last_n=0), "repetition_penalty", 1.0),
        (Sampling(frequency_penalty=0.5), "frequency_penalty", 0.5),
        (Sampling(presence_penalty=-0.5), "presence_penalty", -0.5),
        (Sampling(logit_bias={4: -math.inf}), "logit_bias", {4: -math.inf}),
    ],
)
def test_each_way_of_drawing_has_its_argument(sampling: Sampling, name: str, value: object) -> None:
    assert arguments(sampling)[name] == value


@pytest.mark.parametrize(
    ("sampling", "given", "words"),
    [
        (Sampling(typical_p=0.9), frozenset({"typical_p"}), "typical_p"),
        (Sampling(repeat_penalty=1.1, repeat_last_n=32), frozenset({"repeat_last_n"}), "repeat_last_n"),
    ],
)
def test_what_vllm_cannot_do_is_refused_by_name(
    sampling: Sampling, given: frozenset[str], words: str
) -> None:
    with pytest.raises(UnsupportedError, match=words):
        arguments(sampling, given=given)


def test_a_window_that_nobody_asked_for_is_not_refused() -> None:
    assert arguments(Sampling(repeat_penalty=1.1))["repetition_penalty"] == 1.1


def test_stop_tokens_join_those_that_end_every_text() -> None:
    assert arguments(stop_token_ids=(9,))["stop_token_ids"] == [2, 7, 9]
    assert arguments(stop_token_ids=(9,), ignore_eos=True)["stop_token_ids"] == [9]


def test_no_more_tokens_are_held_back_than_may_come() -> None:
    assert arguments(min_tokens=20)["min_tokens"] == 8


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        (Constraint("json_object"), {"json_object": True}),
        (Constraint("json_schema", '{"type":"object"}'), {"json": '{"type":"object"}'}),
        (Constraint("regex", "a+"), {"regex": "a+"}),
        (Constraint("choice", '["yes","no"]'), {"choice": ["yes", "no"]}),
        (Constraint("gbnf", 'root ::= "a"'), {"grammar": 'root ::= "a"'}),
    ],
)
def test_each_kind_of_constraint_has_its_argument(constraint: Constraint, expected: dict[str, Any]) -> None:
    assert constraint_arguments(constraint) == expected
