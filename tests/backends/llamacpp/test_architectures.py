"""Models that are not plain Llamas: some forget, some only embed."""

from collections.abc import Callable
from pathlib import Path

import llama_cpp
import numpy as np
import pytest

from backends.contract import EngineError, PlanRow, StepPlan
from backends.llamacpp.engine import LlamaCppEngine
from runner.wire.messages import SchedulerLimits
from runner.worker.scheduler import Scheduler
from tests.backends.gguf_builder import LAYERS, WIDTH, Builder, write_bert
from tests.backends.support import GREEDY, Driver, run, run_greedy
from tests.support import make_sequence, run_to_end

Load = Callable[..., LlamaCppEngine]
Write = Callable[..., Path]

PROMPTS = [[5, 80, 33, 9], [17] * 40, [*range(60, 90)]]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("bert") / "bert.gguf")


@pytest.fixture
def forgetful(write_gguf: Write) -> Path:
    """Attends to the last 16 tokens only."""
    return write_gguf(general__architecture="gemma2", gemma2__attention__sliding_window=16, scale=8.0)


@pytest.fixture(scope="module")
def mamba(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mamba") / "mamba.gguf"
    inner, state, conv, rank, vocabulary = 128, 16, 4, 4, 256
    build = Builder(
        path, "mamba", context_length=512, feed_forward_length=0, attention__head_count=0,
        ssm__inner_size=inner, ssm__state_size=state, ssm__conv_kernel=conv, ssm__time_step_rank=rank,
        attention__layer_norm_rms_epsilon=1e-5,
    )  # fmt: skip
    build.tokenizer(
        "gpt2", [f"t{n}" for n in range(vocabulary)], [1] * vocabulary, merges=["t 0"], eos_token_id=0
    )
    build.random("token_embd.weight", vocabulary, WIDTH, gain=8)
    build.random("output.weight", vocabulary, WIDTH, gain=8)
    build.ones("output_norm.weight", WIDTH)
    for layer in (f"blk.{n}" for n in range(LAYERS)):
        build.ones(f"{layer}.attn_norm.weight", WIDTH)
        build.random(f"{layer}.ssm_in.weight", 2 * inner, WIDTH)
        build.random(f"{layer}.ssm_conv1d.weight", inner, conv)
        build.random(f"{layer}.ssm_conv1d.bias", inner)
        build.random(f"{layer}.ssm_x.weight", rank + 2 * state, inner)
        build.random(f"{layer}.ssm_dt.weight", inner, rank)
        build.random(f"{layer}.ssm_dt.bias", inner)
        build.ones(f"{layer}.ssm_d", inner)
        build.random(f"{layer}.ssm_out.weight", WIDTH, inner)
        decay = -np.tile(np.arange(1, state + 1, dtype=np.float32), (inner, 1))
        build._writer.add_tensor(f"{layer}.ssm_a", decay)
    build.write()
    return path


def test_a_recurrent_model_batches_but_cannot_be_cut(load: Load, mamba: Path) -> None:
    engine = load(weights=mamba)
    assert (engine.info.prefix, engine.info.shares_kv) == ("tip", False)
    alone = [run_greedy(engine, [prompt], 12)[0] for prompt in PROMPTS]
    assert run_greedy(engine, PROMPTS, 12) == alone
    assert run(engine, PROMPTS, n=12, chunk=3) == alone
    driver = Driver(engine)
    running = driver.start(PROMPTS[0], 0)
    driver.step(running)
    assert not engine.fork(0, 1, 3)
    assert engine.save(0, 0, 3) is None and engine.save(0, 1, 4) is None
    assert engine.truncate(0, 4) == 4
    assert engine.truncate(0, 2) == 0
    driver.finish(running)
    assert run_greedy(engine, PROMPTS[:1], 12) == alone[:1]


def test_states_that_cannot_be_cut_are_copied_whole(load: Load, mamba: Path, forgetful: Path) -> None:
    for weights, options in ((mamba, {}), (forgetful, {"swa_full": False})):
        engine = load(weights=weights, options=options)
        assert engine.info.prefix == "tip"
        fresh = run_greedy(engine, PROMPTS[1:2], 12)[0]
        driver = Driver(engine)
        source = driver.start(PROMPTS[1], 0)
        driver.run(source, n=5)
        held, text = source.computed, source.tokens
        assert engine.fork(0, 3, held)
        state = engine.save(0, 0, held)
        assert state is not None
        driver.run(source, n=12)
        driver.finish(source)
        assert engine.restore(5, 0, state)
        copies = [driver.start(text[: held + 1], lane, computed=held) for lane in (3, 5)]
        assert [[*fresh[:5], *output] for output in driver.run(*copies, n=7)] == [fresh, fresh]
        driver.finish(*copies)


def test_the_next_turn_of_a_chat_goes_on_from_the_state_behind_the_last(load: Load, mamba: Path) -> None:
    engine = load(weights=mamba)
    limits = SchedulerLimits(max_lanes=4, max_batch_tokens=64, offload_bytes=10_000_000)
    scheduler = Scheduler(engine, engine.info, limits)
    scheduler.engine = engine  # type: ignore[attr-defined]
    first = make_sequence(1, PROMPTS[1])
    scheduler.add(first)
    run_to_end(scheduler)
    question = [*first.tokens, *PROMPTS[0]]
    second = make_sequence(2, question)
    scheduler.add(second)
    answer = run_to_end(scheduler)[2]
    assert second.cached_tokens == first.num_tokens - 1
    assert answer == run_greedy(engine, [question], 8)[0]


def test_an_encoder_embeds_and_does_not_generate(load: Load, bert: Path) -> None:
    engine = load(weights=bert, context_tokens=None)
    assert engine.info.capabilities == {"embeddings"}
    assert (engine.info.prefix, engine.info.kv_bytes, engine.info.embedding_length) == ("none", 0, 64)
    assert not engine.info.generates
    longest = engine.info.embedding_tokens
    assert longest == 126  # [CLS] and [SEP] take the other two of 128
    assert len(engine.embed([[7] * longest])[0]) == 64
    with pytest.raises(EngineError, match="129 tokens"):
        engine.embed([[7] * (longest + 1)])
    engine.open(1, GREEDY, [5])
    row = PlanRow(seq=1, lane=0, start=0, tokens=[5], sample=True)
    assert "embeddings only" in (engine.step(StepPlan(rows=(row,))).rows[0].error or "")


def test_an_encoder_pools_as_llama_cpp_does(load: Load, bert: Path) -> None:
    engine = load(weights=bert, context_tokens=None)
    alone = llama_cpp.Llama(str(bert), embedding=True, verbose=False)
    texts = ["ab cd", "zz", "a b c d e f g h"]
    given = engine.embed([engine.tokenize(text, special=False) for text in texts])
    for vector, text in zip(given, texts, strict=True):
        own = np.asarray(alone.embed(text))
        assert vector == pytest.approx((own / np.linalg.norm(own)).tolist(), abs=2e-3)
    alone.close()


def test_a_sliding_window_is_kept_whole_unless_told_otherwise(load: Load, forgetful: Path) -> None:
    whole = load(weights=forgetful)
    small = load(weights=forgetful, options={"swa_full": False})
    assert (whole.info.prefix, small.info.prefix) == ("tokens", "tip")
    outputs = run_greedy(whole, PROMPTS, 12)
    assert run_greedy(small, PROMPTS, 12) == outputs
    driver = Driver(whole)
    driver.step(driver.start(PROMPTS[1], 0))
    assert whole.fork(0, 1, 39)
    assert driver.run(driver.start(PROMPTS[1], 1, computed=39), n=12) == [outputs[1]]
