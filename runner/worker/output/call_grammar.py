"""The grammar of tool calls that must be made, or must fit where they are: Lark in llguidance's dialect, with JSON
Schemas for the arguments.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from runner.worker.output.parameters import types_of
from runner.worker.output.tool_formats import ToolFormat

_PARTS = re.compile(r"(\[[A-Z_]+\]|<[^<>\s]+>|NAME|INDEX|ARGUMENTS|KEY|VALUE|\n)")
_PLAIN = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_ANYTHING = {"type": "object", "additionalProperties": True, "x-guidance": _PLAIN}
_BLANK = r"BLANK: /[ \t\r\n]{0,8}/"

Symbol = Callable[[str], str]


def call_grammar(
    format: ToolFormat, functions: Sequence[Mapping[str, Any]], *, parallel: bool, symbol: Symbol
) -> str:
    """One call of any of `functions` (`name`, and `parameters` as a JSON Schema), or with `parallel` several.

    `symbol` gives a text as an operand of Lark, which for a control token is not its letters.
    """
    begin = _rule(format.written.begin, symbol)
    lines = [f"start: {begin} {_calls(format, 'call', parallel=parallel, symbol=symbol)}"]
    lines += _alternatives("call", [_call(format, i, one, symbol) for i, one in enumerate(functions)])
    for i, function in enumerate(functions):
        lines += _arguments(format, i, arguments_schema(function.get("parameters")), symbol)
    return "\n".join(lines) + "\n"


def lazy_call_grammar(
    format: ToolFormat,
    functions: Sequence[Mapping[str, Any]],
    *,
    strict: Collection[str],
    parallel: bool,
    symbol: Symbol,
    thinks: str = "",
) -> str:
    """Any text, with calls as `call_grammar` has them behind it or not: what begins as a call must be one. The
    arguments of tools that are not `strict` are any object. `thinks`: what begins reasoning, which is read before and
    is no beginning of the text."""
    written = format.written
    whole = [_call(format, i, one, symbol) for i, one in enumerate(functions)]
    lines, first = _alternatives("call", whole), "call"
    mark, *begin = _symbols(written.begin or written.call, {}, symbol)
    if not written.begin:
        begin = []
        if not format.bare:  # the mark is a part of each call
            first = "first"
            lines += _alternatives("first", [one.removeprefix(mark) for one in whole])
    text = "/(?s:.*)/"
    if thinks and not (tag := symbol(thinks)).startswith("<"):
        text += rf" & ~(/[ \t\r\n]*/ {tag} /(?s:.*)/)"
    if format.bare:
        lead = "BLANK"
        lines += [_BLANK, rf"TEXT: {text} & ~/[ \t\r\n]*\{{(?s:.*)/"]
    elif mark.startswith("<"):
        lead = f"TEXT {mark}"  # a control token is no part of any text
        lines.append(f"TEXT: {text}")
    else:
        lead = "lead"
        lines += [
            f"lead[suffix={mark}]: LEAD",
            f"LEAD: {text}",
            f"TEXT: LEAD & ~(/(?s:.*)/ {mark} /(?s:.*)/)",
        ]
    calls = _calls(format, first, parallel=parallel, symbol=symbol)
    lines.insert(0, f"start: TEXT | {lead} {' '.join(begin)} {calls}")
    for i, function in enumerate(functions):
        is_bound = function["name"] in strict
        schema = arguments_schema(function.get("parameters")) if is_bound else None
        lines += _arguments(format, i, schema, symbol)
    return "\n".join(lines) + "\n"


def arguments_schema(parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """The schema for what a call must write: an object that has nothing but what `parameters` speaks of."""
    schema = {"type": "object", **(parameters or {}), "x-guidance": _PLAIN}
    if schema.keys() <= {"type", "properties", "required", "description", "title", "x-guidance"}:
        schema["additionalProperties"] = False
    return schema


def _calls(format: ToolFormat, first: str, *, parallel: bool, symbol: Symbol) -> str:
    """`first`, and what may follow it up to the end of all calls."""
    between = _rule(format.written.between, symbol)
    more = f" ({between} call)*" if between else " call*"
    return f"{first}{more if parallel else ''} {_rule(format.written.end, symbol)}"


def _call(format: ToolFormat, number: int, function: Mapping[str, Any], symbol: Symbol) -> str:
    values = {"NAME": function["name"], "INDEX": "/[0-9]{1,3}/", "ARGUMENTS": f"arguments_{number}"}
    return _rule(format.written.call, symbol, values)


def _alternatives(name: str, rules: Sequence[str]) -> list[str]:
    numbered = [f"{name}_{i}: {rule}" for i, rule in enumerate(rules)]
    return [f"{name}: " + " | ".join(f"{name}_{i}" for i in range(len(rules))), *numbered]


def _arguments(
    format: ToolFormat, number: int, schema: Mapping[str, Any] | None, symbol: Symbol
) -> Iterator[str]:
    """The rules of a call's arguments; any object is fine where `schema` is None."""
    name, marks = f"arguments_{number}", format.parameters
    if marks is None:
        yield f"{name}: %json {json.dumps(_ANYTHING if schema is None else schema)}"
        return
    end = marks.pad + marks.close
    lead, _, rest = marks.written.partition("VALUE")
    behind = _rule(rest.removeprefix(end), symbol)
    if schema is None:
        before, _, after = lead.partition("KEY")
        yield f"{name}: any_{number}*"
        yield f"any_{number}: {_rule(before, symbol)} /[^<>\\n]+/ {_rule(after, symbol)} text_{number} {behind}"
        yield _text(f"text_{number}", end, symbol)
        return
    properties, required = schema.get("properties") or {}, schema.get("required") or ()
    order = [f"{name}_{j}{'' if key in required else '?'}" for j, key in enumerate(properties)]
    yield f"{name}: {' '.join(order)}"
    defs = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    for j, (key, kind) in enumerate(properties.items()):
        keyed = _rule(lead, symbol, {"KEY": key})
        if types_of(kind) != {"string"}:
            value = "%json " + json.dumps({**kind, **defs, "x-guidance": _PLAIN})
        elif choices := [one for one in (*kind.get("enum", ()), kind.get("const")) if isinstance(one, str)]:
            value = " | ".join(map(json.dumps, choices))
        else:
            yield f"{name}_{j}: {keyed} text_{number}_{j} {behind}"
            yield _text(f"text_{number}_{j}", end, symbol)
            continue
        yield f"{name}_{j}: {keyed} value_{number}_{j} {_rule(rest, symbol)}"
        yield f"value_{number}_{j}: {value}"


def _text(name: str, end: str, symbol: Symbol) -> str:
    """A rule for any text up to `end`, and that."""
    mark = symbol(end)
    # A control token is no part of any text; plain letters must be told apart from the text before them.
    return f"{name}: /(?s:.*)/ {mark}" if mark.startswith("<") else f"{name}[suffix={mark}]: /(?s:.*)/"


def _rule(text: str, symbol: Symbol, values: Mapping[str, str] | None = None) -> str:
    return " ".join(_symbols(text, values or {}, symbol))


def _symbols(text: str, values: Mapping[str, str], symbol: Symbol) -> Iterator[str]:
    """`text` as operands. In `values` stand texts for NAME and KEY, and operands for the rest."""
    for part in filter(None, _PARTS.split(text)):
        if part in ("NAME", "KEY") and part in values:
            yield json.dumps(values[part])
        elif part in values:
            yield values[part]
        elif part == "\n":
            yield '"\\n"?'
        else:
            for name in ("NAME", "KEY"):
                part = part.replace(name, values.get(name, name)) if part.startswith("<") else part
            yield symbol(part)
