"""What a model's configuration says of the shape of answers, in requests that do not."""

from typing import Any

import pytest

from tests.adapters.support import ScriptedRunner, serving

CHAT = {"model": "orca", "messages": [{"role": "user", "content": "Hi"}]}
COMPLETION = {"model": "orca", "prompt": "Hi"}


@pytest.mark.parametrize(
    ("path", "body", "defaults", "field", "expected"),
    [
        ("chat/completions", CHAT, {"n": 2}, "n", 2),
        ("chat/completions", {**CHAT, "n": 1}, {"n": 2}, "n", 1),
        ("chat/completions", CHAT, {"logprobs": True}, "logprobs", 0),
        ("chat/completions", CHAT, {"logprobs": 3}, "logprobs", 3),
        ("chat/completions", CHAT, {"top_logprobs": 2}, "logprobs", 2),
        (
            "chat/completions",
            {**CHAT, "logprobs": False},
            {"logprobs": True, "top_logprobs": 2},
            "logprobs",
            None,
        ),
        ("chat/completions", CHAT, {"logprobs": False}, "logprobs", None),
        ("completions", COMPLETION, {"n": 2}, "n", 2),
        ("completions", {**COMPLETION, "best_of": 3}, {"n": 2}, "n", 3),
        ("completions", COMPLETION, {"logprobs": True}, "logprobs", 0),
        ("completions", COMPLETION, {"logprobs": 3}, "logprobs", 3),
        ("completions", COMPLETION, {"max_tokens": 5}, "max_tokens", 5),
        ("completions", {**COMPLETION, "max_tokens": 6}, {"max_tokens": 5}, "max_tokens", 6),
        ("completions", COMPLETION, {}, "max_tokens", 16),
        ("chat/completions", CHAT, {"max_tokens": 5, "echo": True}, "max_tokens", None),
    ],
)
async def test_a_default_holds_where_a_request_says_nothing(
    path: str, body: dict[str, Any], defaults: dict[str, Any], field: str, expected: int | None
) -> None:
    runner = ScriptedRunner()
    runner.defaults = defaults
    async with serving(runner) as server:
        await server.post(f"/v1/{path}", body)
    assert getattr(runner.request, field) == expected


async def test_a_completion_repeats_its_prompt_where_the_configuration_says_so() -> None:
    runner = ScriptedRunner()
    runner.defaults = {"echo": True}
    async with serving(runner) as server:
        answer = await server.post("/v1/completions", COMPLETION)
        silent = await server.post("/v1/completions", {**COMPLETION, "echo": False})
    texts = [each.json()["choices"][0]["text"] for each in (answer, silent)]
    assert texts == ["HiHello there", "Hello there"]
