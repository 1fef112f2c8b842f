"""Writes a Llama of random weights as a Hugging Face folder, for work where speed matters and sense does not.

The counterpart of `benchmarks.random_model`: words of the same list are one token each, and tokens without a whole
text are never the likeliest.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from benchmarks.random_model import Shape
from benchmarks.words import tokenizer_parts

SHAPE_79M = Shape(layers=10, width=768, heads=12, kv_heads=4, ffn=2176, vocabulary=8192, context_tokens=2048)

Floats = npt.NDArray[np.float32]


def kept(state: Path) -> Path:
    """The folder of 79 million parameters below the state folder, made once."""
    folder = state / "made" / "random-79m"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        write(folder, SHAPE_79M)
    return folder


def write(folder: Path, shape: Shape, *, seed: int = 0) -> None:
    """Write config, tokenizer and float32 weights; the same shape and seed give the same bytes."""
    partial = folder.with_name(f"{folder.name}.part")
    partial.mkdir(parents=True, exist_ok=True)
    (partial / "config.json").write_text(json.dumps(_config(shape)))
    write_tokenizer(partial, shape)
    save_file(_weights(shape, seed), partial / "model.safetensors", metadata={"format": "pt"})
    partial.rename(folder)


def write_tokenizer(folder: Path, shape: Shape) -> None:
    """Write the tokenizer alone."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(shape)))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"})
    )


def _config(shape: Shape) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_width,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context_tokens,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }


def tokenizer_json(shape: Shape) -> dict[str, Any]:
    """A byte-level tokenizer whose words are the list of `benchmarks.workload`."""
    tokens, merges = tokenizer_parts(shape.vocabulary)
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    end = {"id": 0, "content": tokens[0], "special": True, "normalized": False}
    end |= {"single_word": False, "lstrip": False, "rstrip": False}
    return {
        "version": "1.0",
        "added_tokens": [end],
        "pre_tokenizer": level,
        "decoder": level,
        "model": {
            "type": "BPE",
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": merges,
        },
    }


def _weights(shape: Shape, seed: int) -> dict[str, Floats]:
    rng = np.random.default_rng(seed)
    kv_width = shape.kv_heads * shape.head_width

    def matrix(rows: int, columns: int) -> Floats:
        # A spread of 1/sqrt(columns) keeps every product near 1, so nothing overflows at any depth.
        return rng.standard_normal((rows, columns), dtype=np.float32) / np.float32(np.sqrt(columns))

    weights = {"model.embed_tokens.weight": matrix(shape.vocabulary, shape.width)}
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}"
        weights |= {
            f"{prefix}.input_layernorm.weight": np.ones(shape.width, np.float32),
            f"{prefix}.post_attention_layernorm.weight": np.ones(shape.width, np.float32),
            f"{prefix}.self_attn.q_proj.weight": matrix(shape.width, shape.width),
            f"{prefix}.self_attn.k_proj.weight": matrix(kv_width, shape.width),
            f"{prefix}.self_attn.v_proj.weight": matrix(kv_width, shape.width),
            f"{prefix}.self_attn.o_proj.weight": matrix(shape.width, shape.width),
            f"{prefix}.mlp.gate_proj.weight": matrix(shape.ffn, shape.width),
            f"{prefix}.mlp.up_proj.weight": matrix(shape.ffn, shape.width),
            f"{prefix}.mlp.down_proj.weight": matrix(shape.width, shape.ffn),
        }
    head = matrix(shape.vocabulary, shape.width)
    head[: 1 + 256] = 0  # the end and single bytes never win over thousands of random ones
    return {**weights, "model.norm.weight": np.ones(shape.width, np.float32), "lm_head.weight": head}
