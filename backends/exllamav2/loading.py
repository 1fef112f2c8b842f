"""Loads weights with exllamav2: model, KV cache, dynamic generator. Needs exllamav2; runs on the engine's thread."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from exllamav2 import (
    ExLlamaV2,
    ExLlamaV2Cache,
    ExLlamaV2Cache_Q4,
    ExLlamaV2Cache_Q6,
    ExLlamaV2Cache_Q8,
    ExLlamaV2Config,
)
from exllamav2.attn_params import Params
from exllamav2.generator import ExLlamaV2DynamicGenerator

from backends.contract import LoadError
from backends.exllamav2.job import NoPieces
from backends.exllamav2.machine import Paging
from backends.exllamav2.memory import PAGE_TOKENS, CachePlan, whole_pages
from backends.exllamav2.options import CacheType, Options
from backends.exllamav2.weights import Weights, rope_attributes

logger = logging.getLogger(__name__)

CACHES: dict[CacheType, Any] = {
    "FP16": ExLlamaV2Cache,
    "Q8": ExLlamaV2Cache_Q8,
    "Q6": ExLlamaV2Cache_Q6,
    "Q4": ExLlamaV2Cache_Q4,
}
MIB = 2**20
EXPLAINED = (AssertionError, KeyError, RuntimeError, TypeError, ValueError)
"""What exllamav2 raises about weights that it cannot load, and PyTorch where memory runs out."""

_block_diagonal_mask = Params.get_block_diag_mask

Progress = Callable[[float], None]


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """`lanes` is how many sequences run at once; `why_one` says why it is one."""

    generator: Any
    model: Any
    vocabulary: int
    cache_tokens: int
    lanes: int
    why_one: str = ""


def load(
    weights: Weights,
    options: Options,
    plan: CachePlan,
    *,
    paging: Paging,
    lanes: int,
    chunk_tokens: int,
    threads: int,
    progress: Progress,
) -> Loaded:
    """Load `weights`, telling `progress` how far it is. Raises LoadError."""
    with _explained(weights):
        config = _configure(weights, options, plan)
        config.no_flash_attn = config.no_flash_attn or not paging.is_there
        Params.get_block_diag_mask = _mask
        # The mask is not cut to a sliding window there.
        config.no_sdpa = config.no_sdpa or config.arch.lm.swa or config.arch.lm.alternating_swa
        config.arch_compat_overrides()
        if paging.is_there and config.no_flash_attn:
            paging = Paging(False, f"flash-attn does not compute {weights.architecture}")
        if not paging.is_there:
            lanes = 1
        model = ExLlamaV2(config)
        tokens = plan.cache_tokens if paging.is_there else whole_pages(plan.context_tokens)
        cache = _load_model(model, options, tokens, progress)
        generator = ExLlamaV2DynamicGenerator(
            model=model,
            cache=cache,
            tokenizer=NoPieces(-(-config.vocab_size // 32) * 32),
            max_batch_size=lanes,
            max_chunk_size=_chunk(chunk_tokens, config.max_input_len),
            max_q_size=1,  # nothing is drafted
            max_sampling_threads=threads,
            paged=paging.is_there,
        )
        return Loaded(
            generator=generator,
            model=model,
            vocabulary=config.vocab_size,
            cache_tokens=cache.max_seq_len,
            lanes=lanes,
            why_one=paging.why_not,
        )


def _mask(params: Any, device: Any) -> Any:
    """What hides from a token those after it. exllamav2 0.3.2 forgets it where PyTorch's fused attention computes a
    prompt, so that every token sees the whole: it asks there only for what keeps images apart, and texts have none."""
    between_images = _block_diagonal_mask(params, device)
    return params.get_attn_mask(device) if between_images is None else between_images


def _configure(weights: Weights, options: Options, plan: CachePlan) -> Any:
    config = ExLlamaV2Config(str(weights.folder))
    options.check_layers(config.num_hidden_layers)
    for name, value in rope_attributes(weights.config).items():
        setattr(config, name, value)
    if options.rope_scale is not None:
        config.scale_pos_emb = options.rope_scale
    if options.rope_alpha is not None:
        config.scale_alpha_value = options.rope_alpha
    config.max_seq_len = whole_pages(plan.context_tokens)
    # What a prefill may have at once, and the size of the buffers for it: whole pages.
    config.max_input_len = min(config.max_input_len // PAGE_TOKENS * PAGE_TOKENS, config.max_seq_len)
    return config


def _load_model(model: Any, options: Options, cache_tokens: int, progress: Progress) -> Any:
    """The cache, once the weights are on the GPUs."""

    def report(done: int, of: int) -> None:
        progress(done / of)

    make = CACHES[options.cache_type]
    if options.gpu_split is not None:
        model.load(list(options.gpu_split), callback=report)
        return make(model, max_seq_len=cache_tokens)
    cache = make(model, max_seq_len=cache_tokens, lazy=True)
    model.load_autosplit(cache, reserve_vram=_reserve(options), callback=report)
    return cache


def _reserve(options: Options) -> int | list[int] | None:
    """Bytes to leave free: on every GPU, on each, or as exllamav2 thinks fit."""
    given = options.autosplit_reserve
    if given is None:
        return None
    return given[0] * MIB if len(given) == 1 else [each * MIB for each in given]


def _chunk(wanted: int, most: int) -> int:
    """Whole pages of prompt that one step computes."""
    return max(PAGE_TOKENS, min(wanted, most) // PAGE_TOKENS * PAGE_TOKENS)


@contextlib.contextmanager
def _explained(weights: Weights) -> Iterator[None]:
    """What exllamav2 and PyTorch raise becomes a LoadError."""
    try:
        yield
    except EXPLAINED as error:
        logger.exception("exllamav2 could not load %s", weights.folder)
        raise LoadError(_explain(weights, error)) from error


def _explain(weights: Weights, error: BaseException) -> str:
    words = str(error).strip(" #!\n").partition("\n")[0] or type(error).__name__
    if "Insufficient" in words or "out of memory" in words:
        return (
            f"the GPUs have too little free memory for {weights.folder} and its KV cache ({words}); lower "
            "context_size or scheduler.kv_tokens, set a smaller cache_type, or use more GPUs"
        )
    return f"exllamav2 cannot load {weights.folder}: {words}"
