"""Token ids and the prompt's log-probabilities in answers, as clients of vLLM ask for them."""

from typing import Any

import pytest

from runner.wire.requests import Delta
from tests.adapters.support import (
    ScriptedRunner,
    accepted,
    ask_user,
    byte_tokens,
    finished,
    says,
    serving,
    token,
)

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


async def test_a_chat_tells_the_tokens_of_prompt_and_answer():
    runner = ScriptedRunner(says("Hello", " there"))
    async with serving(runner) as server:
        body = (await server.post(CHAT, ask_user(return_token_ids=True, n=2))).json()
        plain = (await server.post(CHAT, ask_user(return_token_ids=False))).json()
    assert body["prompt_token_ids"] == list(byte_tokens(runner.request.prompt))
    assert [choice["token_ids"] for choice in body["choices"]] == [[0, 1], [0, 1]]
    assert "prompt_token_ids" not in plain
    assert "token_ids" not in plain["choices"][0]


async def test_a_chat_stream_tells_the_prompts_tokens_first_and_the_answers_as_they_come():
    runner = ScriptedRunner(says("Hello", " there"))
    async with serving(runner) as server:
        answer = await server.post(CHAT, ask_user(return_token_ids=True, stream=True))
    first, *chunks, done = answer.events()
    assert first["prompt_token_ids"] == list(byte_tokens(runner.request.prompt))
    assert not any("prompt_token_ids" in chunk for chunk in chunks)
    assert [chunk["choices"][0].get("token_ids") for chunk in (first, *chunks)] == [None, [0], [1], None]
    assert done == "[DONE]"


@pytest.mark.parametrize("prompt", ["ab", [97, 98]])
async def test_completions_tell_them_in_each_choice(prompt: Any):
    asked = {"prompt": [prompt, prompt], "return_token_ids": True}
    tokens = [256, 97, 98] if isinstance(prompt, str) else prompt
    async with serving(ScriptedRunner(says("x", "y"))) as server:
        body = (await server.post(COMPLETIONS, asked)).json()
        stream = (await server.post(COMPLETIONS, asked | {"stream": True})).events()
    assert [choice["prompt_token_ids"] for choice in body["choices"]] == [tokens, tokens]
    assert [choice["token_ids"] for choice in body["choices"]] == [[0, 1], [0, 1]]
    choices = [chunk["choices"][0] for chunk in stream[:-1]]
    for index in (0, 1):
        own = [choice for choice in choices if choice["index"] == index]
        assert [choice.get("prompt_token_ids") for choice in own] == [tokens, None, None, None]
        assert [choice.get("token_ids") for choice in own] == [None, [0], [1], None]
        assert "".join(choice["text"] for choice in own) == "xy"


def told(request: Any) -> Any:
    yield accepted()
    yield Delta(0, "x", (7,), prompt_logprobs=(None, token("a", -0.5, b=-0.1, a=-0.5)), finish="stop")
    yield finished(1)


ENTRIES = [
    None,
    {
        "0": {"logprob": -0.1, "rank": 1, "decoded_token": "b"},
        "1": {"logprob": -0.5, "rank": 2, "decoded_token": "a"},
        "7": {"logprob": -0.5, "rank": None, "decoded_token": "a"},
    },
]


async def test_the_prompts_log_probabilities_are_maps_from_token_ids():
    runner = ScriptedRunner(told)
    async with serving(runner) as server:
        chat = (await server.post(CHAT, ask_user(prompt_logprobs=2))).json()
        asked = runner.request.prompt_logprobs
        text = (await server.post(COMPLETIONS, {"prompt": "a", "prompt_logprobs": 2, "logprobs": 1})).json()
    assert asked == 2
    assert chat["prompt_logprobs"] == text["choices"][0]["prompt_logprobs"] == ENTRIES
    assert text["choices"][0]["logprobs"]["tokens"] == []


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (CHAT, {"prompt_logprobs": 1, "stream": True}),
        (CHAT, {"prompt_logprobs": 21}),
        (CHAT, {"prompt_logprobs": -1}),
        (COMPLETIONS, {"prompt_logprobs": 1, "echo": True, "logprobs": 1}),
        ("/v1/edits", {"prompt_logprobs": 1}),
        ("/v1/responses", {"prompt_logprobs": 1}),
    ],
)
async def test_what_cannot_be_told_is_refused(path: str, fields: dict[str, Any]):
    body = {"prompt": "x"} if path == COMPLETIONS else ask_user() if path == CHAT else {"input": "x"}
    body |= {"instruction": "y"} if path == "/v1/edits" else {}
    async with serving(ScriptedRunner()) as server:
        answer = await server.post(path, body | fields)
    assert (answer.status, answer.json()["error"]["param"]) == (400, "prompt_logprobs")
