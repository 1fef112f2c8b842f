"""How large the KV cache may be: its bytes per token, and a pool that fits the memory given. Arithmetic only."""

import logging
import os
from collections.abc import Mapping
from typing import Any

import msgspec

from backends.contract import LoadError, LoadRequest

# Bytes of one number; u8 and u4 keep a scale and a zero point for each head of a token besides. Unasked, a device takes
# one of the small ones, and half precision at most.
NUMBER_BYTES = {"auto": 2.0, "f32": 4.0, "f16": 2.0, "bf16": 2.0, "u8": 1.25, "u4": 0.75}
SMALLEST_CONTEXT_TOKENS = 512
UNKNOWN_CONTEXT_TOKENS = 4096


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """The longest one sequence may be, the blocks that all share, and what they take."""

    context_tokens: int
    kv_tokens: int
    num_blocks: int
    kv_bytes: int


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What the size of a cache depends on; `token_numbers` are those of one token over all layers, 0 unknown."""

    architecture: str
    trained_tokens: int
    token_numbers: int
    weights_bytes: int

    @classmethod
    def read(cls, config: Mapping[str, Any], *, weights_bytes: int) -> "Shape":
        """From a `config.json`."""
        nested = config.get("text_config")
        config = {**config, **nested} if isinstance(nested, dict) else config

        def number(key: str) -> int:
            value = config.get(key)
            return value if isinstance(value, int) else 0

        heads = number("num_attention_heads")
        width = number("head_dim") or (number("hidden_size") // heads if heads else 0)
        kv_heads = number("num_key_value_heads") or heads
        return cls(
            architecture=str((config.get("architectures") or ["a model"])[0]),
            trained_tokens=number("max_position_embeddings"),
            token_numbers=2 * number("num_hidden_layers") * kv_heads * width,
            weights_bytes=weights_bytes,
        )


def plan_pool(request: LoadRequest, shape: Shape, *, precision: str, block_tokens: int) -> Pool:
    """Between one and `running_lanes` full contexts, as memory allows. Raises LoadError where a context that was asked
    for does not fit."""
    token_bytes = shape.token_numbers * NUMBER_BYTES[precision]
    context = request.context_tokens or shape.trained_tokens or UNKNOWN_CONTEXT_TOKENS
    kv_tokens = request.kv_tokens
    if kv_tokens is None:
        # Half of the machine, where nobody has said what the model may take.
        memory = request.memory_bytes or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
        left = max(0, memory - shape.weights_bytes)
        kv_tokens = request.running_lanes * context
        if token_bytes and kv_tokens * token_bytes > left:
            kv_tokens = int(left / token_bytes)
            context = _cut(request, context, kv_tokens, token_bytes=token_bytes, left=left)
    context = min(context, kv_tokens)
    # The last block of every sequence is partly empty.
    num_blocks = -(-kv_tokens // block_tokens) + request.running_lanes
    return Pool(
        context_tokens=context,
        kv_tokens=kv_tokens,
        num_blocks=num_blocks,
        kv_bytes=int(num_blocks * block_tokens * token_bytes),
    )


def _cut(request: LoadRequest, context: int, affordable: int, *, token_bytes: float, left: int) -> int:
    """A context of at most `affordable` tokens, where the configuration leaves the choice."""
    if context <= affordable:
        return context
    room = f"{_mib(left)} are left beside the weights"
    needs = f"{context} tokens needs {_mib(context * token_bytes)} of KV cache, and {room}"
    advice = "set a smaller context_size or `kv_cache_precision: u8`, or give the model more memory"
    if request.context_tokens is not None:
        raise LoadError(f"a context of {needs}; {advice}")
    if affordable < SMALLEST_CONTEXT_TOKENS:
        raise LoadError(f"the trained context of {needs}, too little for any useful one; {advice}")
    logging.getLogger(__name__).warning(
        "the trained context of %s: context cut to %d tokens; %s", needs, affordable, advice
    )
    return affordable


def _mib(size: float) -> str:
    return f"{size / 2**20:.0f} MiB"
