"""Options: what the schema admits, what it becomes in llama.cpp's parameters, and how large the pool gets."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from llama_cpp import llama_cpp as ll

from backends.contract import LoadError, LoadRequest
from backends.llamacpp import SPEC
from backends.llamacpp.engine import LlamaCppEngine
from backends.llamacpp.memory import TYPE_BYTES, ModelShape, plan_pool
from backends.llamacpp.options import CACHE_TYPES
from backends.llamacpp.parameters import cache_types, embedding_params, generation_params, model_params

Load = Callable[..., LlamaCppEngine]

GIB = 2**30
# A 7B model: 512 KiB of f16 cache for a token.
SHAPE = ModelShape(
    trained_tokens=4096, layers=32, key_width=4096, value_width=4096, vocabulary=32_000, weights_bytes=4 * GIB
)


class Facts(msgspec.Struct, frozen=True):
    format: str
    architecture: str | None = None
    quantisation: str | None = None


def context(**options: Any) -> Any:
    request = LoadRequest(model="m", weights="w", options=options, lanes=40, threads=3, max_batch_tokens=256)
    return generation_params(request, kv_tokens=4096)


def test_the_spec_needs_no_llama_cpp() -> None:
    code = "import sys; import backends.llamacpp; print('llama_cpp' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "False\n"


def test_gguf_is_claimed_and_nothing_else() -> None:
    assert SPEC.claims(Facts("gguf"), {}) == 100
    assert SPEC.claims(Facts("safetensors"), {}) == 0


def test_the_schema_is_one_and_every_option_is_described() -> None:
    jsonschema.Draft202012Validator.check_schema(SPEC.options)
    json.dumps(SPEC.options)
    for name, option in SPEC.options["properties"].items():
        assert option["description"].endswith("."), name
        assert "\n" not in option["description"]


@pytest.mark.parametrize(
    ("options", "is_valid"),
    [
        ({"cache_type_k": "q8_0", "flash_attention": True, "tensor_split": "0.5, 0.5", "mmap": False}, True),
        ({"flash_attention": "auto", "tensor_split": [3, 1], "rope_freq_scale": 0.5, "ubatch": 64}, True),
        ({"flash_attention": 1}, False),
        ({"flash_attention": "yes"}, False),
        ({"cache_type_k": "q3_0"}, False),
        ({"tensor_split": "half"}, False),
        ({"tensor_split": []}, False),
        ({"rope_freq_scale": 0}, False),
        ({"ubatch": 0}, False),
        ({"pooling": "max"}, False),
    ],
)
def test_the_schema_admits_what_has_a_meaning(options: dict[str, Any], is_valid: bool) -> None:
    assert jsonschema.Draft202012Validator(SPEC.options).is_valid(options) is is_valid


def test_the_limits_reach_the_context() -> None:
    params = context()
    assert (params.n_ctx, params.n_seq_max, params.n_batch, params.n_ubatch) == (4096, 40 + 1, 256, 256)
    assert (params.n_threads, params.n_threads_batch, params.kv_unified) == (3, 3, True)
    assert params.n_outputs_max == 256
    assert context(ubatch=16).n_ubatch == 16


def test_options_reach_the_context() -> None:
    params = context(
        cache_type_k="bf16", cache_type_v="q8_0", flash_attention=True, no_kv_offloading=True, swa_full=False,
        rope_scaling="yarn", rope_freq_base=5e5, rope_freq_scale=0.25, yarn_ext_factor=0.5,
        yarn_attn_factor=2, yarn_beta_fast=16.0, yarn_beta_slow=2.0, yarn_orig_ctx=2048,
    )  # fmt: skip
    assert (params.type_k, params.type_v) == (30, ll.GGML_TYPE_Q8_0)
    assert params.flash_attn_type == ll.LLAMA_FLASH_ATTN_TYPE_ENABLED
    assert (params.offload_kqv, params.swa_full) == (False, False)
    assert params.rope_scaling_type == ll.LLAMA_ROPE_SCALING_TYPE_YARN
    assert (params.rope_freq_base, params.rope_freq_scale, params.yarn_orig_ctx) == (5e5, 0.25, 2048)
    yarn = (params.yarn_ext_factor, params.yarn_attn_factor, params.yarn_beta_fast, params.yarn_beta_slow)
    assert yarn == (0.5, 2.0, 16.0, 2.0)


@pytest.mark.parametrize(("given", "expected"), [("auto", -1), ("on", 1), ("off", 0), (True, 1), (False, 0)])
def test_flash_attention_takes_words_and_booleans(given: str | bool, expected: int) -> None:
    assert context(flash_attention=given).flash_attn_type == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ("f16", "f16")),
        ({"f16": True}, ("f16", "f16")),
        ({"f16": False}, ("f32", "f32")),
        ({"f16": False, "cache_type_k": "q8_0"}, ("q8_0", "f32")),
    ],
)
def test_f16_is_the_default_cache(options: dict[str, Any], expected: tuple[str, str]) -> None:
    assert cache_types(options) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ll.LLAMA_LOAD_MODE_AUTO),
        ({"mmap": True}, ll.LLAMA_LOAD_MODE_MMAP),
        ({"mmap": False}, ll.LLAMA_LOAD_MODE_NONE),
        ({"mmlock": True}, ll.LLAMA_LOAD_MODE_MMAP_MLOCK),
        ({"mmap": False, "mmlock": True}, ll.LLAMA_LOAD_MODE_MLOCK),
    ],
)
def test_mapping_and_locking_combine(options: dict[str, Any], expected: int) -> None:
    assert model_params(options).load_mode == expected


@pytest.mark.parametrize(
    ("given", "expected"), [(None, 0), ("", 0), (2, 2), ("1", 1), ("cuda:3", 3), ("GPU2", 2), ("vulkan0", 0)]
)
def test_a_device_is_known_by_its_number(given: object, expected: int) -> None:
    assert model_params({"main_gpu": given}).main_gpu == expected


def test_the_cpu_is_a_device_without_layers() -> None:
    assert model_params({"main_gpu": "cpu"}).n_gpu_layers == 0
    assert model_params({}, device="cpu").n_gpu_layers == 0
    assert model_params({}).n_gpu_layers < 0


def test_a_gpu_that_is_demanded_and_not_there_refuses_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ll, "llama_supports_gpu_offload", lambda: False)
    with pytest.raises(LoadError, match=r"instance_group asks for a GPU, but llama\.cpp sees none"):
        model_params({}, device="gpu")


@pytest.mark.parametrize("given", ["first", "cuda:", -1, "GPU-8f2c"])
def test_a_device_without_a_number_is_refused(given: object) -> None:
    with pytest.raises(LoadError, match="names no device; write its number"):
        model_params({"main_gpu": given})


def test_the_split_is_a_list_in_words_or_numbers() -> None:
    assert model_params({"tensor_split": "0.5, 0.25"}).tensor_split[:3] == [0.5, 0.25, 0.0]
    assert model_params({"tensor_split": [3, 1], "split_mode": "row"}).tensor_split[:2] == [3.0, 1.0]
    with pytest.raises(LoadError, match="99 shares"):
        model_params({"tensor_split": [1] * 99})


def test_attention_both_ways_computes_a_text_at_once() -> None:
    request = LoadRequest(model="m", weights="w", max_batch_tokens=64)
    causal = embedding_params(request, context_tokens=512, texts=8, is_causal=True)
    both_ways = embedding_params(request, context_tokens=512, texts=8, is_causal=False)
    assert (causal.n_batch, causal.n_ubatch) == (64, 64)
    assert (both_ways.n_batch, both_ways.n_ubatch) == (512, 512)


def test_every_cache_type_has_a_size() -> None:
    assert set(TYPE_BYTES) == set(CACHE_TYPES)
    assert SHAPE.kv_bytes_per_token("f16", "f16") == 512 * 1024
    assert SHAPE.kv_bytes_per_token("q8_0", "q8_0") == 272 * 1024


def pool(*, memory_gib: float | None = None, **changes: Any) -> tuple[int, int]:
    memory = None if memory_gib is None else int(memory_gib * GIB)
    request = LoadRequest(model="m", weights="w", memory_bytes=memory, **changes)
    planned = plan_pool(request, SHAPE, bytes_per_token=SHAPE.kv_bytes_per_token("f16", "f16"), ubatch=512)
    return planned.context_tokens, planned.kv_tokens


def test_with_memory_enough_every_running_lane_gets_a_full_context() -> None:
    assert pool(memory_gib=64) == (4096, 16 * 4096)
    assert pool(memory_gib=64, context_tokens=1024, running_lanes=4) == (1024, 4096)


def test_with_less_memory_the_pool_shrinks_to_what_fits() -> None:
    # 16 GiB less 4 of weights and 64.5 MiB of scratch leave 24447 tokens of 512 KiB.
    assert pool(memory_gib=16) == (4096, 24_320)


def test_an_embedding_context_takes_its_share() -> None:
    plain, with_embeddings = pool(memory_gib=16), pool(memory_gib=16, embeddings=True)
    assert plain[1] - with_embeddings[1] == 4096


def test_the_trained_context_is_cut_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    context_tokens, kv_tokens = pool(memory_gib=5)
    assert context_tokens == kv_tokens == 1792
    assert "context cut to 1792 tokens" in caplog.text


def test_a_context_asked_for_is_not_cut() -> None:
    with pytest.raises(
        LoadError, match=r"4096 tokens needs 2048 MiB .* 960 MiB are left .*smaller context_size"
    ):
        pool(memory_gib=5, context_tokens=4096)


def test_a_model_without_room_for_any_context_is_refused() -> None:
    with pytest.raises(LoadError, match="too little for any useful one"):
        pool(memory_gib=4)


def test_a_pool_asked_for_is_taken_and_limits_the_context() -> None:
    assert pool(kv_tokens=1000, memory_gib=64) == (1024, 1024)
    assert pool(kv_tokens=100_000, memory_gib=5, context_tokens=300) == (300, 100_096)


def test_every_cpu_option_loads_together(load: Load) -> None:
    options = {
        "mmap": False, "mmlock": False, "ubatch": 64, "swa_full": True, "rope_scaling": "linear",
        "rope_freq_base": 1e4, "rope_freq_scale": 0.5, "no_kv_offloading": True, "split_mode": "layer",
        "tensor_split": "1", "main_gpu": "0", "flash_attention": "off",
    }  # fmt: skip
    assert load(options=options).info.vocabulary == 269


def test_numa_strategies_have_their_names() -> None:
    # In a process of its own: it is set once, for good.
    code = "from backends.llamacpp.parameters import start_backend; start_backend({'numa': 'numactl'})"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_weights_are_left_where_they_are(tiny: Path, load: Load) -> None:
    before = tiny.read_bytes()
    load()
    assert tiny.read_bytes() == before
