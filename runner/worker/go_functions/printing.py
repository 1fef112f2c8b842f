"""Values as text: how Go prints them, formats them and writes them as JSON."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from runner.worker.go_functions.values import GoError, Struct, kind, type_name

PRIVATE_USE = range(0xF0000, 0xFFFFE)
"""Characters that stand for control tokens while a template is rendered: written as they are."""

_MOST_WIDTH = 10_000
_VERB = re.compile(r"%([-+# 0]*)(\d+|\*)?(?:\.(\d+|\*)?)?([^\d])", re.DOTALL)
_SHORT_ESCAPES = {"\a": "a", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t", "\v": "v"}
_HTML = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def shown(value: Any) -> str:
    """What an action prints."""
    return "<no value>" if value is None else formatted(value)


def formatted(value: Any) -> str:
    """What `%v` prints."""
    match value:
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case float():
            return float_text(value, exponents=(-4, 6))
        case Struct():
            return "{" + " ".join(formatted(value[value.fields[name]]) for name in value.fields) + "}"
        case Mapping():
            return "map[" + " ".join(f"{key}:{formatted(each)}" for key, each in sorted(value.items())) + "]"
        case list() | tuple():
            return "[" + " ".join(map(formatted, value)) + "]"
    return str(value)


def printed(*values: Any) -> str:
    """All in a row, with a space between two of which neither is a text."""
    parts: list[str] = []
    for i, value in enumerate(values):
        if i and not isinstance(value, str) and not isinstance(values[i - 1], str):
            parts.append(" ")
        parts.append(formatted(value))
    return "".join(parts)


def printed_line(*values: Any) -> str:
    return " ".join(map(formatted, values)) + "\n"


def formatted_by(pattern: Any, *values: Any) -> str:
    """`printf`."""
    if not isinstance(pattern, str):
        raise GoError(f"printf: expected a text first, found {kind(pattern)}")
    given = list(values)
    used = 0

    def replaced(match: re.Match[str]) -> str:
        nonlocal used
        flags, width, precision, verb = match.groups()
        if verb == "%":
            return "%"
        has_precision = "." in match.group()
        if width == "*" or precision == "*":
            raise GoError('printf: "*" is not supported; write the number itself')
        if max(int(width or 0), int(precision or 0)) > _MOST_WIDTH:
            raise GoError(f"printf: a width is at most {_MOST_WIDTH}")
        if used >= len(given):
            return f"%!{verb}(MISSING)"
        value = given[used]
        used += 1
        text = _formatted(verb, value, flags, int(precision or 0) if has_precision else None)
        return _padded(text, flags, int(width or 0), is_number=kind(value) in ("int", "float64"))

    text = _VERB.sub(replaced, pattern)
    if used < len(given):
        extra = ", ".join(f"{type_name(value)}={formatted(value)}" for value in given[used:])
        text += f"%!(EXTRA {extra})"
    return text


def quoted(text: str) -> str:
    """As a constant of Go in quotes."""
    return '"' + "".join(map(_quoted, text)) + '"'


def float_text(number: float, *, exponents: tuple[int, int]) -> str:
    """The shortest that reads back as the same, with an exponent where that is below or not below these."""
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "+Inf" if number > 0 else "-Inf"
    mantissa, _, exponent = f"{number!r}".lower().partition("e")
    digits, power = _digits(mantissa, int(exponent or 0))
    sign = "-" if math.copysign(1, number) < 0 else ""
    if digits == "0":
        return sign + "0"
    if power < exponents[0] or power >= exponents[1]:
        point = "." if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{point}{digits[1:]}e{'-' if power < 0 else '+'}{abs(power):02d}"
    if power < 0:
        return f"{sign}0.{'0' * (-power - 1)}{digits}"
    whole = digits[: power + 1].ljust(power + 1, "0")
    rest = digits[power + 1 :]
    return f"{sign}{whole}.{rest}" if rest else f"{sign}{whole}"


def json_text(value: Any, *, indent: str = "", escapes_html: bool = True) -> str:
    """As Go writes it: maps by their keys, no space unless indented, `<`, `>` and `&` as escapes unless told."""
    return "".join(_JsonWriter(indent, escapes_html=escapes_html).parts(value, "\n" if indent else ""))


class _JsonWriter:
    def __init__(self, indent: str, *, escapes_html: bool) -> None:
        self._indent = indent
        self._escapes_html = escapes_html
        self._colon = ": " if indent else ":"

    def parts(self, value: Any, newline: str) -> Iterator[str]:
        """`newline` begins a line where the value stands; nothing, where all is one line."""
        match value:
            case None:
                yield "null"
            case bool():
                yield "true" if value else "false"
            case int():
                yield str(value)
            case float():
                yield _json_number(value)
            case str():
                yield self._string(value)
            case Mapping():
                entries = value.items() if isinstance(value, Struct) else sorted(value.items())
                named = [(self._string(str(key)) + self._colon, each) for key, each in entries]
                yield from self._several("{}", named, newline)
            case _:
                yield from self._several("[]", [("", each) for each in value], newline)

    def _several(self, marks: str, named: Sequence[tuple[str, Any]], newline: str) -> Iterator[str]:
        inside = newline + self._indent
        yield marks[0]
        for i, (name, each) in enumerate(named):
            yield ("," if i else "") + inside + name
            yield from self.parts(each, inside)
        yield (newline if named else "") + marks[1]

    def _string(self, text: str) -> str:
        return _json_string(text, self._escapes_html)


def _json_string(text: str, escapes_html: bool) -> str:
    made = json.dumps(text, ensure_ascii=False).replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    made = made.replace("\\b", "\\u0008").replace("\\f", "\\u000c") if "\b" in text or "\f" in text else made
    if escapes_html:
        for character, escape in _HTML.items():
            made = made.replace(character, escape)
    return made


def _json_number(number: float) -> str:
    if not math.isfinite(number):
        raise GoError("JSON has no infinity and no NaN")
    text = float_text(number, exponents=(-6, 21))
    return re.sub(r"e-0(\d)$", r"e-\1", text)


def _digits(mantissa: str, exponent: int) -> tuple[str, int]:
    """The significant digits, and the power of ten of the first."""
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    digits = whole + fraction
    power = exponent + len(whole) - 1
    stripped = digits.lstrip("0")
    power -= len(digits) - len(stripped)
    return stripped.rstrip("0") or "0", power


def _formatted(verb: str, value: Any, flags: str, precision: int | None) -> str:
    sign = "+" if "+" in flags else " " if " " in flags else ""
    number = kind(value)
    match verb, value:
        case ("v", _):
            text = formatted(value)
            return (
                sign + text if sign == "+" and number in ("int", "float64") and text[0] not in "+-" else text
            )
        case ("s", str()):
            return value if precision is None else value[:precision]
        case ("q", str()):
            return quoted(value if precision is None else value[:precision])
        case ("T", _):
            return type_name(value)
        case ("t", bool()):
            return formatted(value)
        case ("d", int()) if number == "int":
            return format(value, f"{sign}d")
        case ("x" | "X" | "o" | "b", int()) if number == "int":
            return format(value, sign + ("#" if "#" in flags else "") + verb)
        case ("x" | "X", str()):
            text = value.encode().hex()
            return text.upper() if verb == "X" else text
        case ("c", int()) if number == "int" and 0 <= value < 0x110000:
            return chr(value)
        case ("U", int()) if number == "int" and value >= 0:
            return f"U+{value:04X}"
        case ("f" | "F" | "e" | "E" | "g" | "G", float()):
            if verb in "gG" and precision is None:
                text = float_text(value, exponents=(-4, 6))
                return sign + text if sign and text[0] not in "+-" else text
            return format(value, f"{sign}.{6 if precision is None else precision}{verb}")
        case ("s", None):
            return "%!s(<nil>)"
        case ("s" | "d", list() | tuple()):
            return "[" + " ".join(_formatted(verb, each, flags, precision) for each in value) + "]"
    shown_value = f"{type_name(value)}={formatted(value)}" if value is not None else "<nil>"
    return f"%!{verb}({shown_value})"


def _padded(text: str, flags: str, width: int, *, is_number: bool) -> str:
    if "-" in flags:
        return text.ljust(width)
    if "0" in flags and is_number:
        return text.zfill(width)
    return text.rjust(width)


def _quoted(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character in _SHORT_ESCAPES:
        return "\\" + _SHORT_ESCAPES[character]
    number = ord(character)
    if character == " " or (character.isprintable() and not character.isspace()) or number in PRIVATE_USE:
        return character
    return (
        f"\\x{number:02x}"
        if number < 0x80
        else f"\\u{number:04x}"
        if number < 0x10000
        else f"\\U{number:08x}"
    )
