"""A LoRA adapter of seeded random weights for a Llama folder, and what its matrices add to the weights."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

RANK, ALPHA = 4, 16
PROJECTIONS = ("q_proj", "v_proj")

Floats = npt.NDArray[np.float32]


def write_adapter(folder: Path, model: Path, *, seed: int = 0) -> dict[str, Floats]:
    """Write the adapter to `folder`. Returns, by the name of a weight of the model, what is to be added to it."""
    config = json.loads((model / "config.json").read_text())
    width, head = config["hidden_size"], config["head_dim"]
    rows = {"q_proj": config["num_attention_heads"] * head, "v_proj": config["num_key_value_heads"] * head}
    rng = np.random.default_rng(seed)
    weights: dict[str, Floats] = {}
    added: dict[str, Floats] = {}
    for layer in range(config["num_hidden_layers"]):
        for projection in PROJECTIONS:
            name = f"model.layers.{layer}.self_attn.{projection}"
            down = 0.1 * rng.standard_normal((RANK, width), dtype=np.float32)
            up = 0.1 * rng.standard_normal((rows[projection], RANK), dtype=np.float32)
            weights[f"base_model.model.{name}.lora_A.weight"] = down
            weights[f"base_model.model.{name}.lora_B.weight"] = up
            added[f"{name}.weight"] = ALPHA / RANK * up @ down
    folder.mkdir(parents=True)
    save_file(weights, folder / "adapter_model.safetensors")
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(PROJECTIONS),
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return added
