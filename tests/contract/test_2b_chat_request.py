"""2B: what a chat request may hold. A field acts, is refused by name, or is listed as ignored."""

import json
from typing import Any

import openai
import pytest

from tests.contract.asking import CHAT, Api, is_error, is_refused, ok

USER = {"role": "user", "content": "Hi"}
TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "look at a place",
        "parameters": {
            "type": "object",
            "properties": {"at": {"type": "string", "maxLength": 8}},
            "required": ["at"],
            "additionalProperties": False,
        },
    },
}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "sea"}'}}
SCHEMA = {"name": "n", "schema": {"type": "object"}}

BAD_VALUE = {"invalid_value", "invalid_type", "missing_required_parameter"}


def tools(count: int) -> list[Any]:
    return [{"type": "function", "function": {"name": f"f{i}"}} for i in range(count)]


REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    # id, fields, param, code
    ("p012-no-messages", {"messages": None}, "messages", "invalid_type"),
    ("p012-empty-messages", {"messages": []}, "messages", "invalid_value"),
    ("p012-message-is-text", {"messages": ["Hi"]}, "messages[0]", "invalid_type"),
    ("p013-role", {"messages": [{"role": "boss", "content": "x"}]}, "messages[0].role", "invalid_value"),
    ("p013-no-role", {"messages": [{"content": "x"}]}, "messages[0].role", "missing_required_parameter"),
    (
        "p014-tool-without-id",
        {"messages": [USER, {"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "content": "x"}]},
        "messages[2].tool_call_id",
        "missing_required_parameter",
    ),
    (
        "p014-tool-without-content",
        {
            "messages": [
                USER,
                {"role": "assistant", "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "c1"},
            ]
        },
        "messages[2].content",
        "missing_required_parameter",
    ),
    (
        "p014-assistant-with-nothing",
        {"messages": [USER, {"role": "assistant"}]},
        "messages[1].content",
        "missing_required_parameter",
    ),
    (
        "p015-image",
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "x"},
                        {"type": "image_url", "image_url": {"url": "data:,"}},
                    ],
                }
            ]
        },
        "messages[0].content[1]",
        "unsupported_parameter",
    ),
    (
        "p015-audio",
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
        "messages[0].content[0]",
        "unsupported_parameter",
    ),
    (
        "p015-file",
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]},
        "messages[0].content[0]",
        "unsupported_parameter",
    ),
    ("p017-temperature-high", {"temperature": 2.1}, "temperature", "invalid_value"),
    ("p017-temperature-low", {"temperature": -0.1}, "temperature", "invalid_value"),
    ("p017-top-p", {"top_p": 1.1}, "top_p", "invalid_value"),
    ("p017-frequency", {"frequency_penalty": 2.1}, "frequency_penalty", "invalid_value"),
    ("p017-presence", {"presence_penalty": -2.1}, "presence_penalty", "invalid_value"),
    ("p017-n-0", {"n": 0}, "n", "invalid_value"),
    ("p017-n-129", {"n": 129}, "n", "invalid_value"),
    ("p017-seed", {"seed": 2**63}, "seed", "invalid_value"),
    ("p018-five-stops", {"stop": list("abcde")}, "stop", "invalid_value"),
    ("p018-stop-number", {"stop": 1}, "stop", "invalid_type"),
    ("p019-bias-key", {"logit_bias": {"x": 1}}, "logit_bias", "invalid_value"),
    ("p019-bias-value", {"logit_bias": {"5": 101}}, "logit_bias", "invalid_value"),
    ("p020-top-logprobs-21", {"logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value"),
    ("p020-top-logprobs-alone", {"top_logprobs": 2}, "top_logprobs", "invalid_value"),
    ("p020-logprobs-number", {"logprobs": 3}, "logprobs", "invalid_type"),
    ("p021-options-without-stream", {"stream_options": {}}, "stream_options", "invalid_value"),
    ("p022-type", {"response_format": {"type": "xml"}}, "response_format", "invalid_value"),
    (
        "p022-no-schema",
        {"response_format": {"type": "json_schema"}},
        "response_format.json_schema",
        "missing_required_parameter",
    ),
    (
        "p022-long-name",
        {"response_format": {"type": "json_schema", "json_schema": SCHEMA | {"name": "x" * 65}}},
        "response_format.json_schema.name",
        "invalid_value",
    ),
    (
        "p022-schema-that-is-none",
        {"response_format": {"type": "json_schema", "json_schema": SCHEMA | {"schema": {"type": "banana"}}}},
        "response_format",
        "invalid_value",
    ),
    ("p023-empty", {"tools": []}, "tools", "invalid_value"),
    ("p023-129", {"tools": tools(129)}, "tools", "invalid_value"),
    (
        "p023-name",
        {"tools": [{"type": "function", "function": {"name": "a b"}}]},
        "tools[0].function.name",
        "invalid_value",
    ),
    (
        "p023-long-name",
        {"tools": [{"type": "function", "function": {"name": "x" * 65}}]},
        "tools[0].function.name",
        "invalid_value",
    ),
    ("p024-without-tools", {"tool_choice": "required"}, "tool_choice", "invalid_value"),
    (
        "p024-name-that-is-no-tool",
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "leap"}}},
        "tool_choice",
        "invalid_value",
    ),
    ("p024-word", {"tools": [TOOL], "tool_choice": "maybe"}, "tool_choice", "invalid_value"),
    ("p025-empty", {"functions": []}, "functions", "invalid_value"),
    ("p026-effort", {"reasoning_effort": "heroic"}, "reasoning_effort", "invalid_value"),
    ("p026-verbosity", {"verbosity": "chatty"}, "verbosity", "invalid_value"),
    ("p027-pairs", {"metadata": {str(i): "x" for i in range(17)}}, "metadata", "invalid_value"),
    ("p027-key", {"metadata": {"k" * 65: "x"}}, "metadata", "invalid_value"),
    ("p027-value", {"metadata": {"k": "x" * 513}}, "metadata", "invalid_value"),
    ("p027-safety", {"safety_identifier": "x" * 65}, "safety_identifier", "invalid_value"),
    ("p028-tier", {"service_tier": "first"}, "service_tier", "invalid_value"),
    ("p029-retention", {"prompt_cache_retention": "for ever"}, "prompt_cache_retention", "unsupported_parameter"),
    ("p030-prediction", {"prediction": {"type": "content", "content": "x"}}, "prediction", "unsupported_parameter"),
    ("p030-audio", {"audio": {"voice": "alloy", "format": "wav"}}, "audio", "unsupported_parameter"),
    ("p030-modalities", {"modalities": ["text", "audio"]}, "modalities", "unsupported_parameter"),
    ("p030-search", {"web_search_options": {}}, "web_search_options", "unsupported_parameter"),
    ("p030-store", {"store": True}, "store", "unsupported_parameter"),
    ("p030-moderation", {"moderation": {"model": "m"}}, "moderation", "unsupported_parameter"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "param", "code"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_refused_by_name(api: Api, fields: dict[str, Any], param: str, code: str):
    answer = api.post(CHAT, {"model": "parrot", "messages": [USER]} | fields)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert (error["param"] or "").startswith(param), error
    assert error["code"] == code or {error["code"], code} <= BAD_VALUE, error
    assert param.partition(".")[0].partition("[")[0] in error["message"]


ACTING: list[tuple[str, dict[str, Any]]] = [
    ("p013-developer", {"messages": [{"role": "developer", "content": "Be brief."}, USER]}),
    ("p013-system", {"messages": [{"role": "system", "content": "Be brief."}, USER]}),
    (
        "p013-function",
        {
            "messages": [
                USER,
                {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": "{}"}},
                {"role": "function", "name": "look", "content": "sea"},
            ]
        },
    ),
    (
        "p014-tool-round",
        {
            "messages": [
                USER,
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "c1", "content": "sea"},
            ],
            "tools": [TOOL],
        },
    ),
    ("p014-content-absent", {"messages": [USER, {"role": "assistant", "tool_calls": [CALL]}, USER]}),
    ("p015-text-parts", {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]}),
    (
        "p015-refusal-part",
        {"messages": [USER, {"role": "assistant", "content": [{"type": "refusal", "refusal": "No"}]}, USER]},
    ),
    ("p017-edges", {"temperature": 2, "top_p": 1, "frequency_penalty": -2, "presence_penalty": 2, "seed": -(2**63)}),
    ("p018-four-stops", {"stop": list("abcd")}),
    ("p019-bias", {"logit_bias": {"65": -100, "66": 100}}),
    ("p020-both", {"logprobs": True, "top_logprobs": 20}),
    ("p021-options", {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}}),
    ("p022-text", {"response_format": {"type": "text"}}),
    ("p022-object", {"response_format": {"type": "json_object"}, "max_tokens": 60}),
    (
        "p022-schema",
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": SCHEMA | {"strict": True, "description": "d"},
            },
            "max_tokens": 60,
        },
    ),
    ("p023-128-tools", {"tools": tools(128), "parallel_tool_calls": False}),
    ("p024-none", {"tools": [TOOL], "tool_choice": "none"}),
    ("p024-auto", {"tools": [TOOL], "tool_choice": "auto"}),
    (
        "p024-allowed",
        {
            "tools": [TOOL],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "look"}}]},
            },
        },
    ),
    ("p025-functions", {"functions": [TOOL["function"]], "function_call": "auto"}),
    ("p027-metadata", {"metadata": {"k" * 64: "v" * 512}, "user": "u", "safety_identifier": "x" * 64}),
    ("p028-auto", {"service_tier": "auto"}),
    ("p028-priority", {"service_tier": "priority"}),
    ("p028-flex", {"service_tier": "flex"}),
    ("p029-key", {"prompt_cache_key": "k", "prompt_cache_retention": "in_memory"}),
    ("p030-neutral", {"modalities": ["text"], "store": False, "prediction": None, "audio": None}),
    ("p032-top-k", {"top_k": 5, "min_p": 0.1, "typical_p": 0.9}),
    ("p032-repetition", {"repetition_penalty": 1.1, "repeat_last_n": 32}),
    ("p032-repeat", {"repeat_penalty": 1.1}),
    ("p032-min-tokens", {"min_tokens": 2, "max_tokens": 4, "ignore_eos": True}),
    ("p032-stops", {"stop_token_ids": [258], "include_stop_str_in_output": True, "skip_special_tokens": False}),
    (
        "p032-template",
        {"model": "demo", "add_generation_prompt": True, "chat_template_kwargs": {"enable_thinking": False}},
    ),
    ("p026-effort", {"model": "demo", "reasoning_effort": "low"}),
    ("p032-token-ids", {"return_token_ids": True}),
    ("p032-prompt-logprobs", {"prompt_logprobs": 2}),
    (
        "p032-continue",
        {"messages": [USER, {"role": "assistant", "content": "H"}], "continue_final_message": True,
         "add_generation_prompt": False},
    ),
    ("p032-grammar", {"grammar": 'root ::= "yes"'}),
    ("p032-guided", {"guided_choice": ["yes", "no"]}),
    ("p032-structured", {"structured_outputs": {"regex": "[ab]{3}"}}),
    ("p032-order", {"priority": 3, "cache_salt": "s", "request_id": "r"}),
]  # fmt: skip


@pytest.mark.parametrize("fields", [row[1] for row in ACTING], ids=[row[0] for row in ACTING])
def test_taken_and_not_ignored(api: Api, fields: dict[str, Any]):
    model = "caller" if {"tools", "functions"} & fields.keys() else "parrot"
    answer = api.post(CHAT, {"model": model, "messages": [USER], "max_tokens": 8} | fields)
    assert answer.status_code == 200, answer.text
    assert "x-ignored-params" not in answer.headers


@pytest.mark.parametrize(
    "fields",
    [
        {"keep_alive": "5m"},
        {"ttl": 60},
        {"timings": True},
        {"timings_per_token": True},
        {"prompt_cache_options": {"mode": "explicit", "ttl": "1h"}},
        {"reasoning_effort": "high"},
        {"verbosity": "low"},
        {"service_tier": "scale"},
        {"service_tier": "fast"},
        {"prompt_cache_retention": "24h"},
    ],
    ids=lambda fields: f"p032-{next(iter(fields))}",
)
def test_an_extension_acts_is_refused_by_name_or_is_listed(api: Api, fields: dict[str, Any]):
    answer = api.chat(**fields)
    [name] = fields
    if answer.status_code == 400:
        is_refused(answer, name, "unsupported_parameter")
        return
    body = ok(answer)
    listed = answer.headers.get("x-ignored-params", "").split(", ")
    assert name in listed or body.get("service_tier")  # its template reads neither an effort nor a verbosity


def test_p012_the_model_may_be_left_out_only_where_one_can_be_meant(api: Api):
    answer = api.post(CHAT, {"messages": [USER]})
    is_error(answer, 404, kind="invalid_request_error", code="model_not_found", param="model")


def test_p013_a_developer_message_is_a_system_message_to_the_template(api: Api):
    prompts = [
        ok(
            api.post(
                "/apply-template", {"model": "parrot", "messages": [{"role": role, "content": "x"}, USER]}
            )
        )
        for role in ("developer", "system")
    ]
    assert prompts[0]["prompt"] == prompts[1]["prompt"]


def test_p016_the_new_name_of_the_limit_wins(api: Api):
    body = ok(api.chat("abcdefgh", max_tokens=6, max_completion_tokens=2))
    assert body["usage"]["completion_tokens"] == 2
    assert body["choices"][0]["finish_reason"] == "length"


def test_p016_the_old_name_beside_it_is_listed(api: Api):
    assert api.chat(max_tokens=6, max_completion_tokens=2).headers["x-ignored-params"] == "max_tokens"


def test_p026_a_model_that_cannot_use_them_says_so(api: Api):
    answer = api.chat(
        reasoning_effort="high", verbosity="low", chat_template_kwargs={"enable_thinking": True}
    )
    assert (
        answer.headers["x-ignored-params"]
        == "chat_template_kwargs.enable_thinking, reasoning_effort, verbosity"
    )
    demo = api.chat(model="demo", reasoning_effort="high", verbosity="low", max_tokens=1)
    assert demo.headers["x-ignored-params"] == "verbosity"


def test_p017_a_seed_below_zero_is_one_too(api: Api):
    def say(seed: int) -> str:
        return str(
            ok(api.chat("what is it", temperature=2, seed=seed, max_tokens=30))["choices"][0]["message"]
        )

    assert say(-7) == say(-7) != say(-8)


def test_p024_a_strict_call_fits_also_where_it_is_left_to_the_model(api: Api):
    """echo repeats what it is told, unless a grammar forbids it."""
    strict = {"type": "function", "function": TOOL["function"] | {"strict": True}}
    text = '<tool_call>\n{"name": "look", "arguments": {"at": "sea", "deep": true}}\n</tool_call>'
    loose = ok(api.chat(text, model="caller", tools=[TOOL]))["choices"][0]["message"]
    bound = ok(api.chat(text, model="caller", tools=[strict], max_tokens=200))["choices"][0]["message"]
    assert json.loads(loose["tool_calls"][0]["function"]["arguments"]) == {"at": "sea", "deep": True}
    assert json.loads(bound["tool_calls"][0]["function"]["arguments"]) == {"at": "sea"}
    assert (
        ok(api.chat("Hi you", model="caller", tools=[strict]))["choices"][0]["message"]["content"] == "Hi you"
    )


def test_p032_the_tokens_of_prompt_and_answer(api: Api):
    body = ok(api.chat("ab", return_token_ids=True, prompt_logprobs=1))
    assert body["choices"][0]["token_ids"][:2] == [97, 98]
    assert len(body["prompt_token_ids"]) == len(body["prompt_logprobs"]) == body["usage"]["prompt_tokens"]
    assert body["prompt_logprobs"][0] is None
    assert all(
        str(id) in entry
        for id, entry in zip(body["prompt_token_ids"][1:], body["prompt_logprobs"][1:], strict=True)
    )


def test_p017_the_same_seed_gives_the_same_text_and_another_seed_another(sdk: openai.OpenAI):
    def say(seed: int) -> str | None:
        answer = sdk.chat.completions.create(
            model="parrot",
            messages=[{"role": "user", "content": "what is it"}],
            temperature=2,
            seed=seed,
            max_completion_tokens=30,
        )
        return answer.choices[0].message.content

    assert say(1) == say(1)
    assert len({say(seed) for seed in range(4)}) > 1


@pytest.mark.parametrize("stream", [False, True], ids=["p018-plain", "p018-stream"])
def test_p018_stop_text_is_never_sent(api: Api, stream: bool):
    answer = api.chat("one two three", stop=["two"], stream=stream)
    assert answer.status_code == 200
    assert "two" not in answer.text
    assert "one" in answer.text or '"content":"o"' in answer.text


def test_p019_a_bias_of_minus_100_forbids_a_token(api: Api):
    text = ok(api.chat("aaa", logit_bias={str(ord("a")): -100}))["choices"][0]["message"]["content"]
    assert "a" not in text


@pytest.mark.parametrize("choice", ["required", "named"])
def test_p024_a_call_that_is_asked_for_comes_and_fits_its_schema(sdk: openai.OpenAI, choice: str):
    named = {"type": "function", "function": {"name": "look"}}
    answer = sdk.chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": "What is a version?"}],
        tools=[TOOL],  # type: ignore[list-item]
        tool_choice="required" if choice == "required" else named,  # type: ignore[arg-type]
    )
    [call, *_] = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "look"
    assert isinstance(json.loads(call.function.arguments)["at"], str)


def test_p024_none_leaves_calls_as_text(api: Api):
    text = '<tool_call>\n{"name": "look", "arguments": {"at": "sea"}}\n</tool_call>'
    message = ok(api.chat(text, model="caller", tools=[TOOL], tool_choice="none"))["choices"][0]["message"]
    assert "tool_calls" not in message
    assert "look" in message["content"]


def test_p025_functions_are_answered_with_a_function_call(api: Api):
    text = '<tool_call>\n{"name": "look", "arguments": {"at": "sea"}}\n</tool_call>'
    [choice] = ok(api.chat(text, model="caller", functions=[TOOL["function"]]))["choices"]
    assert choice["finish_reason"] == "function_call"
    call = choice["message"]["function_call"]
    assert (call["name"], json.loads(call["arguments"])) == ("look", {"at": "sea"})
    assert "tool_calls" not in choice["message"]


@pytest.mark.parametrize("tier", ["auto", "default", "priority", "flex"])
def test_p028_the_tier_that_was_used_is_told(api: Api, tier: str):
    assert ok(api.chat(service_tier=tier))["service_tier"] in ("default", "priority", "flex")


def test_p029_the_prefix_of_one_cache_salt_is_none_of_another_ones(api: Api):
    text = "a long enough prompt that is sent three times " * 4

    def cached(salt: str) -> int:
        details = ok(api.chat(text, cache_salt=salt, max_tokens=1))["usage"]["prompt_tokens_details"]
        return int(details["cached_tokens"])

    assert cached("s1") == 0
    assert cached("s1") > 100
    assert cached("s2") == 0


def test_p031_null_means_not_given(api: Api):
    names = [
        "temperature", "top_p", "n", "stop", "seed", "logprobs", "top_logprobs", "logit_bias", "stream",
        "stream_options", "response_format", "tools", "tool_choice", "parallel_tool_calls", "functions",
        "function_call", "max_tokens", "max_completion_tokens", "metadata", "user", "service_tier", "store",
        "reasoning_effort", "verbosity", "prediction", "audio", "modalities", "web_search_options",
        "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "frequency_penalty",
        "presence_penalty", "moderation",
    ]  # fmt: skip
    answer = api.chat(**dict.fromkeys(names))
    assert ok(answer)["choices"][0]["message"]["content"] == "Hi"
    assert "x-ignored-params" not in answer.headers
