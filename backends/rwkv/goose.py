"""RWKV-7, "Goose": a state that is edited like a memory (arXiv 2503.14456)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812

from backends.rwkv.forward import BatchedForward, Layout, Tensor, Weights, head_normed

DECAY = -0.606531
"""-exp(-1/2), the logarithm of how much of a state is left after one token at least."""


class GooseForward(BatchedForward):
    """A layer's state: the row before for the time mix, a matrix for each head, the row before for the channel mix."""

    parts = 3

    def _prepared(self, weights: dict[str, Tensor]) -> Weights:
        shares = torch.stack([weights[f"att.x_{one}"] for one in "rwkvag"])[:, None]
        return {**weights, "att.x": shares}

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
        change = layout.shift(now, before) - now
        to_r, to_w, to_k, to_v, to_a, to_g = torch.addcmul(now, change, weights["att.x"])
        r = to_r @ weights["att.receptance.weight"]
        k = to_k @ weights["att.key.weight"]
        v = to_v @ weights["att.value.weight"]
        w = weights["att.w0"] + torch.tanh(to_w @ weights["att.w1"]) @ weights["att.w2"]
        w = torch.exp(DECAY * torch.sigmoid(w.float()))
        a = torch.sigmoid(weights["att.a0"] + (to_a @ weights["att.a1"]) @ weights["att.a2"])
        g = torch.sigmoid(to_g @ weights["att.g1"]) @ weights["att.g2"]
        removed = F.normalize((k * weights["att.k_k"]).view(by_head), dim=-1)
        k = k * (1 + (a - 1) * weights["att.k_a"])
        first_v = context.setdefault("v", v)
        if first_v is not v:
            share = torch.sigmoid(weights["att.v0"] + (to_v @ weights["att.v1"]) @ weights["att.v2"])
            v = v + (first_v - v) * share
        r, w, k, v, a = (one.view(by_head) for one in (r, w, k, v, a))
        inputs = [one.float() for one in (r, w, k, v, -removed, removed * a)]
        y = layout.recur(_edit, [matrix], inputs)
        y = head_normed(y, weights).view(by_head)
        own = (r * k * weights["att.r_k"].view(by_head[1:])).sum(-1, keepdim=True) * v
        return ((y + own).flatten(1).to(now.dtype) * g) @ weights["att.output.weight"]

    def _channel_mix(self, now: Tensor, before: Tensor, weights: Weights) -> Tensor:
        k = now + (before - now) * weights["ffn.x_k"]
        return torch.relu(k @ weights["ffn.key.weight"]) ** 2 @ weights["ffn.value.weight"]


def _edit(states: Sequence[Tensor], inputs: Sequence[Tensor]) -> Tensor:
    """One token: fade the state, [lane, head, value, key], take out what it says for one key, put in what it shall
    say for another; returns what it says for `r`. The inputs are [lane, head, width]."""
    (state,), (r, w, k, v, removed, replaced) = states, inputs
    flat = state.view(-1, *state.shape[2:])
    said = flat @ removed.reshape(-1, removed.shape[-1], 1)
    left = torch.cat((said, v.reshape(said.shape)), -1)
    right = torch.stack((replaced.flatten(0, 1), k.flatten(0, 1)), -2)
    flat.mul_(w.flatten(0, 1)[:, None, :]).baddbmm_(left, right)
    return (state @ r[..., None])[..., 0]
