"""`python random_rwkv.py FILE LAYERS WIDTH VOCABULARY`: an RWKV-7 checkpoint of random weights. Runs in the
environment of the engine, which has torch."""

import sys
from pathlib import Path
from typing import Any

HEAD = 64
RANK = 64


def write(path: Path, *, layers: int, width: int, vocabulary: int) -> None:
    """The same sizes give the same weights."""
    import torch

    random = torch.Generator().manual_seed(0)

    def matrix(rows: int, columns: int) -> Any:
        # A spread of 1/sqrt(columns) keeps every product near 1, so nothing overflows at any depth.
        return torch.randn(rows, columns, generator=random) / columns**0.5

    def row(low: float, high: float) -> Any:
        return torch.rand(1, 1, width, generator=random) * (high - low) + low

    def norm(name: str) -> dict[str, Any]:
        return {f"{name}.weight": torch.ones(width), f"{name}.bias": torch.zeros(width)}

    weights = {"emb.weight": matrix(vocabulary, width), **norm("blocks.0.ln0")}
    for layer in range(layers):
        att, ffn = f"blocks.{layer}.att", f"blocks.{layer}.ffn"
        weights |= {**norm(f"blocks.{layer}.ln1"), **norm(f"blocks.{layer}.ln2"), **norm(f"{att}.ln_x")}
        weights |= {f"{att}.x_{one}": row(0, 1) for one in "rwkvag"}
        weights |= {f"{att}.{one}0": row(-4, 1) if one == "w" else row(-1, 1) for one in "wav"}
        weights |= {f"{att}.{one}1": matrix(width, RANK) for one in "wavg"}
        weights |= {f"{att}.{one}2": matrix(RANK, width) for one in "wavg"}
        weights |= {f"{att}.k_k": row(0.5, 1), f"{att}.k_a": row(0.5, 1)}
        weights[f"{att}.r_k"] = torch.zeros(width // HEAD, HEAD)
        weights |= {
            f"{att}.{one}.weight": matrix(width, width) for one in ("receptance", "key", "value", "output")
        }
        weights |= {f"{ffn}.x_k": row(0, 1)}
        weights |= {f"{ffn}.key.weight": matrix(4 * width, width)}
        weights |= {f"{ffn}.value.weight": matrix(width, 4 * width)}
    head = matrix(vocabulary, width)
    head[: 1 + 256] = 0  # the end and single bytes never win over thousands of random ones
    torch.save({**weights, **norm("ln_out"), "head.weight": head}, path)


if __name__ == "__main__":
    sizes = [int(word) for word in sys.argv[2:]]
    write(Path(sys.argv[1]), layers=sizes[0], width=sizes[1], vocabulary=sizes[2])
