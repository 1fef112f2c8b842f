"""Translated templates render what Go itself renders: expected.json is made by render.go, see README.md here."""

import json
from pathlib import Path
from typing import Any

import pytest

from repository.go_template.translate import is_go, translate
from repository.prompt_templates import VARIABLES
from runner.worker.go_functions.values import Struct
from runner.worker.message_templates import CalledFunction, Function, ToolCall
from runner.worker.sandbox import CompiledTemplate, TemplateError

HERE = Path(__file__).parent
WRITTEN = json.loads((HERE / "cases.json").read_text())
EXPECTED = {each["name"]: each for each in json.loads((HERE / "expected.json").read_text())}
CASES: dict[str, Any] = {each["name"]: each for each in WRITTEN["cases"]}
ZEROS = {
    "prompt": {
        "SystemPrompt": "",
        "SuppressSystemPrompt": False,
        "Input": "",
        "Instruction": "",
        "Functions": [],
        "MessageIndex": 0,
        "ReasoningEffort": "",
        "Metadata": {},
    },
    "message": {
        "SystemPrompt": "",
        "Role": "",
        "RoleName": "",
        "FunctionName": "",
        "Content": "",
        "MessageIndex": 0,
        "Function": False,
        "FunctionCall": None,
        "LastMessage": False,
    },
}


def data_of(case: dict[str, Any]) -> dict[str, Any]:
    if case["kind"] == "map":
        return dict(WRITTEN["edge_data"])
    data = {**ZEROS[case["kind"]], **case["data"]}
    if data.get("Functions"):
        data["Functions"] = [Function(each) for each in data["Functions"]]
    if data.get("FunctionCall"):
        data["FunctionCall"] = [
            ToolCall({**call, "function": CalledFunction(call["function"])}) for call in data["FunctionCall"]
        ]
    return data


def rendered(case: dict[str, Any]) -> str:
    """Raises TemplateError where it cannot be translated or rendered."""
    names = {"prompt": VARIABLES["chat"], "message": VARIABLES["chat_message"]}.get(case["kind"])
    translated = translate(case["template"], names)
    if translated.fault is not None:
        raise TemplateError(translated.fault.message)
    return CompiledTemplate("chat", translated.text).fill(data_of(case))


@pytest.mark.parametrize("name", [name for name, each in EXPECTED.items() if "error" not in each])
def test_a_template_renders_what_go_renders(name: str) -> None:
    assert rendered(CASES[name]) == EXPECTED[name]["text"]


@pytest.mark.parametrize("name", [name for name, each in EXPECTED.items() if "error" in each])
def test_a_template_that_go_refuses_is_refused(name: str) -> None:
    with pytest.raises(TemplateError):
        rendered(CASES[name])


@pytest.mark.parametrize(
    "case", [each for each in CASES.values() if each["kind"] != "map"], ids=lambda c: c["name"]
)
def test_a_prompt_shape_is_told_from_jinja(case: dict[str, Any]) -> None:
    assert is_go(case["template"])


def test_every_case_has_an_answer_of_gos() -> None:
    assert CASES.keys() == EXPECTED.keys()
    assert issubclass(Function, Struct)
