"""From a request of ours to the fields of openvino-genai's generation config. What it lacks is refused by name."""

import json
import random
from typing import Any

from backends.contract import Constraint, EngineRequest, Sampling, UnsupportedError

MAX_SEED = 2**32 - 1


def config_fields(request: EngineRequest, *, eos_ids: tuple[int, ...]) -> dict[str, Any]:
    """All but the constraint. Raises UnsupportedError for what openvino-genai cannot do."""
    _check(request)
    stops = (*request.stop_token_ids, *(() if request.ignore_eos else eos_ids))
    fields = {
        "max_new_tokens": request.max_tokens,
        "min_new_tokens": request.min_tokens,
        "logprobs": 0 if request.logprobs is None else 1,
        # With its own `ignore_eos` no stop token counts; so that is for requests that have none.
        "ignore_eos": not stops,
        "stop_token_ids": set(stops),
        **_sampling(request.sampling),
    }
    if stops:
        fields["eos_token_id"] = stops[0]  # unset, it would be the model's
    return fields


def constraint_fields(constraint: Constraint) -> dict[str, str]:
    """The field of its structured output config. Raises UnsupportedError for a grammar that it does not read."""
    source = constraint.source
    match constraint.kind:
        case "json_object":
            return {"json_schema": '{"type": "object"}'}
        case "json_schema":
            return {"json_schema": source}
        case "regex":
            return {"regex": source}
        case "choice":
            texts = (json.dumps(text, ensure_ascii=False) for text in json.loads(source))
            return {"grammar": f"root ::= {' | '.join(texts)}"}
        case "gbnf":
            return {"grammar": source}
        case "lark":
            raise UnsupportedError(
                "this model's engine (openvino-genai) reads no Lark grammars; send GBNF, a regular expression or a "
                "JSON Schema"
            )


def _sampling(sampling: Sampling) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "repetition_penalty": sampling.repeat_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "do_sample": sampling.temperature > 0,
    }
    if sampling.temperature == 0:
        return fields
    fields["temperature"] = sampling.temperature
    fields["rng_seed"] = _seed(sampling.seed)
    if sampling.top_p == 0 or sampling.min_p >= 1:
        return {**fields, "top_k": 1}  # only the likeliest is left, which its own limits do not allow
    fields["top_p"] = sampling.top_p
    fields["min_p"] = sampling.min_p
    if sampling.top_k > 0:
        fields["top_k"] = sampling.top_k
    return fields


def _seed(seed: int | None) -> int:
    return random.SystemRandom().randint(0, MAX_SEED) if seed is None else seed & MAX_SEED


def _check(request: EngineRequest) -> None:
    sampling = request.sampling
    window = sampling.repeat_last_n if "repeat_last_n" in request.given else -1
    lacking = (
        (sampling.typical_p != 1, "typical_p"),
        (window != -1 and sampling.repeat_penalty != 1, "a repeat_last_n other than -1"),
        (bool(request.logprobs), "top_logprobs, only the log-probability of the token itself"),
    )
    for is_wanted, words in lacking:
        if is_wanted:
            raise UnsupportedError(f"this model's engine (openvino-genai) cannot do {words}")
