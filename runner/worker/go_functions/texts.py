"""Functions of the sprig library on texts. Each raises GoError for what it cannot take."""

from collections.abc import Callable
from typing import Any

from runner.worker.go_functions.printing import formatted, quoted
from runner.worker.go_functions.values import GoError, integer, text

MOST_CHARACTERS = 4_000_000

_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))


def of_texts(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """`function` with every argument checked to be a text."""

    def checked(*values: Any) -> Any:
        return function(*(text(name, value) for value in values))

    return checked


def trim(value: str) -> str:
    return value.strip(_SPACE)


def trim_all(cut: str, value: str) -> str:
    return value.strip(cut) if cut else value


def title(value: str) -> str:
    made, is_first = [], True
    for character in value:
        made.append(character.upper() if is_first and len(character.upper()) == 1 else character)
        is_first = not (
            character.isalnum() or character in "_" or (ord(character) > 127 and not character.isspace())
        )
    return "".join(made)


def untitle(value: str) -> str:
    made, is_first = [], True
    for character in value:
        made.append(character.lower() if is_first else character)
        is_first = character.isspace()
    return "".join(made)


def no_space(value: str) -> str:
    return "".join(character for character in value if character not in _SPACE)


def repeat(count: Any, value: Any) -> str:
    times, part = integer("repeat", count), text("repeat", value)
    if times < 0:
        raise GoError("repeat: a negative count")
    _check_size(times * len(part))
    return part * times


def substr(start: Any, end: Any, value: Any) -> str:
    data = text("substr", value).encode()
    start, end = integer("substr", start), integer("substr", end)
    if start < 0:
        return _decoded(data[: max(0, end)] if end >= 0 else data)
    return _decoded(data[start:] if end < 0 or end > len(data) else data[start:end])


def trunc(count: Any, value: Any) -> str:
    data, count = text("trunc", value).encode(), integer("trunc", count)
    if count < 0:
        return _decoded(data[count:] if len(data) + count > 0 else data)
    return _decoded(data[:count])


def indent(spaces: Any, value: Any) -> str:
    pad, lines = repeat(spaces, " "), text("indent", value)
    _check_size(len(pad) * (lines.count("\n") + 1))
    return pad + lines.replace("\n", "\n" + pad)


def nindent(spaces: Any, value: Any) -> str:
    return "\n" + indent(spaces, value)


def replace(old: str, new: str, value: str) -> str:
    _check_size(len(new) * (value.count(old) if old else len(value) + 1))
    return value.replace(old, new)


def plural(one: Any, many: Any, count: Any) -> str:
    return text("plural", one if integer("plural", count) == 1 else many)


def split_list(separator: str, value: str) -> list[str]:
    return value.split(separator) if separator else list(value)


def split(separator: str, value: str) -> dict[str, str]:
    return {f"_{i}": part for i, part in enumerate(split_list(separator, value))}


def splitn(separator: Any, most: Any, value: Any) -> dict[str, str]:
    separator, most, value = text("splitn", separator), integer("splitn", most), text("splitn", value)
    if most == 0:
        return {}
    parts = split_list(separator, value)
    if 0 < most < len(parts):
        parts = [*parts[: most - 1], separator.join(parts[most - 1 :])]
    return {f"_{i}": part for i, part in enumerate(parts)}


def strings(value: Any) -> list[str]:
    if value is None:
        return []
    return (
        [formatted(each) for each in value if each is not None]
        if isinstance(value, list | tuple)
        else [formatted(value)]
    )


def join(separator: Any, value: Any) -> str:
    parts = strings(value)
    _check_size(len(text("join", separator)) * len(parts))
    return text("join", separator).join(parts)


def quote(*values: Any) -> str:
    return " ".join(quoted(formatted(value)) for value in values if value is not None)


def single_quote(*values: Any) -> str:
    return " ".join(f"'{formatted(value)}'" for value in values if value is not None)


def cat(*values: Any) -> str:
    return " ".join(formatted(value) for value in values if value is not None)


def _check_size(characters: int) -> None:
    if characters > MOST_CHARACTERS:
        raise GoError(f"a text of more than {MOST_CHARACTERS} characters")


def _decoded(data: bytes) -> str:
    return data.decode(errors="replace")
