"""A tiny GGUF with seeded random weights, and engines that have loaded it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from backends.contract import LoadRequest
from backends.llamacpp.engine import LlamaCppEngine

WIDTH, LAYERS, HEADS, KV_HEADS, FFN = 64, 2, 4, 2, 128
SPECIALS = ("<|bos|>", "<|end|>", "<|user|>", "<tool_call>")
MERGES = ("h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "l d", "Ġwor ld")

# Layer norms that other architectures have besides.
EXTRA_NORMS = {"gemma2": ("post_attention_norm", "post_ffw_norm")}

Write = Callable[..., Path]
Load = Callable[..., LlamaCppEngine]


def _byte_characters() -> list[str]:
    """The 256 characters that stand for bytes in a byte-level BPE vocabulary, in the order of the bytes."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _bpe() -> dict[str, Any]:
    """256 byte tokens, some merged words, three control tokens and a user-defined one."""
    words = [merge.replace(" ", "") for merge in MERGES]
    tokens = [*_byte_characters(), *words, *SPECIALS]
    normal, control, user = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL, gguf.TokenType.USER_DEFINED
    return {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": tokens,
        "token_type": [normal] * (len(tokens) - len(SPECIALS)) + [control] * 3 + [user],
        "merges": list(MERGES),
        "bos_token_id": tokens.index("<|bos|>"),
        "eos_token_id": tokens.index("<|end|>"),
        "add_bos_token": False,
        "chat_template": "{% for m in messages %}<|user|>{{ m.content }}<|end|>{% endfor %}",
    }


def _spm() -> dict[str, Any]:
    """SentencePiece: unknown, BOS and EOS, 256 byte tokens and a few pieces."""
    pieces = [
        "▁",
        "h",
        "e",
        "l",
        "o",
        "w",
        "r",
        "d",
        "he",
        "ll",
        "hell",
        "hello",
        "▁hello",
        "▁hell",
        "▁he",
        "▁h",
    ]
    count = 3 + 256 + len(pieces)
    kinds = gguf.TokenType
    return {
        "model": "llama",
        "tokens": ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)], *pieces],
        "token_type": [
            kinds.UNKNOWN,
            *[kinds.CONTROL] * 2,
            *[kinds.BYTE] * 256,
            *[kinds.NORMAL] * len(pieces),
        ],
        "scores": [0.0] * (count - len(pieces)) + [float(len(piece)) for piece in pieces],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
        "add_bos_token": True,
    }


def write_tiny_gguf(path: Path, *, metadata: dict[str, Any], scale: float, vocabulary: str = "bpe") -> Path:
    """A Llama of 2 layers, or another architecture made of the same parts.

    `metadata`: scalar keys to add or to replace. `scale`: of the output head; a large one makes the
    distributions peaked, so that rounding cannot change the likeliest token.
    """
    rng = np.random.default_rng(7)
    tokenizer = {"bpe": _bpe, "spm": _spm}[vocabulary]()
    tokens = tokenizer["tokens"]
    architecture = str(metadata.pop("general.architecture", "llama"))
    writer = gguf.GGUFWriter(path, architecture)
    sizes = {
        "context_length": 512,
        "embedding_length": WIDTH,
        "block_count": LAYERS,
        "feed_forward_length": FFN,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.dimension_count": WIDTH // HEADS,
    }
    keys = {
        **{f"{architecture}.{key}": value for key, value in sizes.items()},
        **{f"tokenizer.{'' if key == 'chat_template' else 'ggml.'}{key}": v for key, v in tokenizer.items()},
        **metadata,
    }
    add = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
        list: writer.add_array,
    }
    for key, value in keys.items():
        add[type(value)](key, value)

    def tensor(name: str, *shape: int, gain: float = 1.0) -> None:
        values = rng.standard_normal(shape, np.float32) * gain / np.sqrt(shape[-1])
        writer.add_tensor(name, values.astype(np.float32))

    head_width = WIDTH // HEADS
    tensor("token_embd.weight", len(tokens), WIDTH, gain=8.0)
    if architecture != "gemma2":
        tensor("output.weight", len(tokens), WIDTH, gain=scale)
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    for layer in range(LAYERS):
        for norm in ("attn_norm", "ffn_norm", *EXTRA_NORMS.get(architecture, ())):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", np.ones(WIDTH, np.float32))
        tensor(f"blk.{layer}.attn_q.weight", WIDTH, WIDTH, gain=2.0)
        tensor(f"blk.{layer}.attn_k.weight", KV_HEADS * head_width, WIDTH, gain=2.0)
        tensor(f"blk.{layer}.attn_v.weight", KV_HEADS * head_width, WIDTH, gain=2.0)
        tensor(f"blk.{layer}.attn_output.weight", WIDTH, WIDTH, gain=2.0)
        tensor(f"blk.{layer}.ffn_gate.weight", FFN, WIDTH)
        tensor(f"blk.{layer}.ffn_up.weight", FFN, WIDTH)
        tensor(f"blk.{layer}.ffn_down.weight", WIDTH, FFN)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="session")
def write_gguf(tmp_path_factory: pytest.TempPathFactory) -> Write:
    def write(*, scale: float = 3.0, vocabulary: str = "bpe", **metadata: Any) -> Path:
        keys = {key.replace("__", "."): value for key, value in metadata.items()}
        path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
        return write_tiny_gguf(path, metadata=keys, scale=scale, vocabulary=vocabulary)

    return write


@pytest.fixture(scope="session")
def tiny(write_gguf: Write) -> Path:
    return write_gguf()


def request(weights: Path | str, *, options: dict[str, Any] | None = None, **changes: Any) -> LoadRequest:
    """Small limits, and options with which batches of other shapes differ by the rounding of sums only."""
    exact = {"cache_type_k": "f32", "cache_type_v": "f32", "flash_attention": "off"}
    limits: dict[str, Any] = {"context_tokens": 256, "lanes": 8, "running_lanes": 4, **changes}
    return LoadRequest(model="tiny", weights=str(weights), options=exact | (options or {}), **limits)


@pytest.fixture
def load(tiny: Path) -> Iterator[Load]:
    """Loads the tiny model (or `weights`) with some limits changed; unloads at the end."""
    engines: list[LlamaCppEngine] = []

    def make(*, weights: Path | str = tiny, **changes: Any) -> LlamaCppEngine:
        engine = LlamaCppEngine()
        engines.append(engine)
        engine.load(request(weights, **changes), lambda _share: None)
        return engine

    yield make
    for engine in engines:
        engine.unload()


@pytest.fixture
def engine(load: Load) -> LlamaCppEngine:
    return load()
