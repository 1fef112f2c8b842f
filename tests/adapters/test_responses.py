"""The Responses API: what is asked of a model, the shape of the answer, and the order of a stream's events."""

import asyncio
import re
from typing import Any

import msgspec
import openai
import pydantic
import pytest

from adapters.settings import AppSettings
from runner.errors import ContextLengthExceeded, Overloaded, WorkerCrashed
from runner.wire.requests import ChatPrompt, Constraint, Delta, Finished, ToolCallDelta, ToolUse, Usage
from tests.adapters.support import HttpAnswer, ScriptedRunner, accepted, says, serving, token

PATH = "/v1/responses"
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": True,
}
MODELS = {"type": "function", "name": "list_models", "parameters": None, "strict": None}
IDS = re.compile(r"(resp|msg|fc|rs)_[0-9a-f]{24,}")


def script_of(*deltas: Delta, usage: Usage | None = None) -> Any:
    def script(request: Any) -> Any:
        yield accepted()
        yield from deltas
        yield Finished(usage or Usage(3, len(deltas)))

    return script


THOUGHT_SAID_CALLED = script_of(
    Delta(0, "", (1,), reasoning="I "),
    Delta(0, "", (2,), reasoning="think."),
    Delta(0, "Let me ", (3,)),
    Delta(0, "see.", (4,), tool_calls=(ToolCallDelta(0, id="call_a", name="get_weather"),)),
    Delta(0, "", (5,), tool_calls=(ToolCallDelta(0, '{"city": '),)),
    Delta(
        0,
        "",
        (6,),
        tool_calls=(ToolCallDelta(0, '"Paris"}'), ToolCallDelta(1, "{}", "call_b", "list_models")),
        finish="tool_calls",
    ),
    usage=Usage(20, 6, 8, 2),
)


def named_events(answer: HttpAnswer) -> list[Any]:
    """The events' data; each one's name must be its type."""
    events = []
    for frame in answer.body.split(b"\n\n"):
        if frame and not frame.startswith(b":"):
            name, _, data = frame.partition(b"\n")
            event = msgspec.json.decode(data.removeprefix(b"data: "))
            assert name == b"event: " + event["type"].encode()
            events.append(event)
    return events


async def streamed(script: Any, **fields: Any) -> list[Any]:
    async with serving(ScriptedRunner(script)) as server:
        answer = await server.post(PATH, {"input": "Hi", "stream": True, **fields})
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    return named_events(answer)


def without_ids(value: Any) -> Any:
    return msgspec.json.decode(IDS.sub(r"\1_", msgspec.json.encode(value).decode()))


async def test_the_official_client_accepts_an_answer():
    async with serving(ScriptedRunner(says("Hello", " wörld"))) as server, server.openai() as client:
        answer = await client.responses.create(model="orca", input="Hi", metadata={"a": "b"})
    assert answer.id.startswith("resp_")
    assert (answer.object, answer.status, answer.model) == ("response", "completed", "orca")
    assert answer.output_text == "Hello wörld"
    assert (answer.error, answer.incomplete_details, answer.metadata) == (None, None, {"a": "b"})
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (3, 2, 5)


async def test_a_text_is_streamed_in_the_order_of_the_contract():
    events = await streamed(says("a", "b"))
    assert [event["type"] for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[0]["response"]["status"] == "in_progress"
    assert events[4] == {
        "type": "response.output_text.delta",
        "sequence_number": 4,
        "item_id": events[2]["item"]["id"],
        "output_index": 0,
        "content_index": 0,
        "delta": "a",
        "logprobs": [],
    }
    assert events[6]["text"] == "ab"


async def test_reasoning_text_and_calls_are_items_one_after_the_other():
    events = await streamed(THOUGHT_SAID_CALLED, tools=[WEATHER, MODELS])
    assert [event["type"].removeprefix("response.") for event in events[2:-1]] == [
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    added = [event for event in events if event["type"] == "response.output_item.added"]
    assert [event["output_index"] for event in added] == [0, 1, 2, 3]
    assert [event["item"]["status"] for event in added] == ["in_progress"] * 4
    first_done = next(event for event in events if event["type"].endswith("arguments.done"))
    assert (first_done["name"], first_done["arguments"]) == ("get_weather", '{"city": "Paris"}')
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert events[-1]["response"]["output"] == done


async def test_a_stream_ends_with_what_the_plain_answer_is():
    body = {"input": "Hi", "tools": [WEATHER, MODELS]}
    async with serving(ScriptedRunner(THOUGHT_SAID_CALLED)) as server:
        plain = (await server.post(PATH, body)).json()
        events = named_events(await server.post(PATH, body | {"stream": True}))
    ignored = {"created_at": 0}
    assert without_ids(events[-1]["response"] | ignored) == without_ids(plain | ignored)
    assert [item["type"] for item in plain["output"]] == [
        "reasoning",
        "message",
        "function_call",
        "function_call",
    ]
    assert plain["output"][0]["content"] == [{"type": "reasoning_text", "text": "I think."}]
    assert plain["output"][2] | {"id": ""} == {
        "type": "function_call",
        "id": "",
        "call_id": "call_a",
        "name": "get_weather",
        "arguments": '{"city": "Paris"}',
        "status": "completed",
    }
    assert plain["usage"]["input_tokens_details"]["cached_tokens"] == 8
    assert plain["usage"]["output_tokens_details"]["reasoning_tokens"] == 2


async def test_the_official_clients_stream_helper_puts_all_items_together():
    runner = ScriptedRunner(THOUGHT_SAID_CALLED)
    async with (
        serving(runner) as server,
        server.openai() as client,
        client.responses.stream(model="orca", input="Hi", tools=[WEATHER, MODELS]) as stream,
    ):
        seen = [event async for event in stream]
        answer = await stream.get_final_response()
    assert answer.output_text == "Let me see."
    texts = [event.snapshot for event in seen if event.type == "response.output_text.delta"]
    assert texts == ["Let me ", "Let me see."]
    call = answer.output[2]
    assert (call.type, call.parsed_arguments) == ("function_call", {"city": "Paris"})


class Place(pydantic.BaseModel):
    city: str
    size: int


@pytest.mark.parametrize("stream", [False, True])
async def test_the_official_clients_parse_helper_gets_its_object(stream):
    runner = ScriptedRunner(says('{"city": "Oslo", ', '"size": 7}'))
    async with serving(runner) as server, server.openai() as client:
        if stream:
            async with client.responses.stream(model="orca", input="Hi", text_format=Place) as events:
                answer = await events.get_final_response()
        else:
            answer = await client.responses.parse(model="orca", input="Hi", text_format=Place)
    assert answer.output_parsed == Place(city="Oslo", size=7)
    constraint = runner.request.constraint
    assert constraint is not None and constraint.kind == "json_schema"
    assert msgspec.json.decode(constraint.source)["required"] == ["city", "size"]
    assert answer.text is not None and answer.text.format is not None
    assert answer.text.format.type == "json_schema"


async def test_an_answer_that_is_an_empty_text_has_an_item():
    async with serving(ScriptedRunner(script_of(Delta(0, "", (1,), finish="stop")))) as server:
        answer = (await server.post(PATH, {"input": "Hi"})).json()
    [item] = answer["output"]
    assert item["content"] == [{"type": "output_text", "text": "", "annotations": [], "logprobs": []}]


async def test_an_answer_cut_by_its_limit_is_incomplete():
    script = says("a", "b", finish="length")
    events = await streamed(script)
    async with serving(ScriptedRunner(script)) as server, server.openai() as client:
        answer = await client.responses.create(model="orca", input="Hi", max_output_tokens=16)
    assert events[-1]["type"] == "response.incomplete"
    assert events[-1]["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert events[-2]["item"]["status"] == "incomplete"
    assert (answer.status, answer.output[0].status, answer.output_text) == ("incomplete", "incomplete", "ab")


async def test_a_fault_after_the_first_token_is_a_failed_response():
    def script(request):
        yield accepted()
        yield Delta(0, "a", (1,))
        yield sent
        yield WorkerCrashed("the worker died")

    sent = asyncio.Event()
    async with serving(ScriptedRunner(script)) as server, server.openai() as client:
        stream = await client.responses.create(model="orca", input="Hi", stream=True)
        events = []
        async for event in stream:
            events.append(event)
            sent.set()
    assert events[-1].type == "response.failed"
    error = events[-1].response.error
    assert error is not None and (error.code, error.message) == ("server_error", "the worker died")


async def test_a_fault_after_a_comment_begins_the_response_and_fails_it():
    def script(request):
        yield come
        yield Overloaded("full")

    come = asyncio.Event()
    async with serving(ScriptedRunner(script), AppSettings(keepalive_s=0.01)) as server:
        reader, writer = await server.send("POST", PATH, {"input": "Hi", "stream": True})
        await reader.readuntil(b": queued\n\n")
        come.set()
        rest = await reader.read()
        writer.close()
    kinds = re.findall(rb"event: ([a-z._]+)", rest)
    assert kinds == [b"response.created", b"response.in_progress", b"response.failed"]
    assert b'"code":"rate_limit_exceeded"' in rest


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_before_the_first_token_has_a_plain_status(stream):
    error = ContextLengthExceeded("5000 tokens, 4096 fit", prompt_tokens=5000, context_tokens=4096)
    async with serving(ScriptedRunner(lambda request: [accepted(), error])) as server:
        answer = await server.post(PATH, {"input": "Hi", "stream": stream})
    assert (answer.status, answer.json()["error"]["code"]) == (400, "context_length_exceeded")


CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"x": 1}'}
TEMPLATE_CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}, "id": "c1"}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "42"}
TEMPLATE_RESULT = {"role": "tool", "content": "42", "tool_call_id": "c1", "name": "f"}


@pytest.mark.parametrize(
    ("given", "messages"),
    [
        ("Hi", [{"role": "user", "content": "Hi"}]),
        ([{"role": "user", "content": "Hi"}], [{"role": "user", "content": "Hi"}]),
        (
            [
                {"type": "message", "role": "developer", "content": "Be kind."},
                {"role": "user", "content": [{"type": "input_text", "text": t} for t in ("one", "two")]},
            ],
            [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "one\ntwo"}],
        ),
        (
            [
                {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
                {
                    "type": "message",
                    "id": "msg_1",
                    "role": "assistant",
                    "status": "completed",
                    "content": [{"type": "output_text", "text": "So.", "annotations": []}],
                },
                CALL,
                RESULT,
                {"role": "user", "content": "And?"},
            ],
            [
                {
                    "role": "assistant",
                    "reasoning_content": "hm",
                    "content": "So.",
                    "tool_calls": [TEMPLATE_CALL],
                },
                TEMPLATE_RESULT,
                {"role": "user", "content": "And?"},
            ],
        ),
        (
            [CALL, CALL | {"call_id": "c2"}, RESULT | {"output": [{"type": "input_text", "text": "42"}]}],
            [
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [TEMPLATE_CALL, TEMPLATE_CALL | {"id": "c2"}],
                },
                TEMPLATE_RESULT,
            ],
        ),
        (
            [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}],
            [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}],
        ),
        (
            [
                {
                    "type": "reasoning",
                    "summary": [],
                    "content": [{"type": "reasoning_text", "text": "why"}],
                    "encrypted_content": None,
                },
                CALL,
            ],
            [{"role": "assistant", "reasoning_content": "why", "content": "", "tool_calls": [TEMPLATE_CALL]}],
        ),
    ],
)
async def test_items_become_messages_for_a_template(given, messages):
    runner = ScriptedRunner()
    async with serving(runner) as server:
        answer = await server.post(PATH, {"input": given})
    assert answer.status == 200, answer.body
    assert "x-ignored-params" not in answer.headers
    prompt = runner.request.prompt
    assert isinstance(prompt, ChatPrompt)
    assert list(prompt.messages) == messages


async def test_instructions_and_what_the_developer_says_at_the_beginning_are_one_message():
    runner = ScriptedRunner()
    given = [{"role": "developer", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    async with serving(runner) as server:
        await server.post(PATH, {"input": given, "instructions": "Be brief."})
    prompt = runner.request.prompt
    assert isinstance(prompt, ChatPrompt)
    assert list(prompt.messages) == [
        {"role": "system", "content": "Be brief.\n\nBe kind."},
        {"role": "user", "content": "Hi"},
    ]


async def test_an_answer_can_be_sent_back_as_input():
    runner = ScriptedRunner(THOUGHT_SAID_CALLED)
    async with serving(runner) as server, server.openai() as client:
        answer = await client.responses.create(model="orca", input="Hi", tools=[WEATHER, MODELS])
        results = [
            {"type": "function_call_output", "call_id": item.call_id, "output": "fine"}
            for item in answer.output
            if item.type == "function_call"
        ]
        asked = [{"role": "user", "content": "Hi"}, *answer.output, *results]
        raw = await client.responses.with_raw_response.create(model="orca", input=asked)
    assert "x-ignored-params" not in raw.headers
    prompt = runner.request.prompt
    assert isinstance(prompt, ChatPrompt)
    assert [message["role"] for message in prompt.messages] == ["user", "assistant", "tool", "tool"]
    assert prompt.messages[1]["reasoning_content"] == "I think."
    assert [call["id"] for call in prompt.messages[1]["tool_calls"]] == ["call_a", "call_b"]


async def test_fields_reach_the_runner():
    runner = ScriptedRunner()
    fields = {
        "max_output_tokens": 20,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_logprobs": 3,
        "seed": 7,
        "stop": "END",
        "reasoning": {"effort": "low"},
        "text": {"format": {"type": "json_object"}, "verbosity": "low"},
        "truncation": "disabled",
        "service_tier": "auto",
        "background": False,
    }
    async with serving(runner) as server:
        answer = await server.post(PATH, {"input": "Hi", **fields})
    assert answer.status == 200, answer.body
    request = runner.request
    assert (request.max_tokens, request.logprobs, request.stop) == (20, 3, ("END",))
    assert request.sampling == {"temperature": 0.5, "top_p": 0.9, "seed": 7}
    assert request.constraint == Constraint("json_object", param="text.format")
    assert request.split_reasoning
    assert isinstance(request.prompt, ChatPrompt)
    assert request.prompt.template_kwargs["reasoning_effort"] == "low"
    assert request.prompt.template_kwargs["verbosity"] == "low"
    body = answer.json()
    assert (body["temperature"], body["max_output_tokens"]) == (0.5, 20)
    assert body["text"] == {"format": {"type": "json_object"}, "verbosity": "low"}


def choice(name: str) -> dict[str, str]:
    return {"type": "function", "name": name}


@pytest.mark.parametrize(
    ("fields", "use", "shown"),
    [
        ({}, ToolUse(strict=("get_weather",)), ["get_weather", "list_models"]),
        (
            {"tool_choice": "auto", "parallel_tool_calls": False},
            ToolUse(parallel=False, strict=("get_weather",)),
            ["get_weather", "list_models"],
        ),
        ({"tool_choice": "required"}, ToolUse(choice="required"), ["get_weather", "list_models"]),
        ({"tool_choice": "none"}, None, None),
        (
            {"tool_choice": choice("list_models")},
            ToolUse(choice="function", name="list_models"),
            ["get_weather", "list_models"],
        ),
        (
            {"tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [choice("list_models")]}},
            ToolUse(choice="required"),
            ["list_models"],
        ),
    ],
)
async def test_a_tool_choice_says_what_is_shown_and_how_it_may_be_called(fields, use, shown):
    runner = ScriptedRunner()
    async with serving(runner) as server, server.openai() as client:
        answer = await client.responses.create(model="orca", input="Hi", tools=[WEATHER, MODELS], **fields)
    assert runner.request.tool_use == use
    assert isinstance(runner.request.prompt, ChatPrompt)
    tools = runner.request.prompt.tools
    assert shown == (None if tools is None else [tool["function"]["name"] for tool in tools])
    assert [tool.name for tool in answer.tools] == ["get_weather", "list_models"]


@pytest.mark.parametrize(
    ("fields", "param", "code", "words"),
    [
        ({"input": None}, "input", "missing_required_parameter", "required"),
        ({"input": []}, "input", "invalid_value", "empty"),
        ({"input": 5}, "input", "invalid_type", "got `int`"),
        ({"input": "a\0"}, "input", "invalid_value", "NUL"),
        ({"instructions": "a\0"}, "instructions", "invalid_value", "NUL"),
        ({"input": [{"role": "boss", "content": "x"}]}, "input[0].role", "invalid_value", "boss"),
        ({"input": [{"role": "user"}]}, "input[0].content", "missing_required_parameter", ""),
        ({"input": [{"role": "user", "content": "a\0"}]}, "input[0].content", "invalid_value", "NUL"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input[0].content[0]",
            "unsupported_parameter",
            "input_image",
        ),
        (
            {"input": [{"role": "user", "content": [{"text": "x"}]}]},
            "input[0].content[0].type",
            "missing_required_parameter",
            "",
        ),
        (
            {"input": [{"type": "computer_call_output", "output": {}}]},
            "input[0].type",
            "unsupported_parameter",
            "computer_call_output",
        ),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type", "unsupported_parameter", ""),
        ({"input": [RESULT]}, "input[0].call_id", "invalid_value", "no function call before it"),
        ({"input": [CALL | {"name": 5}]}, "input[0].name", "invalid_type", "got `int`"),
        (
            {"input": [{"type": "reasoning", "summary": [], "encrypted_content": "gAAA"}]},
            "input[0].encrypted_content",
            "unsupported_parameter",
            "encrypted",
        ),
        ({"max_output_tokens": 15}, "max_output_tokens", "invalid_value", "16 to"),
        ({"temperature": 3}, "temperature", "invalid_value", "0 to 2"),
        ({"top_logprobs": 21}, "top_logprobs", "invalid_value", "0 to 20"),
        ({"include": ["everything"]}, "include[0]", "invalid_value", "everything"),
        ({"stream_options": {}}, "stream_options", "invalid_value", "stream: true"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value", "`tools`"),
        (
            {"tools": [WEATHER], "tool_choice": choice("f")},
            "tool_choice.name",
            "invalid_value",
            "get_weather",
        ),
        ({"tools": [WEATHER], "tool_choice": {"type": "mcp"}}, "tool_choice", "unsupported_parameter", ""),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "unsupported_parameter", "web_search"),
        ({"tools": [{"name": "f"}]}, "tools[0].type", "missing_required_parameter", ""),
        ({"tools": [WEATHER | {"name": "a b"}]}, "tools[0].name", "invalid_value", "characters"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.name", "missing_required_parameter", ""),
        (
            {"text": {"format": {"type": "json_schema", "name": "x"}}},
            "text.format.schema",
            "missing_required_parameter",
            "",
        ),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type", "invalid_value", "xml"),
        ({"background": True}, "background", "unsupported_parameter", ""),
        ({"conversation": "conv_1"}, "conversation", "unsupported_parameter", ""),
        ({"prompt": {"id": "p"}}, "prompt", "unsupported_parameter", ""),
        ({"truncation": "auto"}, "truncation", "unsupported_parameter", ""),
        ({"store": True}, "store", "unsupported_parameter", "--response-store"),
        (
            {"previous_response_id": "resp_1"},
            "previous_response_id",
            "unsupported_parameter",
            "--response-store",
        ),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs", "invalid_value", "`messages`"),
    ],
)
async def test_a_wrong_field_is_named_with_what_is_allowed(fields, param, code, words):
    runner = ScriptedRunner()
    async with serving(runner) as server:
        answer = await server.post(PATH, {"input": "Hi"} | fields)
    error = answer.json()["error"]
    assert (answer.status, error["param"], error["code"]) == (400, param, code), error
    assert words in error["message"]
    assert runner.asked == []


async def test_what_does_nothing_is_listed_in_a_header():
    body = {
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "x", "mood": 1}], "zeal": 2},
        ],
        "aim": 1,
        "include": ["reasoning.encrypted_content", "message.output_text.logprobs"],
        "reasoning": {"summary": "auto", "depth": 3},
        "tools": [WEATHER | {"defer_loading": True}],
    }
    async with serving(ScriptedRunner()) as server:
        for stream in (False, True):
            answer = await server.post(PATH, body | {"stream": stream})
            assert answer.status == 200, answer.body
            assert answer.headers["x-ignored-params"] == (
                "aim, input[0].content[0].mood, input[0].zeal, reasoning.depth, tools[0].defer_loading, "
                "reasoning.summary, include[0]"
            )
    async with serving(ScriptedRunner(), AppSettings(unknown_fields="strict")) as server:
        strict = await server.post(PATH, {"input": "x", "reasoning": {"summary": "auto"}})
    assert (strict.status, strict.json()["error"]["param"]) == (400, "reasoning.summary")


async def test_log_probabilities_come_with_the_text_and_not_with_the_reasoning():
    script = script_of(
        Delta(0, "", (0,), (token("<think>"),)),
        Delta(0, "", (1,), (token("hm"),), reasoning="hm"),
        Delta(0, "", (2,), (token("\xc3"),)),
        Delta(0, "ä", (3,), (token("\xa4", a=-1.0),)),
        Delta(0, "", (4,), (token(""),), finish="stop"),
    )
    runner = ScriptedRunner(script)
    async with serving(runner) as server, server.openai() as client:
        include = ["message.output_text.logprobs"]
        answer = await client.responses.create(model="orca", input="Hi", include=include)
    assert runner.request.logprobs == 0
    message = answer.output[1]
    assert message.type == "message"
    assert message.content[0].type == "output_text"
    assert [one.token for one in message.content[0].logprobs or ()] == ["\xc3", "\xa4", ""]
    events = await streamed(script, top_logprobs=1)
    told = [event["logprobs"] for event in events if event["type"] == "response.output_text.delta"]
    assert [len(logprobs) for logprobs in told] == [2, 1]
    done = next(event for event in events if event["type"] == "response.output_text.done")
    assert len(done["logprobs"]) == 3


async def test_the_tokens_of_an_input_are_counted_as_they_would_be_asked():
    runner = ScriptedRunner()
    async with serving(runner) as server, server.openai() as client:
        counted = await client.responses.input_tokens.count(
            model="orca", input="Hi", instructions="Be brief.", tools=[WEATHER]
        )
        await client.responses.create(model="orca", input="Hi", instructions="Be brief.", tools=[WEATHER])
    (_, prompt, _) = runner.tokenized[0]
    assert prompt == runner.request.prompt
    assert counted.input_tokens == len("<system>Be brief.<user>Hi")


async def test_a_client_that_leaves_cancels_the_work():
    never = asyncio.Event()
    started = asyncio.Event()

    def script(request):
        yield accepted()
        yield Delta(0, "a", (1,))
        started.set()
        yield never

    for stream in (True, False):
        runner = ScriptedRunner(script)
        async with serving(runner) as server:
            _, writer = await server.send("POST", PATH, {"input": "Hi", "stream": stream})
            await started.wait()
            writer.close()
            await runner.closed.wait()


async def test_what_is_not_kept_cannot_be_asked_for():
    async with serving(ScriptedRunner(says("a"))) as server, server.openai() as client:
        answer = await client.responses.create(model="orca", input="Hi")
        for ask in (
            client.responses.retrieve(answer.id),
            client.responses.delete(answer.id),
            client.responses.cancel(answer.id),
        ):
            with pytest.raises(openai.NotFoundError, match="--response-store"):
                await ask
        with pytest.raises(openai.NotFoundError, match="--response-store"):
            await client.responses.input_items.list(answer.id)
        with pytest.raises(openai.BadRequestError, match="compact"):
            await client.responses.compact(model="orca")
    assert (answer.model_extra or {})["store"] is False


async def test_finished_is_needed_for_an_answer():
    async with serving(ScriptedRunner(lambda request: [accepted(), Delta(0, "a", (1,))])) as server:
        answer = await server.post(PATH, {"input": "Hi"})
    assert answer.json()["error"]["code"] == "generation_failed"
