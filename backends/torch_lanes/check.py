"""Whether a model may be computed with rows packed into one forward: tried out, beside the model's own attention.

What a model keeps besides keys and values, or does with attention on its own, shows as other logits than those it
gives to each text alone.
"""

import random
from typing import Any

import msgspec
import torch

from backends.contract import PlanRow
from backends.torch_lanes.layout import place
from backends.torch_lanes.packed import PackedLanes

Tensor = Any

LENGTHS = (11, 7, 4)
"""Tokens of each text that is tried."""

STEPS = ((5, 7, 1), (1, 0, 1), (4, 0, 2), (1, 0, 0))
"""How many tokens of each text a forward has: whole texts, pieces and single tokens beside each other."""

EXACT = 1e-3
ROUGH = 5e-2
"""How far logits may be apart, as a part of their size: in float32, and where numbers are rounded to less."""

LAYER_TYPES = {"full_attention", "sliding_attention"}


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the trial showed. `problem` is why the model cannot be computed packed, or empty; `outputs` how many
    logits it gives; `token_bytes` what a token takes of the lanes, 0 where there is a problem."""

    problem: str = ""
    outputs: int = 0
    token_bytes: int = 0


def try_packed(model: Any, *, vocabulary: int, is_exact: bool) -> Verdict:
    """Compute a few texts both ways. Whatever the model raises for a text alone passes through."""
    texts = _texts(vocabulary)
    alone = [_alone(model, tokens) for tokens in texts]
    outputs = int(alone[0].shape[1])
    layers = getattr(model.config.get_text_config(), "layer_types", None) or ()
    if others := sorted(set(layers) - LAYER_TYPES):
        return Verdict(problem=f"it has layers of {others[0].replace('_', ' ')}", outputs=outputs)
    try:
        lanes = PackedLanes(
            model, count=len(texts), lane_tokens=16, kv_tokens=16 * len(texts), device=model.device
        )
        try:
            together = _together(lanes, texts)
        finally:
            lanes.close()
    except Exception as error:  # whatever a model's own code does with arguments that it does not expect
        return Verdict(problem=_words(error), outputs=outputs)
    problem = _wrong_windows(model, layers, lanes.attention.windows)
    problem = problem or _difference(alone, together, limit=EXACT if is_exact else ROUGH)
    return Verdict(problem=problem, outputs=outputs, token_bytes=0 if problem else lanes.token_bytes)


def _alone(model: Any, tokens: list[int]) -> Tensor:
    return model(input_ids=torch.tensor([tokens], device=model.device), use_cache=False).logits[0].float()


def _together(lanes: PackedLanes, texts: list[list[int]]) -> list[Tensor]:
    found: list[list[Tensor]] = [[] for _ in texts]
    held = [0] * len(texts)
    for sizes in STEPS:
        rows = [
            PlanRow(
                seq=lane,
                lane=lane,
                start=held[lane],
                tokens=texts[lane][held[lane] : held[lane] + size],
                sample=False,
                prompt_logprobs=0,
                next_token=0,
            )
            for lane, size in enumerate(sizes)
            if size
        ]
        placed, outputs = place(rows)
        logits = lanes.compute(rows, outputs).float()
        for one in placed:
            found[one.row.lane].append(logits[one.first : one.first + one.prompt])
            held[one.row.lane] += one.prompt
    return [torch.cat(parts) for parts in found]


def _wrong_windows(model: Any, layers: Any, windows: list[int]) -> str:
    """The texts are too short to show a window: the attention must have been told of it."""
    config = model.config.get_text_config()
    if "sliding_attention" in layers:
        is_told = [bool(window) for window in windows] == [kind == "sliding_attention" for kind in layers]
    elif getattr(config, "sliding_window", None) and not layers:
        is_told = all(windows) or not getattr(config, "use_sliding_window", True)
    else:
        is_told = True
    return "" if is_told else "it does not tell the sliding windows of its layers"


def _difference(alone: list[Tensor], together: list[Tensor], *, limit: float) -> str:
    for one, other in zip(alone, together, strict=True):
        if one.shape != other.shape:
            return f"it gives {tuple(other.shape)} logits instead of {tuple(one.shape)}"
        distance = float((one - other).norm() / one.norm().clamp_min(1e-12))
        if not distance <= limit:  # not a number is a difference too
            return f"its logits would be {distance:.1%} off"
    return ""


def _texts(vocabulary: int) -> list[list[int]]:
    chance = random.Random(7)
    return [[chance.randrange(vocabulary) for _ in range(length)] for length in LENGTHS]


def _words(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
