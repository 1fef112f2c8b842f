"""Requests through a real worker process."""

import asyncio

import numpy as np
import psutil
import pytest

from runner.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    GenerationFailed,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    WrongKind,
)
from runner.wire.requests import ChatPrompt, EditPrompt, TextPrompt, TokenPrompt
from tests.runner.asking import ask, endless, metric, until
from tests.runner.conftest import MakeRunner, Yard


async def test_a_chat_is_answered_with_its_usage(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model()
    async with make_runner() as runner:
        answer = await ask(runner, "hello there")
    assert answer.text == "hello there"
    assert answer.finish == {0: "stop"}
    assert answer.finished is not None and answer.accepted is not None
    assert answer.finished.usage.completion_tokens == len("hello there") + 1
    assert answer.finished.usage.prompt_tokens == answer.accepted.prompt_tokens


async def test_the_second_turn_finds_the_first_in_the_cache(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model()
    async with make_runner() as runner:
        first = await ask(runner, "tell me about lanes")
        turns = (
            {"role": "user", "content": "tell me about lanes"},
            {"role": "assistant", "content": first.text},
            {"role": "user", "content": "and more"},
        )
        second = await ask(runner, ChatPrompt(messages=turns))
    assert second.finished is not None and first.accepted is not None
    assert second.finished.usage.cached_tokens > first.accepted.prompt_tokens


async def test_the_second_turn_finds_the_state_behind_the_first_where_states_cannot_be_cut(
    yard: Yard, make_runner: MakeRunner
) -> None:
    yard.model(prefix="tip", scheduler={"offload_bytes": 100_000})
    async with make_runner() as runner:
        first = await ask(runner, "tell me about lanes")
        turns = (
            {"role": "user", "content": "tell me about lanes"},
            {"role": "assistant", "content": first.text},
            {"role": "user", "content": "and more"},
        )
        second = await ask(runner, ChatPrompt(messages=turns))
    assert first.finished is not None and second.finished is not None
    usage = first.finished.usage
    # All of both but the last token, which was drawn and never computed.
    assert second.finished.usage.cached_tokens == usage.prompt_tokens + usage.completion_tokens - 1


async def test_n_samples_share_the_prompt_and_count_it_once(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model()
    async with make_runner() as runner:
        answer = await ask(runner, "hello there", n=3)
    assert answer.texts == {0: "hello there", 1: "hello there", 2: "hello there"}
    assert answer.finished is not None and answer.accepted is not None
    assert answer.finished.usage.prompt_tokens == answer.accepted.prompt_tokens
    assert answer.finished.usage.completion_tokens == 3 * (len("hello there") + 1)


async def test_seeded_samples_repeat_and_differ_from_one_another(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model()
    hot = {"temperature": 1.5, "seed": 7}
    async with make_runner() as runner:
        first = await ask(runner, TextPrompt("some text"), n=2, sampling=hot, max_tokens=20, ignore_eos=True)
        second = await ask(runner, TextPrompt("some text"), n=2, sampling=hot, max_tokens=20, ignore_eos=True)
        shifted = await ask(
            runner, TextPrompt("some text"), sampling={**hot, "seed": 8}, max_tokens=20, ignore_eos=True
        )
    tokens = [
        [t for d in a.deltas if d.index == i for t in d.token_ids] for a in (first, second) for i in (0, 1)
    ]
    assert tokens[0] == tokens[2] and tokens[1] == tokens[3] and tokens[0] != tokens[1]
    assert [t for d in shifted.deltas for t in d.token_ids] == tokens[1]  # sample 1 uses seed + 1


async def test_a_stop_text_ends_the_answer_and_frees_the_lane(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model()
    async with make_runner() as runner:
        answer = await ask(runner, "one STOP two", stop=("STOP",))
        assert (answer.text, answer.finish) == ("one ", {0: "stop"})
        assert answer.deltas[-1].stop_reason == "STOP"
        await until(lambda: metric(runner, "running_sequences") == 0)


async def test_max_tokens_cuts_with_length(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model()
    async with make_runner() as runner:
        answer = await ask(runner, "hello there", max_tokens=5)
    assert (answer.text, answer.finish) == ("hello", {0: "length"})


async def test_a_full_context_ends_with_length(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model(context_size=64)
    async with make_runner() as runner:
        answer = await ask(runner, **endless())
    assert answer.finish == {0: "length"}
    assert answer.finished is not None
    assert answer.finished.usage.prompt_tokens + answer.finished.usage.completion_tokens == 64


async def test_a_prompt_over_the_context_is_refused_with_both_numbers(
    yard: Yard, make_runner: MakeRunner
) -> None:
    yard.model(context_size=64)
    async with make_runner() as runner:
        with pytest.raises(ContextLengthExceeded, match=r"100 tokens .* 64 tokens") as caught:
            await ask(runner, TextPrompt("x" * 100))
    assert (caught.value.prompt_tokens, caught.value.context_tokens) == (100, 64)


async def test_defaults_of_the_configuration_hold_unless_the_request_says_otherwise(
    yard: Yard, make_runner: MakeRunner
) -> None:
    yard.model(parameters={"max_tokens": 3}, stopwords=["l"])
    async with make_runner() as runner:
        assert (await ask(runner, "abcdef")).text == "abc"
        assert (await ask(runner, "abcdef", max_tokens=4)).text == "abcd"
        assert (await ask(runner, "hello")).text == "he"


async def test_logprobs_come_with_bytes(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model()
    async with make_runner() as runner:
        answer = await ask(runner, "é", logprobs=2)
    tokens = [token for delta in answer.deltas for token in delta.logprobs]
    assert b"".join(token.data for token in tokens).startswith("é".encode())
    assert all(len(token.top_data) == 2 and token.logprobs.logprob <= 0 for token in tokens)


async def test_tokens_and_text_round_trip(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model()
    async with make_runner() as runner:
        result = await runner.tokenize("echo", TextPrompt("naïve 😀"))
        assert await runner.detokenize("echo", result.tokens) == "naïve 😀"
        rendered = await runner.tokenize("echo", ChatPrompt(messages=({"role": "user", "content": "Hi"},)))
    assert "Hi" in rendered.text and rendered.text.endswith("assistant\n")


@pytest.mark.parametrize(
    ("prompt", "given", "message"),
    [
        (TextPrompt(""), {}, "the prompt is empty"),
        (TokenPrompt((1, 10**6)), {}, "token id 1000000 is not in the vocabulary"),
        (TextPrompt("x"), {"sampling": {"logit_bias": {10**6: 1.0}}}, "logit_bias: token id 1000000"),
        (TextPrompt("x"), {"adapter": "lora"}, "cannot do adapters"),
    ],
)
async def test_what_cannot_be_done_is_refused(
    yard: Yard, make_runner: MakeRunner, prompt: TextPrompt, given: dict[str, object], message: str
) -> None:
    yard.model()
    async with make_runner() as runner:
        with pytest.raises(InvalidRequest, match=message):
            await ask(runner, prompt, **given)
        assert (await ask(runner, "still fine")).text == "still fine"


async def test_embeddings_of_a_model_without_them_are_refused(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model()
    yard.model("embedder", embeddings=True)
    async with make_runner() as runner:
        with pytest.raises(WrongKind, match="embeddings: true"):
            await runner.embed("echo", [TextPrompt("x")])
        result = await runner.embed("embedder", [TextPrompt("x"), TextPrompt("y")])
    assert len(result.vectors) == 2 and result.prompt_tokens == 2
    assert len(result.vectors[0]) == 4 * 260


async def test_a_large_batch_of_embeddings_keeps_its_order_and_is_counted(
    yard: Yard, make_runner: MakeRunner
) -> None:
    yard.model(embeddings=True, matryoshka=True)
    prompts = [TokenPrompt((i % 250,)) for i in range(300)]
    async with make_runner() as runner:
        result = await runner.embed("echo", prompts)
        cut = await runner.embed("echo", prompts[:1], dimensions=100)
        outcomes = metric(runner, "requests_total", outcome="success")
    hot = [np.frombuffer(vector, "<f4").argmax() for vector in result.vectors]
    assert hot == [i % 250 for i in range(300)]
    assert result.prompt_tokens == 300
    assert len(cut.vectors[0]) == 4 * 100
    assert outcomes == 2


async def test_a_worker_that_does_not_answer_is_not_waited_for_beyond_the_time_limit(
    yard: Yard, make_runner: MakeRunner
) -> None:
    yard.model(embeddings=True, scheduler={"request_timeout_s": 0.3})
    async with make_runner(load_models=("echo",)) as runner:
        await runner.load("echo")
        (worker,) = (child for child in psutil.Process().children() if "echo:1/0" in child.cmdline())
        worker.suspend()
        try:
            for work in (
                runner.embed("echo", [TextPrompt("x")]),
                runner.tokenize("echo", TextPrompt("x")),
                runner.detokenize("echo", [1]),
                runner.reset_cache("echo"),
            ):
                with pytest.raises(DeadlineExceeded):
                    await work
        finally:
            worker.resume()
        assert (await ask(runner, "back again")).text == "back again"


async def test_an_edit_is_written_by_the_configured_template(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model("templated", template={"edit": "{{ Input }}-{{ Instruction }} "})
    yard.model("chatting")
    prompt = EditPrompt(text="ab", instruction="cd")
    async with make_runner() as runner:
        templated = await runner.tokenize("templated", prompt)
        answer = await ask(runner, prompt, model="chatting")
    assert templated.text == "ab-cd "
    assert answer.text == "cd\n\nab"  # echo repeats the user's turn


async def test_an_unknown_model_names_close_ones(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model("orca")
    yard.model("tiny")
    async with make_runner() as runner:
        with pytest.raises(ModelNotFound, match="orca"):
            await ask(runner, model="orka")
        with pytest.raises(ModelNotFound, match="no version 7"):
            await ask(runner, model="orca:7")


async def test_cancelling_frees_the_lane_within_two_steps(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model(delay_s=0.005)
    async with make_runner() as runner:
        async with asyncio.TaskGroup() as group:
            streams = [group.create_task(ask(runner, **endless())) for _ in range(8)]
            await until(lambda: metric(runner, "running_sequences") == 8)
            steps = metric(runner, "steps_total")
            for stream in streams:
                stream.cancel()
        await until(lambda: metric(runner, "running_sequences") == 0)
        assert metric(runner, "steps_total") - steps <= 3  # one was under way, one was planned
        assert metric(runner, "requests_total", outcome="cancelled") == 8


async def test_a_full_queue_refuses_with_the_limit(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model(delay_s=0.005, scheduler={"max_lanes": 1, "max_queue_size": 1})
    async with make_runner() as runner, asyncio.TaskGroup() as group:
        streams = [group.create_task(ask(runner, **endless()))]
        await until(lambda: metric(runner, "running_sequences") == 1)
        streams.append(group.create_task(ask(runner, **endless())))
        await until(lambda: metric(runner, "waiting_sequences") == 1)
        with pytest.raises(Overloaded, match="max_queue_size is 1") as caught:
            await ask(runner)
        assert caught.value.retry_after_s is not None
        for stream in streams:
            stream.cancel()


async def test_waiting_too_long_in_the_queue_ends_the_request(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model(delay_s=0.005, scheduler={"max_lanes": 1, "queue_timeout_s": 0.1})
    async with make_runner() as runner, asyncio.TaskGroup() as group:
        stream = group.create_task(ask(runner, **endless()))
        await until(lambda: metric(runner, "running_sequences") == 1)
        with pytest.raises(DeadlineExceeded, match="queue_timeout_s"):
            await ask(runner)
        stream.cancel()


async def test_a_request_out_of_time_is_cancelled_even_in_a_hanging_engine(
    yard: Yard, make_runner: MakeRunner
) -> None:
    yard.model(fail={"hang": "please hang", "hang_s": 600})
    async with make_runner() as runner:
        await ask(runner)  # the load is not what takes the time
        with pytest.raises(DeadlineExceeded):
            await ask(runner, "please hang", timeout_s=0.5)


async def test_a_row_that_fails_leaves_its_neighbours_and_its_lane_alone(
    yard: Yard, make_runner: MakeRunner
) -> None:
    yard.model(fail={"row": "bad row"})
    async with make_runner() as runner:
        answers = await asyncio.gather(
            ask(runner, "a good row"),
            ask(runner, "a bad row"),
            ask(runner, "another"),
            return_exceptions=True,
        )
        assert isinstance(answers[1], GenerationFailed)
        assert [a.text for a in (answers[0], answers[2]) if not isinstance(a, BaseException)] == [
            "a good row",
            "another",
        ]
        assert (await ask(runner, "again")).text == "again"


async def test_a_request_too_large_for_a_worker_is_refused_and_the_worker_lives(
    yard: Yard, make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.process.MAX_FRAME_BYTES", 2000)
    yard.model()
    async with make_runner() as runner:
        await ask(runner)
        with pytest.raises(InvalidRequest, match="can be served"):
            await ask(runner, "x" * 3000)
        assert (await ask(runner)).text == "hello there"
    assert metric(runner, "worker_restarts") == 0


async def test_the_inside_of_the_runner_can_be_watched_in_the_log(
    yard: Yard, make_runner: MakeRunner, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "runner")
    yard.model()
    async with make_runner() as runner:
        await ask(runner, request_id="req_7")
    told = [record.getMessage() for record in caplog.records if record.levelname == "DEBUG"]
    assert "request req_7 to echo: level 1, instance echo:1/0" in told
    assert any("is pid" in message for message in told) and any("has ended" in message for message in told)
