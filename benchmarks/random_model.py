"""Writes a Llama GGUF with random Q8_0 weights, for work where speed matters and sense does not.

Every word of `benchmarks.words` is exactly one token, so n words are n tokens, and greedy decoding never picks
a token without text, so every generated token shows in a stream.
"""

import argparse
from pathlib import Path

import gguf
import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.words import NUM_PARTS, tokenizer_parts


class Shape(msgspec.Struct, frozen=True):
    """Sizes of a Llama model; every row length must be a multiple of 32 (a Q8_0 block)."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    ffn: int
    vocabulary: int
    context_tokens: int
    head_width: int = 64

    @property
    def parameters(self) -> int:
        attention = 2 * self.width * (self.heads + self.kv_heads) * self.head_width
        return self.layers * (attention + 3 * self.width * self.ffn) + 2 * self.vocabulary * self.width


SHAPES = {
    "350m": Shape(
        layers=24, width=1024, heads=16, kv_heads=4, ffn=3072, vocabulary=32_000, context_tokens=8192
    ),
    "tiny": Shape(layers=2, width=128, heads=2, kv_heads=1, ffn=256, vocabulary=2048, context_tokens=2048),
}


CHAT_TEMPLATE = "{% for message in messages %}{{ ' ' + message.content | trim }}{% endfor %}"
"""Nothing but the words: they are as many tokens in a chat as alone."""


def write(path: Path, shape: Shape, *, seed: int = 0, name: str = "random") -> None:
    """Write the model to `path` as GGUF; the same shape and seed give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    writer = gguf.GGUFWriter(partial, "llama")
    add_metadata(writer, shape, name)
    add_tokenizer(writer, shape.vocabulary)
    _add_weights(writer, shape, np.random.default_rng(seed))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(path)


def add_metadata(writer: gguf.GGUFWriter, shape: Shape, name: str, *, epsilon: float = 1e-5) -> None:
    """What llama.cpp must know of a Llama model of this shape in Q8_0."""
    writer.add_name(name)
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.context_tokens)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_width)
    writer.add_value_length(shape.head_width)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(epsilon)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def add_tokenizer(writer: gguf.GGUFWriter, vocabulary: int) -> None:
    """A tokenizer for which every word of the list is one token."""
    tokens, merges = tokenizer_parts(vocabulary)
    types = [gguf.TokenType.CONTROL] + [gguf.TokenType.NORMAL] * (len(tokens) - 1)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _add_weights(writer: gguf.GGUFWriter, shape: Shape, rng: np.random.Generator) -> None:
    kv_width = shape.kv_heads * shape.head_width
    heads_width = shape.heads * shape.head_width

    def matrix(name: str, rows: int, columns: int, *, silent_rows: int = 0) -> None:
        # A spread of 1/sqrt(columns) keeps every product near 1, so nothing overflows at any depth.
        values = rng.standard_normal((rows, columns), dtype=np.float32) / np.float32(np.sqrt(columns))
        values[:silent_rows] = 0
        blocks: npt.NDArray[np.uint8] = gguf.quantize(values, gguf.GGMLQuantizationType.Q8_0)
        writer.add_tensor(name, blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)

    def norm(name: str) -> None:
        writer.add_tensor(name, np.ones(shape.width, dtype=np.float32))

    matrix("token_embd.weight", shape.vocabulary, shape.width)
    for layer in range(shape.layers):
        prefix = f"blk.{layer}"
        norm(f"{prefix}.attn_norm.weight")
        matrix(f"{prefix}.attn_q.weight", heads_width, shape.width)
        matrix(f"{prefix}.attn_k.weight", kv_width, shape.width)
        matrix(f"{prefix}.attn_v.weight", kv_width, shape.width)
        matrix(f"{prefix}.attn_output.weight", shape.width, heads_width)
        norm(f"{prefix}.ffn_norm.weight")
        matrix(f"{prefix}.ffn_gate.weight", shape.ffn, shape.width)
        matrix(f"{prefix}.ffn_up.weight", shape.ffn, shape.width)
        matrix(f"{prefix}.ffn_down.weight", shape.width, shape.ffn)
    norm("output_norm.weight")
    # The end token, single bytes and syllables get a logit of exactly 0, which never wins over thousands of random
    # ones: a byte may be half a character, which servers hold back, and that would spoil the token times. A syllable
    # would be one word with the word before it when the text is read again, as the next turn of a chat does.
    matrix("output.weight", shape.vocabulary, shape.width, silent_rows=NUM_PARTS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, help="where to write, for example model.gguf")
    parser.add_argument("--size", choices=sorted(SHAPES), default="350m")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    shape = SHAPES[arguments.size]
    write(arguments.path, shape, seed=arguments.seed)
    print(f"{arguments.path}: {shape.parameters / 1e6:.1f} M parameters")


if __name__ == "__main__":
    main()
