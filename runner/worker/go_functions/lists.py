"""Functions of the sprig library on lists and maps. Each raises GoError for what it cannot take."""

from typing import Any

from runner.worker.go_functions.choices import empty
from runner.worker.go_functions.printing import formatted
from runner.worker.go_functions.texts import strings
from runner.worker.go_functions.values import Struct, deeply_equal, kind, text, wrong


def first(values: Any) -> Any:
    values = a_list("first", values)
    return values[0] if values else None


def last(values: Any) -> Any:
    values = a_list("last", values)
    return values[-1] if values else None


def rest(values: Any) -> list[Any]:
    return a_list("rest", values)[1:]


def initial(values: Any) -> list[Any]:
    return a_list("initial", values)[:-1]


def reverse(values: Any) -> list[Any]:
    return a_list("reverse", values)[::-1]


def uniq(values: Any) -> list[Any]:
    made: list[Any] = []
    for value in a_list("uniq", values):
        if not has(value, made):
            made.append(value)
    return made


def compact(values: Any) -> list[Any]:
    return [value for value in a_list("compact", values) if not empty(value)]


def append(values: Any, value: Any) -> list[Any]:
    return [*a_list("append", values), value]


def prepend(values: Any, value: Any) -> list[Any]:
    return [value, *a_list("prepend", values)]


def concat(*lists: Any) -> list[Any]:
    return [value for values in lists for value in a_list("concat", values)]


def has(value: Any, values: Any) -> bool:
    return values is not None and any(deeply_equal(value, each) for each in a_list("has", values))


def without(values: Any, *others: Any) -> list[Any]:
    return [value for value in a_list("without", values) if not has(value, list(others))]


def sort_alpha(values: Any) -> list[str]:
    return (
        sorted(strings(values), key=lambda each: each.encode())
        if kind(values) == "slice"
        else strings(values)
    )


def a_list(name: str, value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else wrong(name, value, "a list")


def make_dict(*values: Any) -> dict[str, Any]:
    keys = [formatted(key) if key is not None else "<nil>" for key in values[::2]]
    rest_of_them = [*values[1::2], *([""] if len(values) % 2 else [])]
    return dict(zip(keys, rest_of_them, strict=True))


def get(mapping: Any, key: Any) -> Any:
    return a_map("get", mapping).get(text("get", key), "")


def put(mapping: Any, key: Any, value: Any) -> dict[str, Any]:
    changed = a_map("set", mapping)
    changed[text("set", key)] = value
    return changed


def unset(mapping: Any, key: Any) -> dict[str, Any]:
    changed = a_map("unset", mapping)
    changed.pop(text("unset", key), None)
    return changed


def has_key(mapping: Any, key: Any) -> bool:
    return text("hasKey", key) in a_map("hasKey", mapping)


def keys(*mappings: Any) -> list[str]:
    return [key for mapping in mappings for key in sorted(a_map("keys", mapping))]


def values(mapping: Any) -> list[Any]:
    return [value for _, value in sorted(a_map("values", mapping).items())]


def pluck(key: Any, *mappings: Any) -> list[Any]:
    return [each[text("pluck", key)] for mapping in mappings if key in (each := a_map("pluck", mapping))]


def pick(mapping: Any, *names: Any) -> dict[str, Any]:
    mapping = a_map("pick", mapping)
    return {text("pick", name): mapping[name] for name in names if name in mapping}


def omit(mapping: Any, *names: Any) -> dict[str, Any]:
    return {key: value for key, value in a_map("omit", mapping).items() if key not in names}


def a_map(name: str, value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) and not isinstance(value, Struct) else wrong(name, value, "a map")
