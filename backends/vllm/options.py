"""The configuration keys of the vllm plugin, as one JSON Schema; `arguments.py` gives them effect."""

from typing import Any


def _text(description: str, *values: str) -> dict[str, Any]:
    limits = {"enum": list(values)} if values else {"minLength": 1}
    return {"type": "string", "description": description, **limits}


def _flag(description: str) -> dict[str, Any]:
    return {"type": "boolean", "description": description}


def _count(description: str, minimum: int = 1) -> dict[str, Any]:
    return {"type": "integer", "minimum": minimum, "description": description}


def _texts(description: str) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string", "minLength": 1}, "description": description}


OPTIONS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "quantization": _text(
            "How the weights are quantised, by vLLM's name (awq, gptq, bitsandbytes, fp8, ...); by default what "
            "their config.json says."
        ),
        "dtype": _text(
            "Number format to compute in. By default float32 on a CPU, or bfloat16 with `f16: true`; on a GPU half "
            "precision, or float32 with `f16: false`.",
            *("auto", "float32", "float16", "half", "bfloat16"),
        ),
        "load_format": _text("How the weights are read, by vLLM's name (default auto)."),
        "gpu_memory_utilization": {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": 1,
            "description": "Share of the GPU's memory for weights and KV cache (default 0.9). On a CPU "
            "scheduler.kv_tokens says how large the KV cache is.",
        },
        "enforce_eager": _flag(
            "Compute without compiling the model first (default: true on a CPU, false on a GPU)."
        ),
        "max_model_len": _count("Longest sequence in tokens; the same as context_size."),
        "tensor_parallel_size": _count("GPUs (or on a CPU, processes) that each layer is split over."),
        "pipeline_parallel_size": _count("GPUs, or groups of them, that the layers are dealt out to."),
        "disable_log_stats": _flag("Whether vLLM keeps no statistics of its own in the log (default true)."),
        "limit_mm_per_prompt": {
            "type": "object",
            "additionalProperties": {"type": "integer", "minimum": 0},
            "description": "How many images, videos and so on a prompt may have. Prompts here are text: 0 of each "
            "saves memory.",
        },
        "swap_space": {
            "type": "number",
            "minimum": 0,
            "deprecated": True,
            "description": "No effect: vLLM no longer swaps sequences out; it computes them again.",
        },
        "lora_modules": {
            "type": ["object", "array"],
            "description": "LoRA adapters: name -> folder, or a list of `name=folder`. Asked for as model:name.",
        },
        "lora_adapters": _texts("Folders of LoRA adapters; each is named as its folder."),
        "lora_adapter": _text("Folder of one LoRA adapter, named as its folder."),
        "engine_args": {
            "type": "object",
            "description": "Any other argument of vLLM's engine, by its name in vLLM's EngineArgs. These win over "
            "what Modelyard would set.",
        },
    },
}
