"""Echo: what it answers, what it refuses, how its memory runs out, and the failures it plays."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.contract import EngineError, EngineRequest, LoadError, PlanRow, Sampling, StepPlan
from backends.echo import OPTIONS, SPEC, STREAM_SPEC
from backends.echo.engine import EchoEngine
from backends.echo.model import Context
from backends.echo.options import Fail, Options
from backends.echo.pool import CellPool
from backends.echo.stream import EchoStreamEngine
from backends.echo.tokenizer import ByteTokenizer
from tests.backends.support import GREEDY, Driver, decode, encode, load_request, run, run_greedy

END = ByteTokenizer.IM_END
CHAT = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


class Facts(msgspec.Struct):
    format: str = "none"
    architecture: str | None = None
    quantisation: str | None = None


def loaded(**fields: Any) -> EchoEngine:
    engine = EchoEngine()
    engine.load(load_request(**fields), lambda _: None)
    return engine


def answer(engine: EchoEngine, text: str, *, sampling: Sampling = GREEDY) -> bytes:
    """What comes before the end of the text."""
    driver = Driver(engine)
    running = driver.start(encode(engine, text), 0, sampling=sampling)
    while running.tokens[-1] != END or not running.output:
        (row,) = driver.step(running)
        assert row.error is None, row.error
    driver.finish(running)
    return decode(engine, running.output)


def step(engine: EchoEngine, *rows: PlanRow) -> None:
    engine.step(StepPlan(rows=rows))


def row(**fields: Any) -> PlanRow:
    return PlanRow(**{"seq": 1, "lane": 0, "start": 0, "tokens": (65,), "sample": False, **fields})


@pytest.mark.parametrize("text", ["hello", "x", "Grüße 🚀", "two words, twice over"])
def test_plain_text_is_repeated_once(text: str) -> None:
    assert answer(loaded(), text) == text.encode()
    assert answer(loaded(options={"add_bos": True}), text) == text.encode()


def test_text_that_stands_there_twice_already_is_complete() -> None:
    assert answer(loaded(), "abcabc") == b""
    assert answer(loaded(), "abcab") == b"c"


@pytest.mark.parametrize("text", ["hello", "x", "aaaa", "Grüße 🚀", "line\nline\n"])
def test_a_chat_is_answered_with_the_last_user_text(text: str) -> None:
    first = CHAT.format("an earlier question") + "an earlier question<|im_end|>\n"
    assert answer(loaded(), CHAT.format(text)) == text.encode()
    assert answer(loaded(), first + CHAT.format(text)) == text.encode()


def test_a_tool_turn_leaves_the_last_user_text_the_last() -> None:
    tool = "<|im_end|>\n<|im_start|>tool\n42<|im_end|>\n<|im_start|>assistant\n"
    assert answer(loaded(), CHAT.format("call it") + "calling" + tool) == b"call it"


def test_a_chat_without_a_user_or_with_an_empty_one_ends_at_once() -> None:
    assert answer(loaded(), "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>assistant\n") == b""
    assert answer(loaded(), CHAT.format("")) == b""


@pytest.mark.parametrize("text", ["hello", CHAT.format("hello")])
def test_where_the_end_is_banned_the_echo_goes_round(text: str) -> None:
    engine = loaded()
    banned = Sampling(temperature=0.0, logit_bias={END: -float("inf")})
    output = run(engine, [encode(engine, text)], n=12, sampling=banned)[0]
    assert decode(engine, output) == b"hellohellohe"
    slow = run(engine, [encode(engine, text)], n=12, sampling=banned, logprobs=0)[0]
    assert slow == output


@given(st.lists(st.sampled_from([97, 98, 10, 256, 257, 258]), max_size=40), st.data())
def test_a_context_depends_on_its_tokens_alone(tokens: list[int], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(tokens)))
    grown = Context()
    for token in tokens:
        grown.extend((token,))
        grown.likeliest()
        grown.digest()
    fresh = Context(tokens[:cut])
    copied = grown.copy(cut)
    grown.truncate(cut)
    for one in (grown, copied):
        assert one.tokens == fresh.tokens
        assert one.likeliest() == fresh.likeliest()
        assert one.digest() == fresh.digest()
    for one in (grown, fresh):
        one.extend(tokens[cut:])
    assert grown.likeliest() == fresh.likeliest()
    assert grown.digest() == fresh.digest() == Context(tokens).digest()


def test_one_wrong_token_anywhere_changes_the_digest() -> None:
    tokens = list(b"abcdefgh")
    others = [[*tokens[:index], 120, *tokens[index + 1 :]] for index in range(len(tokens))]
    assert len({Context(one).digest() for one in [tokens, *others]}) == len(tokens) + 1


def test_the_hidden_sampling_shortcut_draws_what_the_logits_say() -> None:
    engine = loaded()
    prompts = [encode(engine, text) for text in ("hello", CHAT.format("hello"))]
    assert run(engine, prompts, n=14, logprobs=0) == run_greedy(engine, prompts, 14)


def test_requests_are_greedy_unless_they_say_otherwise() -> None:
    assert loaded().info.generation_defaults == {"temperature": 0.0}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lane": 8}, "no lane 8"),
        ({"lane": -1}, "no lane -1"),
        ({"seq": 9}, "not open"),
        ({"start": 2}, "starts at 2, but the lane holds 0"),
        ({"tokens": ()}, "no tokens"),
        ({"tokens": (65,) * 33}, "34 tokens; a batch holds 32"),
        ({"tokens": (65,) * 31}, "31 tokens; the context is 30"),
        ({"tokens": (260,)}, "outside the vocabulary"),
        ({"tokens": (-1,)}, "outside the vocabulary"),
    ],
)
def test_a_row_that_breaks_the_contract_is_named(fields: dict[str, Any], message: str) -> None:
    engine = loaded(context_tokens=30, max_batch_tokens=32)
    engine.open(1, GREEDY, ())
    engine.open(2, GREEDY, ())
    with pytest.raises(EngineError, match=message):
        step(engine, row(seq=2, lane=1), row(**fields))
    step(engine, row(seq=2, lane=1))


@pytest.mark.parametrize("second", [{"seq": 2}, {"lane": 1}])
def test_rows_that_overlap_are_refused(second: dict[str, int]) -> None:
    engine = loaded()
    engine.open(1, GREEDY, ())
    engine.open(2, GREEDY, ())
    with pytest.raises(EngineError, match="same lane or the same sequence"):
        step(engine, row(), row(**second))


def test_opening_twice_and_closing_the_unknown_are_refused() -> None:
    engine = loaded()
    engine.open(1, GREEDY, ())
    with pytest.raises(EngineError, match="open already"):
        engine.open(1, GREEDY, ())
    engine.close(1)
    with pytest.raises(EngineError, match="not open"):
        engine.close(1)


def test_forking_into_a_used_lane_or_beyond_the_source_is_refused() -> None:
    engine = loaded()
    Driver(engine).run(Driver(engine).start((65, 66), 0), n=1)
    with pytest.raises(EngineError, match="lane 0 holds 2 tokens; truncate it"):
        engine.fork(1, 0, 0)
    with pytest.raises(EngineError, match="so 3 cannot be forked"):
        engine.fork(0, 1, 3)
    with pytest.raises(EngineError, match="no lane 8"):
        engine.fork(0, 8, 1)


def test_an_adapter_fails_its_row_alone() -> None:
    engine = loaded()
    driver = Driver(engine)
    first, second = (driver.start((65,), lane) for lane in (0, 1))
    rows = driver.try_step(first.row(adapter="poet"), second.row()).rows
    assert "poet" in (rows[0].error or "")
    assert rows[1].tokens == (65,)


def test_a_shared_prefix_costs_nothing_until_its_last_lane_drops_it() -> None:
    engine = loaded(kv_tokens=100)
    driver = Driver(engine)
    driver.step(driver.start(range(60, 80), 0))
    assert engine.fork(0, 1, 15)
    assert engine.num_free_cells == 80
    engine.truncate(0, 0)
    assert engine.num_free_cells == 85
    engine.truncate(1, 5)
    assert engine.num_free_cells == 95
    engine.truncate(1, 0)
    assert engine.num_free_cells == 100


def test_without_sharing_a_fork_costs_its_length_and_may_not_fit() -> None:
    engine = loaded(kv_tokens=30, options={"shares_kv": False})
    driver = Driver(engine)
    driver.step(driver.start(range(60, 80), 0))
    assert not engine.info.shares_kv
    assert engine.fork(0, 1, 8)
    assert engine.num_free_cells == 2
    assert not engine.fork(0, 2, 3)


def test_lanes_that_cannot_be_cut_are_dropped_whole() -> None:
    for prefix in ("tip", "none"):
        engine = loaded(options={"prefix": prefix})
        driver = Driver(engine)
        driver.step(driver.start((65, 66, 67), 0))
        assert engine.info.prefix == prefix
        assert not engine.info.shares_kv
        assert not engine.fork(0, 1, 2)
        assert engine.fork(0, 1, 3) == (prefix == "tip")
        assert engine.truncate(0, 3) == 3
        assert engine.truncate(0, 2) == 0


@given(st.lists(st.tuples(st.sampled_from(["take", "share", "release"]), st.integers(0, 9)), max_size=60))
def test_a_pool_counts_each_cell_once_however_many_own_it(actions: list[tuple[str, int]]) -> None:
    pool = CellPool(20)
    held: list[list[int]] = []
    for action, number in actions:
        if action == "take" and number <= pool.num_free:
            held.append(pool.take(number))
        elif action == "share" and held:
            held.append(held[number % len(held)])
            pool.share(held[-1])
        elif action == "release" and held:
            pool.release(held.pop(number % len(held)))
        assert pool.size - pool.num_free == len({cell for cells in held for cell in cells})
    for cells in held:
        pool.release(cells)
    assert pool.num_free == pool.size


def test_the_context_is_never_longer_than_the_pool() -> None:
    assert loaded(context_tokens=512, kv_tokens=100).info.context_tokens == 100


def test_delays_add_up_per_step() -> None:
    slept: list[float] = []
    engine = EchoEngine(sleep=slept.append)
    engine.load(load_request(options={"delay_s": 0.5, "tokens_per_s": 10}), lambda _: None)
    run_greedy(engine, [(65, 66, 67, 68, 69)], 2)
    assert slept == [1.0, 0.6]


def test_loading_slowly_reports_each_tenth() -> None:
    seen: list[float] = []
    EchoEngine().load(load_request(options={"load_s": 1e-6}), seen.append)
    assert len(seen) == 12
    assert seen == sorted(seen)


def failing(**fail: Any) -> EchoEngine:
    return loaded(options={"fail": fail})


def test_a_load_can_fail_with_a_message() -> None:
    with pytest.raises(LoadError, match="the disk is full"):
        failing(load="the disk is full")


def test_wrong_options_fail_the_load() -> None:
    with pytest.raises(LoadError, match=r"`rows`.*fail"):
        failing(rows="x")


def test_a_row_fails_alone() -> None:
    engine = failing(row="boom")
    driver = Driver(engine)
    bad, good = (driver.start(encode(engine, text), lane) for lane, text in enumerate(("a boom", "calm")))
    given = driver.try_step(bad.row(), good.row()).rows
    assert "boom" in (given[0].error or "")
    assert not given[0].tokens
    assert given[1].tokens == (ord("c"),)


def test_a_text_that_arrives_in_pieces_fails_when_it_is_complete() -> None:
    engine = failing(row="boom")
    driver = Driver(engine)
    running = driver.start(encode(engine, "boom!"), 0)
    assert driver.step(running, chunk=3)[0].error is None
    assert driver.step(running, chunk=3)[0].error is not None


def test_a_failure_can_wait_for_output() -> None:
    engine = failing(row="boom", after_tokens=2)
    driver = Driver(engine)
    running = driver.start(encode(engine, "boom"), 0)
    assert [driver.step(running)[0].error is None for _ in range(3)] == [True, True, False]


def test_a_step_can_break_the_engine() -> None:
    with pytest.raises(RuntimeError, match=r"fail\.step"):
        answer(failing(step="boom"), "boom")


def test_a_step_can_end_the_process() -> None:
    code = (
        "from backends.echo.model import Context; from backends.echo.options import Fail; "
        "Fail(exit='boom').strike(Context(b'a boom'), 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 70


def test_a_hang_lasts_as_long_as_asked() -> None:
    assert Fail(hang="boom", hang_s=0).strike(Context(b"a boom"), 0) is None


def request(text: str, **fields: Any) -> EngineRequest:
    return EngineRequest(
        request_id="1", prompt=tuple(text.encode()), sampling=GREEDY, max_tokens=50, **fields
    )


async def test_the_stream_engine_answers_and_fails_alike() -> None:
    engine = EchoStreamEngine()
    engine.load(load_request(options={"fail": {"row": "boom", "step": "bang"}}), lambda _: None)
    chunks = [chunk async for chunk in engine.generate(request("hello"))]
    assert b"".join(decode(engine, chunk.tokens) for chunk in chunks) == b"hello"
    assert chunks[-1].finish == "stop"
    with pytest.raises(EngineError, match="boom"):
        await anext(engine.generate(request("boom")))
    with pytest.raises(RuntimeError, match="bang"):
        await anext(engine.generate(request("bang")))
    with pytest.raises(EngineError, match="poet"):
        await anext(engine.generate(request("hello", adapter="poet")))


async def test_a_full_context_ends_a_stream() -> None:
    engine = EchoStreamEngine()
    engine.load(load_request(context_tokens=8), lambda _: None)
    chunks = [chunk async for chunk in engine.generate(request("hello!", ignore_eos=True))]
    assert [chunk.finish for chunk in chunks] == [None, None, "length"]


def test_the_schema_and_the_options_are_the_same_keys() -> None:
    jsonschema.Draft202012Validator.check_schema(OPTIONS)
    assert set(OPTIONS["properties"]) == set(Options.__struct_fields__)
    assert set(OPTIONS["properties"]["fail"]["properties"]) == set(Fail.__struct_fields__)


@pytest.mark.parametrize("format_name", ["none", "gguf"])
def test_echo_claims_only_what_names_it(format_name: str) -> None:
    facts = Facts(format=format_name)
    for spec, other in ((SPEC, STREAM_SPEC), (STREAM_SPEC, SPEC)):
        assert spec.claims(facts, {"backend": spec.name}) > 0
        assert spec.claims(facts, {"backend": other.name}) == 0
        assert spec.claims(facts, {}) == 0


def test_an_empty_text_has_no_embedding() -> None:
    with pytest.raises(EngineError, match="empty text"):
        loaded(embeddings=True).embed([[]])
