"""From a LoadRequest to what vLLM is started with, as plain data: the environment variables that it reads when it is
imported, and its engine's arguments. Imports no vLLM.
"""

import difflib
import logging
from collections.abc import Collection, Mapping
from typing import Any, Literal

from backends.contract import LoadError, LoadRequest
from backends.vllm.adapters import Adapters

logger = logging.getLogger(__name__)

Device = Literal["cpu", "gpu"]

PASSED_ON = (
    "quantization",
    "load_format",
    "gpu_memory_utilization",
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "limit_mm_per_prompt",
    "trust_remote_code",
)
"""Keys of the configuration that vLLM has by the same names."""

DECIDED = {
    "model": "the version's folder is what is loaded",
    "served_model_name": "the model's folder or `name` says what it is called",
    "skip_tokenizer_init": "structured output needs the tokenizer",
    "runner": "this backend generates text",
    "convert": "this backend generates text",
    "logprobs_mode": "log-probabilities are those of the raw distribution on every engine",
    "enable_lora": "it follows from lora_modules, lora_adapters and lora_adapter",
}
"""Arguments of vLLM's engine that are not for the configuration, and why."""

WITHOUT_EFFECT = {
    "swap_space": "vLLM no longer swaps sequences out; it computes them again",
    "gpu_layers": "vLLM computes all layers on its device",
}
"""Keys that configurations from elsewhere have. They are taken, and the log says why nothing comes of them."""

DEFAULT_BATCH_TOKENS = 512
"""The default of scheduler.max_batch_tokens, which suits CPUs. On a GPU it leaves the number to vLLM."""


def is_split(options: Mapping[str, Any]) -> bool:
    """Whether the model runs in more than one process."""
    given = {**options, **options.get("engine_args", {})}
    return any((given.get(f"{kind}_parallel_size") or 1) > 1 for kind in ("tensor", "pipeline", "data"))


def environment(request: LoadRequest) -> dict[str, str]:
    """Environment variables that vLLM and its libraries read when they are imported."""
    return {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1" if is_split(request.options) else "0",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the server shares the cores out: none is this worker's alone
        "OMP_NUM_THREADS": str(request.threads),
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }


def engine_arguments(
    request: LoadRequest, adapters: Adapters, *, device: Device, known: Collection[str]
) -> dict[str, Any]:
    """Keyword arguments of vLLM's EngineArgs, whose fields are `known`. Raises LoadError for those it has not."""
    options = request.options
    for key in WITHOUT_EFFECT.keys() & options.keys():
        logger.warning("%s has no effect: %s", key, WITHOUT_EFFECT[key])
    own: dict[str, Any] = options.get("engine_args", {})
    _check(own, known)
    arguments: dict[str, Any] = {
        "model": request.weights,
        "tokenizer": request.weights,
        "dtype": _dtype(options, device),
        "max_model_len": options.get("max_model_len") or request.context_tokens,
        "max_num_seqs": request.running_lanes,
        "enforce_eager": options.get("enforce_eager", device == "cpu"),
        "logprobs_mode": "raw_logprobs",
        "max_logprobs": -1,
        "enable_prefix_caching": request.prefix_cache,
        "scheduling_policy": "priority",
        "generation_config": "vllm",  # a request's defaults are filled in before it comes here
        "disable_log_stats": options.get("disable_log_stats", True),
        "structured_outputs_config": {"backend": "guidance", "disable_any_whitespace": True},
        **{key: options[key] for key in PASSED_ON if key in options},
        **_batch(request, device),
        **_lora(adapters, device),
        **own,
    }
    if not is_split(options):
        arguments.setdefault("distributed_executor_backend", "uni")
    return {key: value for key, value in arguments.items() if value is not None}


def _dtype(options: Mapping[str, Any], device: Device) -> str:
    if "dtype" in options:
        return str(options["dtype"])
    if not options.get("f16", device == "gpu"):
        return "float32"
    return "bfloat16" if device == "cpu" else "auto"


def _batch(request: LoadRequest, device: Device) -> dict[str, Any]:
    if device == "gpu" and request.max_batch_tokens == DEFAULT_BATCH_TOKENS:
        return {}
    return {"max_num_batched_tokens": request.max_batch_tokens, "enable_chunked_prefill": True}


def _lora(adapters: Adapters, device: Device) -> dict[str, Any]:
    """Room for all adapters at once."""
    if not adapters:
        return {}
    # On a CPU vLLM 0.32 computes rows without an adapter with the last slot's matrices: it must stay empty.
    slots = len(adapters) + (device == "cpu")
    return {
        "enable_lora": True,
        "max_loras": slots,
        "max_cpu_loras": slots,
        "max_lora_rank": adapters.rank,
    }


def _check(own: Mapping[str, Any], known: Collection[str]) -> None:
    for key in own:
        if key in DECIDED:
            raise LoadError(f"engine_args.{key} cannot be set: {DECIDED[key]}; remove it")
        if key in WITHOUT_EFFECT:
            raise LoadError(f"engine_args.{key} is unknown: {WITHOUT_EFFECT[key]}; remove it")
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise LoadError(f"engine_args.{key} is not an argument of this vLLM's engine{hint}")
