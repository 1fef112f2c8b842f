"""Tools and reasoning in chats: what is asked of a model, and the shapes of the answer."""

from typing import Any

import pytest

from runner.wire.requests import ChatPrompt, Delta, Finished, ToolCallDelta, ToolUse, Usage
from tests.adapters.support import ScriptedRunner, accepted, ask_user, finished, serving, token

WEATHER = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
MODELS = {"name": "list_models"}
TOOLS = [{"type": "function", "function": WEATHER}, {"type": "function", "function": MODELS}]
SHOWN_MODELS = {"name": "list_models", "parameters": {"type": "object", "properties": {}}}
HISTORY = [{"role": "user", "content": "Hi"}]
INVALID, TYPE, MISSING, UNSUPPORTED = (
    "invalid_value",
    "invalid_type",
    "missing_required_parameter",
    "unsupported_parameter",
)


def allowed(mode: str, *names: str) -> dict[str, Any]:
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def deltas(*parts: Delta, finish: str = "tool_calls", reasoning_tokens: int = 0) -> Any:
    """A script that gives these deltas to the first sample and then finishes."""

    def script(request: Any) -> Any:
        yield accepted()
        yield from parts
        yield Delta(0, "", finish=finish)
        yield Finished(Usage(3, 9, 0, reasoning_tokens))

    return script


def call(index: int, arguments: str = "", name: str | None = None) -> ToolCallDelta:
    return ToolCallDelta(index, arguments, f"call_{index}" if name else None, name)


TWO_CALLS = deltas(
    Delta(0, "", (1,), reasoning="I "),
    Delta(0, "", (2,), reasoning="think."),
    Delta(0, "Let me ", (3,)),
    Delta(0, "see.", (4,)),
    Delta(0, "", (5,), tool_calls=(call(0, name="get_weather"),)),
    Delta(0, "", (6,), tool_calls=(call(0, '{"city": '),)),
    Delta(0, "", (7,), tool_calls=(call(0, '"Paris"}'), call(1, "{}", name="list_models"))),
    reasoning_tokens=2,
)


@pytest.mark.parametrize(
    ("fields", "names", "use"),
    [
        ({}, ["get_weather", "list_models"], ToolUse()),
        ({"tool_choice": None, "parallel_tool_calls": None}, ["get_weather", "list_models"], ToolUse()),
        ({"tool_choice": "auto"}, ["get_weather", "list_models"], ToolUse()),
        ({"parallel_tool_calls": False}, ["get_weather", "list_models"], ToolUse(parallel=False)),
        ({"tool_choice": "required"}, ["get_weather", "list_models"], ToolUse(choice="required")),
        (
            {"tool_choice": named("list_models")},
            ["get_weather", "list_models"],
            ToolUse(choice="function", name="list_models"),
        ),
        ({"tool_choice": allowed("auto", "list_models")}, ["list_models"], ToolUse()),
        ({"tool_choice": allowed("required", "get_weather")}, ["get_weather"], ToolUse(choice="required")),
        ({"tool_choice": "none"}, None, None),
    ],
)
async def test_the_choice_says_which_tools_are_shown_and_how_they_are_used(fields, names, use):
    runner = ScriptedRunner()
    async with serving(runner) as server:
        answer = await server.post("/v1/chat/completions", ask_user(tools=TOOLS, **fields))
    assert answer.status == 200, answer.body
    assert runner.request.tool_use == use
    assert runner.request.split_reasoning
    shown = runner.request.prompt.tools
    assert names == (shown and [tool["function"]["name"] for tool in shown])


async def test_templates_are_shown_tools_as_they_know_them():
    runner = ScriptedRunner()
    tools = [{"type": "function", "function": WEATHER | {"strict": True, "colour": "red"}}, TOOLS[1]]
    async with serving(runner) as server:
        answer = await server.post("/v1/chat/completions", ask_user(tools=tools))
    assert list(runner.request.prompt.tools) == [
        {"type": "function", "function": WEATHER},
        {"type": "function", "function": SHOWN_MODELS},
    ]
    assert answer.headers["x-ignored-params"] == "tools[0].function.colour"


@pytest.mark.parametrize(
    ("fields", "strict"),
    [
        ({}, ("get_weather",)),
        ({"tool_choice": "auto"}, ("get_weather",)),
        ({"tool_choice": allowed("auto", "get_weather")}, ("get_weather",)),
        ({"tool_choice": allowed("auto", "list_models")}, ()),
        ({"tool_choice": "required"}, ()),
    ],
)
async def test_strict_tools_are_named_where_calls_are_left_to_the_model(fields, strict):
    runner = ScriptedRunner()
    tools = [{"type": "function", "function": WEATHER | {"strict": True}}, TOOLS[1]]
    async with serving(runner) as server:
        answer = await server.post("/v1/chat/completions", ask_user(tools=tools, **fields))
    assert runner.request.tool_use.strict == strict
    assert "x-ignored-params" not in answer.headers


@pytest.mark.parametrize(
    ("fields", "param", "code", "words"),
    [
        ({"tools": []}, "tools", INVALID, "length >= 1"),
        ({"tools": TOOLS * 65}, "tools", INVALID, "128"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", MISSING, ""),
        ({"tools": [{"function": {}}]}, "tools[0].function.name", MISSING, ""),
        (
            {"tools": [TOOLS[0], {"type": "custom", "custom": {"name": "x"}}]},
            "tools[1].type",
            UNSUPPORTED,
            "custom",
        ),
        ({"tools": [named("two words")]}, "tools[0].function.name", INVALID, "two words"),
        ({"tools": [named("x" * 65)]}, "tools[0].function.name", INVALID, "1 to 64"),
        ({"tools": [named("")]}, "tools[0].function.name", INVALID, "1 to 64"),
        (
            {"tools": [{"function": {"name": "f", "parameters": {"type": "array"}}}]},
            "tools[0].function.parameters",
            INVALID,
            "array",
        ),
        (
            {"tools": [{"function": {"name": "f", "parameters": []}}]},
            "tools[0].function.parameters",
            TYPE,
            "got `array`",
        ),
        (
            {"tools": [{"function": {"name": "f", "description": "a\0"}}]},
            "tools[0].function.description",
            INVALID,
            "NUL",
        ),
        ({"tool_choice": "auto"}, "tool_choice", INVALID, "together with `tools`"),
        ({"tool_choice": named("f")}, "tool_choice", INVALID, "together with `tools`"),
        ({"tools": TOOLS, "tool_choice": "always"}, "tool_choice", INVALID, "always"),
        ({"tools": TOOLS, "tool_choice": named("gone")}, "tool_choice.function.name", INVALID, "gone"),
        ({"tools": TOOLS, "tool_choice": {"type": "function"}}, "tool_choice.function", MISSING, ""),
        (
            {"tools": TOOLS, "tool_choice": {"type": "custom", "custom": {"name": "f"}}},
            "tool_choice.type",
            UNSUPPORTED,
            "custom",
        ),
        (
            {"tools": TOOLS, "tool_choice": allowed("auto")},
            "tool_choice.allowed_tools.tools",
            INVALID,
            "length >= 1",
        ),
        (
            {"tools": TOOLS, "tool_choice": allowed("auto", "gone")},
            "tool_choice.allowed_tools.tools[0].function.name",
            INVALID,
            "gone",
        ),
        (
            {"tools": TOOLS, "tool_choice": {"type": "allowed_tools"}},
            "tool_choice.allowed_tools",
            MISSING,
            "",
        ),
        ({"functions": []}, "functions", INVALID, "length >= 1"),
        ({"functions": [MODELS], "tools": TOOLS}, "functions", INVALID, "not both"),
        ({"functions": [{"name": "a b"}]}, "functions[0].name", INVALID, "a b"),
        ({"function_call": "auto"}, "function_call", INVALID, "together with `functions`"),
        ({"functions": [MODELS], "function_call": {"name": "gone"}}, "function_call.name", INVALID, "gone"),
        ({"reasoning_effort": "some"}, "reasoning_effort", INVALID, "some"),
        ({"verbosity": 3}, "verbosity", TYPE, "got `int`"),
        (
            {"messages": [*HISTORY, {"role": "assistant", "tool_calls": [{"type": "custom", "custom": {}}]}]},
            "messages[1].tool_calls[0].type",
            UNSUPPORTED,
            "custom",
        ),
        (
            {"messages": [*HISTORY, {"role": "assistant", "tool_calls": [{"id": "c"}]}]},
            "messages[1].tool_calls[0].function",
            MISSING,
            "",
        ),
        (
            {"messages": [HISTORY[0] | {"tool_calls": [named("f")]}]},
            "messages[0].tool_calls",
            INVALID,
            "assistant",
        ),
        (
            {
                "messages": [
                    *HISTORY,
                    {"role": "assistant", "tool_calls": [named("f")], "function_call": {"name": "f"}},
                ]
            },
            "messages[1].function_call",
            INVALID,
            "not both",
        ),
        ({"messages": [*HISTORY, {"role": "function", "content": "5"}]}, "messages[1].name", MISSING, ""),
    ],
)
async def test_a_wrong_field_is_named(fields, param, code, words):
    runner = ScriptedRunner()
    async with serving(runner) as server:
        answer = await server.post("/v1/chat/completions", ask_user() | fields)
    error = answer.json()["error"]
    assert (answer.status, error["param"], error["code"]) == (400, param, code), error
    assert words in error["message"]
    assert runner.asked == []


@pytest.mark.parametrize(
    "fields", [{"tool_choice": "none"}, {"parallel_tool_calls": True}, {"function_call": "none"}]
)
async def test_what_changes_nothing_without_tools_is_let_through(fields):
    runner = ScriptedRunner()
    async with serving(runner) as server:
        assert (await server.post("/v1/chat/completions", ask_user(**fields))).status == 200
    assert (runner.request.prompt.tools, runner.request.tool_use) == (None, None)


async def test_a_message_has_reasoning_text_and_calls():
    async with serving(ScriptedRunner(TWO_CALLS)) as server, server.openai() as client:
        answer = await client.chat.completions.create(model="orca", messages=HISTORY, tools=TOOLS)
        [raw] = (await server.post("/v1/chat/completions", ask_user(tools=TOOLS))).json()["choices"]
    [choice] = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Let me see."
    assert choice.message.tool_calls is not None
    assert [(c.id, c.type, c.function.name, c.function.arguments) for c in choice.message.tool_calls] == [
        ("call_0", "function", "get_weather", '{"city": "Paris"}'),
        ("call_1", "function", "list_models", "{}"),
    ]
    assert answer.usage is not None and answer.usage.completion_tokens_details is not None
    assert answer.usage.completion_tokens_details.reasoning_tokens == 2
    assert raw["message"]["reasoning_content"] == "I think."
    assert raw["message"]["refusal"] is None


async def test_a_message_of_calls_alone_has_null_for_content_and_one_without_calls_no_key_for_them():
    calls = deltas(Delta(0, "", (1,), tool_calls=(call(0, "{}", name="list_models"),)))
    async with serving(ScriptedRunner(calls)) as server:
        with_calls = (await server.post("/v1/chat/completions", ask_user(tools=TOOLS))).json()
    async with serving(ScriptedRunner(deltas(finish="stop"))) as server:
        without = (await server.post("/v1/chat/completions", ask_user(tools=TOOLS))).json()
    assert with_calls["choices"][0]["message"]["content"] is None
    assert without["choices"][0]["message"] == {"role": "assistant", "content": "", "refusal": None}


async def test_a_stream_has_reasoning_then_text_then_calls():
    async with serving(ScriptedRunner(TWO_CALLS)) as server:
        answer = await server.post("/v1/chat/completions", ask_user(tools=TOOLS, stream=True))
    *chunks, done = answer.events()
    assert done == "[DONE]"
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "I "},
        {"reasoning_content": "think."},
        {"content": "Let me "},
        {"content": "see."},
        {
            "tool_calls": [
                {
                    "index": 0,
                    "id": "call_0",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": ""},
                }
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"city": '}}]},
        {
            "tool_calls": [
                {"index": 0, "function": {"arguments": '"Paris"}'}},
                {
                    "index": 1,
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "list_models", "arguments": "{}"},
                },
            ]
        },
        {},
    ]
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None] * 8 + ["tool_calls"]


async def test_one_delta_of_several_kinds_becomes_a_chunk_for_each_with_its_logprobs_once():
    mixed = Delta(
        0, "So.", (1,), (token("x"),), reasoning="Hm.", tool_calls=(call(0, "{}", name="list_models"),)
    )
    async with serving(ScriptedRunner(deltas(mixed))) as server:
        answer = await server.post("/v1/chat/completions", ask_user(tools=TOOLS, stream=True, logprobs=True))
    choices = [chunk["choices"][0] for chunk in answer.events()[1:-2]]
    assert [next(iter(choice["delta"])) for choice in choices] == [
        "reasoning_content",
        "content",
        "tool_calls",
    ]
    assert [choice["logprobs"] is not None for choice in choices] == [True, False, False]


async def test_a_stream_that_begins_with_a_call_begins_without_text():
    calls = deltas(Delta(0, "", (1,), tool_calls=(call(0, "{}", name="list_models"),)))
    async with serving(ScriptedRunner(calls)) as server:
        answer = await server.post("/v1/chat/completions", ask_user(tools=TOOLS, stream=True))
    assert answer.events()[0]["choices"][0]["delta"] == {"role": "assistant", "content": None}


async def test_the_official_clients_stream_helper_puts_calls_together():
    async with (
        serving(ScriptedRunner(TWO_CALLS)) as server,
        server.openai() as client,
        client.chat.completions.stream(model="orca", messages=HISTORY, tools=TOOLS) as stream,
    ):
        kinds = [event.type async for event in stream]
        answer = await stream.get_final_completion()
    [choice] = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Let me see."
    calls = choice.message.tool_calls or []
    assert [(c.id, c.function.name, c.function.arguments) for c in calls] == [
        ("call_0", "get_weather", '{"city": "Paris"}'),
        ("call_1", "list_models", "{}"),
    ]
    assert kinds.count("tool_calls.function.arguments.done") == 2


async def test_each_choice_of_a_stream_has_calls_of_its_own():
    def script(request):
        yield accepted()
        for index in (1, 0):
            yield Delta(index, "", (1,), tool_calls=(call(0, "{}", name="list_models"),))
        for index in (0, 1):
            yield Delta(index, "", finish="tool_calls")
        yield finished(2)

    async with serving(ScriptedRunner(script)) as server:
        answer = await server.post("/v1/chat/completions", ask_user(tools=TOOLS, stream=True, n=2))
    choices = [chunk["choices"][0] for chunk in answer.events()[:-1]]
    by_index = {i: [c for c in choices if c["index"] == i] for i in (0, 1)}
    for mine in by_index.values():
        assert [next(iter(c["delta"]), None) for c in mine] == ["role", "tool_calls", None]
        assert mine[1]["delta"]["tool_calls"][0]["index"] == 0


@pytest.mark.parametrize(
    ("choice", "use"),
    [
        (None, ToolUse(parallel=False)),
        ("auto", ToolUse(parallel=False)),
        ({"name": "list_models"}, ToolUse(choice="function", name="list_models", parallel=False)),
        ("none", None),
    ],
)
async def test_the_deprecated_functions_are_tools(choice, use):
    runner = ScriptedRunner()
    async with serving(runner) as server:
        answer = await server.post("/v1/chat/completions", ask_user(functions=[MODELS], function_call=choice))
    assert answer.status == 200, answer.body
    assert runner.request.tool_use == use
    shown = None if use is None else ({"type": "function", "function": SHOWN_MODELS},)
    assert runner.request.prompt.tools == shown


async def test_who_gives_functions_is_answered_with_a_function_call():
    parts = (
        Delta(0, "", (1,), tool_calls=(call(0, '{"city":', name="get_weather"),)),
        Delta(0, "", (2,), tool_calls=(call(0, ' "Paris"}'),)),
    )
    body = ask_user(functions=[WEATHER])
    async with serving(ScriptedRunner(deltas(*parts))) as server:
        [choice] = (await server.post("/v1/chat/completions", body)).json()["choices"]
        stream = (await server.post("/v1/chat/completions", body | {"stream": True})).events()
    wanted = {"name": "get_weather", "arguments": '{"city": "Paris"}'}
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "function_call": wanted,
    }
    assert choice["finish_reason"] == "function_call"
    assert [chunk["choices"][0]["delta"] for chunk in stream[:-1]] == [
        {"role": "assistant", "content": None},
        {"function_call": {"name": "get_weather", "arguments": '{"city":'}},
        {"function_call": {"arguments": ' "Paris"}'}},
        {},
    ]
    assert stream[-2]["choices"][0]["finish_reason"] == "function_call"


async def test_a_history_of_functions_becomes_one_of_tools():
    runner = ScriptedRunner()
    messages = [
        *HISTORY,
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"x": 1}'}},
        {"role": "function", "name": "f", "content": "42"},
    ]
    async with serving(runner) as server:
        answer = await server.post("/v1/chat/completions", {"model": "orca", "messages": messages})
    assert answer.status == 200, answer.body
    function = {"name": "f", "arguments": {"x": 1}}
    assert list(runner.request.prompt.messages[1:]) == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"type": "function", "function": function, "id": "000000001"}],
        },
        {"role": "tool", "content": "42", "name": "f", "tool_call_id": "000000001"},
    ]


@pytest.mark.parametrize(
    ("fields", "kwargs"),
    [
        ({}, {}),
        ({"reasoning_effort": "low"}, {"reasoning_effort": "low", "enable_thinking": True, "thinking": True}),
        (
            {"reasoning_effort": "none"},
            {"reasoning_effort": "none", "enable_thinking": False, "thinking": False},
        ),
        ({"verbosity": "high"}, {"verbosity": "high"}),
        (
            {"reasoning_effort": "high", "chat_template_kwargs": {"enable_thinking": False}},
            {"reasoning_effort": "high", "enable_thinking": False, "thinking": True},
        ),
    ],
)
async def test_effort_and_verbosity_reach_the_template(fields, kwargs):
    runner = ScriptedRunner()
    async with serving(runner) as server:
        assert (await server.post("/v1/chat/completions", ask_user(**fields))).status == 200
    prompt = runner.request.prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.template_kwargs == kwargs


@pytest.mark.parametrize("key", ["reasoning", "reasoning_content"])
async def test_reasoning_in_the_history_is_taken_by_both_names(key):
    runner = ScriptedRunner()
    messages = [*HISTORY, {"role": "assistant", "content": "So.", key: "Hm."}, *HISTORY]
    async with serving(runner) as server:
        answer = await server.post("/v1/chat/completions", {"messages": messages})
    assert "x-ignored-params" not in answer.headers
    assert runner.request.prompt.messages[1]["reasoning_content"] == "Hm."


async def test_completions_take_their_text_as_it_is():
    runner = ScriptedRunner()
    async with serving(runner) as server:
        assert (await server.post("/v1/completions", {"model": "orca", "prompt": "x"})).status == 200
    assert (runner.request.tool_use, runner.request.split_reasoning) == (None, False)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ('{"a": 1}', {"a": 1}),
        ("not json", "not json"),
        ('{"a": 99999999999999999999999}', '{"a": 99999999999999999999999}'),
    ],
)
async def test_arguments_in_the_history_are_objects_where_they_can_be(arguments: str, shown: object):
    runner = ScriptedRunner()
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    body = ask_user() | {"messages": [*HISTORY, {"role": "assistant", "tool_calls": [call]}, *HISTORY]}
    async with serving(runner) as server:
        answer = await server.post("/v1/chat/completions", body)
    assert answer.status == 200, answer.body
    assert runner.request.prompt.messages[1]["tool_calls"][0]["function"]["arguments"] == shown
