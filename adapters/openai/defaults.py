"""What a model's configuration says of the shape of answers, in a body that does not: how many there are, whether they
come with log-probabilities, whether they repeat the prompt, and how long completions are, for which OpenAI has 16.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

from msgspec.structs import replace

from adapters.openai.schema import ChatRequest, CompletionRequest

Body = TypeVar("Body", ChatRequest, CompletionRequest)


def with_defaults(body: Body, defaults: Mapping[str, Any]) -> Body:
    """The body with those of `n`, `logprobs`, `top_logprobs` and `echo` filled in that are its own to have; itself
    where there is nothing to fill in."""
    found = _for_chat(body, defaults) if isinstance(body, ChatRequest) else _for_completion(body, defaults)
    filled = {name: value for name, value in found.items() if getattr(body, name) is None}
    return replace(body, **filled) if filled else body


def _for_chat(body: ChatRequest, defaults: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"n": defaults["n"]} if "n" in defaults else {}
    told, top = defaults.get("logprobs"), defaults.get("top_logprobs")
    if type(told) is int:
        top = told if top is None else top
    if (told is True or top is not None) and body.logprobs is not False:
        found["logprobs"] = True
        if top is not None:
            found["top_logprobs"] = top
    return found


def _for_completion(body: CompletionRequest, defaults: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: defaults[name] for name in ("echo", "max_tokens") if name in defaults}
    if "n" in defaults and body.best_of is None:
        found["n"] = defaults["n"]
    told, top = defaults.get("logprobs"), defaults.get("top_logprobs")
    if told is True or top is not None:
        found["logprobs"] = top or 0
    elif type(told) is int:
        found["logprobs"] = told
    return found
