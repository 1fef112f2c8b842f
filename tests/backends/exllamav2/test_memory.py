"""How the KV cache is fitted beside the weights."""

from typing import Any

import pytest

from backends.contract import LoadError
from backends.exllamav2.memory import CachePlan, Shape, plan_cache

GIB = 2**30
LLAMA_8B = {
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
}
SHAPE = Shape.of(LLAMA_8B)


def plan(**given: Any) -> CachePlan:
    usual: dict[str, Any] = {
        "context_tokens": 8192,
        "kv_tokens": None,
        "lanes": 16,
        "cache_type": "FP16",
        "free_bytes": (80 * GIB,),
        "weights_bytes": 16 * GIB,
    }
    return plan_cache(SHAPE, **{**usual, **given})


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (LLAMA_8B, Shape(layers=32, channels=32 * 8 * 128, trained_tokens=131072)),
        ({**LLAMA_8B, "head_dim": 64}, Shape(layers=32, channels=32 * 8 * 64, trained_tokens=131072)),
        (
            {"n_layer": 2, "n_embd": 64, "n_head": 4, "n_positions": 512},
            Shape(layers=2, channels=2 * 64, trained_tokens=512),
        ),
        ({"text_config": LLAMA_8B}, SHAPE),
    ],
)
def test_the_shape_is_read_from_the_config(config: dict[str, Any], shape: Shape) -> None:
    assert Shape.of(config) == shape


def test_a_config_without_sizes_is_refused() -> None:
    with pytest.raises(LoadError, match="does not say how large the model is"):
        Shape.of({"num_hidden_layers": 2})


def test_quantised_caches_hold_more_tokens_in_the_same_memory() -> None:
    sizes = [SHAPE.token_bytes(kind, gpus=1) for kind in ("FP16", "Q8", "Q6", "Q4")]
    assert sizes[0] == 128 * 1024
    assert sizes == sorted(sizes, reverse=True)


def test_every_lane_gets_a_full_context_where_there_is_room() -> None:
    assert plan() == CachePlan(context_tokens=8192, cache_tokens=16 * 8192)


def test_the_cache_is_cut_to_the_memory_before_the_context_is() -> None:
    cut = plan(free_bytes=(20 * GIB,))
    assert cut.context_tokens == 8192
    assert 8192 < cut.cache_tokens < 16 * 8192
    assert cut.cache_tokens % 256 == 0
    assert plan(free_bytes=(20 * GIB,), cache_type="Q4").cache_tokens > 3 * cut.cache_tokens


def test_memory_of_several_gpus_counts_together() -> None:
    assert plan(free_bytes=(10 * GIB,) * 4).cache_tokens > plan(free_bytes=(20 * GIB,)).cache_tokens


def test_a_chosen_pool_is_whole_pages() -> None:
    assert plan(kv_tokens=10_000).cache_tokens == 10_240
    assert plan(context_tokens=100, kv_tokens=100).cache_tokens == 256


def test_the_trained_context_is_cut_with_a_warning() -> None:
    for asked in (None, 131072):
        cut = plan(context_tokens=asked, free_bytes=(24 * GIB,))
        assert cut.context_tokens < 131072
        assert "is cut to" in cut.warning
        assert cut.cache_tokens == cut.context_tokens


def test_a_chosen_context_is_not_cut() -> None:
    with pytest.raises(LoadError, match=r"KV cache of 100000 tokens 12\.2 GiB, and 20\.0 GiB of GPU memory"):
        plan(context_tokens=100_000, free_bytes=(20 * GIB,))


def test_weights_beyond_the_memory_are_refused() -> None:
    with pytest.raises(LoadError, match=r"the weights take 16\.0 GiB"):
        plan(context_tokens=None, free_bytes=(12 * GIB,))
