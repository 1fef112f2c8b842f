"""2H: errors: one shape, the right status, words that help, and bodies that are meant to break something."""

import json
from typing import Any

import openai
import pytest

from tests.contract.asking import CHAT, COMPLETIONS, Api, is_error, is_refused, ok

BOOLEAN = {
    "type": "object",
    "properties": {"a": {"type": "boolean"}},
    "required": ["a"],
    "additionalProperties": False,
}
INVALID, SERVER, PERMISSION = "invalid_request_error", "server_error", "permission_error"


def raw(api: Api, content: bytes) -> Any:
    return api.client.post(CHAT, content=content, headers={"content-type": "application/json"})


def with_text(text: bytes) -> bytes:
    return b'{"model":"parrot","messages":[{"role":"user","content":"%b"}]}' % text


def test_p082_an_error_has_four_keys_and_a_code_that_is_a_word(api: Api):
    for answer in (api.chat(n=0), api.chat(model="nothing"), api.get("/nothing"), raw(api, b"{")):
        error = answer.json()["error"]
        assert set(answer.json()) == {"error"}
        assert set(error) == {"message", "type", "param", "code"}
        assert error["code"] is None or isinstance(error["code"], str)


def test_p083_the_client_raises_the_class_that_fits(api: Api, sdk: openai.OpenAI, locked_url: str):
    def say(client: openai.OpenAI, **fields: Any) -> None:
        asked: dict[str, Any] = {"model": "parrot", "messages": [{"role": "user", "content": "Hi"}]} | fields
        client.chat.completions.create(**asked)

    with pytest.raises(openai.BadRequestError):
        say(sdk, n=0)
    with pytest.raises(openai.NotFoundError):
        say(sdk, model="nothing")
    with pytest.raises(openai.PermissionDeniedError):
        say(sdk, model="off")
    with pytest.raises(openai.InternalServerError):
        say(sdk, model="broken")
    with (
        openai.OpenAI(base_url=f"{locked_url}/v1", api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        say(client)


def test_p084_missing_wrong_and_mistyped(api: Api):
    is_refused(api.post(CHAT, {"model": "parrot"}), "messages", "missing_required_parameter")
    is_refused(api.chat(temperature=9), "temperature", "invalid_value")
    is_refused(api.chat(temperature="hot"), "temperature", "invalid_type")


def test_p085_what_this_server_cannot_do_is_said_by_name(api: Api):
    is_refused(api.chat(web_search_options={}), "web_search_options", "unsupported_parameter")


def test_p086_a_prompt_over_the_context(api: Api):
    long = "x" * 5000
    edit = {"model": "parrot", "input": long, "instruction": "Fix"}
    for answer, param in (
        (api.complete(long), "prompt"),
        (api.chat(long), "messages"),
        (api.chat(long, stream=True), "messages"),
        (api.respond(long), "input"),
        (api.post("/v1/edits", edit), "input"),
    ):
        message = is_error(answer, 400, kind=INVALID, code="context_length_exceeded", param=param)
        assert "4096" in message and "50" in message


def test_p087_no_key_or_a_wrong_one(locked: Api):
    for headers in ({}, {"authorization": "Bearer wrong"}, {"x-api-key": "wrong"}):
        answer = locked.post(CHAT, {}, **headers)
        is_error(answer, 401, kind="authentication_error", code="invalid_api_key")
        assert answer.headers["www-authenticate"] == "Bearer"


def test_p088_a_key_that_is_not_for_it_and_a_model_that_is_off(api: Api, locked: Api):
    is_error(api.chat(model="off"), 403, kind=PERMISSION, code="model_disabled")
    narrow = {"authorization": "Bearer k-parrot"}
    body = {"messages": [{"role": "user", "content": "Hi"}]}
    ok(locked.post(CHAT, body | {"model": "parrot"}, **narrow))
    answer = locked.post(CHAT, body | {"model": "crow"}, **narrow)
    is_error(answer, 403, kind=PERMISSION, code="model_not_allowed")
    assert [model["id"] for model in ok(locked.get("/v1/models", **narrow))["data"]] == ["parrot"]


@pytest.mark.parametrize(
    "path",
    ["/v2/repository/models/crow/load", "/v2/repository/models/crow/unload", "/reset_prefix_cache"],
    ids=lambda path: f"p088-{path}",
)
def test_p088_admins_routes_are_for_admins(locked: Api, path: str):
    assert locked.post(path, {}, authorization="Bearer k-user").status_code == 403
    assert locked.post(path, {}, authorization="Bearer k-admin").status_code == 200


def test_p089_an_unknown_model_or_version(api: Api):
    message = is_error(api.chat(model="parot"), 404, kind=INVALID, code="model_not_found", param="model")
    assert "parrot" in message
    is_error(api.chat(model="parrot:7"), 404, kind=INVALID, code="model_not_found", param="model")


def test_p090_a_model_of_the_wrong_kind(api: Api):
    answer = api.post("/v1/embeddings", {"model": "parrot", "input": "x"})
    is_error(answer, 400, kind=INVALID, code="unsupported_endpoint")


def test_p091_a_full_queue(api: Api):
    with api.holding("busy"):
        api.until(lambda: api.metric("modelyard_running_sequences", model="busy") == 1)
        with api.holding("busy"):
            api.until(lambda: api.metric("modelyard_waiting_sequences", model="busy") == 1)
            for stream in (False, True):
                answer = api.chat(model="busy", stream=stream)
                is_error(answer, 429, kind="rate_limit_error", code="queue_full")
                assert int(answer.headers["retry-after"]) >= 1


def test_p092_no_memory_for_it_now(api: Api):
    answer = api.chat(model="huge")
    is_error(answer, 503, kind=SERVER, code="insufficient_memory")
    assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize("stream", [False, True], ids=["p093-plain", "p093-stream"])
def test_p093_a_load_that_takes_too_long(api: Api, stream: bool):
    answer = api.chat(model="sleepy", stream=stream)
    is_error(answer, 503, kind=SERVER, code="model_loading")
    assert int(answer.headers["retry-after"]) >= 1


def test_p094_a_load_that_failed(api: Api):
    answer = api.chat(model="unloadable")
    assert "the weights are mud" in is_error(answer, 503, kind=SERVER, code="model_load_failed")
    assert answer.headers["x-should-retry"] == "false"


def test_p095_a_worker_that_dies(api: Api):
    is_error(api.chat("boom", model="crashing"), 500, kind=SERVER, code="backend_crashed")
    assert ok(api.chat("still here", model="parrot"))


def test_p096_a_deadline(api: Api):
    assert api.post("/v2/repository/models/late/load", {}).status_code == 200
    for stream in (False, True):
        answer = api.chat("x" * 50, model="late", ignore_eos=True, stream=stream)
        if stream:
            assert '"code":"deadline_exceeded"' in answer.text
        else:
            is_error(answer, 504, kind=SERVER, code="deadline_exceeded")


def test_p097_a_client_that_has_gone_leaves_nothing_running(api: Api):
    with api.holding("endless"):
        api.until(lambda: api.metric("modelyard_running_sequences", model="endless") == 1)
    api.until(lambda: api.metric("modelyard_running_sequences", model="endless") == 0)


def test_p098_a_422_is_never_answered(api: Api):
    for body in ({}, [], 5, "x", None, {"messages": 1}, {"messages": [[]]}):
        assert api.post(CHAT, body).status_code == 400


def test_p099_messages_have_the_path_and_the_range_and_no_inside(api: Api, locked: Api):
    message = is_refused(api.chat(stop=["a", 5]), "stop[1]", "invalid_type")
    assert "stop[1]" in message
    assert "0 to 2" in is_refused(api.chat(temperature=9), "temperature", "invalid_value")
    for model in ("broken", "unloadable", "crashing"):
        text = api.chat("boom", model=model).text
        for word in ("Traceback", "/tmp", "/home", "/root", ".py"):
            assert word not in text
    answer = locked.post(
        CHAT,
        {"model": "cro", "messages": [{"role": "user", "content": "x"}]},
        authorization="Bearer k-user",
    )
    assert answer.status_code == 404
    assert "crow" not in answer.text  # this server's errors are opaque


def test_p100_unknown_fields_are_listed(api: Api):
    answer = api.chat(zeal=1, aim={"a": 1})
    assert ok(answer)
    assert answer.headers["x-ignored-params"] == "aim, zeal"
    assert "x-ignored-params" not in api.chat(top_k=3, min_p=0.1).headers


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"logprobs": True, "top_logprobs": 1},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": BOOLEAN}}},
    ],
    ids=["p101-n", "p101-logprobs", "p101-response-format"],
)
def test_p101_a_parameter_acts_or_is_refused(api: Api, fields: dict[str, Any]):
    answer = api.chat(**fields)
    if answer.status_code == 400:
        assert answer.json()["error"]["code"] == "unsupported_parameter"
        return
    choices = ok(answer)["choices"]
    if "n" in fields:
        assert len(choices) == 2
    elif "logprobs" in fields:
        assert choices[0]["logprobs"]["content"]
    else:
        assert json.loads(choices[0]["message"]["content"]) in ({"a": True}, {"a": False})


NUMBERS: list[tuple[str, str, str]] = [
    ("temperature", "NaN", "p102-nan"),
    ("temperature", "Infinity", "p102-infinity"),
    ("temperature", "-Infinity", "p102-minus-infinity"),
    ("temperature", "1e999", "p102-overflow"),
    ("n", "true", "p102-bool-for-n"),
    ("seed", "false", "p102-bool-for-seed"),
    ("max_tokens", "true", "p102-bool-for-max-tokens"),
    ("temperature", "true", "p102-bool-for-float"),
    ("n", "1.5", "p102-float-for-int"),
    ("n", '"1"', "p102-text-for-int"),
    ("max_tokens", "0", "p102-no-tokens"),
    ("max_tokens", "-1", "p102-fewer-than-no-tokens"),
    ("max_tokens", "1" + "0" * 400, "p102-a-number-of-400-digits"),
    ("top_k", "99999999999999999999", "p102-beyond-int64"),
    ("presence_penalty", "2.0001", "p102-over-by-a-little"),
]


@pytest.mark.parametrize(("name", "value"), [row[:2] for row in NUMBERS], ids=[row[2] for row in NUMBERS])
def test_p102_numbers_that_are_none_are_refused(api: Api, name: str, value: str):
    answer = raw(api, b'{"%b":%b,' % (name.encode(), value.encode()) + with_text(b"Hi")[1:])
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["type"] == INVALID


HOSTILE: list[tuple[str, bytes, int]] = [
    ("p103-lone-surrogate", with_text(b"\\ud800"), 400),
    ("p103-second-half-alone", with_text(b"\\udc00x"), 400),
    ("p103-nul", with_text(b"a\\u0000b"), 400),
    ("p103-nul-in-model", b'{"model":"par\\u0000rot","messages":[{"role":"user","content":"x"}]}', 404),
    ("p103-no-utf-8", with_text(b"\xff\xfe"), 400),
    ("p103-overlong-utf-8", with_text(b"\xc0\xaf"), 400),
    ("p103-raw-control-character", with_text(b"a\x01b"), 400),
    ("p103-surrogate-in-stop", b'{"stop":"\\ud800",' + with_text(b"x")[1:], 400),
    ("p103-byte-order-mark", b"\xef\xbb\xbf" + with_text(b"x"), 400),
    ("p103-pair-is-fine", with_text(b"\\ud83e\\uddad"), 200),
    ("p103-odd-characters-are-fine", with_text("\u202e\u0085\ufffe\U0010ffff".encode()), 200),
    ("p103-nested-arrays", b'{"x":' + b"[" * 500_000 + b"]" * 500_000 + b"," + with_text(b"x")[1:], 400),
    ("p103-nested-open", b"[" * 1_000_000, 400),
    ("p103-nested-objects", b'{"a":' * 200_000, 400),
    ("p103-nested-content", with_text(b"x").replace(b'"x"', b"[" * 100_000 + b"]" * 100_000), 400),
    ("p103-key-twice", b'{"model":"parrot","model":"parrot","messages":[{"role":"user","content":"x"}]}', 200),
    ("p103-many-messages", b'{"model":"parrot","messages":[' + b'{"role":"user","content":"x"},' * 50_000
     + b'{"role":"user","content":"x"}]}', 400),
    ("p103-many-fields", b"{" + b"".join(b'"f%d":1,' % i for i in range(100_000)) + with_text(b"x")[1:], 200),
    ("p103-long-key", b'{"' + b"k" * 1_000_000 + b'":1,' + with_text(b"x")[1:], 200),
]  # fmt: skip


@pytest.mark.parametrize(("content", "status"), [row[1:] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
def test_p103_bodies_that_are_meant_to_break_something(api: Api, content: bytes, status: int):
    answer = raw(api, content)
    assert answer.status_code == status, answer.text[:300]
    if status != 200:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert ok(api.chat("still here"))["choices"][0]["message"]["content"] == "still here"


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "fields",
    [
        {"chat_template_kwargs": {"x": 2**64}},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"maximum": 10**30}}}]},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": nested(700)}}]},
    ],
    ids=["p103-large-integer", "p103-large-integer-in-a-schema", "p103-nested-schema"],
)
def test_p103_what_no_model_can_be_passed_is_a_400(api: Api, fields: dict[str, Any]):
    is_refused(api.chat(model="caller", **fields), None, "invalid_value")
    assert api.chat("still here", model="caller").status_code == 200


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stop", "a\0b"),
        ("chat_template_kwargs", {"x": "a\0b"}),
        ("cache_salt", "a\0b"),
        ("request_id", "a\0b"),
        ("user", "a\0b"),
        ("logit_bias", {"\0": 1}),
    ],
    ids=lambda given: f"p103-nul-in-{given}" if isinstance(given, str) and given.isidentifier() else "",
)
def test_p103_nul_elsewhere_breaks_nothing(api: Api, field: str, value: Any):
    assert api.chat(**{field: value}).status_code in (200, 400)
    assert api.post(COMPLETIONS, {"model": "demo", "prompt": "a\0b"}).status_code == 400


def test_p104_two_requests_of_the_same_id_do_not_cross(api: Api):
    body = {"model": "endless", "stream": True, "request_id": "same", "max_tokens": 12}
    asked = [body | {"messages": [{"role": "user", "content": text}]} for text in ("aaaaaa", "bbbbbb")]
    with (
        api.client.stream("POST", CHAT, json=asked[0]) as first,
        api.client.stream("POST", CHAT, json=asked[1]) as second,
    ):
        texts = ["".join(answer.iter_text()) for answer in (first, second)]
    assert '"content":"a"' in texts[0] and '"content":"b"' not in texts[0]
    assert '"content":"b"' in texts[1] and '"content":"a"' not in texts[1]
