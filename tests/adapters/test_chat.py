import pytest

from runner.errors import ContextLengthExceeded, LoadFailed, ModelNotFound, Overloaded
from runner.wire.requests import ChatPrompt, Delta
from tests.adapters.support import ScriptedRunner, accepted, ask_user, finished, says, serving, token


async def test_the_official_client_accepts_an_answer():
    runner = ScriptedRunner(says("Hello", " wörld"))
    async with serving(runner) as server, server.openai() as client:
        answer = await client.chat.completions.create(
            model="orca", messages=[{"role": "user", "content": "Hi"}], max_completion_tokens=9
        )
    assert answer.id.startswith("chatcmpl-")
    assert answer.object == "chat.completion"
    assert answer.model == "orca"
    assert answer.system_fingerprint
    [choice] = answer.choices
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "stop", None)
    assert (choice.message.role, choice.message.content) == ("assistant", "Hello wörld")
    assert choice.message.tool_calls is None
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (
        3,
        2,
        5,
    )
    assert runner.request.max_tokens == 9


async def test_the_official_client_accepts_a_stream():
    async with serving(ScriptedRunner(says("Hel", "lo"))) as server, server.openai() as client:
        stream = await client.chat.completions.create(
            model="orca",
            messages=[{"role": "user", "content": "Hi"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hello"
    assert len({(c.id, c.created, c.model) for c in chunks}) == 1
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 2


async def test_the_official_clients_stream_helper_accepts_several_choices():
    async with serving(ScriptedRunner(says("a", "b"))) as server, server.openai() as client:
        messages = [{"role": "user", "content": "Hi"}]
        async with client.chat.completions.stream(model="orca", messages=messages, n=2) as stream:
            answer = await stream.get_final_completion()
    assert [choice.message.content for choice in answer.choices] == ["ab", "ab"]


async def test_several_samples_count_the_prompt_once():
    async with serving(ScriptedRunner(says("x", "y"))) as server:
        answer = (await server.post("/v1/chat/completions", ask_user(n=3))).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert answer["usage"]["prompt_tokens"] == 3
    assert answer["usage"]["completion_tokens"] == 6


async def test_only_given_sampling_fields_are_passed_on():
    runner = ScriptedRunner()
    async with serving(runner) as server:
        await server.post("/v1/chat/completions", ask_user(temperature=None, top_p=None))
        assert runner.request.sampling == {}
        assert runner.request.max_tokens is None
        given = {
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": -1,
            "min_p": 0.1,
            "typical_p": 0.8,
            "repetition_penalty": 1.1,
            "repeat_last_n": 32,
            "frequency_penalty": 1,
            "presence_penalty": -1,
            "seed": 7,
            "logit_bias": {"50": -100, "3": 2},
        }
        await server.post("/v1/chat/completions", ask_user(**given))
    assert runner.request.sampling == {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 0,
        "min_p": 0.1,
        "typical_p": 0.8,
        "repeat_penalty": 1.1,
        "repeat_last_n": 32,
        "frequency_penalty": 1.0,
        "presence_penalty": -1.0,
        "seed": 7,
        "logit_bias": {50: -100.0, 3: 2.0},
    }


async def test_extensions_reach_the_runner():
    runner = ScriptedRunner()
    fields = {
        "min_tokens": 2,
        "ignore_eos": True,
        "stop_token_ids": [4, 5],
        "include_stop_str_in_output": True,
        "skip_special_tokens": False,
        "priority": 3,
        "cache_salt": "mine",
        "request_id": "abc",
        "stop": ["a", "b"],
    }
    async with serving(runner) as server:
        assert (await server.post("/v1/chat/completions", ask_user(**fields))).status == 200
    request = runner.request
    assert (request.min_tokens, request.ignore_eos, request.stop_token_ids) == (2, True, (4, 5))
    assert (request.include_stop, request.skip_special_tokens, request.priority) == (True, False, 3)
    assert (request.cache_salt, request.stop) == ("mine", ("a", "b"))
    assert request.request_id.startswith("abc-")


async def test_two_requests_with_the_same_id_stay_apart():
    runner = ScriptedRunner()
    async with serving(runner) as server:
        for _ in range(2):
            await server.post("/v1/chat/completions", ask_user(), {"x-request-id": "same"})
    first, second = (request.request_id for _, request in runner.asked)
    assert first != second


async def test_the_new_name_of_the_token_limit_wins():
    runner = ScriptedRunner()
    async with serving(runner) as server:
        await server.post("/v1/chat/completions", ask_user(max_tokens=5, max_completion_tokens=8))
        assert runner.request.max_tokens == 8
        await server.post("/v1/chat/completions", ask_user(max_tokens=5))
    assert runner.request.max_tokens == 5


async def test_messages_are_made_ready_for_a_template():
    runner = ScriptedRunner()
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
        {
            "role": "assistant",
            "content": None,
            "reasoning": "hm",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
            ],
        },
        {"role": "tool", "content": "42", "tool_call_id": "c1"},
    ]
    async with serving(runner) as server:
        answer = await server.post("/v1/chat/completions", {"model": "orca", "messages": messages})
    assert answer.status == 200, answer.body
    prompt = runner.request.prompt
    assert isinstance(prompt, ChatPrompt)
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}, "id": "c1"}
    assert list(prompt.messages) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one\ntwo"},
        {"role": "assistant", "content": "", "tool_calls": [call], "reasoning_content": "hm"},
        {"role": "tool", "content": "42", "tool_call_id": "c1"},
    ]


async def test_a_final_assistant_message_can_be_continued():
    runner = ScriptedRunner()
    body = {
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hel"}],
        "continue_final_message": True,
        "chat_template_kwargs": {"mood": "calm"},
    }
    async with serving(runner) as server:
        await server.post("/v1/chat/completions", body)
    prompt = runner.request.prompt
    assert isinstance(prompt, ChatPrompt)
    assert (prompt.add_generation_prompt, prompt.continue_final_message) == (False, True)
    assert prompt.template_kwargs == {"mood": "calm"}


async def test_log_probabilities_come_with_bytes_and_alternatives():
    def script(request):
        yield accepted()
        yield Delta(0, "ä", (1,), (token("ä", -0.25, ä=-0.25, b=-2.0),), finish="stop")
        yield finished(1)

    runner = ScriptedRunner(script)
    async with serving(runner) as server, server.openai() as client:
        answer = await client.chat.completions.create(
            model="orca", messages=[{"role": "user", "content": "Hi"}], logprobs=True, top_logprobs=2
        )
    assert runner.request.logprobs == 2
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    [item] = logprobs.content
    assert (item.token, item.logprob, item.bytes) == ("ä", -0.25, [0xC3, 0xA4])
    assert [(top.token, top.logprob) for top in item.top_logprobs] == [("ä", -0.25), ("b", -2.0)]


async def test_streamed_log_probabilities_come_with_their_text():
    async with serving(ScriptedRunner(says("a", "b"))) as server:
        answer = await server.post("/v1/chat/completions", ask_user(stream=True, logprobs=True))
    chunks = [event for event in answer.events()[:-1] if event["choices"][0]["logprobs"]]
    assert [chunk["choices"][0]["delta"]["content"] for chunk in chunks] == ["a", "b"]
    assert [chunk["choices"][0]["logprobs"]["content"][0]["token"] for chunk in chunks] == ["a", "b"]


async def test_an_engines_own_finish_reasons_are_mapped_to_the_apis():
    async with serving(ScriptedRunner(says("a", finish="eos_token"))) as server:
        answer = (await server.post("/v1/chat/completions", ask_user())).json()
    assert answer["choices"][0]["finish_reason"] == "stop"


async def test_a_bearer_token_is_offered_as_a_name():
    runner = ScriptedRunner()
    async with serving(runner) as server:
        await server.post("/v1/chat/completions", ask_user(), {"authorization": "Bearer orca"})
    assert runner.bearers == ["orca"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ContextLengthExceeded("5000 tokens, 4096 fit", prompt_tokens=5000, context_tokens=4096), 400),
        (ModelNotFound("gone", model="orca"), 404),
        (Overloaded("full", retry_after_s=3.0), 429),
        (LoadFailed("broken weights"), 503),
    ],
)
async def test_an_error_before_the_first_token_has_a_plain_status(error, status, stream):
    def script(request):
        yield error

    async with serving(ScriptedRunner(script)) as server:
        answer = await server.post("/v1/chat/completions", ask_user(stream=stream))
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["error"]["message"] == error.message
    if status == 429:
        assert answer.headers["retry-after"] == "3"
    if status == 503:
        assert answer.headers["x-should-retry"] == "false"
