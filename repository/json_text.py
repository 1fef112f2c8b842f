"""Reads a JSON object that somebody sent, as strictly as the YAML files: no key twice, no depth without end."""

import json
from typing import Any

from repository.document import MAX_DEPTH


def read_json(text: str) -> dict[str, Any]:
    """The object. Raises ValueError with a sentence that says what is wrong."""
    try:
        value: Any = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from None
    _check_depth(value)
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # which JSON can say, and nothing that the values go to
        raise ValueError("a text holds half of a surrogate pair") from None
    match value:
        case dict():
            return value
        case _:
            raise ValueError("not a JSON object")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key, each in pairs:
        if key in value:
            raise ValueError(f'the key "{key}" is given twice')
        value[key] = each
    return value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON number")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for each in level
            if isinstance(each, dict | list)
            for child in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return
    raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
