"""How many tokens the KV cache gets of the GPUs' memory. Pure: sizes come in, a plan or a LoadError comes out."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from backends.contract import LoadError
from backends.exllamav2.options import CacheType
from backends.exllamav2.weights import with_text_config

PAGE_TOKENS = 256
"""The dynamic generator deals its cache out in pages of so many tokens."""

OVERHEAD_BYTES = 768 * 2**20
"""On every GPU: CUDA's own, the buffers that a computation needs, and what the automatic split leaves free."""

_VALUE_BYTES: dict[CacheType, float] = {"FP16": 4.0, "Q8": 2 + 1 / 8, "Q6": 1.5 + 1 / 8, "Q4": 1 + 1 / 8}
"""A key and a value of one channel; the quantised ones have a half-precision scale for every 32."""

_BUFFER_BYTES = 4.0
"""On every GPU, for each channel of one layer: where a quantised cache is unpacked."""


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What sizes a cache. `channels`: KV heads times their length, of all layers together."""

    layers: int
    channels: int
    trained_tokens: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Shape":
        """Read a `config.json`. Raises LoadError where it does not say."""
        config = with_text_config(config)
        try:
            layers = int(config.get("num_hidden_layers") or config.get("n_layer") or config["n_layers"])
            width = int(config.get("hidden_size") or config.get("n_embd") or config["d_model"])
            heads = int(config.get("num_attention_heads") or config.get("n_head") or config["n_heads"])
        except (KeyError, TypeError, ValueError) as error:
            raise LoadError(f"config.json does not say how large the model is ({error})") from error
        length = config.get("head_dim") or width // heads
        kv_heads = 1 if config.get("multi_query") else config.get("num_key_value_heads") or heads
        return cls(
            layers=layers,
            channels=layers * int(kv_heads) * int(length),
            trained_tokens=int(config.get("max_position_embeddings") or config.get("n_positions") or 2048),
        )

    def token_bytes(self, cache_type: CacheType, *, gpus: int) -> float:
        """Bytes of one token in the cache, over all GPUs."""
        buffers = 0.0 if cache_type == "FP16" else _BUFFER_BYTES * gpus * self.channels / self.layers
        return self.channels * _VALUE_BYTES[cache_type] + buffers


class CachePlan(msgspec.Struct, frozen=True, kw_only=True):
    """`context_tokens` is the longest sequence, `cache_tokens` what all together may hold: whole pages."""

    context_tokens: int
    cache_tokens: int
    warning: str = ""


def plan_cache(
    shape: Shape,
    *,
    context_tokens: int | None,
    kv_tokens: int | None,
    lanes: int,
    cache_type: CacheType,
    free_bytes: Sequence[int],
    weights_bytes: int,
) -> CachePlan:
    """Fit context and cache beside the weights. `free_bytes`: of each GPU. `kv_tokens` None: a full context for
    every lane, if there is room.

    A context that is the model's own is cut to what fits, with a warning; one that somebody chose is not. Raises
    LoadError.
    """
    gpus, free = len(free_bytes), sum(free_bytes)
    each = shape.token_bytes(cache_type, gpus=gpus)
    # What certainly cannot be is refused here. What may just fit is tried.
    most = int((free - weights_bytes) / each)
    comfortable = int((free - weights_bytes - gpus * OVERHEAD_BYTES) / each)
    context = min(context_tokens or shape.trained_tokens, kv_tokens or 2**62)
    warning = ""
    if context > comfortable and (context_tokens is None or context_tokens >= shape.trained_tokens):
        fitting = max(0, comfortable // PAGE_TOKENS * PAGE_TOKENS)
        if fitting:
            warning = (
                f"the context of {context} tokens needs {_gib(context * each)} of GPU memory for its KV cache and is "
                f"cut to {fitting} tokens; set context_size to choose, or a smaller cache_type"
            )
            context = fitting
    if context > most:
        raise LoadError(
            f"the weights take {_gib(weights_bytes)} and a KV cache of {context} tokens {_gib(context * each)}, and "
            f"{_gib(free)} of GPU memory are free; lower context_size, set cache_type to Q4 (it is {cache_type}), or "
            "use more GPUs"
        )
    wanted = kv_tokens or lanes * context
    cache = max(context, min(wanted, comfortable))
    return CachePlan(context_tokens=context, cache_tokens=whole_pages(cache), warning=warning)


def whole_pages(tokens: int) -> int:
    """`tokens` rounded up to full pages, at least one."""
    return max(1, -(-tokens // PAGE_TOKENS)) * PAGE_TOKENS


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"
