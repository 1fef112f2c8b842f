"""Attention over lanes, in place of a transformers model's own: every packed row sees its own lane and no other.

The model hands over queries, keys and values of all rows at once. Keys and values go to the lanes' storage first;
then each row's queries are computed against what its lane holds, whatever the model asks for honoured: scaling,
sliding window, soft cap, sinks, shared key heads.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from backends.contract import UnsupportedError
from backends.torch_lanes.layout import Layout, Piece
from backends.torch_lanes.storage import BlockStorage, Storage

Tensor = Any


class LaneAttention:
    """What transformers calls once in every layer, in their order. `layout` says what the forward is made of."""

    def __init__(self, storage: Storage) -> None:
        self.windows: list[int] = []
        """The sliding window that each layer of the last forward asked for, 0 for none."""
        self._storage = storage
        self._layout: Layout | None = None
        self._slots: Tensor = None
        self._together: Together | None = None

    def begin(self, layout: Layout, *, kept: bool) -> None:
        """A forward of `layout` follows. `kept`: its keys and values go to the lanes."""
        self.windows = []
        self._layout = layout
        self._slots = self._together = None
        if not kept:
            return
        places = [(one.lane, one.start, one.stop) for one in layout.pieces if one.lane is not None]
        self._slots = self._storage.slots(places)
        if isinstance(self._storage, BlockStorage) and len(layout.singles) > 1:
            self._together = Together(self._storage, layout.singles, device=self._slots.device)

    def __call__(
        self,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor,
        *,
        scaling: float | None = None,
        sliding_window: int | None = None,
        softcap: float | None = None,
        s_aux: Tensor | None = None,
        position_bias: Tensor | None = None,
        **_others: Any,
    ) -> tuple[Tensor, None]:
        """`query` [1, head, token, width], `key` and `value` [1, key head, token, width]; gives [1, token, head,
        width]."""
        layout = self._layout
        if layout is None or query.shape[0] != 1 or query.shape[2] != layout.num_tokens:
            raise UnsupportedError("this model computes attention over other tokens than those it was given")
        if position_bias is not None:
            raise UnsupportedError("this model adds a bias of its own to attention")
        layer = len(self.windows)
        window = sliding_window or 0
        self.windows.append(window)
        queries = query[0].transpose(0, 1)
        keys, values = key[0].transpose(0, 1), value[0].transpose(0, 1)
        if self._slots is not None:
            self._storage.write(layer, self._slots, keys, values)
        given = query.new_empty((layout.num_tokens, query.shape[1], value.shape[3]))
        head = Head(query.shape[3] ** -0.5 if scaling is None else scaling, window, softcap, s_aux)
        if self._together is not None:
            self._together.attend(layer, queries, given, head)
        else:
            for piece in layout.singles:
                own_keys, own_values, _ = self._seen(layer, piece, keys, values, head)
                given[piece.at] = _attend_one(queries[piece.at], own_keys, own_values, head)
        for piece in layout.chunks:
            own_keys, own_values, first = self._seen(layer, piece, keys, values, head)
            is_plain = first == piece.start and (not window or piece.count <= window)
            mask = None
            if not is_plain or head.is_special:
                mask = layout.mask(piece, first, window, query.dtype)
            part = slice(piece.at, piece.at + piece.count)
            _attend_many(queries[part], own_keys, own_values, head=head, mask=mask, given=given[part])
        return given[None], None

    def _seen(
        self, layer: int, piece: Piece, keys: Tensor, values: Tensor, head: "Head"
    ) -> tuple[Tensor, Tensor, int]:
        """Keys and values that some token of the piece may see, and the position they begin at."""
        if self._slots is None or piece.lane is None:
            part = slice(piece.at, piece.at + piece.count)
            return keys[part], values[part], piece.start
        first = max(0, piece.start - head.window + 1) if head.window else 0
        return *self._storage.read(layer, piece.lane, first, piece.stop), first


class Together:
    """All single tokens of a forward in one go, each lane filled up to the longest: few calls, which a GPU needs. In
    main memory a call for each is as quick, and copies nothing."""

    def __init__(self, storage: BlockStorage, singles: Sequence[Piece], *, device: Any) -> None:
        self._storage = storage
        self._table = storage.table(
            [one.lane for one in singles if one.lane is not None], max(one.stop for one in singles)
        )
        self._at = torch.tensor([one.at for one in singles], device=device)
        self._ends = torch.tensor([one.stop for one in singles], device=device)[:, None]
        self._masks: dict[int, Tensor] = {}

    def attend(self, layer: int, queries: Tensor, given: Tensor, head: "Head") -> None:
        """The single ones of `queries` into their places in `given`, [token, head, width] both."""
        keys, values = self._storage.read_all(layer, self._table)  # [row, position, key head, width]
        rows, heads, width = len(self._at), queries.shape[1], queries.shape[2]
        grouped = queries[self._at].view(rows, keys.shape[2], heads // keys.shape[2], width)
        mask = self._mask(head.window, queries.dtype)
        outcome = _weigh(grouped, keys.transpose(1, 2), values.transpose(1, 2), head, mask)
        given[self._at] = outcome.reshape(rows, heads, values.shape[3])

    def _mask(self, window: int, dtype: Any) -> Tensor:
        """0 where a row may look, [row, 1, 1, position]; made once for all layers with that window."""
        known = self._masks.get(window)
        if known is None:
            positions = torch.arange(self._table.shape[1], device=self._table.device)[None, :]
            hidden = positions >= self._ends
            if window:
                hidden |= positions < self._ends - window
            known = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
            known = known.masked_fill_(hidden, -torch.inf)[:, None, None, :]
            self._masks[window] = known
        return known


class Head:
    """What a layer asks of its attention."""

    __slots__ = ("is_special", "scaling", "sinks", "softcap", "window")

    def __init__(self, scaling: float, window: int, softcap: float | None, sinks: Tensor | None) -> None:
        self.scaling = scaling
        self.window = window
        self.softcap = softcap
        self.sinks = sinks
        self.is_special = softcap is not None or sinks is not None
        """PyTorch has no kernel for it."""


def _attend_one(query: Tensor, keys: Tensor, values: Tensor, head: Head) -> Tensor:
    """One token, which sees all of `keys`. The heads that share a key are its queries: no key is copied."""
    key_heads = keys.shape[1]
    grouped = query.view(1, key_heads, query.shape[0] // key_heads, query.shape[1])
    outcome = _weigh(grouped, keys.transpose(0, 1)[None], values.transpose(0, 1)[None], head, None)
    return outcome.reshape(query.shape[0], values.shape[2])


def _attend_many(
    queries: Tensor, keys: Tensor, values: Tensor, *, head: Head, mask: Tensor | None, given: Tensor
) -> None:
    """Several tokens of a lane, of which each sees those before it, or what `mask` says. [token, head, width] each;
    the outcome goes to `given`."""
    tokens, heads, width = queries.shape
    key_heads = keys.shape[1]
    shared = heads // key_heads
    # Key heads stand where a batch would, so that the heads that share them need no copies of them.
    grouped = queries.view(tokens, key_heads, shared, width).permute(1, 2, 0, 3)
    own_keys = keys.transpose(0, 1)[:, None].expand(key_heads, shared, keys.shape[0], width)
    own_values = values.transpose(0, 1)[:, None].expand(key_heads, shared, values.shape[0], values.shape[2])
    if head.is_special:
        outcome = _weigh_plainly(grouped, own_keys, own_values, head, mask)
    else:
        outcome = scaled_dot_product_attention(
            grouped, own_keys, own_values, attn_mask=mask, is_causal=mask is None, scale=head.scaling
        )
    given.view(tokens, key_heads, shared, values.shape[2]).copy_(outcome.permute(2, 0, 1, 3))


def _weigh(query: Tensor, keys: Tensor, values: Tensor, head: Head, mask: Tensor | None) -> Tensor:
    """[row, key head, query, width] each; the queries of a key head are the heads that share it."""
    if head.is_special:
        return _weigh_plainly(query, keys, values, head, mask, are_heads=True)
    return scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=head.scaling)


def _weigh_plainly(
    query: Tensor, keys: Tensor, values: Tensor, head: Head, mask: Tensor | None, *, are_heads: bool = False
) -> Tensor:
    """Attention in single operations. Heads are the first two axes of a chunk, or `are_heads` the middle two."""
    scores = torch.matmul(query, keys.transpose(-1, -2)).float() * head.scaling
    if head.softcap is not None:
        scores = torch.tanh(scores / head.softcap) * head.softcap
    if mask is not None:
        scores = scores + mask
    if head.sinks is None:
        weights = torch.softmax(scores, dim=-1)
    else:
        # A sink is one more thing to look at, which gives nothing.
        axes = (1, query.shape[1], query.shape[2], 1) if are_heads else (*query.shape[:2], 1, 1)
        sinks = head.sinks.float().reshape(axes).expand(*scores.shape[:-1], 1)
        weights = torch.softmax(torch.cat([scores, sinks], dim=-1), dim=-1)[..., :-1]
    return torch.matmul(weights.to(values.dtype), values)
