"""The configuration keys of the transformers plugin, as one JSON Schema; `loading.py` gives them effect."""

from typing import Any

QUANTIZATIONS = ("bnb_8bit", "bnb_4bit", "xpu_8bit", "xpu_4bit")
POOLINGS = ("mean", "cls", "last")

OPTIONS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "type": {
            "type": "string",
            "enum": ["AutoModelForCausalLM", "AutoModel", "SentenceTransformer"],
            "description": "What the model does: AutoModelForCausalLM generates, the others embed (default: what the "
            "architectures in its config.json say).",
        },
        "quantization": {
            "type": "string",
            "enum": list(QUANTIZATIONS),
            "description": "Quantise while loading, by bitsandbytes: bnb_8bit, bnb_4bit; xpu_8bit and xpu_4bit do "
            "so on an Intel GPU.",
        },
        "cuda": {"type": "boolean", "description": "true: as `main_gpu: cuda`."},
        "pooling": {
            "type": "string",
            "enum": list(POOLINGS),
            "description": "How token vectors become one embedding (default: what 1_Pooling/config.json says, "
            "else mean).",
        },
    },
}
