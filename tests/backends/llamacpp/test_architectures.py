"""Models that are not plain Llamas: some forget, some only embed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np
import pytest

from backends.contract import PlanRow, StepPlan
from backends.llamacpp.engine import LlamaCppEngine
from tests.backends.support import GREEDY, Driver, run, run_greedy

Load = Callable[..., LlamaCppEngine]
Write = Callable[..., Path]

PROMPTS = [[5, 80, 33, 9], [17] * 40, [*range(60, 90)]]
WIDTH, LAYERS = 64, 2


class Builder:
    """Writes a GGUF of seeded random tensors; keys go under the architecture's name."""

    def __init__(self, path: Path, architecture: str, **keys: float | bool) -> None:
        self._rng = np.random.default_rng(3)
        self._writer = gguf.GGUFWriter(path, architecture)
        for key, value in {"embedding_length": WIDTH, "block_count": LAYERS, **keys}.items():
            add: dict[type, Callable[..., None]] = {
                bool: self._writer.add_bool,
                int: self._writer.add_uint32,
                float: self._writer.add_float32,
            }
            add[type(value)](f"{architecture}.{key.replace('__', '.')}", value)

    def tokenizer(self, model: str, tokens: list[str], types: list[int], **keys: Any) -> None:
        self._writer.add_tokenizer_model(model)
        self._writer.add_token_list(tokens)
        self._writer.add_token_types(types)
        for key, value in keys.items():
            add = {int: self._writer.add_uint32, str: self._writer.add_string, list: self._writer.add_array}
            add[type(value)](f"tokenizer.ggml.{key}", value)

    def random(self, name: str, *shape: int, gain: float = 1.0) -> None:
        values = self._rng.standard_normal(shape) * gain / np.sqrt(shape[-1])
        self._writer.add_tensor(name, values.astype(np.float32))

    def ones(self, name: str, *shape: int) -> None:
        self._writer.add_tensor(name, np.ones(shape, np.float32))

    def write(self) -> None:
        self._writer.write_header_to_file()
        self._writer.write_kv_data_to_file()
        self._writer.write_tensors_to_file()
        self._writer.close()


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bert") / "bert.gguf"
    ffn = 128
    build = Builder(
        path, "bert", context_length=128, feed_forward_length=ffn, attention__head_count=4,
        attention__layer_norm_epsilon=1e-5, attention__causal=False, pooling_type=2,
    )  # fmt: skip
    letters = [chr(ord("a") + n) for n in range(26)]
    tokens = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *(f"▁{letter}" for letter in letters), *letters]
    tokens += [f"[unused{n}]" for n in range(104 - len(tokens))]
    build.tokenizer(
        "bert", tokens, [3, 3, 3, 2] + [1] * (len(tokens) - 4), token_type_count=2, bos_token_id=1,
        seperator_token_id=2, unknown_token_id=3, padding_token_id=0,
    )  # fmt: skip
    build.random("token_embd.weight", len(tokens), WIDTH, gain=4)
    build.random("token_types.weight", 2, WIDTH)
    build.random("position_embd.weight", 128, WIDTH, gain=4)
    norms = ["token_embd_norm"]
    for layer in (f"blk.{n}" for n in range(LAYERS)):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            build.random(f"{layer}.{name}.weight", WIDTH, WIDTH, gain=2)
            build.random(f"{layer}.{name}.bias", WIDTH)
        build.random(f"{layer}.ffn_up.weight", ffn, WIDTH)
        build.random(f"{layer}.ffn_up.bias", ffn)
        build.random(f"{layer}.ffn_down.weight", WIDTH, ffn)
        build.random(f"{layer}.ffn_down.bias", WIDTH)
        norms += [f"{layer}.attn_output_norm", f"{layer}.layer_output_norm"]
    for norm in norms:
        build.ones(f"{norm}.weight", WIDTH)
        build.random(f"{norm}.bias", WIDTH)
    build.write()
    return path


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
    assert (engine.info.prefix, engine.info.shares_kv) == ("none", False)
    alone = [run_greedy(engine, [prompt], 12)[0] for prompt in PROMPTS]
    assert run_greedy(engine, PROMPTS, 12) == alone
    assert run(engine, PROMPTS, n=12, chunk=3) == alone
    driver = Driver(engine)
    running = driver.start(PROMPTS[0], 0)
    driver.step(running)
    assert not engine.fork(0, 1, 4)
    assert engine.truncate(0, 4) == 4
    assert engine.truncate(0, 2) == 0
    driver.finish(running)
    assert run_greedy(engine, PROMPTS[:1], 12) == alone[:1]


def test_an_encoder_embeds_and_does_not_generate(load: Load, bert: Path) -> None:
    engine = load(weights=bert, context_tokens=None)
    assert engine.info.capabilities == {"embeddings"}
    assert (engine.info.prefix, engine.info.kv_bytes, engine.info.embedding_length) == ("none", 0, 64)
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


def test_a_sliding_window_is_kept_whole_unless_told_otherwise(load: Load, write_gguf: Write) -> None:
    weights = write_gguf(general__architecture="gemma2", gemma2__attention__sliding_window=16, scale=8.0)
    whole = load(weights=weights)
    small = load(weights=weights, options={"swa_full": False})
    assert (whole.info.prefix, small.info.prefix) == ("tokens", "none")
    outputs = run_greedy(whole, PROMPTS, 12)
    assert run_greedy(small, PROMPTS, 12) == outputs
    driver = Driver(whole)
    driver.step(driver.start(PROMPTS[1], 0))
    assert whole.fork(0, 1, 39)
    assert driver.run(driver.start(PROMPTS[1], 1, computed=39), n=12) == [outputs[1]]
