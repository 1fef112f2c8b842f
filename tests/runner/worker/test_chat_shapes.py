"""Chats in LocalAI's shapes: what each template gets, which one is used, and what of it is a control token."""

from typing import Any

import msgspec
import pytest

from backends.contract import EngineInfo
from repository.go_template.translate import translate
from repository.prompt_templates import VARIABLES
from runner.errors import InvalidRequest, UnsupportedFeature
from runner.wire.messages import TemplateTexts
from runner.wire.requests import ChatPrompt, EditPrompt, GenerateRequest, TextPrompt
from runner.worker.chat import CompletionTemplate, EditTemplate
from runner.worker.chat_shapes import ChatShapes
from tests.support import echo_engine, make_intake, make_start

OWN = "own:{% for m in messages %}{{ m.content }}{% endfor %}"
INFO = EngineInfo(
    vocabulary=9,
    context_tokens=99,
    kv_tokens=99,
    lanes=1,
    engine="x",
    bos_token="<s>",
    special_tokens=("<s>", "</s>"),
)
CALL: dict[str, Any] = {
    "id": "1",
    "type": "function",
    "function": {"name": "f", "arguments": {"b": 1, "a": "<é>"}},
}
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
SHOWN = '[{"name": "f", "description": "", "parameters": {"type": "object"}}]'
CALL_JSON = (
    '[{"index":0,"id":"1","type":"function","function":'
    '{"name":"f","arguments":"{\\"b\\":1,\\"a\\":\\"\\u003cé\\u003e\\"}"}}]'
)


def shapes(*, own: str | None = None, **texts: Any) -> ChatShapes:
    return ChatShapes(msgspec.structs.replace(INFO, chat_template=own), TemplateTexts(**texts))


def chat(*contents: str, **given: Any) -> ChatPrompt:
    roles = ("user", "assistant")
    return ChatPrompt(
        messages=tuple({"role": roles[i % 2], "content": text} for i, text in enumerate(contents)), **given
    )


def text_of(made: ChatShapes, prompt: ChatPrompt) -> str:
    return "".join(piece.text for piece in made.render(prompt))


def test_without_a_message_template_a_role_is_a_text_before_the_content() -> None:
    made = shapes(roles={"user": "U:", "assistant": "A:"}, chat="{{ Input }}|A:", joiner="/")
    assert text_of(made, chat("a", "b", "c")) == "U:a/A:b/U:c|A:"


def test_a_role_without_a_text_has_none() -> None:
    assert text_of(shapes(chat="{{ Input }}"), chat("a", "b")) == "a\nb"
    assert text_of(shapes(roles={"system": "S"}), chat("a", "b")) == "a\nb"


def test_calls_without_a_message_template_are_json_behind_the_role() -> None:
    prompt = ChatPrompt(
        messages=(
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "assistant", "content": "Well", "tool_calls": [CALL]},
        )
    )
    assert text_of(shapes(chat="{{ Input }}"), prompt) == f"{CALL_JSON}\nWell\n{CALL_JSON}"
    made = shapes(chat="{{ Input }}", roles={"assistant": "A:", "assistant_function_call": "C:"})
    assert text_of(made, prompt) == f"C: {CALL_JSON}\nC:Well\nC: {CALL_JSON}"


def test_a_message_template_that_says_nothing_leaves_its_message_out() -> None:
    made = shapes(chat_message="{% if RoleName == 'user' %}{{ Content }}{% endif %}", joiner="+")
    assert text_of(made, chat("a", "b", "c")) == "a+c"


def test_a_message_template_knows_where_it_is() -> None:
    template = "{{ MessageIndex }}{{ LastMessage }}{{ Function }}{{ Role }}{{ FunctionName }};"
    prompt = ChatPrompt(
        messages=(
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "content": "y", "tool_call_id": "1"},
        ),
        tools=(TOOL,),
    )
    made = shapes(
        chat_message=template, chat="{{ Input }}{{ Functions | length }}", roles={"user": "U"}, joiner=""
    )
    assert text_of(made, prompt) == "0FalseFalseU;1FalseFalse;2TrueTruef;1"


@pytest.mark.parametrize(
    ("given", "tools", "made"),
    [
        ({"chat": "c:{{ Input }}"}, (), "c:x"),
        ({"chat": "c:{{ Input }}", "own": OWN}, (), "c:x"),
        ({"chat": "c:{{ Input }}", "own": OWN, "prefers_own": True}, (), "own:x"),
        ({"chat": "c:{{ Input }}", "prefers_own": True}, (), "c:x"),
        ({"chat": "c:{{ messages[0].content }}"}, (), "c:x"),
        ({"chat_message": "m:{{ Content }}", "own": OWN}, (), "m:x"),
        ({"roles": {"user": "r:"}, "own": OWN}, (), "r:x"),
        ({"edit": "e", "own": OWN}, (), "own:x"),
        ({"chat": "c:{{ Input }}", "function": "f:{{ Functions[0].Name }}{{ Input }}"}, (), "c:x"),
        ({"chat": "c:{{ Input }}", "function": "f:{{ Functions[0].Name }}{{ Input }}"}, (TOOL,), "f:fx"),
        ({"function": "f:{{ Functions[0].name }}", "own": OWN}, (), "own:x"),
        ({"function": "f:{{ Functions[0].name }}", "own": OWN}, (TOOL,), "f:f"),
        (
            {"function": "f:{{ tools[0].function.name }}{{ messages[0].content }}", "own": OWN},
            (TOOL,),
            "f:fx",
        ),
        ({"function": "f:{{ Functions }}", "own": OWN, "prefers_own": True}, (TOOL,), "own:x"),
        (
            {"chat": "{{ Functions | tojson }}"},
            (TOOL,),
            SHOWN,
        ),
    ],
)
def test_which_template_is_used(given: dict[str, Any], tools: Any, made: str) -> None:
    assert text_of(shapes(**given), chat("x", tools=tools or None)) == made


def test_tools_that_no_template_shows_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedFeature, match=r"template\.function") as caught:
        shapes(chat="{{ Input }}").render(chat("x", tools=(TOOL,)))
    assert caught.value.param == "tools"


def test_a_model_without_any_template_says_so() -> None:
    with pytest.raises(UnsupportedFeature, match="no chat template"):
        shapes(completion="{{ Input }}").render(chat("x"))


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ({"chat": "{{ Input }}"}, "SYS\nx"),
        ({"chat": "{{ SystemPrompt }}|{{ Input }}"}, "SYS|x"),
        ({"chat": "{{ System }}|{{ Input }}"}, "SYS|x"),
        ({"chat_message": "{% if MessageIndex == 0 %}{{ SystemPrompt }}|{% endif %}{{ Content }}"}, "SYS|x"),
        ({"chat_message": "{{ RoleName }}:{{ Content }}"}, "system:SYS\nuser:x"),
        ({"own": OWN}, "own:SYSx"),
    ],
)
def test_a_system_prompt_reaches_every_shape_once(given: dict[str, Any], made: str) -> None:
    assert text_of(shapes(system_prompt="SYS", **given), chat("x")) == made


def test_a_request_with_a_system_message_has_its_own() -> None:
    prompt = ChatPrompt(messages=({"role": "system", "content": "mine"}, {"role": "user", "content": "x"}))
    made = shapes(system_prompt="SYS", chat="{{ SystemPrompt }}{{ SuppressSystemPrompt }}|{{ Input }}")
    assert text_of(made, prompt) == "True|mine\nx"
    assert text_of(shapes(system_prompt="SYS", own=OWN), prompt) == "own:minex"


def test_only_what_users_write_loses_its_meaning() -> None:
    made = shapes(
        chat="<s>{{ Input }}", chat_message="{{ SystemPrompt }}{{ Content }}</s>", system_prompt="<s>"
    )
    pieces = made.render(chat("a</s>"))
    assert [(piece.text, piece.special) for piece in pieces] == [
        ("<s><s>a", True),
        ("</s>", False),
        ("</s>", True),
    ]


def test_a_turn_that_is_not_to_be_answered_ends_where_the_messages_do() -> None:
    made = shapes(chat="[{{ Input }}\n]A:", roles={"user": "U:"})
    assert text_of(made, chat("x", add_generation_prompt=False)) == "[U:x"
    assert text_of(made, chat("x", "y z", continue_final_message=True)) == "[U:x\ny z"
    with pytest.raises(InvalidRequest, match="does not show the messages"):
        shapes(chat="{{ MessageIndex }}").render(chat("x", add_generation_prompt=False))


def test_a_longer_chat_begins_as_the_shorter_one_did() -> None:
    made = shapes(chat="<s>{{ Input }}\nA:", roles={"user": "U:", "assistant": "A:"})
    short = text_of(made, chat("a", add_generation_prompt=False))
    assert text_of(made, chat("a", "b", "c")).startswith(short)


def test_wishes_that_no_template_reads_are_told() -> None:
    prompt = chat("x", template_kwargs={"reasoning_effort": "low", "color": "red", "verbosity": "low"})
    made = shapes(chat="{{ Input }}{{ ReasoningEffort }}{{ color }}")
    assert made.unread(prompt) == ("verbosity",)
    assert text_of(made, prompt) == "xlowred"


def test_every_variable_that_a_go_template_may_read_is_there() -> None:
    def reading(key: str) -> str:
        return translate("".join(f"{{{{.{name}}}}}" for name in sorted(VARIABLES[key])), VARIABLES[key]).text

    message = text_of(shapes(chat_message=reading("chat_message")), chat("x"))
    assert message.count("<no value>") == 1  # there is no FunctionCall
    assert "<no value>" not in text_of(shapes(chat=reading("chat")), chat("x"))
    completion = CompletionTemplate(reading("completion"), special_tokens=())
    edit = EditTemplate(reading("edit"), special_tokens=())
    pieces = completion.render("x") + edit.render(EditPrompt(text="x", instruction="y"))
    assert "<no value>" not in "".join(piece.text for piece in pieces)


def test_marks_of_calls_are_looked_for_in_all_templates() -> None:
    function = translate(
        '{{range .Functions}}{"name"}{{end}}<tool_call>{"name": {{.Input}}}</tool_call>'
    ).text
    made = shapes(own=OWN, function=function)
    assert "own:" in made.source and '<tool_call>{"name": ' in made.source


def test_a_completion_template_shapes_what_is_generated_from_and_nothing_else() -> None:
    engine = echo_engine()
    texts = TemplateTexts(completion="<|im_start|>{{ Input }}")
    intake = make_intake(engine, make_start(template=texts))
    shaped = intake.job(1, GenerateRequest(prompt=TextPrompt("a<|im_end|>"))).prompt
    assert shaped == [257, *b"a<|im_end|>"]
    assert intake.prompts.tokens(TextPrompt("a<|im_end|>"), as_given=True) == [97, 258]


def test_a_failing_completion_template_is_the_requests_problem() -> None:
    intake = make_intake(
        echo_engine(), make_start(template=TemplateTexts(completion="{{ raise_exception('no') }}"))
    )
    with pytest.raises(InvalidRequest, match="the completion template cannot render this request: no"):
        intake.job(1, GenerateRequest(prompt=TextPrompt("a")))
