"""The configuration keys of the GPTQ plugin, as one JSON Schema; `loading.py` gives them effect."""

from typing import Any

_OWN: dict[str, Any] = {
    "model_base_name": {
        "type": "string",
        "minLength": 1,
        "description": "Name of the weight file without its ending, where it is not model.safetensors.",
    },
    "device": {
        "type": "string",
        "description": "As `main_gpu`: cpu, cuda, cuda.N or cuda:N (default: a GPU where there is one).",
    },
    "triton": {"type": "boolean", "description": "Use the Triton kernels, which need a CUDA GPU."},
    "use_triton": {"type": "boolean", "description": "As `triton`."},
    "use_fast_tokenizer": {
        "type": "boolean",
        "deprecated": True,
        "description": "No effect: the model's tokenizer is always read by the tokenizers library.",
    },
}

OPTIONS: dict[str, Any] = {
    "type": "object",
    "properties": {
        **_OWN,
        "autogptq": {
            "type": "object",
            "properties": _OWN,
            "additionalProperties": False,
            "description": "The same keys together.",
        },
        "type": {
            "type": "string",
            "enum": ["AutoModelForCausalLM"],
            "description": "GPTQ models generate; nothing else can be chosen.",
        },
        "cuda": {"type": "boolean", "description": "true: as `main_gpu: cuda`."},
        "pooling": {
            "type": "string",
            "enum": ["mean", "cls", "last"],
            "description": "How token vectors become one embedding (default mean).",
        },
    },
}
