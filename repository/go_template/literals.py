"""What constants in a template stand for."""

import re

from repository.go_template.fault import Place

_ESCAPE = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}|.)", re.DOTALL)
_SIMPLE = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92, "'": 39, '"': 34}
_LARGEST = 2**63


def read_string(text: str, place: Place) -> str:
    """A text in quotes or backticks. Raises GoTemplateError."""
    inside = text[1:-1]
    if text[0] == "`":
        return inside.replace("\r", "")
    data, at = bytearray(), 0
    for match in _ESCAPE.finditer(inside):
        data += inside[at : match.start()].encode(errors="surrogatepass")
        data += _escaped(match.group()[1:], place, quote='"')
        at = match.end()
    data += inside[at:].encode(errors="surrogatepass")
    return data.decode(errors="replace")


def read_character(text: str, place: Place) -> int:
    """A character in single quotes: its number. Raises GoTemplateError."""
    inside = text[1:-1]
    if inside.startswith("\\") and _ESCAPE.fullmatch(inside):
        data = _escaped(inside[1:], place, quote="'")
        return data[0] if inside[1] in "x01234567" else ord(data.decode())
    if len(inside) != 1:
        raise place.error('one character stands in single quotes; a text stands in "..." or `...`')
    return ord(inside)


def read_number(text: str, place: Place) -> int | float:
    """Raises GoTemplateError where it does not fit 64 bits."""
    digits = text.replace("_", "")
    sign = -1 if digits[0] == "-" else 1
    unsigned = digits.lstrip("+-").lower()
    try:
        if unsigned[:2] in ("0x", "0o", "0b"):
            value: int | float = int(unsigned, 0)
        elif re.search("[.e]", unsigned):
            value = float(unsigned)
        elif len(unsigned) > 1 and unsigned[0] == "0":
            value = int(unsigned, 8)
        else:
            value = int(unsigned) if len(unsigned) < 20 else _LARGEST
    except ValueError:
        raise place.error(f'"{text}" is not a number') from None
    if isinstance(value, int) and not -_LARGEST <= sign * value < _LARGEST:
        raise place.error(f"the whole number {text[:40]} does not fit 64 bits")
    if value == float("inf"):
        raise place.error(f"the number {text[:40]} is too large")
    return sign * value


def _escaped(code: str, place: Place, *, quote: str) -> bytes:
    """The bytes that an escape stands for, given what follows the backslash."""
    if len(code) > 1:
        number = int(code, 8) if code.isdigit() and code[0] != "u" else int(code[1:], 16)
        if code[0] in "uU":
            if number > 0x10FFFF or 0xD800 <= number < 0xE000:
                raise place.error(f'"\\{code}" is no character')
            return chr(number).encode()
        if number < 256:
            return bytes((number,))
    if code not in _SIMPLE or (code in "'\"" and code != quote):
        raise place.error(f'"\\{code}" is not an escape; a backslash itself is written as two')
    return bytes((_SIMPLE[code],))
