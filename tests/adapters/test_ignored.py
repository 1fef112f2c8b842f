"""What a model has no use for is told by its worker, and by the server in a header, or refused."""

from typing import Any

import pytest

from adapters.settings import AppSettings
from runner.wire.requests import STRICT, Delta
from tests.adapters.support import ScriptedRunner, accepted, ask_user, finished, serving

IDLE = ("reasoning_effort", "enable_thinking", "thinking", "verbosity", "colour", STRICT)
PARAMETERS = {"type": "object", "properties": {}}
CHAT = ask_user(
    reasoning_effort="high",
    verbosity="low",
    chat_template_kwargs={"colour": "red", "size": 3},
    tools=[{"type": "function", "function": {"name": "f", "parameters": PARAMETERS, "strict": True}}],
)
RESPONSE = {
    "input": "Hi",
    "reasoning": {"effort": "high"},
    "text": {"verbosity": "low"},
    "tools": [{"type": "function", "name": "f", "parameters": PARAMETERS, "strict": True}],
}
MESSAGE = {
    "messages": [{"role": "user", "content": "Hi"}],
    "max_tokens": 2000,
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "output_config": {"effort": "high"},
    "tools": [{"name": "f", "input_schema": PARAMETERS, "strict": True}],
}
ROWS: list[tuple[str, Any, str]] = [
    (
        "/v1/chat/completions",
        CHAT,
        "chat_template_kwargs.colour, reasoning_effort, verbosity, tools[0].function.strict",
    ),
    ("/v1/responses", RESPONSE, "reasoning.effort, text.verbosity, tools[0].strict"),
    (
        "/v1/messages",
        MESSAGE,
        "thinking.budget_tokens, output_config.effort, thinking.type, tools[0].strict",
    ),
]


def runner(*idle: str) -> ScriptedRunner:
    def script(request: Any) -> Any:
        yield accepted(idle=idle)
        yield Delta(0, "Hello", (1,), finish="stop")
        yield finished(1)

    return ScriptedRunner(script)


@pytest.mark.parametrize(("path", "body", "listed"), ROWS)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_the_worker_has_no_use_for_is_listed(path: str, body: Any, listed: str, stream: bool):
    async with serving(runner(*IDLE)) as server:
        answer = await server.post(path, body | {"stream": stream})
    assert answer.status == 200, answer.body
    assert answer.headers["x-ignored-params"] == listed


@pytest.mark.parametrize(("path", "body", "listed"), ROWS)
async def test_what_the_worker_has_a_use_for_is_not(path: str, body: Any, listed: str):
    async with serving(runner()) as server:
        answer = await server.post(path, body)
    names = answer.headers.get("x-ignored-params", "")
    assert names in ("", "thinking.budget_tokens")


async def test_an_effort_acts_where_the_template_knows_one_of_its_names():
    async with serving(runner("reasoning_effort", "thinking")) as server:
        answer = await server.post("/v1/chat/completions", ask_user(reasoning_effort="none"))
    assert "x-ignored-params" not in answer.headers


@pytest.mark.parametrize("stream", [False, True])
async def test_it_is_refused_and_cancelled_where_the_policy_is_strict(stream: bool):
    asked = runner("reasoning_effort", "enable_thinking", "thinking")
    async with serving(asked, AppSettings(unknown_fields="strict")) as server:
        answer = await server.post("/v1/chat/completions", ask_user(reasoning_effort="low", stream=stream))
    error = answer.json()["error"]
    assert (answer.status, error["param"]) == (400, "reasoning_effort")
    assert error["code"] == "unsupported_parameter"
    assert asked.closed.is_set()


async def test_null_is_not_given_whoever_knows_the_field():
    call = {"id": "c", "type": None, "function": {"name": "f", "arguments": None, "colour": None}}
    said = {"role": "assistant", "content": None, "tool_calls": [call], "audio": None, "annotations": None}
    runner = ScriptedRunner()
    body = {
        "messages": [*ask_user()["messages"], said],
        "zeal": None,
        "response_format": {"type": "text", "x": None},
    }
    async with serving(runner, AppSettings(unknown_fields="strict")) as server:
        answer = await server.post("/v1/chat/completions", body)
    assert answer.status == 200, answer.body
    assert runner.request.prompt.messages[1]["tool_calls"][0]["function"] == {"name": "f", "arguments": {}}


@pytest.mark.parametrize(
    ("fields", "listed"),
    [
        ({"response_format": {"type": "text", "schema": {}}}, "response_format.schema"),
        (
            {"response_format": {"type": "json_object", "json_schema": {"name": "n"}}},
            "response_format.json_schema",
        ),
        ({"max_tokens": 5, "max_completion_tokens": 2}, "max_tokens"),
        ({"repeat_penalty": 1.2, "repetition_penalty": 1.3}, "repetition_penalty"),
    ],
)
async def test_the_older_of_two_names_is_listed(fields: dict[str, Any], listed: str):
    async with serving(ScriptedRunner()) as server:
        answer = await server.post("/v1/chat/completions", ask_user(**fields))
        alone = await server.post(
            "/v1/chat/completions", ask_user(**({listed: fields[listed]} if listed in fields else {}))
        )
    assert answer.headers["x-ignored-params"] == listed
    assert "x-ignored-params" not in alone.headers
