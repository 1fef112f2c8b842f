"""Values as a Go template sees them: their kinds, fields, order and items."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import jinja2

INT64 = 2**63


class GoError(ValueError):
    """What Go would call an error while it renders."""


class Struct(dict[str, Any]):
    """A map with the keys that JSON has, whose values have Go's names too: `fields` tells which is which. Unlike a
    map it has no other fields, and it keeps its order in JSON."""

    fields: Mapping[str, str] = {}

    def __missing__(self, name: str) -> Any:
        return self[self.fields[name]]


def plain(value: Any) -> Any:
    """What is not there is nil."""
    return None if isinstance(value, jinja2.Undefined) else value


def kind(value: Any) -> str:
    """The name that Go has for it."""
    match value:
        case None:
            return "invalid"
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float64"
        case str():
            return "string"
        case Struct():
            return "struct"
        case Mapping():
            return "map"
    return "slice"


def type_name(value: Any) -> str:
    """The name of its type in Go."""
    match kind(value):
        case "invalid":
            return "<nil>"
        case "map":
            return "map[string]interface {}"
        case "slice":
            return "[]interface {}"
        case other:
            return other


def wrong(function: str, value: Any, wanted: str) -> NoReturn:
    raise GoError(f"{function}: expected {wanted}, found {kind(value).replace('invalid', 'nil')}")


def field(value: Any, name: str) -> Any:
    """`.name` of a value; nothing has every field, and they are nothing, but nil has none."""
    match value:
        case jinja2.Undefined():
            return value
        case Struct():
            if name not in value.fields:
                raise GoError(f"there is no field {name}; there are {', '.join(value.fields)}")
            return value[value.fields[name]]
        case Mapping():
            return value[name] if name in value else jinja2.Undefined(name=name)
        case None:
            raise GoError(f"nil has no field {name}")
    raise GoError(f"a {kind(value)} has no field {name}")


def items(value: Any) -> list[tuple[Any, Any]]:
    """What `range` goes through: places or keys, in order, with what is there."""
    match value:
        case None:
            return []
        case bool() | str() | float() | Struct():
            raise GoError(f"range cannot go through a {kind(value)}")
        case int():
            return [(i, i) for i in range(value)]
        case Mapping():
            return sorted(value.items())
    return list(enumerate(value))


def index(value: Any, *keys: Any) -> Any:
    """`index value 1 "a"` is `value[1]["a"]`."""
    for key in keys:
        match value:
            case str() | list() | tuple():
                items_of = value.encode() if isinstance(value, str) else value
                if isinstance(key, bool) or not isinstance(key, int):
                    raise GoError(f"index: cannot index a {kind(value)} with a {kind(key)}")
                if not 0 <= key < len(items_of):
                    raise GoError(f"index: {key} is out of range, there are {len(items_of)}")
                value = items_of[key]
            case Mapping() if not isinstance(value, Struct):
                value = value.get(text("index", key))
            case None:
                raise GoError("index of nil")
            case _:
                raise GoError(f"index: a {kind(value)} has no items")
    return value


def cut(value: Any, *bounds: Any) -> Any:
    """`slice value 1 2` is `value[1:2]`, by bytes in a text."""
    if not isinstance(value, str | list | tuple) or len(bounds) > 2:
        wrong("slice", value, "a text or a list, and two places at most")
    whole = value.encode() if isinstance(value, str) else value
    places = [integer("slice", bound) for bound in bounds] or [0]
    start, end = places[0], places[1] if len(places) == 2 else len(whole)
    if not 0 <= start <= end <= len(whole):
        raise GoError(f"slice: {start}:{end} is out of range, there are {len(whole)}")
    part = whole[start:end]
    return part.decode(errors="replace") if isinstance(part, bytes) else part


def length(value: Any) -> int:
    """Of a text in bytes."""
    match value:
        case str():
            return len(value.encode(errors="surrogatepass"))
        case Mapping() | list() | tuple() if not isinstance(value, Struct):
            return len(value)
    wrong("len", value, "a text, a list or a map")


def equals(first: Any, *others: Any) -> bool:
    """Whether the first is equal to one of the others."""
    return any(_is_equal(first, other) for other in others)


def less(first: Any, second: Any) -> bool:
    _check_ordered(first, second)
    return bool(first < second)


def less_or_equal(first: Any, second: Any) -> bool:
    _check_ordered(first, second)
    return bool(first < second) or _is_equal(first, second)


def deeply_equal(first: Any, second: Any) -> bool:
    return type_name(first) == type_name(second) and bool(first == second)


def integer(function: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        wrong(function, value, "a whole number")
    return value


def text(function: str, value: Any) -> str:
    return value if isinstance(value, str) else wrong(function, value, "a text")


def wrapped(number: int) -> int:
    """In 64 bits."""
    return (number + INT64) % (2 * INT64) - INT64


def to_int(value: Any) -> int:
    """As sprig's numbers are read: what is no number is 0."""
    match value:
        case int():
            return wrapped(int(value))
        case float():
            return wrapped(int(value)) if math.isfinite(value) else -INT64
        case str():
            return _parsed(value)
    return 0


def to_float(value: Any) -> float:
    match value:
        case int() | float():
            return float(value)
        case str():
            try:
                return float(value) if value == value.strip() else 0.0
            except ValueError:
                return 0.0
    return 0.0


def leaves(value: Any) -> Iterator[None]:
    """One for each value inside, so that who counts them can stop in time."""
    stack = [value]
    while stack:
        yield
        match stack.pop():
            case Mapping() as mapping:
                stack += mapping.values()
            case list() | tuple() as several:
                stack += several


def _parsed(text: str) -> int:
    try:
        number = int(text, 0) if text == text.strip() and "_" not in text else 0
    except ValueError:
        try:
            number = int(text, 8) if text.isdigit() else 0
        except ValueError:
            return 0
    return number if -INT64 <= number < INT64 else 0


def _is_equal(first: Any, second: Any) -> bool:
    kinds = {kind(first), kind(second)}
    if "invalid" in kinds:
        return first is second is None
    if kinds <= {"int", "float64"} or (len(kinds) == 1 and kinds <= {"bool", "string"}):
        return bool(first == second)
    raise GoError(f"a {kind(first)} cannot be compared with a {kind(second)}")


def _check_ordered(first: Any, second: Any) -> None:
    kinds = {kind(first), kind(second)}
    if not kinds <= {"int", "float64"} and kinds != {"string"}:
        raise GoError(f"a {kind(first)} and a {kind(second)} have no order")
