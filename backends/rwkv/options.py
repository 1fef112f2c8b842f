"""The configuration keys of the rwkv plugin, as one JSON Schema; `strategy.py` and `text.py` give them effect."""

from typing import Any

PART = r"(cpu|mps|cuda(:[0-9]+)?) +(fp32|fp16|bf16)(i8)?( +\*[0-9]+\+?)?"

OPTIONS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "trust_remote_code": {
            "type": "boolean",
            "deprecated": True,
            "description": "No effect: RWKV checkpoints are numbers only.",
        },
        "strategy": {
            "type": "string",
            "pattern": rf"^ *{PART} *(-> *{PART} *)*$",
            "description": (
                'Where the layers are and in which number format, as the rwkv package writes it: "cpu fp32", '
                '"cuda bf16", "cuda:0 fp16 *10 -> cpu fp32". Default: by main_gpu, gpu_layers and f16.'
            ),
        },
        "tokenizer": {
            "type": "string",
            "minLength": 1,
            "description": (
                '"world", or a file of the tokenizers library, beside the weights or from the repository. Default: '
                "<model>.tokenizer.json where it is there, else world where the model's vocabulary is that one."
            ),
        },
    },
}
