"""The `model.json` of Triton's vLLM backend, arguments of vLLM's engine, as keys of a `config.yaml`. Pure."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

_OPTIONS = (
    "quantization",
    "load_format",
    "gpu_memory_utilization",
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "limit_mm_per_prompt",
    "enforce_eager",
    "dtype",
    "trust_remote_code",
    "disable_log_stats",
)
"""Arguments that are keys here by the same name."""

_SCHEDULER = {
    "max_num_seqs": ("max_lanes", 255),
    "max_num_batched_tokens": ("max_batch_tokens", 1 << 30),
    "enable_prefix_caching": ("prefix_cache", True),
}
"""Arguments that are keys below `scheduler` here, and the most that those may be."""

_IDLE = {
    "disable_log_requests": "requests are not logged by the engine",
    "disable_log_stats_requests": "requests are not logged by the engine",
    "max_log_len": "requests are not logged by the engine",
    "swap_space": "vLLM computes sequences again instead of swapping them out",
    "worker_use_ray": "the engine finds out by itself",
    "engine_use_ray": "each engine is a process of its own",
    "use_v2_block_manager": "vLLM has one block manager",
    "served_model_name": "the name is that of the model's folder, or `name`",
    "download_dir": "downloads go to the hub's cache (HF_HOME)",
    "enable_lora": "it follows from the adapters in multi_lora.json",
    "max_loras": "it follows from the adapters in multi_lora.json",
    "max_lora_rank": "it follows from the adapters in multi_lora.json",
    "skip_tokenizer_init": "text goes in and out here, which needs the tokenizer",
}
"""Arguments that nothing comes of, and why."""


class Args(Struct, frozen=True):
    """`model` is a path or an id on a hub, with `revision` where one is given; `values` are keys of a `config.yaml`;
    `ignored` says of each argument that is left out why."""

    model: str
    values: dict[str, Any]
    revision: str | None = None
    ignored: tuple[str, ...] = ()


def read_engine_args(given: Mapping[str, Any]) -> Args:
    """Arguments as keys of ours; what has no key goes into `engine_args`. ValueError: `model` is missing, or
    one that is compared is of another kind."""
    model = given.get("model")
    if not isinstance(model, str) or not model:
        raise ValueError('it has no "model", the path or hub id of the weights')
    values: dict[str, Any] = {}
    scheduler: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for key, value in given.items():
        if key in ("model", "revision") or key in _IDLE or value is None:
            continue
        if key == "max_model_len":
            values["context_size"] = value
        elif key in _OPTIONS:
            values[key] = value
        elif key in _SCHEDULER and _is_within(key, value):
            scheduler[_SCHEDULER[key][0]] = value
        else:
            rest[key] = value
    if scheduler:
        values["scheduler"] = scheduler
    if rest:
        values["engine_args"] = rest
    revision = given.get("revision")
    return Args(
        model,
        values,
        revision if isinstance(revision, str) else None,
        tuple(f"{key} has no effect: {_IDLE[key]}" for key in given if key in _IDLE),
    )


def _is_within(key: str, value: Any) -> bool:
    """True where our key can be that much. ValueError: it is no amount."""
    most = _SCHEDULER[key][1]
    if type(value) is not type(most):
        expected = "true or false" if isinstance(most, bool) else "a whole number"
        raise ValueError(f"{key}: expected {expected}, found {value!r}")
    return bool(value <= most)
