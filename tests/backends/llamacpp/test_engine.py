"""What the contract suite does not ask of llama.cpp: its own traps, its own files, its own numbers."""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import psutil
import pytest

from backends.contract import EngineError, PlanRow, Sampling, StepPlan
from backends.llamacpp.engine import LlamaCppEngine
from backends.llamacpp.small_batches import SmallBatches, Way
from tests.backends.support import GREEDY, Driver, run, run_greedy

Load = Callable[..., LlamaCppEngine]
Write = Callable[..., Path]

PROMPTS = [[5, 80, 33, 9], [17] * 40, [*range(60, 90)], [200, 1, 2]]


def plan(*rows: PlanRow) -> StepPlan:
    return StepPlan(rows=rows)


def test_the_facts_come_from_the_file(engine: LlamaCppEngine) -> None:
    info = engine.info
    assert info.vocabulary == 269
    assert (info.context_tokens, info.kv_tokens, info.trained_context_tokens) == (256, 1024, 512)
    assert (info.bos_id, info.bos_token, info.eos_ids, info.eos_token) == (265, "<|bos|>", (266,), "<|end|>")
    assert not info.adds_bos
    assert info.special_tokens == ("<|bos|>", "<|end|>", "<|user|>")
    assert info.chat_template is not None
    assert "<|user|>" in info.chat_template
    assert info.engine.startswith("llama-cpp-python 0.3.")
    assert info.weights_bytes == pytest.approx(434_000, rel=0.01)
    # 1024 tokens x 2 layers x (32 key + 32 value numbers) x 4 bytes.
    assert info.kv_bytes == 1024 * 2 * 64 * 4
    assert (info.prefix, info.shares_kv) == ("tokens", True)


def test_recommended_sampling_is_read_from_the_file(load: Load, write_gguf: Write) -> None:
    weights = write_gguf(
        general__sampling__temp=0.6, general__sampling__top_k=20, general__sampling__penalty_repeat=1.05
    )
    defaults = load(weights=weights).info.generation_defaults
    assert defaults == pytest.approx({"temperature": 0.6, "top_k": 20, "repeat_penalty": 1.05})


def test_log_probabilities_equal_those_of_llama_cpp_alone(engine: LlamaCppEngine, tiny: Path) -> None:
    tokens = [5, 80, 33, 9, 101, 102, 103, 250, 7]
    alone = llama_cpp.Llama(
        str(tiny), n_ctx=64, logits_all=True, verbose=False, type_k=llama_cpp.GGML_TYPE_F32,
        type_v=llama_cpp.GGML_TYPE_F32,
    )  # fmt: skip
    alone.eval(tokens)
    logits = alone.scores[: len(tokens)].astype(np.float64)
    expected = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    engine.open(1, GREEDY, tokens)
    row = PlanRow(seq=1, lane=0, start=0, tokens=tokens, sample=True, logprobs=3, prompt_logprobs=0)
    (result,) = engine.step(plan(row)).rows
    given = [one.logprob for one in result.prompt_logprobs]
    assert given == pytest.approx([expected[i, t] for i, t in enumerate(tokens[1:])], abs=1e-2)
    assert result.tokens == (int(expected[-1].argmax()),)
    assert [token for token, _ in result.logprobs[0].top] == np.argsort(-expected[-1])[:3].tolist()
    alone.close()


def test_a_batch_larger_than_llama_cpps_own_gives_the_same(load: Load) -> None:
    small = load(options={"ubatch": 4})
    assert run_greedy(small, PROMPTS, 12) == run_greedy(load(), PROMPTS, 12)


def test_seeded_sequences_do_not_depend_on_their_company(load: Load) -> None:
    sampling = Sampling(temperature=1.2, seed=11, top_k=30)
    together = run(load(), PROMPTS, n=16, sampling=sampling)
    alone = [run(load(), [prompt], n=16, sampling=sampling)[0] for prompt in PROMPTS]
    assert together == alone


@pytest.mark.parametrize("way", ["together", "padded", "singly"])
def test_every_way_of_computing_a_few_tokens_gives_the_same(
    load: Load, monkeypatch: pytest.MonkeyPatch, way: Way
) -> None:
    alone = [run_greedy(load(), [prompt], 8)[0] for prompt in PROMPTS]
    engine = load()
    monkeypatch.setattr(SmallBatches, "way", lambda *_, **__: way if _[1] == len(PROMPTS) else "together")
    assert run_greedy(engine, PROMPTS, 8) == alone
    assert llama_cpp.llama_memory_seq_pos_max(engine._memory, engine.info.lanes) == -1  # no padding stays


def test_padding_that_has_no_room_is_left_out(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SmallBatches, "way", lambda *_, **__: "padded" if _[1] < 8 else "together")
    engine = load(kv_tokens=256, max_batch_tokens=256)
    driver = Driver(engine)
    driver.step(driver.start([9] * 250, 0))
    others = driver.start([1, 2, 3], 1)
    driver.step(others)
    assert len(others.output) == 1


def test_more_lanes_than_batch_tokens_are_no_trouble(load: Load) -> None:
    engine = load(lanes=255, max_batch_tokens=16)
    assert engine.info.lanes == 255
    driver = Driver(engine)
    assert driver.run(driver.start([1, 2, 3], 254), n=4) == run_greedy(load(), [[1, 2, 3]], 4)


def test_a_step_that_fails_half_way_through_its_parts_leaves_nothing(load: Load) -> None:
    engine = load(kv_tokens=256, options={"ubatch": 32})
    assert engine.info.kv_tokens == engine.info.context_tokens == 256
    driver = Driver(engine)
    first = driver.start([9] * 180, 0)
    driver.step(first)
    long = driver.start([*range(100)], 1)
    # 76 cells are free: two parts of 32 tokens would fit, the whole row does not.
    assert not driver.try_step(first.row(), long.row()).fit
    assert engine.truncate(0, 10**6) == 180
    assert engine.truncate(1, 10**6) == 0
    engine.truncate(0, 0)
    assert driver.run(long, n=5) == run_greedy(load(), [[*range(100)]], 5)


def test_a_row_that_cannot_be_computed_fails_alone(engine: LlamaCppEngine) -> None:
    good = {"start": 0, "tokens": [1, 2, 3], "sample": True}
    bad: list[tuple[dict[str, Any], str]] = [
        ({"tokens": [1, 269]}, "outside of the model's 0 to 268"),
        ({"tokens": [-1]}, "outside of the model's 0 to 268"),
        ({"tokens": []}, "do not fit a pool of 1024"),
        ({"start": 1023, "tokens": [1, 2]}, "do not fit a pool of 1024"),
        ({"adapter": "x"}, "adapter"),
        ({"drafts": 1, "mask": b"\xff" * 36}, "drafts"),
    ]
    expected = run_greedy(engine, [[1, 2, 3]], 1)[0]
    for seq in range(7):
        engine.open(seq, GREEDY, [1, 2, 3])
    rows = [PlanRow(seq=seq, lane=seq, **(good | change)) for seq, (change, _) in enumerate(bad)]
    results = engine.step(plan(*rows, PlanRow(seq=6, lane=6, **good))).rows
    for result, (_, words) in zip(results[:6], bad, strict=True):
        assert words in (result.error or "")
        assert result.tokens == ()
    assert list(results[6].tokens) == expected


def test_a_mask_and_a_bias_that_leave_nothing_fail_the_row(engine: LlamaCppEngine) -> None:
    engine.open(1, Sampling(logit_bias={3: -np.inf}, seed=1), [])
    mask = bytes([8]) + bytes(35)
    row = PlanRow(seq=1, lane=0, start=0, tokens=[1], sample=True, mask=mask)
    assert "no token is left" in (engine.step(plan(row)).rows[0].error or "")


def test_wrong_positions_break_the_step_with_llama_cpps_words(engine: LlamaCppEngine) -> None:
    engine.open(1, GREEDY, [1])
    with pytest.raises(EngineError, match=r"code -1"):
        engine.step(plan(PlanRow(seq=1, lane=0, start=5, tokens=[1], sample=True), PlanRow(
            seq=2, lane=0, start=9, tokens=[1], sample=False)))  # fmt: skip


def test_a_plan_beyond_the_batch_is_refused(load: Load) -> None:
    engine = load(max_batch_tokens=16)
    with pytest.raises(EngineError, match="17 tokens; a batch holds 16"):
        engine.step(plan(PlanRow(seq=1, lane=0, start=0, tokens=[1] * 17, sample=False)))


def test_lanes_are_guarded(engine: LlamaCppEngine) -> None:
    with pytest.raises(EngineError, match="no lane 8"):
        engine.truncate(8, 0)
    driver = Driver(engine)
    driver.step(driver.start([1, 2], 0), driver.start([1], 1))
    with pytest.raises(EngineError, match="lane 1 is not empty"):
        engine.fork(0, 1, 1)
    assert not engine.fork(0, 2, 3)
    with pytest.raises(EngineError, match="open already"):
        engine.open(1, GREEDY, [])
    with pytest.raises(EngineError, match="not open"):
        engine.close(99)


def test_sharing_a_prefix_takes_no_room(load: Load) -> None:
    engine = load(kv_tokens=256)
    driver = Driver(engine)
    prompt = [*range(200)]
    driver.step(driver.start(prompt, 0))
    for lane in range(1, 8):
        assert engine.fork(0, lane, 199)
    running = [driver.start(prompt, lane, computed=199) for lane in range(1, 8)]
    assert driver.run(*running, n=4) == run_greedy(load(), [prompt], 4) * 7


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"])
def test_every_cache_type_computes(load: Load, write_gguf: Write, kind: str) -> None:
    # Quantised caches need rows of whole blocks of 32 numbers, so a model with wider heads.
    weights = write_gguf(
        llama__attention__head_count=2, llama__attention__head_count_kv=1, llama__rope__dimension_count=32
    )
    options = {"cache_type_k": kind, "cache_type_v": kind, "flash_attention": True}
    assert len(run_greedy(load(weights=weights, options=options), [[1, 2, 3]], 4)[0]) == 4


def test_embeddings_are_the_mean_of_llama_cpps_token_vectors(load: Load, tiny: Path) -> None:
    engine = load(embeddings=True, max_batch_tokens=32)
    alone = llama_cpp.Llama(
        str(tiny), n_ctx=256, embedding=True, verbose=False, pooling_type=llama_cpp.LLAMA_POOLING_TYPE_NONE,
        type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32,
    )  # fmt: skip
    # The last one is longer than a batch, so it is computed in pieces.
    texts = ["hello world", "he", "hello " * 30]
    batch = [engine.tokenize(text, special=False) for text in texts]
    assert len(batch[2]) > 32
    for given, tokens in zip(engine.embed(batch), batch, strict=True):
        context = alone.embed(bytes(b"".join(engine.token_bytes(t) for t in tokens)).decode())
        mean = np.asarray(context).mean(axis=0)
        assert given == pytest.approx((mean / np.linalg.norm(mean)).tolist(), abs=2e-3)
    alone.close()


@pytest.mark.parametrize("max_batch_tokens", [16, 512])
def test_pooling_is_a_choice(load: Load, max_batch_tokens: int) -> None:
    tokens = [*range(40)]
    vectors = {
        pooling: np.asarray(
            load(embeddings=True, max_batch_tokens=max_batch_tokens, options={"pooling": pooling}).embed(
                [tokens]
            )[0]
        )
        for pooling in ("mean", "cls", "last")
    }
    first = load(embeddings=True, options={"pooling": "last"}).embed([tokens[:1]])[0]
    assert vectors["cls"] == pytest.approx(np.asarray(first), abs=1e-3)
    assert abs(vectors["mean"] @ vectors["last"]) < 0.99
    assert all(np.linalg.norm(vector) == pytest.approx(1.0) for vector in vectors.values())


def test_the_pooling_of_the_file_is_the_default(load: Load, write_gguf: Write) -> None:
    weights = write_gguf(llama__pooling_type=3)
    tokens = [*range(20)]
    own = load(weights=weights, embeddings=True).embed([tokens])[0]
    last = load(embeddings=True, options={"pooling": "last"}).embed([tokens])[0]
    assert own == pytest.approx(last)


def test_texts_that_cannot_be_embedded_are_refused(load: Load) -> None:
    engine = load(embeddings=True)
    with pytest.raises(EngineError, match="empty text"):
        engine.embed([[1], []])
    with pytest.raises(EngineError, match="257 tokens is longer than the 256"):
        engine.embed([[1] * 257])


def test_more_texts_than_lanes_are_embedded_in_order(load: Load) -> None:
    engine = load(embeddings=True, max_batch_tokens=64)
    texts = [[token, token + 1, 7] for token in range(50)]
    for vector, tokens in zip(engine.embed(texts), texts, strict=True):
        assert vector == pytest.approx(engine.embed([tokens])[0], abs=1e-3)


def test_unloading_gives_the_memory_back(load: Load) -> None:
    def resident() -> int:
        ctypes.CDLL(None).malloc_trim(0)  # what the allocator keeps for later is not a leak
        return psutil.Process().memory_info().rss

    before = resident()
    # 131072 tokens of 2 layers x 64 numbers x 4 bytes: 64 MiB of cache.
    engine = load(kv_tokens=131_072)
    engine.open(1, Sampling(seed=1, repeat_penalty=1.1), [1])
    engine.step(plan(PlanRow(seq=1, lane=0, start=0, tokens=[1, 2], sample=True)))
    assert resident() - before > 30 * 2**20
    engine.unload()
    assert resident() - before < 16 * 2**20
    engine.unload()


def test_opening_and_closing_leaves_no_memory_behind(engine: LlamaCppEngine) -> None:
    sampling = Sampling(seed=1, repeat_penalty=1.1, frequency_penalty=0.5, logit_bias={3: 1.0})

    def churn(count: int) -> int:
        for _ in range(count):
            run(engine, [[1, 2, 3]], n=2, sampling=sampling, logprobs=3)
        return psutil.Process().memory_info().rss

    before = churn(50)
    assert churn(500) - before < 2 * 2**20
