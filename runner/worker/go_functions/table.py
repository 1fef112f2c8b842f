"""The functions by the names that translated templates call, bound to the work that one rendering may do."""

import html
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from runner.worker.go_functions import arithmetic, choices, lists, printing, texts, values
from runner.worker.go_functions.values import GoError, plain

PREFIX = "go_"

MOST_STEPS = 1_000_000
MOST_CHARACTERS = 64_000_000
"""Of one rendering, all together: calls, and the values that they go through; characters that they make."""


class Work:
    """What one rendering has left to do. Its methods raise GoError where that is too much."""

    def __init__(self) -> None:
        self._steps = MOST_STEPS
        self._characters = MOST_CHARACTERS

    def step(self, number: int = 1) -> None:
        self._steps -= number
        if self._steps < 0:
            raise GoError(f"it takes more than {MOST_STEPS} steps")

    def write(self, characters: int) -> None:
        self._characters -= characters
        if self._characters < 0:
            raise GoError(f"it makes more than {MOST_CHARACTERS} characters on its way")


def functions(names: Iterable[str]) -> Mapping[str, Callable[..., Any]]:
    """Those of `names` that are functions here, by these names, for one rendering."""
    work = Work()
    made: dict[str, Callable[..., Any]] = {}
    for name in names:
        function = FUNCTIONS.get(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else None
        if function is not None:
            made[name] = _bound(function, work, is_deep=name.removeprefix(PREFIX) in _DEEP)
    return made


def _bound(function: Callable[..., Any], work: Work, *, is_deep: bool) -> Callable[..., Any]:
    def call(*given: Any) -> Any:
        work.step()
        arguments = given if function is values.field else tuple(map(plain, given))
        for argument in arguments if is_deep else ():
            for _ in values.leaves(argument):
                work.step()
        result = function(*arguments)
        if isinstance(result, Iterator):
            return _counted(result, work)
        if isinstance(result, str):
            work.write(len(result))
        elif isinstance(result, list):
            work.step(len(result))
        return result

    return call


def _counted(items: Iterator[Any], work: Work) -> Iterator[Any]:
    for item in items:
        work.step()
        yield item


def _range(value: Any) -> Iterator[tuple[Any, Any]]:
    if type(value) is int and value > arithmetic.MOST_ITEMS:
        raise GoError(f"range: at most {arithmetic.MOST_ITEMS} numbers")
    return iter(values.items(value))


def _printed_as_text(*given: Any) -> str:
    return given[0] if len(given) == 1 and isinstance(given[0], str) else printing.printed(*given)


def _html(*given: Any) -> str:
    text = html.escape(_printed_as_text(*given))
    return text.replace("&#x27;", "&#39;").replace("&quot;", "&#34;").replace("\0", "\ufffd")


def _url_query(*given: Any) -> str:
    return urllib.parse.quote_plus(_printed_as_text(*given), safe="")


_DEEP = frozenset(
    {"text", "print", "println", "printf", "html", "urlquery", "quote", "squote", "cat", "join", "sortAlpha"}
    | {"toString", "toStrings", "toJson", "toPrettyJson", "toRawJson", "uniq", "has", "without"}
    | {"mustToJson", "mustToPrettyJson", "mustToRawJson", "mustUniq", "mustHas", "mustWithout"}
)
"""Those that go through all that is inside of what they are given."""

_TEXT_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "trim": texts.trim,
    "trimAll": texts.trim_all,
    "trimSuffix": lambda end, value: value.removesuffix(end),
    "trimPrefix": lambda start, value: value.removeprefix(start),
    "upper": str.upper,
    "lower": str.lower,
    "title": texts.title,
    "untitle": texts.untitle,
    "nospace": texts.no_space,
    "contains": lambda part, value: part in value,
    "hasPrefix": lambda start, value: value.startswith(start),
    "hasSuffix": lambda end, value: value.endswith(end),
    "replace": texts.replace,
    "splitList": texts.split_list,
    "split": texts.split,
    "atoi": arithmetic.atoi,
}

_LIST_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "first": lists.first,
    "last": lists.last,
    "rest": lists.rest,
    "initial": lists.initial,
    "reverse": lists.reverse,
    "uniq": lists.uniq,
    "compact": lists.compact,
    "append": lists.append,
    "push": lists.append,
    "prepend": lists.prepend,
    "has": lists.has,
    "without": lists.without,
    "toJson": printing.json_text,
    "toPrettyJson": lambda value: printing.json_text(value, indent="  "),
    "toRawJson": lambda value: printing.json_text(value, escapes_html=False),
}

FUNCTIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "text": printing.shown,
        "step": lambda value: value,
        "field": values.field,
        "range": _range,
        "eq": values.equals,
        "ne": lambda first, second: not values.equals(first, second),
        "lt": values.less,
        "le": values.less_or_equal,
        "gt": lambda first, second: not values.less_or_equal(first, second),
        "ge": lambda first, second: not values.less(first, second),
        "len": values.length,
        "index": values.index,
        "slice": values.cut,
        "print": printing.printed,
        "println": printing.printed_line,
        "printf": printing.formatted_by,
        "html": _html,
        "urlquery": _url_query,
        **{name: texts.of_texts(function, name) for name, function in _TEXT_FUNCTIONS.items()},
        **_LIST_FUNCTIONS,
        **{f"must{name[0].upper()}{name[1:]}": function for name, function in _LIST_FUNCTIONS.items()},
        "repeat": texts.repeat,
        "trunc": texts.trunc,
        "substr": texts.substr,
        "indent": texts.indent,
        "nindent": texts.nindent,
        "plural": texts.plural,
        "splitn": texts.splitn,
        "join": texts.join,
        "quote": texts.quote,
        "squote": texts.single_quote,
        "cat": texts.cat,
        "toString": printing.formatted,
        "toStrings": texts.strings,
        "sortAlpha": lists.sort_alpha,
        "default": choices.default,
        "empty": choices.empty,
        "coalesce": choices.coalesce,
        "all": lambda *given: not any(map(choices.empty, given)),
        "any": lambda *given: not all(map(choices.empty, given)),
        "ternary": choices.ternary,
        "fromJson": choices.from_json,
        "mustFromJson": choices.must_from_json,
        "kindOf": values.kind,
        "typeOf": values.type_name,
        "kindIs": lambda name, value: name == values.kind(value),
        "typeIs": lambda name, value: name == values.type_name(value),
        "int": values.to_int,
        "int64": values.to_int,
        "float64": values.to_float,
        "add1": lambda value: arithmetic.add(value, 1),
        "add": arithmetic.add,
        "mul": arithmetic.multiply,
        "sub": arithmetic.subtract,
        "div": arithmetic.divide,
        "mod": arithmetic.modulo,
        "max": lambda *given: max(map(values.to_int, given)),
        "min": lambda *given: min(map(values.to_int, given)),
        "floor": arithmetic.floor,
        "ceil": arithmetic.ceil,
        "until": arithmetic.until,
        "untilStep": arithmetic.until_step,
        "list": lambda *given: list(given),
        "dict": lists.make_dict,
        "concat": lists.concat,
        "get": lists.get,
        "set": lists.put,
        "unset": lists.unset,
        "hasKey": lists.has_key,
        "keys": lists.keys,
        "values": lists.values,
        "pluck": lists.pluck,
        "pick": lists.pick,
        "omit": lists.omit,
    }
)
