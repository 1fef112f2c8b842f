"""What exllamav2 uses of flash-attn, in PyTorch."""

import math
from typing import Any

import torch

__version__ = "2.8.3"


def flash_attn_func(  # noqa: PLR0917  (it is called so)
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    causal: bool = False,
    softmax_scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
) -> torch.Tensor:
    """Of shape (sequences, tokens, heads, length)."""
    assert causal
    return torch.stack([_attend(*one, softmax_scale) for one in zip(q, k, v, strict=True)])


def flash_attn_varlen_func(*args: Any, **kwargs: Any) -> None:
    raise NotImplementedError


def flash_attn_with_kvcache(  # noqa: PLR0917
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    k: torch.Tensor | None,
    v: torch.Tensor | None,
    cache_seqlens: torch.Tensor,
    block_table: torch.Tensor,
    causal: bool,
    softmax_scale: float,
) -> torch.Tensor:
    """Caches are of shape (pages, tokens of a page, heads, length); new keys and values are put behind those there."""
    assert causal
    size = k_cache.shape[1]
    outputs = []
    for number, query in enumerate(q):
        length, pages = int(cache_seqlens[number]), block_table[number].long()
        if k is not None and v is not None:
            places = torch.arange(length, length + k.shape[1])
            at = (pages[places // size], places % size)
            k_cache[at], v_cache[at] = k[number], v[number]
            length += k.shape[1]
        used = pages[: math.ceil(length / size)]
        keys, values = (cache[used].flatten(0, 1)[:length] for cache in (k_cache, v_cache))
        outputs.append(_attend(query, keys, values, softmax_scale))
    return torch.stack(outputs)


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float | None) -> torch.Tensor:
    """One sequence whose queries are its last tokens, each of which sees those before it."""
    queries, keys = q.shape[0], k.shape[0]
    wide_k, wide_v = (each.repeat_interleave(q.shape[1] // k.shape[1], 1).float() for each in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q.float(), wide_k) * (scale or q.shape[-1] ** -0.5)
    is_later = torch.ones(queries, keys, dtype=torch.bool).triu(keys - queries + 1)
    shares = scores.masked_fill(is_later, -torch.inf).softmax(-1)
    return torch.einsum("hqk,khd->qhd", shares, wide_v).half()
