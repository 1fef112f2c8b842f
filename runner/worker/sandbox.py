"""Jinja2 in a sandbox, with the helpers that Hugging Face's chat templates expect and those that translated Go
templates call. What one rendering may make is bounded.
"""

import datetime
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.nodes
import jinja2.parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from runner.worker.go_functions.table import MOST_CHARACTERS, PREFIX, Work, functions


class TemplateError(Exception):
    """The messages do not suit the template, or the template is broken."""


class CompiledTemplate:
    """A template, which reads `variables`. `kind` names it in errors. Raises TemplateError where `source` is not valid
    Jinja2."""

    def __init__(self, kind: str, source: str) -> None:
        self.source = source
        self._kind = kind
        environment = _Environment()
        try:
            self._template = environment.from_string(source)
            names = jinja2.meta.find_undeclared_variables(environment.parse(source))
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(
                f"the {kind} template is not valid, line {error.lineno}: {error.message}"
            ) from error
        except (SyntaxError, RecursionError) as error:
            raise TemplateError(f"the {kind} template is nested too deeply: {error}") from error
        self._helpers = frozenset(name for name in names if name.startswith(PREFIX))
        self.variables = frozenset(names) - self._helpers

    def fill(self, variables: Mapping[str, Any]) -> str:
        """Raises TemplateError where it cannot be rendered, with the template's own words where it refuses."""
        helpers = functions(self._helpers) if self._helpers else {}
        try:
            return self._template.render({"range": _Range(), **variables, **helpers})
        except (
            jinja2.TemplateError,
            TypeError,
            ValueError,
            LookupError,
            AttributeError,
            ArithmeticError,
            RecursionError,
        ) as error:
            raise TemplateError(f"the {self._kind} template cannot render this request: {error}") from error


class _Range:
    """Jinja2's `range`, which one rendering may take so many numbers from, however it nests them."""

    def __init__(self) -> None:
        self._work = Work()

    def __call__(self, *bounds: int) -> range:
        numbers = range(*bounds)
        self._work.step(len(numbers))
        return numbers


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols, _Generation]
        )
        self.filters["tojson"] = _to_json
        self.globals["raise_exception"] = _raise
        self.globals["strftime_now"] = _strftime_now

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """A whole rendering from its parts, as long as it is none of gigabytes."""
        kept, size = [], 0
        for part in parts:
            kept.append(part)
            size += len(part)
            if size > MOST_CHARACTERS:
                raise jinja2.TemplateError(f"it makes more than {MOST_CHARACTERS} characters")
        return "".join(kept)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Where a longer and longer text or list, a power, or a wide field would fill the memory."""
        if operator == "+":
            size = _length(left) + _length(right)
        elif operator == "%":
            size = _widest(left) if isinstance(left, str) else 0
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            size = left.bit_length() * max(0, right)
        else:
            size = _length(left) * _times(right) + _length(right) * _times(left)
        if size > MOST_CHARACTERS:
            raise jinja2.TemplateError(f"{operator!r} would make more than {MOST_CHARACTERS} characters")
        return super().call_binop(context, operator, left, right)


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` marks the assistant's text for training; here it renders what it holds."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node | list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _widest(text: str) -> int:
    """The width of the widest field that a text to format asks for; one that the values give counts as too wide."""
    widths = re.findall(r"%(?:\([^)]*\))?[-#0 +]*([0-9]*|\*)(?:\.([0-9]+|\*))?", text)
    return max([_width(each) for pair in widths for each in pair], default=0)


def _width(digits: str) -> int:
    return int(digits or 0) if len(digits) < 10 and digits != "*" else MOST_CHARACTERS + 1


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | list | tuple) else 0


def _times(value: Any) -> int:
    return max(0, value) if isinstance(value, int) else 0


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.datetime.now().strftime(pattern)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja2's own filter escapes HTML and sorts keys; templates are trained without either."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
