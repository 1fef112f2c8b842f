"""From an EngineRequest to the keyword arguments of vLLM's SamplingParams, as plain data; refuses by name what vLLM
cannot do. Imports no vLLM.
"""

import json
import math
from typing import Any

from backends.contract import Constraint, EngineRequest, UnsupportedError

SMALLEST_TOP_P = 1e-6  # vLLM wants more than 0, which means the likeliest token alone
SEEDS = 2**63


def sampling_arguments(request: EngineRequest, *, eos_ids: tuple[int, ...]) -> dict[str, Any]:
    """Arguments of SamplingParams but for `output_kind`, `structured_outputs`. Raises UnsupportedError."""
    sampling = request.sampling
    if sampling.typical_p != 1.0:
        raise UnsupportedError("vLLM has no typical_p; leave it out")
    # Every token that ends this sequence is named, for min_tokens holds back exactly these.
    stops = {*request.stop_token_ids, *(() if request.ignore_eos else eos_ids)}
    return {
        "temperature": sampling.temperature,
        "top_k": max(0, sampling.top_k),
        "top_p": max(SMALLEST_TOP_P, sampling.top_p),
        "min_p": sampling.min_p,
        "repetition_penalty": _repetition_penalty(request),
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "seed": None if sampling.seed is None else sampling.seed % SEEDS,
        "logit_bias": dict(sampling.logit_bias) or None,
        "stop_token_ids": sorted(stops),
        "ignore_eos": True,
        "max_tokens": max(1, request.max_tokens),  # 0 wants the prompt's log-probabilities alone
        "min_tokens": min(request.min_tokens, max(1, request.max_tokens)),
        "logprobs": request.logprobs,
        "prompt_logprobs": request.prompt_logprobs,
        "detokenize": False,
    }


def constraint_arguments(constraint: Constraint) -> dict[str, Any]:
    """Arguments of StructuredOutputsParams."""
    source = constraint.source
    match constraint.kind:
        case "json_object":
            return {"json_object": True}
        case "json_schema":
            return {"json": source}
        case "regex":
            return {"regex": source}
        case "choice":
            return {"choice": json.loads(source)}
        case "gbnf" | "lark":
            return {"grammar": source}


def _repetition_penalty(request: EngineRequest) -> float:
    """vLLM counts the whole prompt and output, whatever their length."""
    sampling = request.sampling
    if sampling.repeat_last_n == 0:
        return 1.0
    is_windowed = "repeat_last_n" in request.given and sampling.repeat_last_n > 0
    if is_windowed and not math.isclose(sampling.repeat_penalty, 1.0):
        raise UnsupportedError(
            f"vLLM's repeat_penalty counts the whole text, not the last {sampling.repeat_last_n} tokens; "
            "leave repeat_last_n out or set it to -1"
        )
    return sampling.repeat_penalty
