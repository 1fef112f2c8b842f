"""`python -I exporting.py ASKED`: converts Hugging Face weights, in the environment openvino-export.

A script of its own that imports nothing of Modelyard: optimum-intel's dependencies clash with those of the engines.
ASKED is JSON (see `conversion.py`). The last line that it prints is JSON too: {} or {"refusal": why}.
"""

import json
import sys
import traceback
from pathlib import Path
from typing import Any


def main() -> int:
    """Entry point."""
    asked = json.loads(sys.argv[1])
    try:
        convert(asked)
    except MemoryError:
        answer = {"refusal": "there is not enough memory"}
    except Exception as error:  # a boundary: whatever the libraries raise
        traceback.print_exc()
        first = str(error).strip().partition("\n")[0]
        answer = {"refusal": f"{type(error).__name__}: {first}" if first else type(error).__name__}
    else:
        answer = {}
    sys.stdout.write(f"{json.dumps(answer)}\n")
    return 1 if answer else 0


def convert(asked: dict[str, Any]) -> None:
    """Write the model, its tokenizer and all that belongs to them into the folder asked["target"]."""
    from optimum.intel import OVModelForCausalLM, OVModelForFeatureExtraction
    from transformers import AutoTokenizer

    source, target = asked["source"], Path(asked["target"])
    kinds = {cls.__name__: cls for cls in (OVModelForCausalLM, OVModelForFeatureExtraction)}
    model = kinds[asked["type"]].from_pretrained(
        source,
        export=True,
        compile=False,
        local_files_only=True,
        trust_remote_code=asked["trust_remote_code"],
        **_weights(asked["quantization"]),
    )
    model.save_pretrained(target)
    tokenizer = AutoTokenizer.from_pretrained(
        source, local_files_only=True, trust_remote_code=asked["trust_remote_code"]
    )
    tokenizer.save_pretrained(target)
    _convert_tokenizer(tokenizer, target)


def _weights(quantization: str) -> dict[str, Any]:
    """How the weights are kept. Unasked, optimum-intel would make those of large models int8."""
    from optimum.intel import OVWeightQuantizationConfig

    match quantization:
        case "int8":
            return {"load_in_8bit": True}
        case "int4":
            return {"quantization_config": OVWeightQuantizationConfig(bits=4, group_size=64)}
    return {"load_in_8bit": False}


def _convert_tokenizer(tokenizer: Any, target: Path) -> None:
    """openvino-genai needs it for structured output. Not every tokenizer can be converted."""
    import openvino
    from openvino_tokenizers import convert_tokenizer

    try:
        forth, back = convert_tokenizer(tokenizer, with_detokenizer=True)
    except Exception:
        traceback.print_exc()
        sys.stderr.write("the tokenizer cannot be converted; without it there is no structured output\n")
        return
    openvino.save_model(forth, target / "openvino_tokenizer.xml")
    openvino.save_model(back, target / "openvino_detokenizer.xml")


if __name__ == "__main__":
    sys.exit(main())
