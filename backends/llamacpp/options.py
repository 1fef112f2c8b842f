"""The configuration keys of the llamacpp plugin, as one JSON Schema; `parameters.py` gives them effect."""

from typing import Any

CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")


def _choice(description: str, *values: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(values), "description": description}


def _number(description: str, **limits: float) -> dict[str, Any]:
    return {"type": "number", "description": description, **limits}


def _flag(description: str) -> dict[str, Any]:
    return {"type": "boolean", "description": description}


OPTIONS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "trust_remote_code": {
            "type": "boolean",
            "deprecated": True,
            "description": "No effect: a GGUF is numbers and texts only.",
        },
        "cache_type_k": _choice("Number format of the keys in the KV cache (default f16).", *CACHE_TYPES),
        "cache_type_v": _choice(
            "Number format of the values in the KV cache (default f16); the q formats need flash attention.",
            *CACHE_TYPES,
        ),
        "flash_attention": {
            "enum": ["auto", "on", "off", True, False],
            "description": "Fused attention kernel; auto (default) uses it where the device has one.",
        },
        "mmap": _flag("Map the weights from the file instead of reading them into memory (default true)."),
        "mmlock": _flag("Lock the weights in memory so that they are never swapped out (default false)."),
        "tensor_split": {
            "oneOf": [
                {"type": "string", "pattern": r"^\s*\d+(\.\d+)?(\s*,\s*\d+(\.\d+)?)*\s*$"},
                {"type": "array", "items": {"type": "number", "minimum": 0}, "minItems": 1},
            ],
            "description": 'Share of the model for each GPU, for example "0.5,0.5" or [3, 1].',
        },
        "split_mode": _choice(
            "How a model is spread over several GPUs (default layer).", "none", "layer", "row", "tensor"
        ),
        "no_kv_offloading": _flag("Keep the KV cache in main memory although layers run on a GPU."),
        "rope_freq_base": _number("RoPE base frequency instead of the model's own.", exclusiveMinimum=0),
        "rope_freq_scale": _number(
            "RoPE frequency scale; 0.5 doubles the usable context.", exclusiveMinimum=0, maximum=1
        ),
        "rope_scaling": _choice("RoPE scaling method.", "none", "linear", "yarn", "longrope"),
        "yarn_ext_factor": _number("YaRN extrapolation mix; -1 takes the model's.", minimum=-1),
        "yarn_attn_factor": _number("YaRN attention magnitude; -1 takes the model's.", minimum=-1),
        "yarn_beta_fast": _number("YaRN low correction dimension; -1 takes the model's.", minimum=-1),
        "yarn_beta_slow": _number("YaRN high correction dimension; -1 takes the model's.", minimum=-1),
        "yarn_orig_ctx": {
            "type": "integer",
            "minimum": 1,
            "description": "Context length in tokens that the model had before YaRN stretched it.",
        },
        "pooling": _choice(
            "How token vectors become one embedding (default: the model's own, else mean).",
            "mean",
            "cls",
            "last",
        ),
        "ubatch": {
            "type": "integer",
            "minimum": 1,
            "description": "Tokens computed at once inside a step (default 512); smaller takes less memory.",
        },
        "swa_full": _flag(
            "Keep the whole past of sliding-window layers, so that prefixes can be reused (default true)."
        ),
        "prompt_cache_path": {
            "type": "string",
            "minLength": 1,
            "description": "Keep what was computed of prompts on disk, for the next start; the name of a folder among "
            "the prompt caches in the state folder.",
        },
        "prompt_cache_all": _flag("Keep what was computed of answers on disk, too (default false)."),
        "prompt_cache_ro": _flag("Use what is kept on disk and write nothing (default false)."),
        "prompt_cache_bytes": {
            "type": "integer",
            "minimum": 0,
            "description": "Most that is kept on disk (default 4 GiB); what was used longest ago goes first.",
        },
        "lora_modules": {
            "oneOf": [
                {"type": "object", "additionalProperties": {"type": "string", "minLength": 1}},
                {
                    "type": "array",
                    "items": {
                        "oneOf": [
                            {"type": "string", "pattern": "^[^=]+=.+"},
                            {
                                "type": "object",
                                "properties": {
                                    "name": {"type": "string"},
                                    "path": {"type": "string"},
                                    "scale": {"type": "number"},
                                },
                                "required": ["name", "path"],
                                "additionalProperties": False,
                            },
                        ]
                    },
                },
            ],
            "description": "LoRA adapters as GGUF files: name -> file, or a list of `name=file` or of mappings with "
            "name, path and scale. Asked for as model:name.",
        },
        "lora_adapter": {
            "type": "string",
            "minLength": 1,
            "description": "A LoRA adapter (GGUF file) that is applied to every request.",
        },
        "lora_adapters": {
            "type": "array",
            "items": {"type": "string", "minLength": 1},
            "description": "LoRA adapters (GGUF files) that are all applied to every request; for some to choose from "
            "see lora_modules.",
        },
        "lora_scale": _number("How strongly lora_adapter acts (default 1)."),
        "lora_scales": {
            "type": "array",
            "items": {"type": "number"},
            "description": "How strongly each of lora_adapters acts (default 1).",
        },
        "lora_base": {
            "type": "string",
            "deprecated": True,
            "description": "No effect: an adapter is applied to the weights as they are, quantised or not.",
        },
        "numa": _choice(
            "Memory placement on machines with several sockets.", "distribute", "isolate", "numactl"
        ),
    },
}
