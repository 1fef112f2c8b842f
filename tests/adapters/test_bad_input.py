import msgspec
import pytest

from adapters.asgi import ApiError
from adapters.openai.chat import chat_prompt
from adapters.openai.decode import decode
from adapters.openai.ignored import ignored_header
from adapters.openai.prompts import text_or_token_prompts
from adapters.openai.schema import ChatRequest, CompletionRequest, chat_refusals, completion_refusals
from tests.adapters.support import ScriptedRunner, ask_user, serving

USER = {"role": "user", "content": "Hi"}


@pytest.mark.parametrize(
    ("fields", "param", "code", "words"),
    [
        ({"temperature": 2.5}, "temperature", "invalid_value", "0 to 2"),
        ({"temperature": -1}, "temperature", "invalid_value", "0 to 2"),
        ({"temperature": "hot"}, "temperature", "invalid_type", "got `str`"),
        ({"temperature": True}, "temperature", "invalid_type", "got `bool`"),
        ({"top_p": 1.5}, "top_p", "invalid_value", "0 to 1"),
        ({"frequency_penalty": 3}, "frequency_penalty", "invalid_value", "-2 to 2"),
        ({"repetition_penalty": 0}, "repetition_penalty", "invalid_value", "0.01 to 10"),
        # Dividing by so little leaves the numbers that there are.
        ({"repetition_penalty": 5e-324}, "repetition_penalty", "invalid_value", "0.01 to 10"),
        ({"n": 0}, "n", "invalid_value", "1 to 128"),
        ({"n": 129}, "n", "invalid_value", "1 to 128"),
        ({"n": True}, "n", "invalid_type", "got `bool`"),
        ({"n": 1.5}, "n", "invalid_type", "got `float`"),
        ({"seed": 2**64}, "seed", "invalid_value", "9223372036854775807"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value", "1 to"),
        ({"stop": ["a"] * 5}, "stop", "invalid_value", "length <= 4"),
        ({"stop": [""]}, "stop[0]", "invalid_value", "length >= 1"),
        ({"stop": 5}, "stop", "invalid_type", "got `int`"),
        ({"logit_bias": {"a": 1}}, "logit_bias", "invalid_value", '"a"'),
        ({"logit_bias": {"1": 101}}, "logit_bias", "invalid_value", "-100 to 100"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value", "0 to 20"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value", "logprobs: true"),
        ({"stream_options": {}}, "stream_options", "invalid_value", "stream: true"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens", "invalid_value", "5"),
        ({"metadata": {"k": "v" * 513}}, "metadata", "invalid_value", "512"),
        ({"metadata": {"k" * 65: "v"}}, "metadata", "invalid_value", "64"),
        ({"messages": []}, "messages", "invalid_value", "length >= 1"),
        ({"messages": None}, "messages", "invalid_type", "got `null`"),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "missing_required_parameter", "required"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "messages[0].role", "invalid_value", "boss"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter", "required"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_type", "got `int`"),
        ({"messages": [{"role": "assistant"}]}, "messages[0].content", "missing_required_parameter", ""),
        (
            {"messages": [{"role": "tool", "content": "x"}]},
            "messages[0].tool_call_id",
            "missing_required_parameter",
            "",
        ),
        ({"messages": [USER, USER | {"content": "a\0b"}]}, "messages[1].content", "invalid_value", "NUL"),
        (
            {"messages": [USER | {"content": [{"type": "text", "text": "x"}, {"type": "image_url"}]}]},
            "messages[0].content[1]",
            "unsupported_parameter",
            "image_url",
        ),
        ({"continue_final_message": True}, "continue_final_message", "invalid_value", "assistant"),
        ({"chat_template_kwargs": {"messages": 3}}, "chat_template_kwargs", "invalid_value", "`messages`"),
        ({"modalities": ["audio"]}, "modalities", "unsupported_parameter", ""),
        ({"store": True}, "store", "unsupported_parameter", ""),
        ({"messages": [USER | {"audio": {}}]}, "messages[0].audio", "unsupported_parameter", ""),
    ],
)
async def test_a_wrong_field_is_named_with_what_is_allowed(fields, param, code, words):
    runner = ScriptedRunner()
    async with serving(runner) as server:
        answer = await server.post("/v1/chat/completions", ask_user() | fields)
    error = answer.json()["error"]
    assert (answer.status, error["param"], error["code"]) == (400, param, code)
    assert error["type"] == "invalid_request_error"
    assert words in error["message"]
    assert runner.asked == []


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({}, "prompt", "required"),
        ({"prompt": []}, "prompt", "empty"),
        ({"prompt": [1, "a"]}, "prompt", "mixes"),
        ({"prompt": [[1], []]}, "prompt[1]", "no tokens"),
        ({"prompt": [True]}, "prompt[0]", "bool"),
        ({"prompt": [-1]}, "prompt[0]", "0 to 2147483647"),
        ({"prompt": ["ok", "a\0"]}, "prompt[1]", "NUL"),
        ({"prompt": "x", "best_of": 1, "n": 2}, "best_of", "at least `n`"),
        ({"prompt": "x", "best_of": 2, "stream": True}, "best_of", "stream"),
        ({"prompt": "x", "suffix": "y", "echo": True}, "suffix", "not both"),
        ({"prompt": [1], "suffix": "y"}, "suffix", "is text"),
        ({"prompt": "x", "suffix": "y\0"}, "suffix", "NUL"),
        ({"prompt": "x", "logprobs": 21}, "logprobs", "0 to 20"),
        ({"prompt": ["x"] * 100, "n": 100}, "n", "2048"),
    ],
)
async def test_a_wrong_completion_field_is_named(fields, param, words):
    async with serving(ScriptedRunner()) as server:
        answer = await server.post("/v1/completions", fields)
    error = answer.json()["error"]
    assert (answer.status, error["param"]) == (400, param)
    assert words in error["message"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b"[1]", "must be a JSON object"),
        (b'{"messages":', "truncated"),
        (b'{"messages":[]}x', "line 1, column 16: trailing characters"),
        (b'{\n"messages" []}', "line 2, column 12"),
        (b'{"messages":[{"role":"user","content":"a"}],"temperature":NaN}', "not valid JSON"),
        (b'{"messages":[{"role":"user","content":"a"}],"temperature":1e999}', "out of range"),
        (b'{"messages":[{"role":"user","content":"\\ud800"}]}', "surrogate"),
        (b'{"model":"\xff"}', "UTF-8"),
        (b'{"zz":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"messages":' + b"[" * 100_000, "nested too deeply"),
    ],
)
async def test_a_body_that_cannot_be_read_gets_a_400(body, words):
    async with serving(ScriptedRunner()) as server:
        answer = await server.ask("POST", "/v1/chat/completions", body)
    assert answer.status == 400
    assert words in answer.json()["error"]["message"]


async def test_another_content_type_is_refused_with_the_right_one():
    async with serving(ScriptedRunner()) as server:
        answer = await server.post("/v1/chat/completions", ask_user(), {"content-type": "text/plain"})
        fine = await server.post(
            "/v1/chat/completions", ask_user(), {"content-type": "application/json; charset=utf-8"}
        )
    assert answer.status == 400
    assert "application/json" in answer.json()["error"]["message"]
    assert fine.status == 200


async def test_unknown_fields_are_listed_in_a_header():
    body = ask_user(zeal=1, aim={"a": 1})
    body["messages"][0] |= {"mood": 1, "content": [{"type": "text", "text": "x", "cache_control": {}}]}
    async with serving(ScriptedRunner()) as server:
        for stream in (False, True):
            answer = await server.post("/v1/chat/completions", body | {"stream": stream})
            assert answer.status == 200
            assert answer.headers["x-ignored-params"] == (
                "aim, messages[0].content[0].cache_control, messages[0].mood, zeal"
            )


def test_a_header_of_ignored_fields_cannot_be_abused():
    made = ignored_header(["a\r\nset-cookie: x", "ü", "x" * 5000])["x-ignored-params"]
    assert made.isascii()
    assert made.isprintable()
    assert len(made) == 1000


async def test_null_and_neutral_values_mean_not_given():
    neutral = {
        name: values[0] if values else None for name, values in chat_refusals().items()
    } | dict.fromkeys(set(ChatRequest.__struct_fields__) - {"messages", "model"})
    neutral |= {"user": "me", "safety_identifier": "s", "prompt_cache_key": "k", "metadata": {"a": "b"}}
    runner = ScriptedRunner()
    async with serving(runner) as server:
        answer = await server.post("/v1/chat/completions", ask_user(**neutral))
    assert answer.status == 200, answer.body
    assert "x-ignored-params" not in answer.headers
    assert runner.request.sampling == {}


def test_no_field_is_both_known_and_refused():
    assert not set(ChatRequest.__struct_fields__) & chat_refusals().keys()
    assert not set(CompletionRequest.__struct_fields__) & completion_refusals().keys()


@pytest.mark.parametrize("body", [{"messages": [USER]}, {"prompt": "x"}])
def test_no_string_of_a_body_can_raise_anything_but_an_api_error(body):
    kind, refused = (
        (ChatRequest, chat_refusals()) if "messages" in body else (CompletionRequest, completion_refusals())
    )
    values = [
        None,
        True,
        0,
        -1,
        2**70,
        1.5,
        "",
        "x",
        [],
        [None],
        [[]],
        {},
        {"a": None},
        [{}],
        [{"role": "user"}],
    ]
    for name in [*kind.__struct_fields__, *refused]:
        for value in values:
            raw = msgspec.json.encode(body | {name: value})
            try:
                request, _ = decode(raw, kind, refused=refused)
                if isinstance(request, ChatRequest):
                    chat_prompt(request)
                else:
                    text_or_token_prompts(request.prompt, "prompt")
            except ApiError as error:
                assert error.status == 400
                assert error.message
