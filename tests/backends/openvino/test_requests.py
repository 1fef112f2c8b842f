"""A request in openvino-genai's words."""

from typing import Any

import pytest

from backends.contract import Constraint, EngineRequest, Sampling, UnsupportedError
from backends.openvino.requests import MAX_SEED, config_fields, constraint_fields


def fields(sampling: Sampling | None = None, **given: Any) -> dict[str, Any]:
    request = EngineRequest(
        request_id="1", prompt=(5, 6), sampling=sampling or Sampling(temperature=0.0), max_tokens=9, **given
    )
    return config_fields(request, eos_ids=(2, 3))


def test_a_temperature_of_zero_draws_nothing() -> None:
    made = fields(Sampling(temperature=0.0, top_p=0.5, top_k=3, min_p=0.1, seed=1))
    assert not made["do_sample"]
    assert not {"temperature", "top_p", "top_k", "min_p", "rng_seed"} & set(made)


def test_what_is_off_is_left_out() -> None:
    made = fields(Sampling(temperature=0.7, seed=-1))
    assert made["do_sample"] and made["temperature"] == 0.7 and made["top_p"] == 1.0
    assert made["rng_seed"] == MAX_SEED
    assert "top_k" not in made and made["min_p"] == 0


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(top_k=5, top_p=0.4, min_p=0.1), {"top_k": 5, "top_p": 0.4, "min_p": 0.1}),
        (Sampling(top_p=0.0, min_p=0.5), {"top_k": 1}),
        (Sampling(top_k=9, min_p=1.0), {"top_k": 1}),
        (Sampling(repeat_penalty=1.2), {"repetition_penalty": 1.2}),
        (
            Sampling(frequency_penalty=0.5, presence_penalty=-1.0),
            {"frequency_penalty": 0.5, "presence_penalty": -1.0},
        ),
    ],
)
def test_sampling_fields_have_other_names_there(sampling: Sampling, expected: dict[str, Any]) -> None:
    assert fields(sampling).items() >= expected.items()


def test_without_a_seed_every_request_has_its_own() -> None:
    assert len({fields(Sampling())["rng_seed"] for _ in range(8)}) > 1


@pytest.mark.parametrize(
    ("given", "stops", "ignores"),
    [
        ({}, {2, 3}, False),
        ({"stop_token_ids": (7,)}, {2, 3, 7}, False),
        ({"ignore_eos": True}, set(), True),
        ({"ignore_eos": True, "stop_token_ids": (7,)}, {7}, False),
    ],
)
def test_stop_tokens_count_even_where_the_end_of_text_does_not(
    given: dict[str, Any], stops: set[int], ignores: bool
) -> None:
    made = fields(**given)
    assert (made["stop_token_ids"], made["ignore_eos"]) == (stops, ignores)
    assert made.get("eos_token_id") in (stops or {None})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sampling": Sampling(typical_p=0.9)}, "typical_p"),
        (
            {
                "sampling": Sampling(repeat_penalty=1.1, repeat_last_n=64),
                "given": frozenset({"repeat_last_n"}),
            },
            "repeat_last_n",
        ),
        ({"logprobs": 3}, "top_logprobs"),
    ],
)
def test_what_the_engine_lacks_is_refused_by_name(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        fields(**given)


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        (Constraint("json_object"), {"json_schema": '{"type": "object"}'}),
        (Constraint("json_schema", '{"type": "null"}'), {"json_schema": '{"type": "null"}'}),
        (Constraint("regex", "[ab]+"), {"regex": "[ab]+"}),
        (Constraint("gbnf", 'root ::= "a"'), {"grammar": 'root ::= "a"'}),
        (Constraint("choice", r'["yes", "a \"b\""]'), {"grammar": r'root ::= "yes" | "a \"b\""'}),
    ],
)
def test_constraints_have_a_field_each(constraint: Constraint, expected: dict[str, str]) -> None:
    assert constraint_fields(constraint) == expected


def test_lark_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="Lark"):
        constraint_fields(Constraint("lark", "start: A"))
