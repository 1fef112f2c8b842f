"""Arguments written as marked parameters become the JSON text of an object, whatever the pieces."""

import json
from typing import Any

import pytest
from hypothesis import given

from runner.worker.output.parameters import ParameterFollower
from runner.worker.output.tool_formats import TOOL_FORMATS
from tests.runner.worker.output.reading import splits

SCHEMA: dict[str, Any] = {
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "unit": {"enum": ["C", "F"]},
    }
}
TWO_LINES = '<parameter=city>\nSão\n "Paulo"\n</parameter>\n<parameter=days>\n3\n</parameter>\n</function>'


def followed(format: str, chunks: list[str]) -> ParameterFollower | Any:
    marks = TOOL_FORMATS[format].parameters
    assert marks is not None
    follower, text, passed = ParameterFollower(marks, SCHEMA), "", ""
    for chunk in chunks:
        text += chunk
        got, end = follower.feed(text)
        passed, text = passed + got, text[end:]
        if follower.is_broken:
            return None
    assert follower.is_complete and not text
    return json.loads(passed)


@given(splits(TWO_LINES))
def test_every_way_of_cutting_gives_the_same_arguments(chunks: list[str]) -> None:
    assert followed("qwen3-coder", chunks) == {"city": 'São\n "Paulo"', "days": 3}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("city", "12", "12"),
        ("city", "", ""),
        ("city", "a</parameterb", "a</parameterb"),
        ("days", "12", 12),
        ("days", "many", "many"),
        ("tags", '["a", "b"]', ["a", "b"]),
        ("note", "null", None),
        ("note", "None", None),
        ("note", "12", "12"),
        ("unit", "C", "C"),
        ("other", "true", True),
        ("other", "True", True),
        ("other", "{oh}", "{oh}"),
    ],
)
def test_a_value_is_what_its_schema_says(name: str, text: str, value: object) -> None:
    coder = f"<parameter={name}>\n{text}\n</parameter>\n</function>"
    assert followed("qwen3-coder", [coder]) == followed("qwen3-coder", list(coder)) == {name: value}
    glm = f"\n<arg_key>{name}</arg_key>\n<arg_value>{text}</arg_value>\n</tool_call>"
    assert followed("glm", [glm]) == followed("glm", list(glm)) == {name: value}


@pytest.mark.parametrize(("format", "end"), [("qwen3-coder", "</function>"), ("glm", "</tool_call>")])
def test_no_parameters_are_an_empty_object(format: str, end: str) -> None:
    assert followed(format, [f"\n{end}"]) == {}


@pytest.mark.parametrize("text", ["So be it", "<parametre=city>x", "<parameter=" + "x" * 300])
def test_what_is_no_parameter_breaks_it(text: str) -> None:
    assert followed("qwen3-coder", [text]) is None
