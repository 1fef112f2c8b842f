"""RWKV-5 and 6, "Eagle" and "Finch": a matrix for each head that fades and is added to (arXiv 2404.05892)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812

from backends.rwkv.forward import BatchedForward, Layout, Tensor, Weights, head_normed


class EagleForward(BatchedForward):
    """A layer's state: the row before for the time mix, a matrix for each head, the row before for the channel mix."""

    parts = 3

    def _time_mix(
        self,
        now: Tensor,
        layout: Layout,
        state: Sequence[Tensor],
        weights: Weights,
        context: dict[str, Tensor],
    ) -> Tensor:
        before, matrix = state
        by_head = (now.shape[0], *matrix.shape[1:3])
        mixed = self._mixed(now, layout.shift(now, before), weights)
        r = (mixed["r"] @ weights["att.receptance.weight"]).float().view(by_head)
        k = (mixed["k"] @ weights["att.key.weight"]).float().view(by_head)
        v = (mixed["v"] @ weights["att.value.weight"]).float().view(by_head)
        w = self._decay(mixed, weights, by_head)
        y = layout.recur(_add, [matrix], (r, k, v, w))
        first = weights["att.time_first"].view(by_head[1], -1)
        y = head_normed(y + (r * first * k).sum(-1, keepdim=True) * v, weights).to(now.dtype)
        if "g" in mixed:
            y = y * F.silu(mixed["g"] @ weights["att.gate.weight"])
        return y @ weights["att.output.weight"]

    def _mixed(self, now: Tensor, before: Tensor, weights: Weights) -> dict[str, Tensor]:
        """The rows between `now` and `before`, as each part of the time mix takes them."""
        names = [one for one in "kvrg" if f"att.time_mix_{one}" in weights]
        return {one: _between(before, now, weights[f"att.time_mix_{one}"]) for one in names}

    def _decay(self, mixed: dict[str, Tensor], weights: Weights, by_head: tuple[int, ...]) -> Tensor:
        """How much of the state is left after each row, [row, head, width]."""
        return weights["att.time_decay"].view(by_head[1], -1).expand(by_head)

    def _channel_mix(self, now: Tensor, before: Tensor, weights: Weights) -> Tensor:
        to_k = _between(before, now, weights["ffn.time_mix_k"])
        to_r = _between(before, now, weights["ffn.time_mix_r"])
        return channel_mixed(to_k, to_r, weights)


class FinchForward(EagleForward):
    """How much of the row before is taken, and how fast the state fades, depends on the rows."""

    def _mixed(self, now: Tensor, before: Tensor, weights: Weights) -> dict[str, Tensor]:
        change = before - now
        names = "wkvrg"
        low = torch.tanh((now + change * weights["att.time_maa_x"]) @ weights["att.time_maa_w1"])
        low = low.view(now.shape[0], len(names), -1).transpose(0, 1)
        added = torch.bmm(low, weights["att.time_maa_w2"])
        return {
            one: now + change * (weights[f"att.time_maa_{one}"] + extra)
            for one, extra in zip(names, added, strict=True)
        }

    def _decay(self, mixed: dict[str, Tensor], weights: Weights, by_head: tuple[int, ...]) -> Tensor:
        low = torch.tanh(mixed["w"] @ weights["att.time_decay_w1"]) @ weights["att.time_decay_w2"]
        w = weights["att.time_decay"].view(1, *by_head[1:]) + low.float().view(by_head)
        return torch.exp(-torch.exp(w))

    def _channel_mix(self, now: Tensor, before: Tensor, weights: Weights) -> Tensor:
        to_k = _between(now, before, weights["ffn.time_maa_k"])
        to_r = _between(now, before, weights["ffn.time_maa_r"])
        return channel_mixed(to_k, to_r, weights)


def channel_mixed(to_k: Tensor, to_r: Tensor, weights: Weights) -> Tensor:
    k = torch.relu(to_k @ weights["ffn.key.weight"]) ** 2
    return torch.sigmoid(to_r @ weights["ffn.receptance.weight"]) * (k @ weights["ffn.value.weight"])


def _between(zero: Tensor, one: Tensor, share: Tensor) -> Tensor:
    return zero + (one - zero) * share


def _add(states: Sequence[Tensor], inputs: Sequence[Tensor]) -> Tensor:
    """One token: what the state, [lane, head, key, value], says for `r`; then it fades and is added to. The inputs
    are [lane, head, width]."""
    (state,), (r, k, v, w) = states, inputs
    said = (r[:, :, None, :] @ state)[:, :, 0]
    state.mul_(w[..., None]).addcmul_(k[..., None], v[:, :, None, :])
    return said
