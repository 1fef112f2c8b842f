"""`generate` and `generate_stream`: flat JSON in and out, events, statuses before and after the first of them."""

import asyncio
import gzip

import pytest

from runner.errors import GenerationFailed, LoadFailed, Overloaded
from runner.wire.requests import Constraint, Delta, TextPrompt
from tests.adapters.support import (
    VECTOR_MODEL,
    ScriptedRunner,
    accepted,
    finished,
    says,
    serving,
    token,
)

PLAIN, STREAM = "/v2/models/orca/generate", "/v2/models/orca/generate_stream"
NAMED = {"model_name": "orca", "model_version": "1"}


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ({"text_input": "Hi"}, {"text_output": "HiHello there"}),
        ({"text_input": ["Hi"]}, {"text_output": "HiHello there"}),
        ({"text_input": "Hi", "id": "7"}, {"id": "7", "text_output": "HiHello there"}),
        ({"text_input": "Hi", "exclude_input_in_output": True}, {"text_output": "Hello there"}),
        (
            {"text_input": "Hi", "parameters": {"exclude_input_in_output": True}},
            {"text_output": "Hello there"},
        ),
        (
            {"text_input": "Hi", "return_finish_reason": True, "return_num_output_tokens": True},
            {"finish_reason": "stop", "num_output_tokens": 2, "text_output": "HiHello there"},
        ),
        ({"text_input": "Hi", "n": 2}, {"text_output": ["HiHello there"] * 2}),
    ],
)
async def test_generate_answers_with_flat_json(body, answer):
    async with serving(ScriptedRunner()) as server:
        reply = await server.post(PLAIN, body)
    assert (reply.status, reply.json()) == (200, NAMED | answer)
    assert reply.headers["content-type"] == "application/json"


async def test_the_keys_of_an_answer_are_sorted():
    async with serving(ScriptedRunner()) as server:
        reply = await server.post(PLAIN, {"text_input": "Hi", "id": "7", "return_finish_reason": True})
    assert reply.body == (
        b'{"finish_reason":"stop","id":"7","model_name":"orca","model_version":"1","text_output":"HiHello there"}'
    )


async def test_the_last_of_two_parameters_counts_and_the_tensor_wins_over_both():
    body = {
        "text_input": "Hi",
        "temperature": 0.2,
        "parameters": {"top_p": 0.5, "seed": 3},
        "top_p": 0.1,
        "sampling_parameters": '{"temperature": "0.7", "max_tokens": "5"}',
    }
    runner = ScriptedRunner()
    async with serving(runner) as server:
        await server.post(PLAIN, body)
    assert runner.request.sampling == {"temperature": 0.7, "top_p": 0.1, "seed": 3}
    assert runner.request.max_tokens == 5


async def test_lists_and_objects_are_taken_where_a_parameter_is_one():
    body = {
        "text_input": "Hi",
        "stop": ["a", "b"],
        "stop_token_ids": [3],
        "logit_bias": {"5": -1},
        "guided_decoding": {"regex": "[ab]+"},
    }
    runner = ScriptedRunner()
    async with serving(runner) as server:
        await server.post(PLAIN, body)
    assert (runner.request.stop, runner.request.stop_token_ids) == (("a", "b"), (3,))
    assert runner.request.sampling == {"logit_bias": {5: -1.0}}
    assert runner.request.constraint == Constraint("regex", "[ab]+", "guided_decoding")


WRONG_TYPE = "parameter 'foo' has invalid type. It should be either 'int', 'bool', or 'string'."


@pytest.mark.parametrize("path", [PLAIN, STREAM])
@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 500, "failed to parse the request JSON buffer: The document is empty."),
        (b"{", 500, "failed to parse the request JSON buffer: "),
        ([], 500, "attempt to get members for non-object"),
        (b"null", 500, "attempt to get members for non-object"),
        ({}, 400, "missing required input(s) ['text_input']"),
        ({"text_input": ["a", "b"]}, 400, "The schema can not convert input 'text_input' to tensor with proper shape"),
        ({"text_input": []}, 400, "The schema can not convert input 'text_input' to tensor with proper shape"),
        ({"text_input": 1}, 500, "Unable to parse JSON bytes array: attempt to access JSON non-string as string"),
        ({"text_input": None}, 500, "attempt to access JSON non-string as string"),
        ({"text_input": {}}, 500, "attempt to access JSON non-string as string"),
        ({"text_input": "a", "stream": "x"}, 500, "attempt to access JSON non-boolean as boolean"),
        ({"text_input": "a", "id": 7}, 500, "Unable to parse 'id': attempt to access JSON non-string as string"),
        ({"text_input": "a", "foo": [1]}, 400, WRONG_TYPE),
        ({"text_input": "a", "foo": {}}, 400, WRONG_TYPE),
        ({"text_input": "a", "foo": None}, 400, WRONG_TYPE),
        ({"text_input": "a", "parameters": {"foo": []}}, 400, f"Converting keyword: 'parameters': {WRONG_TYPE}"),
        ({"text_input": "a", "parameters": {"text_input": []}}, 400,
            "Converting keyword: 'parameters': The schema can not convert input 'text_input'"),
        ({"text_input": "a", "parameters": 3}, 500,
            "Expected JSON object for keyword: 'parameters': attempt to access JSON non-object as object"),
        ({"text_input": "a", "sampling_parameters": {"a": 1}}, 500, "attempt to access JSON non-string as string"),
        ({"text_input": "a", "sampling_parameters": "{"}, 400, "'sampling_parameters' is not valid JSON"),
        ({"text_input": "a", "sampling_parameters": "[]"}, 400, "'sampling_parameters' must hold a JSON object"),
        ({"text_input": "a", "sampling_parameters": "[" * 100_000}, 400, "'sampling_parameters' is not valid JSON"),
        ({"text_input": "a", "max_token": 3}, 400, "unknown parameter 'max_token' (did you mean 'max_tokens'?)"),
        ({"text_input": "a", "lora_name": "x"}, 400, "parameter 'lora_name' is not supported"),
        ({"text_input": "a", "best_of": 3}, 400, "parameter 'best_of' is 3; it must be the same as 'n', 1"),
        ({"text_input": "a", "min_tokens": 9, "max_tokens": 3}, 400, "parameter 'min_tokens' is 9"),
        ({"text_input": "a", "guided_decoding": {"regex": "a", "choice": ["a"]}}, 400, "one of regex, choice only"),
        ({"text_input": "a", "guided_decoding": "{"}, 400, "'guided_decoding' is a text, but not one of JSON"),
        ({"text_input": "a", "logit_bias": {"-5": 1}}, 400, "parameter 'logit_bias"),
    ],
)  # fmt: skip
async def test_a_wrong_request_is_told_with_a_status(path, body, status, words):
    runner = ScriptedRunner()
    async with serving(runner) as server:
        reply = await server.post(path, body)
    assert (reply.status, words in reply.json()["error"]) == (status, True), reply.body
    assert runner.asked == []


@pytest.mark.parametrize("path", [PLAIN, STREAM])
async def test_a_compressed_body_is_refused(path):
    async with serving(ScriptedRunner()) as server:
        reply = await server.ask(
            "POST", path, gzip.compress(b'{"text_input":"Hi"}'), {"content-encoding": "gzip"}
        )
    words = "Unsupported content-encoding, only 'identity' is supported."
    assert (reply.status, reply.json()) == (400, {"error": words})


async def test_generate_refuses_what_has_several_answers():
    runner = ScriptedRunner()
    async with serving(runner) as server:
        reply = await server.post(PLAIN, {"text_input": "Hi", "stream": True})
    assert (reply.status, runner.asked) == (400, [])
    assert reply.json()["error"].startswith("generate expects model to produce exactly 1 response")


@pytest.mark.parametrize(
    ("finish", "stop_reason", "told"),
    [
        ("stop", None, "eos_token"),
        ("length", None, "length"),
        ("stop", "END", "stop_sequence"),
        ("stop", 7, "eos_token"),
    ],
)
async def test_details_are_the_open_inference_protocols(finish, stop_reason, told):
    script = [
        accepted(),
        Delta(0, "Hi", (7,), (token("Hi"),), finish=finish, stop_reason=stop_reason),
        finished(1),
    ]
    body = {"text_input": "?", "parameters": {"details": True, "logprobs": 0}}
    async with serving(ScriptedRunner(lambda request: script)) as server:
        reply = await server.post(PLAIN, body)
    logprobs = [{"id": 7, "text": "Hi", "logprob": -0.5, "special": False}]
    assert reply.json()["details"] == {"finish_reason": told, "logprobs": logprobs}


async def test_a_model_of_vectors_gives_a_list():
    runner = ScriptedRunner()
    runner.config = VECTOR_MODEL
    async with serving(runner) as server:
        plain = await server.post(PLAIN, {"text_input": "Hi"})
        stream = await server.post(STREAM, {"text_input": "Hi"})
        refused = await server.post(PLAIN, {"text_input": "Hi", "stream": True})
    answer = NAMED | {"embedding": [2.0, 0.0, 0.5]}
    assert (plain.json(), stream.events()) == (answer, [answer])
    assert refused.status == 400


# Streams


async def test_a_stream_has_one_event_for_each_piece_and_nothing_else():
    body = {"text_input": "Hi", "stream": True, "id": "7", "return_finish_reason": True}
    async with serving(ScriptedRunner()) as server:
        reply = await server.post(STREAM, body)
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.body == (
        b'data: {"finish_reason":"None","id":"7","model_name":"orca","model_version":"1","text_output":"Hello"}\n\n'
        b'data: {"finish_reason":"stop","id":"7","model_name":"orca","model_version":"1","text_output":" there"}\n\n'
    )


async def test_a_stream_of_one_answer_has_one_event_with_the_prompt():
    async with serving(ScriptedRunner()) as server:
        reply = await server.post(STREAM, {"text_input": "Hi"})
    assert reply.events() == [NAMED | {"text_output": "HiHello there"}]


async def test_every_piece_of_a_stream_counts_its_own_tokens():
    body = {
        "text_input": "Hi",
        "stream": True,
        **{
            f"return_{name}": True for name in ("num_input_tokens", "num_output_tokens", "cumulative_logprob")
        },
    }
    async with serving(ScriptedRunner()) as server:
        events = (await server.post(STREAM, body)).events()
    assert [event["num_output_tokens"] for event in events] == [1, 1]
    assert [event["cumulative_logprob"] for event in events] == [-0.5, -1.0]
    assert [event["num_input_tokens"] for event in events] == [3, 3]


async def test_a_stream_tells_the_prompts_tokens_as_soon_as_they_are_known():
    def script(request):
        yield accepted(prompt_tokens=0)
        yield Delta(0, "Hello ", num_text_tokens=2, prompt_tokens=7)
        yield Delta(0, "there", finish="stop", num_text_tokens=1, prompt_tokens=7)
        yield finished(3, prompt_tokens=7)

    body = {"text_input": "Hi", "stream": True, "return_num_input_tokens": True}
    async with serving(ScriptedRunner(script)) as server:
        events = (await server.post(STREAM, body)).events()
    assert [event["num_input_tokens"] for event in events] == [7, 7]


async def test_in_a_stream_of_samples_every_event_has_an_element_for_each():
    body = {"text_input": "Hi", "stream": True, "n": 2, "return_finish_reason": True}
    async with serving(ScriptedRunner(says("a", "b"))) as server:
        events = (await server.post(STREAM, body)).events()
    assert [event["text_output"] for event in events] == [["a", ""], ["", "a"], ["b", ""], ["", "b"]]
    assert events[2]["finish_reason"] == ["stop", "None"]
    assert events[3]["finish_reason"] == ["stop", "stop"]


async def test_with_a_stream_the_prompt_cannot_come_back():
    body = {"text_input": "Hi", "stream": True, "exclude_input_in_output": False}
    async with serving(ScriptedRunner()) as server:
        reply = await server.post(STREAM, body)
    words = "When streaming, `exclude_input_in_output` = False is not allowed."
    assert (reply.status, reply.json()) == (400, {"error": words})


@pytest.mark.parametrize(("error", "status"), [(Overloaded("full"), 503), (GenerationFailed("broken"), 500)])
async def test_an_error_before_the_first_event_has_a_status(error, status):
    async with serving(ScriptedRunner(lambda request: [accepted(), error])) as server:
        reply = await server.post(STREAM, {"text_input": "Hi", "stream": True})
    assert (reply.status, list(reply.json())) == (status, ["error"])


async def test_a_model_that_cannot_be_loaded_has_a_status():
    runner = ScriptedRunner()
    runner.config = LoadFailed("bad weights")
    async with serving(runner) as server:
        reply = await server.post(STREAM, {"text_input": "Hi", "stream": True})
    assert (reply.status, reply.json()) == (400, {"error": "bad weights"})


async def test_an_error_after_the_first_event_is_an_event():
    script = [accepted(), Delta(0, "Hi", (1,)), GenerationFailed("broken")]
    async with serving(ScriptedRunner(lambda request: script)) as server:
        reply = await server.post(STREAM, {"text_input": "Hi", "stream": True})
    assert reply.status == 200
    assert reply.events() == [NAMED | {"text_output": "Hi"}, {"error": "broken"}]


async def test_an_engine_that_ends_without_a_word_gives_an_empty_stream():
    async with serving(ScriptedRunner(lambda request: [accepted(), finished(0)])) as server:
        reply = await server.post(STREAM, {"text_input": "Hi", "stream": True})
    assert (reply.status, reply.body) == (200, b"")


async def test_line_ends_of_other_scripts_are_escaped():
    async with serving(ScriptedRunner(says("a\u2028b"))) as server:
        reply = await server.post(STREAM, {"text_input": "Hi", "stream": True})
    assert b"a\\u2028b" in reply.body
    assert reply.events()[0]["text_output"] == "a\u2028b"


@pytest.mark.parametrize("path", [PLAIN, STREAM])
async def test_a_client_that_leaves_cancels_the_work(path):
    never = asyncio.Event()
    runner = ScriptedRunner(lambda request: [accepted(), Delta(0, "Hi", (1,)), never])
    async with serving(runner) as server:
        _, writer = await server.send("POST", path, {"text_input": "Hi", "stream": path is STREAM})
        while not runner.asked:
            await asyncio.sleep(0)
        writer.close()
        await asyncio.wait_for(runner.closed.wait(), 10)
    assert runner.request.prompt == TextPrompt("Hi")


async def test_counts_that_come_with_the_end_are_those_of_the_answer():
    def script(request):
        yield accepted(prompt_tokens=0)
        yield Delta(0, "Hello ", num_text_tokens=2)
        yield Delta(0, "there", finish="stop", num_text_tokens=1)
        yield finished(3, prompt_tokens=7)

    body = {"text_input": "Hi", "return_num_input_tokens": True, "return_num_output_tokens": True}
    async with serving(ScriptedRunner(script)) as server:
        answer = (await server.post(PLAIN, body)).json()
    assert (answer["num_input_tokens"], answer["num_output_tokens"]) == (7, 3)
