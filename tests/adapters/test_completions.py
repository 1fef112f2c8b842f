import asyncio

import pytest

from runner.wire.requests import Delta, TextPrompt, TokenPrompt
from tests.adapters.support import ScriptedRunner, accepted, finished, says, serving, token, tokens_of


async def test_the_official_client_accepts_an_answer():
    runner = ScriptedRunner(says("Hel", "lo"))
    async with serving(runner) as server, server.openai() as client:
        answer = await client.completions.create(model="orca", prompt="Hi", logprobs=1)
    assert answer.object == "text_completion"
    assert answer.choices[0].text == "Hello"
    assert answer.choices[0].logprobs is not None
    assert answer.choices[0].logprobs.tokens == ["Hel", "lo"]
    assert answer.choices[0].logprobs.text_offset == [0, 3]
    assert runner.request.max_tokens == 16


async def test_the_official_client_reads_a_stream():
    # Not strictly: its types have no null for the finish reason, which OpenAI's own streams send too.
    async with serving(ScriptedRunner(says("Hel", "lo"))) as server, server.openai(strict=False) as client:
        stream = await client.completions.create(model="orca", prompt="Hi", stream=True)
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks) == "Hello"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None, "stop"]


@pytest.mark.parametrize(
    ("given", "prompts"),
    [
        ("text", [TextPrompt("text")]),
        (["a", "b"], [TextPrompt("a"), TextPrompt("b")]),
        ([1, 2, 3], [TokenPrompt((1, 2, 3))]),
        ([[1, 2], [3]], [TokenPrompt((1, 2)), TokenPrompt((3,))]),
    ],
)
async def test_prompts_come_in_four_shapes(given, prompts):
    runner = ScriptedRunner()
    async with serving(runner) as server:
        assert (await server.post("/v1/completions", {"prompt": given})).status == 200
    assert [request.prompt for _, request in runner.asked] == prompts


async def test_every_prompt_and_sample_has_its_own_index():
    def script(request):
        yield accepted()
        for index in range(request.n):
            yield Delta(index, f"{request.prompt.text}{index}", (1,), finish="length")
        yield finished(request.n)

    body = {"prompt": ["a", "b"], "n": 2}
    async with serving(ScriptedRunner(script)) as server:
        answer = (await server.post("/v1/completions", body)).json()
        stream = (await server.post("/v1/completions", body | {"stream": True})).events()
    assert [(choice["index"], choice["text"]) for choice in answer["choices"]] == [
        (0, "a0"),
        (1, "a1"),
        (2, "b0"),
        (3, "b1"),
    ]
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (6, 4)
    streamed = {}
    for chunk in stream[:-1]:
        [choice] = chunk["choices"]
        streamed[choice["index"]] = streamed.get(choice["index"], "") + choice["text"]
    assert streamed == {0: "a0", 1: "a1", 2: "b0", 3: "b1"}


async def test_several_prompts_run_at_once():
    together = asyncio.Event()
    waiting = []

    def script(request):
        waiting.append(request)
        if len(waiting) == 2:
            together.set()
        yield accepted()
        yield together
        yield Delta(0, "x", (1,), finish="stop")
        yield finished(1)

    async with serving(ScriptedRunner(script)) as server:
        assert (await server.post("/v1/completions", {"prompt": ["a", "b"]})).status == 200


async def test_one_failing_prompt_fails_the_request_and_cancels_the_others():
    never = asyncio.Event()

    def script(request):
        yield accepted()
        yield RuntimeError("bug") if request.prompt == TextPrompt("bad") else never

    runner = ScriptedRunner(script)
    async with serving(runner) as server:
        answer = await server.post("/v1/completions", {"prompt": ["good", "bad"]})
        await runner.closed.wait()
    assert answer.status == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert "bug" not in answer.json()["error"]["message"]


def scored(request):
    """Answers as an engine that gives log-probabilities of prompt and output."""
    yield accepted()
    prompt = (None, *(token(chr(code), -1.0, z=-0.5) for code in tokens_of(request.prompt)[1:]))
    given = prompt if request.prompt_logprobs is not None else ()
    logprobs = (token("!", -0.1),) if request.logprobs is not None else ()
    yield Delta(0, "!", (33,), logprobs, given, finish="length")
    yield finished(1)


@pytest.mark.parametrize("stream", [False, True])
async def test_echo_with_log_probabilities_covers_prompt_and_output(stream):
    body = {"prompt": [97, 98], "max_tokens": 1, "echo": True, "logprobs": 1, "stream": stream}
    async with serving(ScriptedRunner(scored)) as server:
        answer = await server.post("/v1/completions", body)
    choices = [event["choices"][0] for event in answer.events()[:-1]] if stream else answer.json()["choices"]
    assert "".join(choice["text"] for choice in choices) == "ab!"
    parts = [choice["logprobs"] for choice in choices if choice["logprobs"]]
    joined = {name: [value for part in parts for value in part[name]] for name in parts[0]}
    assert joined == {
        "tokens": ["a", "b", "!"],
        "token_logprobs": [None, -1.0, -0.1],
        "top_logprobs": [None, {"z": -0.5, "b": -1.0}, {"!": -0.1}],
        "text_offset": [0, 1, 2],
    }


@pytest.mark.parametrize("stream", [False, True])
async def test_a_bos_that_the_model_puts_before_a_text_takes_no_room_in_it(stream):
    def script(request):
        yield accepted()
        yield Delta(0, "!", (33,), (token("!"),), (None, token("h"), token("i")), finish="length")
        yield finished(1)

    body = {"prompt": "hi", "max_tokens": 1, "echo": True, "logprobs": 0, "stream": stream}
    async with serving(ScriptedRunner(script)) as server:
        answer = await server.post("/v1/completions", body)
    choices = [event["choices"][0] for event in answer.events()[:-1]] if stream else answer.json()["choices"]
    parts = [choice["logprobs"] for choice in choices if choice["logprobs"]]
    assert "".join(choice["text"] for choice in choices) == "hi!"
    assert [name for part in parts for name in part["tokens"]] == ["<s>", "h", "i", "!"]
    assert [offset for part in parts for offset in part["text_offset"]] == [0, 0, 1, 2]
    assert parts[0]["token_logprobs"][0] is None


async def test_echo_of_a_text_needs_no_tokenizer():
    runner = ScriptedRunner(says("!"))
    async with serving(runner) as server:
        answer = (await server.post("/v1/completions", {"prompt": "Hi", "echo": True})).json()
    assert answer["choices"][0]["text"] == "Hi!"
    assert runner.tokenized == []


async def test_best_of_keeps_the_samples_with_the_highest_mean_log_probability():
    def script(request):
        yield accepted()
        for index, logprob in enumerate([-3.0, -0.1, -1.0]):
            yield Delta(index, str(index), (1,), (token(str(index), logprob),), finish="stop")
        yield finished(3)

    runner = ScriptedRunner(script)
    async with serving(runner) as server:
        answer = (await server.post("/v1/completions", {"prompt": "x", "n": 2, "best_of": 3})).json()
    assert [(choice["index"], choice["text"]) for choice in answer["choices"]] == [(0, "1"), (1, "2")]
    assert answer["choices"][0]["logprobs"] is None
    assert answer["usage"]["completion_tokens"] == 3
    assert (runner.request.n, runner.request.logprobs) == (3, 0)


async def test_the_path_of_an_engine_names_the_model():
    runner = ScriptedRunner()
    async with serving(runner) as server:
        assert (await server.post("/v1/engines/whale/completions", {"prompt": "x"})).status == 200
    assert runner.asked[0][0] == "whale"


@pytest.mark.parametrize(
    ("fields", "prompts"),
    [
        ({"prompt": "a", "suffix": "b"}, [TextPrompt("a", "b")]),
        ({"prompt": ["a", "c"], "suffix": "b"}, [TextPrompt("a", "b"), TextPrompt("c", "b")]),
        ({"prompt": "a", "suffix": ""}, [TextPrompt("a")]),
    ],
)
async def test_a_suffix_goes_with_each_prompt(fields: dict[str, object], prompts: list[TextPrompt]):
    runner = ScriptedRunner(says("x"))
    async with serving(runner) as server:
        answer = await server.post("/v1/completions", fields)
    assert answer.status == 200, answer.body
    assert [request.prompt for _, request in runner.asked] == prompts
