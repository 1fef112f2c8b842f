"""How large vLLM's KV cache becomes on a CPU, where it would else take most of the machine. On a GPU vLLM measures what
is free and takes `gpu_memory_utilization` of it.
"""

from typing import Any

from backends.contract import LoadError, LoadRequest

SHARE = 0.25
"""Of the memory, what the KV cache takes where nobody has said how many tokens it is to hold."""

GIB = 2**30


def size_cache(config: Any, request: LoadRequest, *, total_bytes: int, weights_bytes: int) -> None:
    """Set the number of blocks in vLLM's `config`, which has everything else. `total_bytes` is the machine's memory.
    Raises LoadError where one whole sequence, or what was asked for, does not fit beside the weights."""
    cache, context = config.cache_config, config.model_config.max_model_len
    if cache.num_gpu_blocks_override is not None or cache.kv_cache_memory_bytes is not None:
        return
    each = token_bytes(config)
    memory = max(0, (request.memory_bytes or total_bytes) - weights_bytes)
    pool = request.kv_tokens
    if pool is None:
        wanted = request.running_lanes * context
        pool = min(wanted, max(context, int(memory * SHARE / each)))
    if pool < context:
        raise LoadError(
            f"the KV cache holds {pool} tokens, and a sequence may have {context}; raise scheduler.kv_tokens or lower "
            "context_size"
        )
    blocks = -(-pool // cache.block_size) + 1  # one is never given out
    needed = blocks * cache.block_size * each
    if needed > memory:
        raise LoadError(
            f"a KV cache of {pool} tokens needs {needed / GIB:.1f} GiB, and {memory / GIB:.1f} GiB are left beside the "
            "weights; lower context_size or scheduler.kv_tokens, or set `f16: true`"
        )
    cache.num_gpu_blocks_override = blocks
    cache.kv_cache_memory_bytes = needed


def token_bytes(config: Any) -> int:
    """Bytes of one token in the cache of one process, all layers together."""
    model, parallel = config.model_config, config.parallel_config
    heads, layers = model.get_num_kv_heads(parallel), model.get_num_layers(parallel)
    copies = 1 if model.use_mla else 2
    return int(copies * heads * model.get_head_size() * layers * model.dtype.itemsize)
