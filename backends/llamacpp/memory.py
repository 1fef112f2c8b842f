"""How large the context may be: the KV cache's bytes per token, and a pool that fits the memory given.

Arithmetic only; nothing here calls llama.cpp.
"""

import logging
import os

import msgspec

from backends.contract import LoadError, LoadRequest

# Bytes for one number of each KV cache type: the q formats keep 32 numbers in a block with its scales.
TYPE_BYTES = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
}

# llama.cpp rounds its pool up to this; planning in the same steps keeps the batch size uncut.
POOL_STEP_TOKENS = 256
SMALLEST_CONTEXT_TOKENS = 512


class ModelShape(msgspec.Struct, frozen=True, kw_only=True):
    """What the size of a context depends on."""

    trained_tokens: int
    layers: int
    key_width: int
    value_width: int
    vocabulary: int
    weights_bytes: int

    def kv_bytes_per_token(self, type_k: str, type_v: str) -> float:
        """Bytes that one token takes in the cache over all layers."""
        return self.layers * (self.key_width * TYPE_BYTES[type_k] + self.value_width * TYPE_BYTES[type_v])


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """The longest one sequence may be, and the tokens all sequences share."""

    context_tokens: int
    kv_tokens: int


def plan_pool(request: LoadRequest, shape: ModelShape, *, bytes_per_token: float, ubatch: int) -> Pool:
    """Between one and `running_lanes` full contexts, as memory allows. Raises LoadError where an explicit
    context does not fit."""
    context = request.context_tokens or shape.trained_tokens or SMALLEST_CONTEXT_TOKENS
    if request.kv_tokens is not None:
        return Pool(
            context_tokens=min(context, _round_up(request.kv_tokens)), kv_tokens=_round_up(request.kv_tokens)
        )
    # Half of the machine, where nobody has said what the model may take.
    memory = request.memory_bytes or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    scratch = 4 * shape.vocabulary * (ubatch + request.lanes)
    left = max(0, memory - shape.weights_bytes - scratch)
    # The embedding context holds one more sequence.
    contexts = 2 if request.embeddings else 1
    most = (request.running_lanes + contexts - 1) * context
    affordable = min(most, _round_down(left / bytes_per_token)) if bytes_per_token else most
    if affordable < contexts * context:
        context = _shrunk(
            request, context, affordable // contexts, left=left, bytes_per_token=bytes_per_token
        )
    pool = max(context, affordable - (contexts - 1) * context)
    return Pool(context_tokens=context, kv_tokens=_round_up(pool))


def _shrunk(request: LoadRequest, context: int, affordable: int, *, left: int, bytes_per_token: float) -> int:
    """A context of at most `affordable` tokens, where the configuration leaves the choice."""
    advice = "set a smaller context_size or `cache_type_k: q8_0`, or give the model more memory"
    needs = (
        f"needs {_mib(context * bytes_per_token)} of KV cache, and {_mib(left)} are left beside the weights"
    )
    if request.context_tokens is not None:
        if request.memory_bytes is None:
            return context
        raise LoadError(f"a context of {context} tokens {needs}; {advice}")
    fitting = _round_down(affordable)
    if fitting < SMALLEST_CONTEXT_TOKENS:
        raise LoadError(
            f"the trained context of {context} tokens {needs}, too little for any useful one; {advice}"
        )
    logging.getLogger(__name__).warning(
        "the trained context of %d tokens %s: context cut to %d tokens; %s", context, needs, fitting, advice
    )
    return fitting


def _round_down(tokens: float) -> int:
    return int(tokens) // POOL_STEP_TOKENS * POOL_STEP_TOKENS


def _round_up(tokens: int) -> int:
    return -(-tokens // POOL_STEP_TOKENS) * POOL_STEP_TOKENS


def _mib(size: float) -> str:
    return f"{size / 2**20:.0f} MiB"
