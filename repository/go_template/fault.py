"""What is wrong with a template, and where in its text."""

from msgspec import Struct


class Fault(Struct, frozen=True, order=True):
    """`line` and `column` count from 1 in the template's own text. The message says what to write instead."""

    line: int
    column: int
    message: str


class GoTemplateError(Exception):
    """The template cannot be translated; holds the one `fault` that was met first."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


class Place(Struct, frozen=True):
    """Where something was written."""

    line: int
    column: int

    def error(self, message: str) -> GoTemplateError:
        return GoTemplateError(Fault(self.line, self.column, message))
