"""RWKV checkpoints of seeded random weights, one for each generation, and a tokenizer of single bytes for them."""

from collections.abc import Mapping
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from backends.pieces import byte_letters

VERSIONS = ("4", "5.0", "5.1", "5.2", "6", "7")
HEAD = 64
RANK = 32
BYTES_SIZE = 320
WORLD_SIZE = 65_536

Shapes = dict[str, tuple[int, ...]]


def write_rwkv(
    path: Path,
    version: str,
    *,
    width: int = 128,
    layers: int = 3,
    vocabulary: int = BYTES_SIZE,
    dtype: torch.dtype = torch.float32,
    seed: int = 5,
) -> Path:
    """A checkpoint, and beside it a tokenizer unless `vocabulary` is that of the World models. Its distributions are
    peaked, so that rounding does not change the likeliest token."""
    random = torch.Generator().manual_seed(seed)
    tensors = {
        name: _values(name, shape, random).to(dtype)
        for name, shape in _shapes(version, width=width, layers=layers, vocabulary=vocabulary).items()
    }
    torch.save(tensors, path)
    if vocabulary != WORLD_SIZE:
        byte_tokenizer().save(str(path.with_suffix(".tokenizer.json")))
    return path


def byte_tokenizer() -> Tokenizer:
    """Id 0 ends a text; ids 1 to 256 are the bytes."""
    letters = {letter: 1 + byte for letter, byte in byte_letters().items()}
    tokenizer = Tokenizer(models.BPE(vocab={"<|endoftext|>": 0, **letters}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>", special=True)])
    return tokenizer


def _shapes(version: str, *, width: int, layers: int, vocabulary: int) -> Shapes:
    block = {
        **{f"{norm}.{part}": (width,) for norm in ("ln1", "ln2") for part in ("weight", "bias")},
        **{f"att.{name}": shape for name, shape in _att(version, width).items()},
        **{f"ffn.{name}": shape for name, shape in _ffn(version, width).items()},
    }
    return {
        "emb.weight": (vocabulary, width),
        "blocks.0.ln0.weight": (width,),
        "blocks.0.ln0.bias": (width,),
        **{f"blocks.{layer}.{name}": shape for layer in range(layers) for name, shape in block.items()},
        "ln_out.weight": (width,),
        "ln_out.bias": (width,),
        "head.weight": (vocabulary, width),
    }


def _att(version: str, width: int) -> Shapes:
    heads = width // HEAD
    row: tuple[int, ...] = (1, 1, width)
    shapes: Shapes = {f"{name}.weight": (width, width) for name in ("receptance", "key", "value", "output")}
    if version != "4":
        shapes |= {"ln_x.weight": (width,), "ln_x.bias": (width,)}
    if version in ("5.1", "5.2", "6"):
        shapes["gate.weight"] = (width, width)
    mixes = {"4": "kvr", "5.0": "kvr", "5.1": "kvrg", "5.2": "kvrg"}.get(version, "")
    shapes |= {f"time_mix_{one}": row for one in mixes}
    match version:
        case "4":
            shapes |= {"time_decay": (width,), "time_first": (width,)}
        case "5.0" | "5.1":
            shapes |= {"time_decay": (heads,), "time_first": (heads,)}
        case "5.2":
            shapes |= {"time_decay": (heads, HEAD), "time_faaaa": (heads, HEAD)}
        case "6":
            shapes |= {f"time_maa_{one}": row for one in "xwkvrg"}
            shapes |= {"time_maa_w1": (width, 5 * RANK), "time_maa_w2": (5, RANK, width)}
            shapes |= {"time_decay_w1": (width, RANK), "time_decay_w2": (RANK, width)}
            shapes |= {"time_decay": row, "time_faaaa": (heads, HEAD)}
        case "7":
            shapes |= {f"x_{one}": row for one in "rwkvag"}
            shapes |= {f"{one}0": row for one in "wav"}
            shapes |= {f"{one}1": (width, RANK) for one in "wavg"}
            shapes |= {f"{one}2": (RANK, width) for one in "wavg"}
            shapes |= {"k_k": row, "k_a": row, "r_k": (heads, HEAD)}
    return shapes


def _ffn(version: str, width: int) -> Shapes:
    inner = 4 * width
    shapes: Shapes = {"key.weight": (inner, width), "value.weight": (width, inner)}
    row = (1, 1, width)
    match version:
        case "7":
            return {**shapes, "x_k": row}
        case "6":
            return {**shapes, "receptance.weight": (width, width), "time_maa_k": row, "time_maa_r": row}
    return {**shapes, "receptance.weight": (width, width), "time_mix_k": row, "time_mix_r": row}


_RANGES: Mapping[str, tuple[float, float]] = {
    "time_mix": (0, 1),
    "time_maa": (0, 1),
    "x_": (0, 1),
    "time_decay": (-4, 1),
    "time_first": (-1, 1),
    "time_faaaa": (-1, 1),
    "w0": (-4, 1),
    "k_a": (0.5, 1),
    "k_k": (0.5, 1),
    "r_k": (-0.1, 0.1),
}


def _values(name: str, shape: tuple[int, ...], random: torch.Generator) -> torch.Tensor:
    last = name.rpartition(".")[2]
    if ".ln" in name or name.startswith("ln_"):
        return torch.full(shape, float(last == "weight"))
    own = name.removesuffix(".weight").rpartition(".")[2]
    found = next((limits for head, limits in _RANGES.items() if own.startswith(head)), None)
    if found is not None and not own.endswith(("w1", "w2")):
        low, high = found
        return torch.rand(shape, generator=random) * (high - low) + low
    gain = 8.0 if name in ("emb.weight", "head.weight") else 1.0
    return torch.randn(shape, generator=random) * gain / shape[-1] ** 0.5
