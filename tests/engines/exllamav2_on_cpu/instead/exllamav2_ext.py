"""What the FP16 path uses of exllamav2's compiled extension, in PyTorch. Whatever else is called fails by its name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def rms_norm(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, epsilon: float) -> None:
    wide = x.float()
    scaled = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
    out.copy_((scaled * weight.float()).to(out.dtype))


def rope_(  # noqa: PLR0917  (it is called so)
    x: torch.Tensor,
    sin: torch.Tensor,
    cos: torch.Tensor,
    past: int,
    heads: int,
    length: int,
    offsets: torch.Tensor,
    is_neox: bool,
) -> None:
    """In place. `offsets` adds to `past` for each sequence, unless it is the meta tensor that stands for none."""
    assert is_neox
    rows = x.view(x.shape[0], -1, heads, length)
    half = length // 2
    for number, row in enumerate(rows):
        start = past if offsets.device.type == "meta" else past + int(offsets[number])
        turn = slice(start, start + row.shape[0])
        wide = row.float()
        turned = torch.cat((-wide[..., half:], wide[..., :half]), -1)
        row.copy_(wide * cos[0, 0, turn].float()[:, None] + turned * sin[0, 0, turn].float()[:, None])


def stloader_read(path: str, start: int, size: int, tensor: torch.Tensor) -> None:
    with Path(path).open("rb") as file:
        file.seek(start)
        data = bytearray(file.read(size))
    tensor.copy_(torch.frombuffer(data, dtype=tensor.dtype).view(tensor.shape))


def count_match(one: torch.Tensor, other: torch.Tensor, most: int) -> int:
    """How many of the first tokens are the same."""
    length = min(one.shape[-1], other.shape[-1], int(most))
    differing = (one[0, :length] != other[0, :length]).nonzero()
    return int(differing[0]) if len(differing) else length


def cache_rotate(pages: torch.Tensor, order: torch.Tensor, spare: torch.Tensor) -> None:
    """Each page of `order` takes the place of the one before it, the first that of the last."""
    places = order.tolist()
    pages[places] = pages[[*places[1:], places[0]]]


def __getattr__(name: str) -> Callable[..., Any]:
    def missing(*args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(f"{name} of exllamav2's extension has nothing that stands in for it")

    return missing
