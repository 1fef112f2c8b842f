"""Prompt templates: Jinja2 in a sandbox, with the helpers that Hugging Face's chat templates expect.

Text inside a message that looks like a control token must stay plain text. Such occurrences are swapped for
private-use characters before rendering and put back afterwards, as pieces tokenised without special parsing.
"""

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, NoReturn, Self

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from backends.contract import EngineInfo
from runner.wire.requests import ChatPrompt, EditPrompt

_PRIVATE_USE = 0xF0000
_OPEN, _CLOSE, _END = (chr(_PRIVATE_USE + i) for i in range(3))


class TemplateError(Exception):
    """The messages do not suit the template, or the template is broken."""


class Piece(NamedTuple):
    """A part of a prompt; control-token texts in it count only if `special`."""

    text: str
    special: bool


class Template:
    """A compiled template, which reads `variables`. Raises TemplateError where `source` is not valid Jinja2."""

    kind: ClassVar[str]

    def __init__(
        self, source: str, *, special_tokens: Sequence[str], bos_token: str = "", eos_token: str = ""
    ) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols, _Generation]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = _strftime_now
        try:
            self._template = environment.from_string(source)
            self.variables = frozenset(jinja2.meta.find_undeclared_variables(environment.parse(source)))
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(
                f"the {self.kind} template is not valid, line {error.lineno}: {error.message}"
            ) from error
        self._constants = {"bos_token": bos_token, "eos_token": eos_token}
        ordered = sorted((token for token in special_tokens if token), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    @classmethod
    def of(cls, info: EngineInfo, source: str) -> Self:
        """`source` for the model that `info` tells of."""
        return cls(
            source, special_tokens=info.special_tokens, bos_token=info.bos_token, eos_token=info.eos_token
        )

    def _fill(self, variables: Mapping[str, Any]) -> str:
        try:
            return self._template.render({**self._constants, **variables})
        except (
            jinja2.TemplateError,
            TypeError,
            ValueError,
            KeyError,
            AttributeError,
            RecursionError,
        ) as error:
            raise TemplateError(f"the {self.kind} template cannot render this request: {error}") from error

    def _protect(self, value: Any, swapped: list[str]) -> Any:
        """`value` with control-token texts, in strings at any depth, swapped for placeholders."""
        if isinstance(value, str):
            for mark in (_OPEN, _CLOSE, _END):
                value = value.replace(mark, "")
            if self._special is None:
                return value
            return self._special.sub(lambda match: self._placeholder(match.group(), swapped), value)
        if isinstance(value, Mapping):
            return {self._protect(key, swapped): self._protect(item, swapped) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._protect(item, swapped) for item in value]
        return value

    @staticmethod
    def _placeholder(text: str, swapped: list[str]) -> str:
        swapped.append(text)
        return f"{_OPEN}{len(swapped) - 1}{_CLOSE}"


class ChatTemplate(Template):
    kind = "chat"

    def render(self, prompt: ChatPrompt) -> list[Piece]:
        """The prompt as pieces; one piece where no message holds control-token text.

        Raises TemplateError with the template's own message where it refuses the messages.
        """
        swapped: list[str] = []
        messages = [self._protect(message, swapped) for message in prompt.messages]
        if prompt.continue_final_message:
            messages[-1]["content"] = (messages[-1].get("content") or "") + _END
        text = self._fill(
            {
                "messages": messages,
                "tools": self._protect(prompt.tools, swapped) if prompt.tools else None,
                "documents": None,
                "add_generation_prompt": prompt.add_generation_prompt and not prompt.continue_final_message,
                **prompt.template_kwargs,
            }
        )
        if prompt.continue_final_message:
            text = _cut_at_end(text)
        return _pieces(text, swapped)


class EditTemplate(Template):
    """Gets the variables `Input` and `Instruction`."""

    kind = "edit"

    def render(self, prompt: EditPrompt) -> list[Piece]:
        """The prompt as pieces. Raises TemplateError where the template fails."""
        swapped: list[str] = []
        text = self._fill(
            {
                "Input": self._protect(prompt.text, swapped),
                "Instruction": self._protect(prompt.instruction, swapped),
            }
        )
        return _pieces(text, swapped)


def _pieces(text: str, swapped: list[str]) -> list[Piece]:
    if not swapped:
        return [Piece(text, special=True)]
    parts = re.split(f"{_OPEN}([0-9]+){_CLOSE}", text)
    pieces = [
        Piece(swapped[int(part)], special=False) if at % 2 else Piece(part, special=True)
        for at, part in enumerate(parts)
    ]
    return [piece for piece in pieces if piece.text]


def _cut_at_end(text: str) -> str:
    """The rendered text up to the end of the last message's content, so that the model goes on from there."""
    begun, end, _ = text.rpartition(_END)
    if not end:
        raise TemplateError(
            "continue_final_message needs a last message whose content the template renders as it is"
        )
    return begun.replace(_END, "")


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


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` marks the assistant's text for training; here it renders what it holds."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node | list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)
