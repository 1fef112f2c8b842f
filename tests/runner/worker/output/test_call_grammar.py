"""What calls must look like, format by format: the grammar takes what the reader reads, and nothing else."""

import json
from collections.abc import Mapping
from typing import Any

import llguidance
import pytest

from backends.echo.tokenizer import ByteTokenizer
from runner.wire.messages import TemplateTexts
from runner.wire.requests import ChatPrompt, Constraint, GenerateRequest, ToolUse
from runner.worker.grammar.forms import OutputForm, Reasoning
from runner.worker.grammar.source import grammar_source
from runner.worker.output.call_grammar import arguments_schema, call_grammar, lazy_call_grammar
from runner.worker.output.markup import Markup
from runner.worker.output.tool_formats import TOOL_FORMATS
from tests.runner.worker.output.reading import read
from tests.support import echo_engine

WEATHER = {
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
    },
}
MODELS = {"name": "list_models"}
BYTES = llguidance.LLTokenizer("byte")


def written(format: str, *calls: tuple[str, str]) -> str:
    """Calls as the models of a format write them."""
    form, marks = TOOL_FORMATS[format].written, TOOL_FORMATS[format].parameters
    texts = []
    for number, (name, arguments) in enumerate(calls):
        if marks is not None:
            values = {
                key: one if isinstance(one, str) else json.dumps(one)
                for key, one in json.loads(arguments).items()
            }
            arguments = "".join(
                marks.written.replace("KEY", key).replace("VALUE", value) for key, value in values.items()
            )
        filled = form.call.replace("NAME", name).replace("INDEX", str(number))
        texts.append(filled.replace("ARGUMENTS", arguments))
    return form.begin + form.between.join(texts) + form.end


def accepts(grammar: str, text: str) -> bool:
    return accepts_whole(llguidance.LLMatcher.grammar_from_lark(grammar), text)


def accepts_whole(grammar: str, text: str) -> bool:
    matcher = llguidance.LLMatcher(BYTES, grammar)
    assert not matcher.is_error(), matcher.get_error()
    data = list(text.encode())
    return bool(matcher.try_consume_tokens(data) == len(data)) and matcher.is_accepting()


def grammar(format: str, *functions: Mapping[str, Any], parallel: bool = True) -> str:
    return call_grammar(TOOL_FORMATS[format], functions, parallel=parallel, symbol=json.dumps)


CITY = ("get_weather", '{"city": "São \\"Paulo\\""}')
BOTH = ("get_weather", '{"city": "", "days": -3}')
LIST = ("list_models", "{}")


@pytest.mark.parametrize("format", TOOL_FORMATS)
@pytest.mark.parametrize("calls", [(CITY,), (LIST,), (LIST, BOTH, CITY)], ids=len)
def test_calls_of_the_tools_are_taken_and_read(format: str, calls: tuple[tuple[str, str], ...]) -> None:
    text = written(format, *calls)
    assert accepts(grammar(format, WEATHER, MODELS), text)
    assert read([text], format).calls == calls


@pytest.mark.parametrize("format", TOOL_FORMATS)
@pytest.mark.parametrize(
    "call",
    [
        ("get_time", "{}"),
        ("get_weather", "{}"),
        ("get_weather", '{"city": 5}'),
        ("get_weather", '{"city": "Rome", "colour": "red"}'),
        ("get_weather", '{"city": "Rome", "days": 1.5}'),
        ("list_models", '{"city": "Rome"}'),
    ],
)
def test_what_is_no_call_of_a_tool_is_not_taken(format: str, call: tuple[str, str]) -> None:
    is_fine = "5" in call[1] and "." not in call[1] and TOOL_FORMATS[format].parameters is not None
    assert (
        accepts(grammar(format, WEATHER, MODELS), written(format, call)) == is_fine
    )  # the text "5" is a city


@pytest.mark.parametrize("format", TOOL_FORMATS)
def test_one_call_is_all_where_calls_may_not_be_parallel(format: str) -> None:
    alone = grammar(format, WEATHER, MODELS, parallel=False)
    assert accepts(alone, written(format, LIST))
    assert not accepts(alone, written(format, LIST, LIST))
    assert not accepts(alone, written(format))


LOOSE = ("get_weather", '{"city": "Rome", "colour": "red"}')


def lazy(format: str, *strict: str, parallel: bool = True) -> str:
    functions = (WEATHER, MODELS)
    return lazy_call_grammar(
        TOOL_FORMATS[format], functions, strict=strict, parallel=parallel, symbol=json.dumps
    )


@pytest.mark.parametrize("format", TOOL_FORMATS)
def test_calls_that_are_left_to_the_model_fit_where_they_are_strict(format: str) -> None:
    bound = lazy(format, "get_weather")
    fitting, loose = written(format, CITY, LIST), written(format, LOOSE)
    assert accepts(bound, "Just an answer, 1 < 2.\n")
    assert accepts(bound, "")
    assert accepts(bound, fitting)
    assert not accepts(bound, loose)
    assert not accepts(bound, written(format, ("get_time", "{}")))
    assert accepts(lazy(format, "list_models"), loose)
    if not TOOL_FORMATS[format].bare:
        assert accepts(bound, f"Let me see.\n{fitting}")
        assert not accepts(bound, f"Let me see.\n{loose}")


@pytest.mark.parametrize("format", TOOL_FORMATS)
def test_one_call_is_all_there_too_where_calls_may_not_be_parallel(format: str) -> None:
    assert accepts(lazy(format, "list_models", parallel=False), written(format, LIST))
    assert not accepts(lazy(format, "list_models", parallel=False), written(format, LIST, LIST))


@pytest.mark.parametrize("format", ["hermes", "llama3", "qwen3-coder", "mistral"])
@pytest.mark.parametrize("is_open", [False, True])
def test_a_call_that_is_only_thought_of_is_none_and_one_behind_the_thought_is_bound(
    format: str, is_open: bool
) -> None:
    calls = lazy_call_grammar(
        TOOL_FORMATS[format],
        (WEATHER, MODELS),
        strict=("get_weather",),
        parallel=True,
        symbol=json.dumps,
        thinks="<think>",
    )
    form = OutputForm((Constraint("lark", calls),), Reasoning("<think>", "</think>", is_open))
    grammar = grammar_source(form, json.dumps)
    opening = "" if is_open else "<think>"
    loose = written(format, LOOSE)
    assert accepts_whole(grammar, f"{opening}So: {loose}</think>\n\nHello")
    assert accepts_whole(grammar, f"{opening}hm</think>\n\n{written(format, CITY)}")
    assert not accepts_whole(grammar, f"{opening}hm</think>\n\n{loose}")
    assert not accepts_whole(grammar, f"{opening}hm")


def test_a_control_token_that_opens_calls_begins_one_and_text_holds_none() -> None:
    source = lazy_call_grammar(
        TOOL_FORMATS["hermes"],
        (MODELS,),
        strict=("list_models",),
        parallel=True,
        symbol=lambda text: "<[256]>" if text == "<tool_call>" else json.dumps(text),
    )
    assert "suffix" not in source
    matcher = llguidance.LLMatcher(BYTES, llguidance.LLMatcher.grammar_from_lark(source))
    assert not matcher.is_error(), matcher.get_error()
    data = [*b"So: ", 256, *b'{"name": "list_models", "arguments": {}}</tool_call>']
    assert matcher.try_consume_tokens(data) == len(data) and matcher.is_accepting()


@pytest.mark.parametrize(
    "text", ['<tool_call>{"name": "list_models", "arguments": {}}\n</tool_call>', "Yes."]
)
def test_a_line_break_may_be_left_out_and_words_may_not_come_instead(text: str) -> None:
    assert accepts(grammar("hermes", MODELS), text) == text.startswith("<")


@pytest.mark.parametrize(
    ("parameters", "adds"),
    [
        (None, False),
        ({}, False),
        ({"properties": {}}, False),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, {"type": "integer"}),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}}, None),
    ],
)
def test_arguments_are_an_object_that_has_only_what_its_schema_speaks_of(
    parameters: dict[str, Any] | None, adds: object
) -> None:
    schema = arguments_schema(parameters)
    assert schema["type"] == "object"
    assert schema.get("additionalProperties") == adds


def test_control_tokens_stand_for_themselves() -> None:
    engine = echo_engine()
    markup = Markup(engine, "", TemplateTexts(tool_format="hermes"))
    assert markup.symbol("<|pad|>") == f"<[{ByteTokenizer.PAD}]>"
    assert markup.symbol('"<tool_call>') == '"\\"<tool_call>"'


@pytest.mark.parametrize(
    ("use", "own", "kinds"),
    [
        (None, None, []),
        (None, Constraint("json_object"), ["json_object"]),
        (ToolUse(), None, []),
        (ToolUse(), Constraint("json_object"), ["json_object", "lark"]),
        (ToolUse(choice="required"), Constraint("json_object"), ["lark"]),
        (ToolUse(choice="function", name="list_models"), None, ["lark"]),
    ],
)
def test_calls_bind_the_answer_where_they_are_wanted(
    use: ToolUse | None, own: Constraint | None, kinds: list[str]
) -> None:
    tools = tuple({"type": "function", "function": function} for function in (WEATHER, MODELS))
    request = GenerateRequest(prompt=ChatPrompt(messages=(), tools=tools), tool_use=use, constraint=own)
    found = Markup(echo_engine(), "", TemplateTexts(tool_format="hermes")).constraints(request)
    assert [constraint.kind for constraint in found] == kinds
    if kinds and kinds[-1] == "lark":
        is_named = use is not None and use.choice == "function"
        assert accepts(found[-1].source, written("hermes", LIST))
        assert accepts(found[-1].source, written("hermes", BOTH)) == (not is_named)
        assert accepts(found[-1].source, written("hermes", LIST, LIST)) == (not is_named)
