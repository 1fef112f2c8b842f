"""One step over many lanes: what the generations of RWKV have in common.

A step's tokens lie one behind the other, those of a lane together. Matrices are multiplied with all of them at once;
only the recurrence goes token by token, over all lanes that have as many tokens. The rwkv package computes one
sequence at a time and reads all weights for each, so its own forward serves only where layers are spread or in int8.
"""

import abc
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F  # noqa: N812

from backends.rwkv.states import States

Tensor = Any
Weights = Mapping[str, Tensor]
Step = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]


class Piece(NamedTuple):
    """New tokens of one lane."""

    lane: int
    tokens: Sequence[int]


class Forward(Protocol):
    """Computes pieces of several lanes, no two of them of the same one."""

    def run(self, pieces: Sequence[Piece], states: States, *, every: bool = False) -> Tensor:
        """Go on with the lanes. Logits behind the last token of each piece, or with `every` behind every token of
        all: [piece or token, vocabulary] in float32."""
        ...


class Group(NamedTuple):
    """Neighbouring pieces of equal length: `lanes` picks them out of a state's part, and each of `rows` one token of
    every piece, in order, out of the step's."""

    lanes: slice | Tensor
    rows: Sequence[slice]


class Layout:
    """Where the tokens of a step's pieces are."""

    def __init__(self, pieces: Sequence[Piece], *, device: Any) -> None:
        lengths = [len(piece.tokens) for piece in pieces]
        ends = torch.tensor(lengths).cumsum(0)
        self.tokens = torch.tensor([token for piece in pieces for token in piece.tokens], device=device)
        self.lasts = (ends - 1).to(device)
        self._firsts = (ends - torch.tensor(lengths)).to(device)
        self._lanes = _selector([piece.lane for piece in pieces], device)
        self._is_single = max(lengths) == 1
        self._groups: list[Group] = []
        first = 0
        for length, same in itertools.groupby(pieces, lambda piece: len(piece.tokens)):
            lanes = [piece.lane for piece in same]
            stop = first + length * len(lanes)
            rows = [slice(first + at, stop, length) for at in range(length)]
            self._groups.append(Group(_selector(lanes, device), rows))
            first = stop

    def shift(self, now: Tensor, before: Tensor) -> Tensor:
        """For each row of `now`, [row, width], the one before it in its lane: for a lane's first it is in `before`,
        [lane, width], which then gets the lane's last."""
        stored = before[self._lanes].clone()
        if self._is_single:
            before[self._lanes] = now
            return stored
        shifted = torch.empty_like(now)
        shifted[1:] = now[:-1]
        shifted[self._firsts] = stored
        before[self._lanes] = now[self.lasts]
        return shifted

    def recur(self, step: Step, states: Sequence[Tensor], inputs: Sequence[Tensor]) -> Tensor:
        """`step(states, inputs)` token by token, over all lanes of a group at once. It changes the `states`, [lane,
        ...], in place; inputs and what it gives are [row, ...]."""
        output = torch.empty_like(inputs[0])
        for lanes, tokens in self._groups:
            own = [state[lanes] for state in states]
            for rows in tokens:
                output[rows] = step(own, [one[rows] for one in inputs])
            if not isinstance(lanes, slice):  # these are copies
                for state, one in zip(states, own, strict=True):
                    state[lanes] = one
        return output


class BatchedForward(abc.ABC):
    """`weights` are those that the rwkv package has prepared, all on one device. `halves_every`: after so many layers
    it halves what goes on to the next, so that float16 does not overflow; 0: never."""

    parts: int
    """How many tensors a layer's state has."""

    def __init__(self, weights: Weights, *, layers: int, halves_every: int = 0) -> None:
        self._weights = weights
        self._layers = [self._prepared(_layer(weights, index)) for index in range(layers)]
        self._halves_every = halves_every

    def run(self, pieces: Sequence[Piece], states: States, *, every: bool = False) -> Tensor:
        head = self._weights["head.weight"]
        with torch.inference_mode():
            layout = Layout(pieces, device=head.device)
            embedding = self._weights["emb.weight"]
            x = embedding[layout.tokens.to(embedding.device)].to(head.device)
            context: dict[str, Tensor] = {}
            for index, weights in enumerate(self._layers):
                state = states.parts[self.parts * index : self.parts * (index + 1)]
                now = normed(x, weights, "ln1")
                x = x + self._time_mix(now, layout, state[:-1], weights, context)
                now = normed(x, weights, "ln2")
                x = x + self._channel_mix(now, layout.shift(now, state[-1]), weights)
                if self._halves_every and (index + 1) % self._halves_every == 0:
                    x = x / 2
            x = normed(x if every else x[layout.lasts], self._weights, "ln_out")
            return (x @ head).float()

    def _prepared(self, weights: dict[str, Tensor]) -> Weights:
        """One layer's weights as the mixes take them, by the rest of their names."""
        return weights

    @abc.abstractmethod
    def _time_mix(
        self,
        now: Tensor,
        layout: Layout,
        state: Sequence[Tensor],
        weights: Weights,
        context: dict[str, Tensor],
    ) -> Tensor:
        """What the lanes' past adds to the rows `now`. `context` lives through all layers of a step."""

    @abc.abstractmethod
    def _channel_mix(self, now: Tensor, before: Tensor, weights: Weights) -> Tensor:
        """What the row itself and the one before it add."""


def normed(x: Tensor, weights: Weights, name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])


def head_normed(x: Tensor, weights: Weights) -> Tensor:
    """Each head of [row, head, width] normed by itself, as [row, all heads]."""
    scale, shift = weights["att.ln_x.weight"], weights["att.ln_x.bias"]
    return F.group_norm(x.flatten(1).to(scale.dtype), x.shape[1], scale, shift, HEAD_NORM_EPS)


HEAD_NORM_EPS = 64e-5


def _layer(weights: Weights, index: int) -> dict[str, Tensor]:
    start = f"blocks.{index}."
    return {name.removeprefix(start): one for name, one in weights.items() if name.startswith(start)}


def _selector(lanes: list[int], device: Any) -> slice | Tensor:
    """Neighbours in order are picked by a slice, which copies nothing."""
    if lanes == list(range(lanes[0], lanes[0] + len(lanes))):
        return slice(lanes[0], lanes[0] + len(lanes))
    return torch.tensor(lanes, device=device)
