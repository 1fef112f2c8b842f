"""2E: legacy completions, as evaluation and benchmark tools use them."""

from typing import Any

import openai
import pytest

from tests.contract.asking import COMPLETIONS, Api, data, is_refused, ok

AB = [ord("a"), ord("b")]


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("ab ", ["ab "]),
        (["ab ", "cd "], ["ab ", "cd "]),
        ([*AB, ord(" ")], ["ab "]),
        ([[*AB, 32], [32, *AB]], ["ab ", " ab"]),
    ],
    ids=["p057-text", "p057-texts", "p057-tokens", "p057-lists-of-tokens"],
)
def test_p057_prompts_of_every_kind(sdk: openai.OpenAI, prompt: Any, texts: list[str]):
    answer = sdk.completions.create(model="parrot", prompt=prompt, max_tokens=3)
    assert [(choice.index, choice.text) for choice in answer.choices] == list(enumerate(texts))


def test_p057_the_index_is_prompt_times_n_plus_sample(api: Api):
    choices = ok(api.complete(["ab ", "cd "], n=2))["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
    assert [choice["text"] for choice in choices] == ["ab ", "ab ", "cd ", "cd "]


@pytest.mark.parametrize(
    "prompt", [None, [], [[]], [1, "a"], [True], [-1]], ids=lambda given: f"p057-{given}"
)
def test_p057_what_is_no_prompt_is_refused(api: Api, prompt: Any):
    answer = api.post(COMPLETIONS, {"model": "parrot", "prompt": prompt})
    param = answer.json()["error"]["param"]
    assert param.startswith("prompt")
    is_refused(answer, param, "invalid_value", "invalid_type", "missing_required_parameter")


def test_p058_sixteen_tokens_unless_said_otherwise_and_none_where_none_are_wanted(api: Api):
    assert ok(api.complete("x" * 40, ignore_eos=True))["usage"]["completion_tokens"] == 16
    none = ok(api.complete("ab ", max_tokens=0, echo=True))
    assert (none["choices"][0]["text"], none["usage"]["completion_tokens"]) == ("ab ", 0)


def test_p058_log_likelihoods_of_token_prompts_work(api: Api):
    body = ok(api.complete([[*AB, *AB]], model="demo", max_tokens=1, echo=True, logprobs=1, temperature=0))
    logprobs = body["choices"][0]["logprobs"]
    assert len(logprobs["token_logprobs"]) == 5
    assert logprobs["token_logprobs"][0] is None
    assert all(value <= 0 for value in logprobs["token_logprobs"][1:])


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"best_of": 21}, "best_of"),
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"logprobs": -1}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": 21}, "logprobs"),
    ],
    ids=lambda given: f"p059-{given}" if isinstance(given, str) else "",
)
def test_p059_ranges(api: Api, fields: dict[str, Any], param: str):
    is_refused(api.complete(**fields), param, "invalid_value", "invalid_type")


def test_p059_the_best_of_several_is_one_and_a_suffix_is_refused_by_name(api: Api):
    body = ok(api.complete(best_of=3, temperature=2, seed=1))
    assert len(body["choices"]) == 1
    assert "tokens" in is_refused(api.complete(suffix="x"), "suffix", "unsupported_parameter")
    assert ok(api.complete(suffix=""))


def test_p060_the_object(sdk: openai.OpenAI, api: Api):
    answer = sdk.completions.create(model="parrot", prompt="ab ")
    assert (answer.object, answer.model) == ("text_completion", "parrot")
    assert answer.id.startswith("cmpl-")
    [choice] = ok(api.complete())["choices"]
    assert set(choice) == {"text", "index", "logprobs", "finish_reason"}
    assert choice["finish_reason"] == "stop"
    assert ok(api.complete(max_tokens=1))["choices"][0]["finish_reason"] == "length"


def test_p061_logprobs_are_parallel_lists_and_with_echo_begin_with_null(api: Api):
    logprobs = ok(api.complete("ab ", echo=True, logprobs=2, max_tokens=3))["choices"][0]["logprobs"]
    assert set(logprobs) == {"tokens", "token_logprobs", "top_logprobs", "text_offset"}
    assert {len(values) for values in logprobs.values()} == {6}
    assert logprobs["tokens"] == list("ab ab ")
    assert logprobs["text_offset"] == list(range(6))
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["top_logprobs"][0] is None
    assert all(len(top) >= 2 for top in logprobs["top_logprobs"][1:])


def test_p062_the_stream(api: Api):
    *chunks, last, done = data(api.complete("ab ", stream=True, stream_options={"include_usage": True}))
    assert done == "[DONE]"
    assert {chunk["object"] for chunk in [*chunks, last]} == {"text_completion"}
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "ab "
    assert [chunk["usage"] for chunk in chunks] == [None] * len(chunks)
    assert last["choices"] == []
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_p063_what_benchmarks_send(api: Api):
    fields = {
        "repetition_penalty": 1.0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 20,
        "temperature": 0.0,
        "logprobs": None,
    }
    *_, last, _ = data(api.complete(**fields))
    assert last["usage"]["completion_tokens"] == 20
