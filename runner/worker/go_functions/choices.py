"""Functions of the sprig library that choose between values, or read one from JSON."""

import json
from typing import Any

from runner.worker.go_functions.values import GoError, Struct, text, wrong


def empty(value: Any) -> bool:
    return not isinstance(value, Struct) and not value


def default(fallback: Any, *given: Any) -> Any:
    return given[0] if given and not empty(given[0]) else fallback


def coalesce(*values: Any) -> Any:
    return next((value for value in values if not empty(value)), None)


def ternary(first: Any, second: Any, condition: Any) -> Any:
    if not isinstance(condition, bool):
        wrong("ternary", condition, "true or false")
    return first if condition else second


def from_json(value: Any) -> Any:
    """nil where the text is none."""
    try:
        return json.loads(text("fromJson", value), parse_int=float, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None


def must_from_json(value: Any) -> Any:
    try:
        return json.loads(text("mustFromJson", value), parse_int=float, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise GoError(f"mustFromJson: {error}") from None


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")
