"""What every stream engine owes the contract: facts about `load_stream`, which loads the one under test."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from backends.contract import (
    EngineError,
    EngineRequest,
    Sampling,
    StreamEngine,
    TokenChunk,
    UnsupportedError,
)
from tests.backends.support import GREEDY, PROMPTS, encode

LoadStream = Callable[..., StreamEngine]


def ask(
    engine: StreamEngine, text: str = PROMPTS[0], *, max_tokens: int = 16, **fields: Any
) -> EngineRequest:
    wanted = {"request_id": text, "sampling": GREEDY, "prompt": tuple(encode(engine, text)), **fields}
    return EngineRequest(max_tokens=max_tokens, **wanted)


def chunks_of(engine: StreamEngine, request: EngineRequest) -> AsyncGenerator[TokenChunk]:
    stream = engine.generate(request)
    assert isinstance(stream, AsyncGenerator)
    return stream


async def collect(engine: StreamEngine, request: EngineRequest) -> list[TokenChunk]:
    return [chunk async for chunk in engine.generate(request)]


def tokens_of(chunks: list[TokenChunk]) -> list[int]:
    return [token for chunk in chunks for token in chunk.tokens]


async def test_a_stream_ends_once_with_its_reason(load_stream: LoadStream) -> None:
    engine = load_stream()
    chunks = await collect(engine, ask(engine, max_tokens=4))
    assert [chunk.finish for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].finish == "length"
    assert len(tokens_of(chunks)) == 4


async def test_the_end_of_text_and_stop_tokens_finish_a_stream(load_stream: LoadStream) -> None:
    engine = load_stream()
    whole = await collect(engine, ask(engine, max_tokens=200))
    assert whole[-1].finish == "stop"
    assert tokens_of(whole)[-1] in engine.info.eos_ids
    third = tokens_of(whole)[2]
    cut = await collect(engine, ask(engine, stop_token_ids=(third,)))
    assert cut[-1].finish == "stop"
    assert tokens_of(cut) == tokens_of(whole)[: tokens_of(whole).index(third) + 1]


async def test_min_tokens_and_ignore_eos_hold_the_end_back(load_stream: LoadStream) -> None:
    engine = load_stream()
    natural = len(tokens_of(await collect(engine, ask(engine, max_tokens=200))))
    longer = tokens_of(await collect(engine, ask(engine, max_tokens=300, min_tokens=natural + 5)))
    assert len(longer) > natural + 5
    endless = await collect(engine, ask(engine, max_tokens=natural + 9, ignore_eos=True))
    assert endless[-1].finish == "length"
    assert len(tokens_of(endless)) == natural + 9


async def test_streams_together_answer_as_each_alone(load_stream: LoadStream) -> None:
    engine = load_stream()
    requests = [ask(engine, text) for text in PROMPTS]
    alone = [tokens_of(await collect(engine, request)) for request in requests]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(collect(engine, request)) for request in requests]
    assert [tokens_of(task.result()) for task in tasks] == alone


async def test_closing_a_stream_frees_its_place(load_stream: LoadStream) -> None:
    engine = load_stream(running_lanes=1)
    first = chunks_of(engine, ask(engine))
    await anext(first)
    await first.aclose()
    async with asyncio.timeout(30):
        assert (await collect(engine, ask(engine)))[-1].finish is not None


async def test_a_seed_reproduces_its_stream(load_stream: LoadStream) -> None:
    engine = load_stream()
    texts = [
        tokens_of(
            await collect(engine, ask(engine, PROMPTS[1], sampling=hot, ignore_eos=True, max_tokens=48))
        )
        for hot in (Sampling(temperature=2.0, seed=seed) for seed in (1, 2, 3, 1))
    ]
    assert texts[0] == texts[3]
    assert len({tuple(text) for text in texts}) > 1


async def test_streamed_logprobs_come_as_asked(load_stream: LoadStream) -> None:
    engine = load_stream()
    # Engines that have none of the prompt have those of the drawn tokens alone.
    has_all = "prompt_logprobs" in engine.info.capabilities
    wanted = {"logprobs": 2, "prompt_logprobs": 1} if has_all else {"logprobs": 0}
    request = ask(engine, max_tokens=3, **wanted)
    chunks = await collect(engine, request)
    drawn = [one for chunk in chunks for one in chunk.logprobs]
    read = [one for chunk in chunks for one in chunk.prompt_logprobs]
    assert [one.token for one in drawn] == tokens_of(chunks)
    assert all(one.logprob <= 0 for one in drawn)
    if has_all:
        assert all(len(one.top) == 2 and one.top[0][1] >= one.top[1][1] for one in drawn)
        assert [one.token for one in read] == list(request.prompt[1:])


async def test_a_prompt_beyond_the_context_fails_its_stream_alone(load_stream: LoadStream) -> None:
    engine = load_stream()
    token = encode(engine, "x")[-1]
    with pytest.raises(EngineError, match=str(engine.info.context_tokens)):
        await collect(engine, ask(engine, prompt=(token,) * (engine.info.context_tokens + 1)))
    assert await collect(engine, ask(engine))


async def test_a_stream_engine_refuses_to_embed_unasked(load_stream: LoadStream) -> None:
    engine = load_stream()
    with pytest.raises(UnsupportedError, match="embeddings"):
        engine.embed([encode(engine, "hello")])
