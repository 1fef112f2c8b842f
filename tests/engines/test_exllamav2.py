"""exllamav2's own code on a processor, its kernels replaced: how it is loaded, driven, cancelled and drawn from.

What its kernels compute, quantised weights and caches, and several GPUs only `make gpu-check` shows.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from backends.contract import EngineError, LoadError, Sampling, StreamEngine
from tests.backends.support import GREEDY, PROMPTS, decode, encode, load_request, make_engine, run_greedy
from tests.engines.engine_process import EngineProcess, StreamEngineAway
from tests.engines.environments import DEMO_FOLDER, DEMO_GGUF, interpreter

pytest.register_assert_rewrite("tests.backends.contract_streams")

from tests.backends.contract_streams import *  # noqa: E402, F403
from tests.backends.contract_streams import ask, chunks_of, collect, tokens_of  # noqa: E402

pytestmark = pytest.mark.timeout(300)

PLACE = "tests.engines.exllamav2_on_cpu.engine"
LIMITS: dict[str, Any] = {"context_tokens": 512, "kv_tokens": 2048}


@pytest.fixture(scope="module")
def process() -> Iterator[EngineProcess]:
    process = EngineProcess(interpreter("exllamav2-cpu"))
    yield process
    process.close()


@pytest.fixture(params=["Paged", "Unpaged"])
def load_stream(
    process: EngineProcess, request: pytest.FixtureRequest
) -> Iterator[Callable[..., StreamEngine]]:
    yield from _loader(process, request.param)


@pytest.fixture
def load_paged(process: EngineProcess) -> Iterator[Callable[..., StreamEngine]]:
    yield from _loader(process, "Paged")


def _loader(process: EngineProcess, kind: str) -> Iterator[Callable[..., StreamEngine]]:
    loaded: list[StreamEngine] = []

    def load(**limits: Any) -> StreamEngine:
        loaded.append(StreamEngineAway(process, f"{PLACE}:{kind}"))
        loaded[-1].load(load_request(str(DEMO_FOLDER), **{**LIMITS, **limits}), lambda _: None)
        return loaded[-1]

    yield load
    for engine in loaded:
        engine.unload()


Load = Callable[..., StreamEngine]


async def test_it_says_what_llamacpp_says_of_the_same_weights(load_stream: Load) -> None:
    reference = make_engine("llamacpp")
    options = {"cache_type_k": "f32", "cache_type_v": "f32"}
    reference.load(load_request(str(DEMO_GGUF), options=options), lambda _: None)
    try:
        wanted = run_greedy(reference, [encode(reference, text) for text in PROMPTS], 12)  # type: ignore[arg-type]
    finally:
        reference.unload()
    engine = load_stream()
    given = [
        tokens_of(await collect(engine, ask(engine, text, max_tokens=12, ignore_eos=True)))
        for text in PROMPTS
    ]
    assert given == wanted


async def test_without_flash_attn_there_is_one_lane_and_the_reason(process: EngineProcess) -> None:
    for kind, lanes in (("Paged", 8), ("Unpaged", 1)):
        for load in _loader(process, kind):
            info = load().info
            assert info.lanes == lanes
            assert ("flash-attn 2.5.7 or newer is not installed" in info.description) == (lanes == 1)


async def test_streamed_logprobs_come_as_asked(load_stream: Load) -> None:
    engine = load_stream()
    chunks = await collect(engine, ask(engine, max_tokens=3, logprobs=2))
    drawn = [one for chunk in chunks for one in chunk.logprobs]
    assert [one.token for one in drawn] == tokens_of(chunks)
    assert all(len(one.top) == 2 and one.top[0][1] >= one.top[1][1] for one in drawn)
    with pytest.raises(EngineError, match="no log-probabilities of prompts"):
        await collect(engine, ask(engine, prompt_logprobs=1))


async def test_a_prompt_that_was_computed_is_not_computed_again(load_stream: Load) -> None:
    engine = load_stream()
    request = ask(engine, max_tokens=8)
    first, second = await collect(engine, request), await collect(engine, request)
    assert (first[0].cached_tokens, second[0].cached_tokens) == (0, len(request.prompt) - 1)
    assert tokens_of(first) == tokens_of(second)


async def test_a_prefix_of_another_sequence_changes_no_answer(load_stream: Load) -> None:
    engine = load_stream()
    prompt = tuple(encode(engine, PROMPTS[0] * 20))
    lengths = (300, 40, 299, 300, 17)
    fresh = []
    for length in lengths:
        alone = load_stream()
        fresh.append(tokens_of(await collect(alone, ask(alone, prompt=prompt[:length], max_tokens=6))))
    given = [
        tokens_of(await collect(engine, ask(engine, prompt=prompt[:length], max_tokens=6)))
        for length in lengths
    ]
    assert given == fresh


async def test_what_has_no_room_waits(load_paged: Load) -> None:
    engine = load_paged(kv_tokens=512)
    requests = [ask(engine, text, max_tokens=200, ignore_eos=True) for text in PROMPTS * 2]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(collect(engine, request)) for request in requests]
    assert [len(tokens_of(task.result())) for task in tasks] == [200] * len(requests)


async def test_sequences_that_are_cancelled_leave_the_others_alone(load_paged: Load) -> None:
    engine = load_paged()
    alone = tokens_of(await collect(engine, ask(engine)))

    async def leave(number: int) -> None:
        stream = chunks_of(engine, ask(engine, PROMPTS[number % 3], max_tokens=200, ignore_eos=True))
        for _ in range(number):
            await anext(stream)
        await stream.aclose()

    async with asyncio.TaskGroup() as group:
        stays = group.create_task(collect(engine, ask(engine)))
        for number in range(1, 8):
            group.create_task(leave(number))
    assert tokens_of(stays.result()) == alone
    assert tokens_of(await collect(engine, ask(engine))) == alone


async def test_a_sequence_with_nothing_to_draw_fails_alone(load_paged: Load) -> None:
    engine = load_paged()
    nothing = Sampling(
        temperature=0.0, logit_bias=dict.fromkeys(range(engine.info.vocabulary), float("-inf"))
    )
    async with asyncio.TaskGroup() as group:
        well = group.create_task(collect(engine, ask(engine, max_tokens=20, ignore_eos=True)))
        with pytest.raises(EngineError, match="no token can be drawn"):
            await collect(engine, ask(engine, PROMPTS[1], sampling=nothing))
    assert len(tokens_of(well.result())) == 20


async def test_no_output_at_all_can_be_asked_for(load_stream: Load) -> None:
    engine = load_stream()
    (chunk,) = await collect(engine, ask(engine, max_tokens=0))
    assert (chunk.tokens, chunk.finish) == ((), "length")


async def test_more_than_the_cache_holds_is_refused(load_stream: Load) -> None:
    engine = load_stream()
    with pytest.raises(EngineError, match=r"do not fit a KV cache of \d+"):
        await collect(engine, ask(engine, max_tokens=5000))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"main_gpu": "cuda:1"}, "main_gpu: there is no GPU 1; the only GPU here is number 0"),
        ({"gpu_split": [1, 1]}, "gpu_split names 2 GPUs; 1 can be used here"),
        ({"gpu_split": [0.001]}, "Insufficient space in device allocation"),
    ],
)
def test_what_the_gpus_do_not_have_is_refused(
    process: EngineProcess, options: dict[str, Any], words: str
) -> None:
    engine = StreamEngineAway(process, f"{PLACE}:Paged")
    with pytest.raises(LoadError, match=words):
        engine.load(load_request(str(DEMO_FOLDER), options=options, **LIMITS), lambda _: None)


async def test_weights_can_be_split_by_hand(process: EngineProcess) -> None:
    engine = StreamEngineAway(process, f"{PLACE}:Paged")
    engine.load(load_request(str(DEMO_FOLDER), options={"gpu_split": [2]}, **LIMITS), lambda _: None)
    chunks = await collect(engine, ask(engine, sampling=GREEDY, max_tokens=30))
    assert b"folder with a number" in decode(engine, tokens_of(chunks))
    engine.unload()
