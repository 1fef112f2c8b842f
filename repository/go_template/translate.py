"""The way in: is a text a Go template, and what is it in Jinja2."""

import re
from collections.abc import Collection, Iterator

from msgspec import Struct

from repository.go_template.emit import emit
from repository.go_template.fault import Fault, GoTemplateError, Place
from repository.go_template.parser import parse

MOST_CHARACTERS = 256 * 1024

_WORDS = r"""(?:if|with|range)\s+\S|else\b|(?:end|break|continue)\s*-?$|(?:define|block|template)\s+["`]"""
_GO = re.compile(rf"\.|\$|/\*|{_WORDS}|.*?[\s(](?:\.[^\W\d]|\$)", re.DOTALL)
_JINJA = re.compile(r"\{%[-+]?\s*[a-z]+|\{#")
_FIELD = re.compile(r"\{\{-?\s*(?:(?:if|range|with)\s+)?\.[A-Z]")
_QUOTED = re.compile(r"""(?s)"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`""")


class Translated(Struct, frozen=True):
    """`text` is Jinja2, and empty where there is a `fault`."""

    text: str
    fault: Fault | None = None


def is_go(text: str) -> bool:
    """Whether a template is one of Go's and not Jinja2: no tag of Jinja2 stands in it, and some action speaks of a
    field (`.Input`), a variable (`$x`), or begins with a word of Go's (`if`, `range`, `end`...)."""
    if "{{" not in text or _JINJA.search(text):
        return False
    return any(_GO.match(_QUOTED.sub('""', inside)) for inside in _actions(text)) or (
        re.search(r"\{\{-?\s*(?:\.|\$|/\*)", text) is not None
    )


def _actions(text: str) -> Iterator[str]:
    """What stands between braces. No expression finds it: it would look to the end of the text from every brace."""
    at = 0
    while (start := text.find("{{", at)) >= 0 and (end := text.find("}}", start + 2)) >= 0:
        inside = text[start + 2 : end]
        yield (inside[1:] if inside[:1] == "-" and inside[1:2].isspace() else inside).lstrip()
        at = end + 2


def mixed_with_jinja(text: str) -> Fault | None:
    """Where a text that is Jinja2 speaks Go's language too, which nothing can render."""
    match = _FIELD.search(text)
    if match is None or not _JINJA.search(text):
        return None
    line = text.count("\n", 0, match.start()) + 1
    column = match.start() - text.rfind("\n", 0, match.start())
    return Fault(
        line, column, "this is Go's language, but the template has tags of Jinja2 too; use one of the two"
    )


def translate(text: str, variables: Collection[str] | None = None) -> Translated:
    """A Go template as Jinja2, whose data has these `variables` (None: whatever it has). Never raises."""
    try:
        if len(text) > MOST_CHARACTERS:
            raise Place(1, 1).error(f"a template of more than {MOST_CHARACTERS // 1024} KiB")
        return Translated(emit(parse(text), variables))
    except GoTemplateError as error:
        return Translated("", error.fault)
