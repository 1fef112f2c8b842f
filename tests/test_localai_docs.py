"""docs/localai.md says of each field what the code does with it: its tables are those of the code."""

from collections.abc import Iterable

from repository.localai.elsewhere import ELSEWHERE
from repository.localai.field import Field
from repository.localai.fields import FIELDS
from repository.localai.options import OPTIONS
from tests.serving import ROOT

PAGE = (ROOT / "docs" / "localai.md").read_text()


def table(fields: Iterable[Field]) -> str:
    return "\n".join(f"| `{field.key}` | {_effect(field)} |" for field in fields)


def _effect(field: Field) -> str:
    if field.kind == "idle":
        return f"No effect: {field.does}"
    if field.kind == "refused":
        return f"Refused: {field.does}"
    place = f"`{field.to}`: " if field.to is not None else ""
    only = f"{field.only}: " if field.only is not None else ""
    return f"{only}{place}{field.does}"


def test_the_page_has_every_field_as_the_code_has_it() -> None:
    expected = table(FIELDS.values())
    assert expected in PAGE, f"the table of fields in docs/localai.md should be:\n{expected}"


def test_the_page_has_every_option_as_the_code_has_it() -> None:
    expected = table(OPTIONS.values())
    assert expected in PAGE, f"the table of options in docs/localai.md should be:\n{expected}"


def test_the_page_names_every_field_that_is_one_backends() -> None:
    assert all(key in PAGE for key in ELSEWHERE)
