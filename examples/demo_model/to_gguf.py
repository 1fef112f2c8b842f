"""Writes the demo model's Hugging Face folder (Llama architecture, byte-level BPE) as an F32 GGUF file.

    python -m examples.demo_model.to_gguf examples/demo_model/hf models/demo/1/model.gguf

Owns this one conversion and nothing general: other checkpoints want llama.cpp's own converter.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

GLOBAL_TENSORS = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
LAYER_TENSORS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def to_llama_rope(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Reorder the rows of a q or k projection, `weight`, of shape (heads * head_dim, hidden).

    Hugging Face rotates the two halves of a head against each other, llama.cpp neighbouring rows.
    """
    rows, hidden = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, hidden)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, hidden))


def token_list(tokenizer: dict[str, Any], size: int) -> tuple[list[str], list[gguf.TokenType]]:
    """Texts and types of all ids up to `size`; ids that no token has are padding of type UNUSED."""
    texts = [f"[PAD{index}]" for index in range(size)]
    types = [gguf.TokenType.UNUSED] * size
    for text, index in tokenizer["model"]["vocab"].items():
        texts[index], types[index] = text, gguf.TokenType.NORMAL
    for token in tokenizer["added_tokens"]:
        kind = gguf.TokenType.CONTROL if token["special"] else gguf.TokenType.USER_DEFINED
        texts[token["id"]], types[token["id"]] = token["content"], kind
    return texts, types


def write_gguf(folder: Path, target: Path) -> None:
    """Convert `folder` (config.json, tokenizer files, model.safetensors) into `target`.

    `target` is replaced in one move. Raises ValueError for a tensor that has no place in it.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer_config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(".part")

    writer = gguf.GGUFWriter(unfinished, "llama")
    writer.add_name("Modelyard demo")
    writer.add_description("A small chat model that answers questions about Modelyard")
    writer.add_license("mit")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])

    texts, types = token_list(tokenizer, config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    # ByteLevel(use_regex=True) splits as GPT-2 does. With another name here the model loads without complaint
    # and answers wrongly.
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(texts)
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template(tokenizer_config["chat_template"])

    weights = {
        name: tensor.astype(np.float32) for name, tensor in load_file(folder / "model.safetensors").items()
    }
    for source, name in GLOBAL_TENSORS.items():
        writer.add_tensor(name, weights.pop(source))
    for layer in range(config["num_hidden_layers"]):
        for source, name in LAYER_TENSORS.items():
            weight = weights.pop(f"model.layers.{layer}.{source}.weight")
            match name:
                case "attn_q":
                    weight = to_llama_rope(weight, config["num_attention_heads"])
                case "attn_k":
                    weight = to_llama_rope(weight, config["num_key_value_heads"])
            writer.add_tensor(f"blk.{layer}.{name}.weight", weight)
    if weights:
        raise ValueError(f"{folder}: tensors this converter does not know: {', '.join(sorted(weights))}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    unfinished.replace(target)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the Hugging Face folder")
    parser.add_argument("target", type=Path, help="the GGUF file to write")
    options = parser.parse_args()
    write_gguf(options.folder, options.target)


if __name__ == "__main__":
    main()
