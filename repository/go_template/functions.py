"""The functions that a template may call, and with how many arguments. What they do is in
`runner.worker.go_functions`, which has the same names.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from repository.problem import did_you_mean


class Arity(NamedTuple):
    least: int
    most: int | None


def _table(rows: str) -> Mapping[str, Arity]:
    """Rows of `least most names...`; a most of * is no limit."""
    table: dict[str, Arity] = {}
    for row in filter(str.strip, rows.splitlines()):
        least, most, *names = row.split()
        table |= dict.fromkeys(names, Arity(int(least), None if most == "*" else int(most)))
    return MappingProxyType(table)


FUNCTIONS = _table(
    """
    1 1 not
    1 * and or
    1 1 len
    2 2 ne lt le gt ge
    2 * eq
    1 * index slice
    0 * print println html urlquery
    1 * printf

    1 1 trim upper lower title untitle nospace
    2 2 trimAll trimSuffix trimPrefix contains hasPrefix hasSuffix repeat trunc indent nindent
    2 2 splitList split join
    3 3 substr replace plural splitn
    0 * quote squote cat
    1 1 toString toStrings sortAlpha

    1 2 default
    1 1 empty
    0 * coalesce all any list dict
    3 3 ternary
    1 1 toJson mustToJson toPrettyJson mustToPrettyJson toRawJson mustToRawJson fromJson mustFromJson
    1 1 kindOf typeOf
    2 2 kindIs typeIs

    1 1 int int64 float64 atoi add1 floor ceil
    0 * add mul
    1 * max min
    2 2 sub div mod
    1 1 until
    3 3 untilStep

    1 1 first last rest initial reverse uniq compact
    1 1 mustFirst mustLast mustRest mustInitial mustReverse mustUniq mustCompact
    2 2 append push prepend has mustAppend mustPush mustPrepend mustHas
    0 * concat
    1 * without mustWithout
    2 2 get unset hasKey
    3 3 set
    1 1 values
    0 * keys
    1 * pluck pick omit
    """
)

_INSTEAD: Mapping[str, str] = MappingProxyType(
    {
        "call": "there are no functions among the values of a prompt",
        "now": "write the template in Jinja2, which has strftime_now('%d %B %Y')",
        "date": "write the template in Jinja2, which has strftime_now('%d %B %Y')",
        "currentDate": "write the template in Jinja2, which has strftime_now('%d %B %Y')",
        "env": "a prompt holds nothing of the server's environment; write the text itself",
        "expandenv": "a prompt holds nothing of the server's environment; write the text itself",
        "include": '{{template "name" .}} puts in what a {{define "name"}} of the same text gives',
        "tpl": '{{template "name" .}} puts in what a {{define "name"}} of the same text gives',
        "js": "toJson writes a text as JSON",
        "tojson": "it is written toJson",
        "toYaml": "toJson writes a value as JSON",
        "regexMatch": "use contains, hasPrefix or hasSuffix",
        "mustRegexMatch": "use contains, hasPrefix or hasSuffix",
        "regexFind": "use trimPrefix, trimSuffix or splitList",
        "regexFindAll": "use splitList",
        "regexSplit": "use splitList",
        "regexReplaceAll": "use replace",
        "regexReplaceAllLiteral": "use replace",
        "merge": "use set",
        "mergeOverwrite": "use set",
        "fail": "write the template in Jinja2, which has raise_exception('...')",
        "seq": "use until or untilStep",
        "json": "it is written toJson",
    }
)


def check_call(name: str, arguments: int) -> str:
    """What is wrong with a call, and what to write instead; nothing if it is right."""
    arity = FUNCTIONS.get(name)
    if arity is None:
        instead = _INSTEAD.get(name)
        if instead is not None:
            return f'there is no function "{name}" here: {instead}'
        hint = did_you_mean(name, FUNCTIONS) or f"; if it is a variable, write .{name}"
        return f'there is no function "{name}"{hint}'
    if arguments < arity.least or (arity.most is not None and arguments > arity.most):
        return f'"{name}" takes {_counted(arity)}, not {arguments}; one may come through a pipe'
    return ""


def _counted(arity: Arity) -> str:
    match arity:
        case (least, None):
            return f"{least} arguments or more"
        case (1, 1):
            return "one argument"
        case (least, most) if least == most:
            return f"{least} arguments"
        case (least, most):
            return f"{least} to {most} arguments"
