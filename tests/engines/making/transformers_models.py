"""Hugging Face folders of seeded random weights: one small model of each kind that the engines treat differently.

`python -m tests.engines.making.transformers_models KIND FOLDER` writes one; needs torch and transformers.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from backends.pieces import byte_letters

VOCABULARY = 320
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}assistant:"
)

SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
GPT2: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "n_embd": 64,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 256,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
RECURRENT: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "state_size": 8,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}

KINDS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", SMALL),
    "llama-mha": ("LlamaForCausalLM", {**SMALL, "num_key_value_heads": 4}),
    "llama-79m": (
        "LlamaForCausalLM",
        {
            **SMALL,
            "vocab_size": 8192,
            "hidden_size": 768,
            "intermediate_size": 2048,
            "num_hidden_layers": 10,
            "num_attention_heads": 12,
            "num_key_value_heads": 4,
            "max_position_embeddings": 2048,
        },
    ),
    "qwen2": ("Qwen2ForCausalLM", SMALL),
    "qwen3": ("Qwen3ForCausalLM", {**SMALL, "head_dim": 32}),
    "mistral": ("MistralForCausalLM", {**SMALL, "sliding_window": 8}),
    "gpt2": ("GPT2LMHeadModel", GPT2),
    "gemma2": (
        "Gemma2ForCausalLM",
        {**SMALL, "head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 16, "num_hidden_layers": 4},
    ),
    "gemma3": (
        "Gemma3ForCausalLM",
        {**SMALL, "head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 16, "num_hidden_layers": 6},
    ),
    "gpt-oss": (
        "GptOssForCausalLM",
        {**SMALL, "head_dim": 16, "sliding_window": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "bloom": (
        "BloomForCausalLM",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 64,
            "n_layer": 3,
            "n_head": 4,
            "bos_token_id": 0,
            "eos_token_id": 0,
        },
    ),
    "mamba": ("MambaForCausalLM", RECURRENT),
    "bert": (
        "BertModel",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
        },
    ),
    "t5": (
        "T5ForConditionalGeneration",
        {"vocab_size": VOCABULARY, "d_model": 64, "d_ff": 128, "num_layers": 2, "num_heads": 4, "d_kv": 16},
    ),
}


def write_model(folder: Path, kind: str, *, seed: int = 11, **changes: Any) -> Path:
    """A model of `kind` with a tokenizer of bytes. Its distributions are peaked, so that rounding does not change the
    likeliest token. `changes` are of its configuration."""
    class_name, settings = KINDS[kind]
    model_class = getattr(transformers, class_name)
    torch.manual_seed(seed)
    model = model_class(model_class.config_class(**{**settings, **changes})).eval()
    with torch.no_grad():
        for name, values in model.named_parameters():
            if values.dim() > 1:
                values.normal_(0.0, 3.0 if "lm_head" in name else 1.0).mul_(values.shape[-1] ** -0.5)
    model.generation_config = transformers.GenerationConfig(bos_token_id=0, eos_token_id=0)
    model.save_pretrained(folder)
    write_tokenizer(folder, size=int(model.config.vocab_size), frames=kind == "bert")
    return folder


def write_tokenizer(folder: Path, *, size: int, frames: bool = False) -> None:
    """Ids 1 to 256 are the bytes, 0 ends a text, 257 and 258 begin and end a framed one; the rest are words."""
    letters = {letter: 1 + byte for letter, byte in byte_letters().items()}
    rest = {f"Ġw{number}": number for number in range(259, size)}
    tokenizer = Tokenizer(
        models.BPE(vocab={"<|end|>": 0, **letters, "[CLS]": 257, "[SEP]": 258, **rest}, merges=[])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in ("<|end|>", "[CLS]", "[SEP]")])
    if frames:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 257), ("[SEP]", 258)]
        )
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")
    wrapped.chat_template = TEMPLATE
    wrapped.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    write_model(arguments.folder, arguments.kind)


if __name__ == "__main__":
    main()
