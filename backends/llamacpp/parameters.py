"""From a load request's options to llama.cpp's parameter structs. The option names are in `options.py`."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from llama_cpp import llama_cpp as ll

from backends.contract import LoadError, LoadRequest
from backends.gpus import gpu_number

DEFAULT_UBATCH_TOKENS = 512
SPARE_SEQUENCES = 1
"""Sequence ids beside those of the lanes: states are saved and restored through one of its own."""
GGML_TYPE_BF16 = 30

Options = Mapping[str, Any]


def cache_types(options: Options) -> tuple[str, str]:
    """Names of the K and V cache types: `cache_type_*`, else f16, or f32 for an explicit `f16: false`."""
    default = "f32" if options.get("f16") is False else "f16"
    return options.get("cache_type_k") or default, options.get("cache_type_v") or default


def ubatch_tokens(request: LoadRequest) -> int:
    """Tokens that llama.cpp computes at once inside a step."""
    return min(request.options.get("ubatch") or DEFAULT_UBATCH_TOKENS, request.max_batch_tokens)


def model_params(options: Options, *, device: str = "auto") -> Any:
    """`llama_model_params` for `options`; the caller adds the progress callback. Raises LoadError where `device` is
    "gpu" and there is none."""
    params = ll.llama_model_default_params()
    layers = options.get("gpu_layers")
    main_gpu = None if device == "cpu" else gpu_number(options.get("main_gpu"))
    if device == "gpu" and not ll.llama_supports_gpu_offload():
        raise LoadError(
            "instance_group asks for a GPU, but llama.cpp sees none here; install a llama-cpp-python built for yours, "
            "or take `gpus` and `kind: gpu` out"
        )
    if layers and not ll.llama_supports_gpu_offload():
        logging.getLogger(__name__).warning(
            "gpu_layers: %s has no effect, this llama-cpp-python was built for the CPU only; "
            "install one built for your GPU, or remove the key",
            layers,
        )
    if layers is not None:
        params.n_gpu_layers = layers
    if main_gpu is None:
        params.n_gpu_layers = 0
    else:
        params.main_gpu = main_gpu
    if "split_mode" in options:
        modes = {
            "none": ll.LLAMA_SPLIT_MODE_NONE,
            "layer": ll.LLAMA_SPLIT_MODE_LAYER,
            "row": ll.LLAMA_SPLIT_MODE_ROW,
            "tensor": ll.LLAMA_SPLIT_MODE_TENSOR,
        }
        params.split_mode = modes[options["split_mode"]]
    if "tensor_split" in options:
        params.tensor_split = _tensor_split(options["tensor_split"])
    params.load_mode = _load_mode(options)
    return params


def _tensor_split(value: str | Sequence[float]) -> Any:
    shares = [float(part) for part in value.split(",")] if isinstance(value, str) else list(value)
    room = ll.LLAMA_MAX_DEVICES
    if len(shares) > room:
        raise LoadError(f"tensor_split has {len(shares)} shares, and llama.cpp knows {room} devices at most")
    return (ll.ctypes.c_float * room)(*shares)


def _load_mode(options: Options) -> int:
    maps, locks = options.get("mmap"), options.get("mmlock", False)
    if maps is None and not locks:
        return int(ll.LLAMA_LOAD_MODE_AUTO)
    if maps is False:
        return int(ll.LLAMA_LOAD_MODE_MLOCK if locks else ll.LLAMA_LOAD_MODE_NONE)
    return int(ll.LLAMA_LOAD_MODE_MMAP_MLOCK if locks else ll.LLAMA_LOAD_MODE_MMAP)


def start_backend(options: Options) -> None:
    """Start llama.cpp in this process. Its NUMA strategy is the process's and can be set once."""
    ll.llama_backend_init()
    if "numa" in options:
        strategies = {
            "distribute": ll.GGML_NUMA_STRATEGY_DISTRIBUTE,
            "isolate": ll.GGML_NUMA_STRATEGY_ISOLATE,
            "numactl": ll.GGML_NUMA_STRATEGY_NUMACTL,
        }
        ll.llama_numa_init(strategies[options["numa"]])


def generation_params(request: LoadRequest, *, kv_tokens: int) -> Any:
    """`llama_context_params` of the context that all sequences share."""
    params = _context_params(request)
    params.n_ctx = kv_tokens
    params.n_seq_max = request.lanes + SPARE_SEQUENCES
    params.n_batch = request.max_batch_tokens
    params.n_ubatch = ubatch_tokens(request)
    # llama.cpp keeps an output row for every lane, whatever the batch, and ends the process where this limit
    # is below that; prompt log-probabilities need one for every token of a batch. Its limit per sequence
    # concerns samplers inside the graph, which are not used here.
    params.n_outputs_max = max(request.max_batch_tokens, params.n_seq_max)
    params.kv_unified = True
    return params


def embedding_params(request: LoadRequest, *, context_tokens: int, texts: int, is_causal: bool) -> Any:
    """`llama_context_params` of the context for embeddings, which gives a vector for every token.

    Attention that looks both ways sees its whole text in one computation, so there the batch is the context.
    """
    params = _context_params(request)
    params.n_ctx = context_tokens
    params.n_seq_max = texts
    params.n_batch = request.max_batch_tokens if is_causal else context_tokens
    params.n_ubatch = ubatch_tokens(request) if is_causal else context_tokens
    params.n_outputs_max = max(params.n_batch, texts)
    params.kv_unified = True
    params.embeddings = True
    # Pooled here rather than there, so that a text may be longer than one computation.
    params.pooling_type = ll.LLAMA_POOLING_TYPE_NONE
    return params


def _context_params(request: LoadRequest) -> Any:
    options = request.options
    params = ll.llama_context_default_params()
    params.n_threads = params.n_threads_batch = request.threads
    params.type_k, params.type_v = map(_ggml_type, cache_types(options))
    params.flash_attn_type = {
        "auto": ll.LLAMA_FLASH_ATTN_TYPE_AUTO,
        "on": ll.LLAMA_FLASH_ATTN_TYPE_ENABLED,
        "off": ll.LLAMA_FLASH_ATTN_TYPE_DISABLED,
        True: ll.LLAMA_FLASH_ATTN_TYPE_ENABLED,
        False: ll.LLAMA_FLASH_ATTN_TYPE_DISABLED,
    }[options.get("flash_attention", "auto")]
    params.offload_kqv = not options.get("no_kv_offloading", False)
    params.swa_full = options.get("swa_full", True)
    if "rope_scaling" in options:
        params.rope_scaling_type = {
            "none": ll.LLAMA_ROPE_SCALING_TYPE_NONE,
            "linear": ll.LLAMA_ROPE_SCALING_TYPE_LINEAR,
            "yarn": ll.LLAMA_ROPE_SCALING_TYPE_YARN,
            "longrope": ll.LLAMA_ROPE_SCALING_TYPE_LONGROPE,
        }[options["rope_scaling"]]
    same_names = ("rope_freq_base", "rope_freq_scale", "yarn_orig_ctx")
    yarn = ("yarn_ext_factor", "yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow")
    for name in (*same_names, *yarn):
        if name in options:
            setattr(params, name, options[name])
    return params


def _ggml_type(name: str) -> int:
    # llama-cpp-python has no name for bf16.
    return GGML_TYPE_BF16 if name == "bf16" else int(getattr(ll, f"GGML_TYPE_{name.upper()}"))
