"""RWKV-4, "Dove": a weighted mean of all values so far, for each channel by itself (arXiv 2305.13048)."""

from collections.abc import Sequence

import torch

from backends.rwkv.eagle import channel_mixed
from backends.rwkv.forward import BatchedForward, Layout, Tensor, Weights


class DoveForward(BatchedForward):
    """A layer's state: the row before for the time mix; numerator, denominator and largest exponent of the mean; the
    row before for the channel mix."""

    parts = 5

    def _time_mix(
        self,
        now: Tensor,
        layout: Layout,
        state: Sequence[Tensor],
        weights: Weights,
        context: dict[str, Tensor],
    ) -> Tensor:
        to_k, to_v, to_r = _mixed(now, layout.shift(now, state[0]), weights, "att", "kvr")
        r = torch.sigmoid(to_r @ weights["att.receptance.weight"])
        k = (to_k @ weights["att.key.weight"]).float()
        v = (to_v @ weights["att.value.weight"]).float()
        first, decay = weights["att.time_first"], weights["att.time_decay"]

        def step(states: Sequence[Tensor], inputs: Sequence[Tensor]) -> Tensor:
            """One token, [lane, width]. Exponents are relative to the largest, so that nothing overflows."""
            (top, bottom, most), (k, v) = states, inputs
            with_first = first + k
            peak = torch.maximum(most, with_first)
            old, new = torch.exp(most - peak), torch.exp(with_first - peak)
            mean = (old * top + new * v) / (old * bottom + new)
            faded = most + decay
            peak = torch.maximum(faded, k)
            old, new = torch.exp(faded - peak), torch.exp(k - peak)
            top.mul_(old).addcmul_(new, v)
            bottom.mul_(old).add_(new)
            most.copy_(peak)
            return mean

        mean = layout.recur(step, state[1:], (k, v))
        return (r * mean.to(now.dtype)) @ weights["att.output.weight"]

    def _channel_mix(self, now: Tensor, before: Tensor, weights: Weights) -> Tensor:
        to_k, to_r = _mixed(now, before, weights, "ffn", "kr")
        return channel_mixed(to_k, to_r, weights)


def _mixed(now: Tensor, before: Tensor, weights: Weights, part: str, names: str) -> list[Tensor]:
    """The rows between `before` and `now`, as each of `names` takes them."""
    return [before + (now - before) * weights[f"{part}.time_mix_{one}"] for one in names]
