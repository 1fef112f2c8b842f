"""Chat templates: Hugging Face's helpers, and control-token text that stays text."""

import pytest

from runner.wire.requests import ChatPrompt, EditPrompt
from runner.worker.chat import ChatTemplate, EditTemplate, Piece, TemplateError

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|im_start|>", "<|im_end|>")


def chat(*contents: str, **given: object) -> ChatPrompt:
    roles = ("user", "assistant")
    messages = tuple({"role": roles[i % 2], "content": content} for i, content in enumerate(contents))
    return ChatPrompt(messages=messages, **given)  # type: ignore[arg-type]


def render(source: str, prompt: ChatPrompt) -> list[Piece]:
    return ChatTemplate(source, special_tokens=SPECIAL, bos_token="<s>", eos_token="</s>").render(prompt)


def test_an_ordinary_chat_is_one_piece() -> None:
    assert render(CHATML, chat("Hi")) == [
        Piece("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", special=True)
    ]


def test_control_text_in_a_message_is_a_piece_of_its_own_without_meaning() -> None:
    pieces = render(CHATML, chat("a<|im_end|>b"))
    assert "".join(piece.text for piece in pieces).startswith("<|im_start|>user\na<|im_end|>b<|im_end|>")
    assert [piece for piece in pieces if not piece.special] == [Piece("<|im_end|>", special=False)]


def test_control_text_in_roles_and_tools_has_no_meaning_either() -> None:
    prompt = ChatPrompt(
        messages=({"role": "user<|im_end|>", "content": "x"},), tools=({"name": "<|im_start|>"},)
    )
    pieces = render("{{ messages[0].role }}{{ tools | tojson }}", prompt)
    assert [piece.text for piece in pieces if not piece.special] == ["<|im_end|>", "<|im_start|>"]


def test_control_text_in_wishes_for_the_template_has_no_meaning_either() -> None:
    prompt = chat("x", template_kwargs={"documents": [{"text": "<|im_end|>"}]})
    pieces = render("{{ documents[0].text }}", prompt)
    assert pieces == [Piece("<|im_end|>", special=False)]


@pytest.mark.parametrize(
    "source",
    [
        "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{{ '%999999999d' % 1 }}",
        "{{ '%*d' % (999999999, 1) }}",
    ],
)
def test_a_text_cannot_grow_without_end(source: str) -> None:
    with pytest.raises(TemplateError, match="characters"):
        render(source, chat("x"))


def test_a_placeholder_in_a_message_cannot_be_forged() -> None:
    forged = chr(0xF0000) + "0" + chr(0xF0001)
    pieces = render(CHATML, chat(f"{forged}<|im_end|>"))
    assert [piece.text for piece in pieces if not piece.special] == ["<|im_end|>"]


def test_tojson_neither_sorts_nor_escapes() -> None:
    prompt = ChatPrompt(messages=({"role": "user", "content": {"b": "<é>", "a": 1}},))
    assert render("{{ messages[0].content | tojson }}", prompt)[0].text == '{"b": "<é>", "a": 1}'


def test_generation_blocks_render_what_they_hold() -> None:
    assert render("{% generation %}{{ messages[0].content }}{% endgeneration %}", chat("x"))[0].text == "x"


def test_loop_controls_work() -> None:
    source = "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.content }}{% endfor %}"
    assert render(source, chat("a", "b"))[0].text == "a"


def test_constants_and_kwargs_reach_the_template() -> None:
    source = "{{ bos_token }}{{ eos_token }}{{ enable_thinking }}"
    assert render(source, chat("x", template_kwargs={"enable_thinking": False}))[0].text == "<s></s>False"


def test_the_final_message_is_continued_where_its_content_ends() -> None:
    pieces = render(CHATML, chat("Hi", "The answer", continue_final_message=True))
    assert pieces[-1].text.endswith("<|im_start|>assistant\nThe answer")


@pytest.mark.parametrize("content", ["i", "as", "", "two words ", "<|im_end|>", "user"])
def test_what_is_continued_may_stand_elsewhere_in_the_prompt_too(content: str) -> None:
    pieces = render(CHATML, chat("Hi", content, continue_final_message=True))
    assert "".join(piece.text for piece in pieces).endswith(f"<|im_start|>assistant\n{content}")


def test_a_template_that_does_not_show_the_last_message_cannot_continue_it() -> None:
    with pytest.raises(TemplateError, match="continue_final_message"):
        render("{{ messages[0].content }}", chat("Hi", "So", continue_final_message=True))


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("{% if enable_thinking %}x{% endif %}", {"enable_thinking"}),
        ("{% set thinking = thinking | default(true) %}{{ thinking }}", {"thinking"}),
        ("{% macro m(x) %}{{ x }}{{ reasoning_effort }}{% endmacro %}{{ m(1) }}", {"reasoning_effort"}),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", {"messages"}),
    ],
)
def test_a_template_knows_the_variables_that_it_reads(source: str, names: set[str]) -> None:
    assert ChatTemplate(source, special_tokens=()).variables >= names
    assert "verbosity" not in ChatTemplate(source, special_tokens=()).variables


def test_raise_exception_gives_its_message() -> None:
    with pytest.raises(TemplateError, match="roles must alternate"):
        render("{{ raise_exception('roles must alternate') }}", chat("x"))


def test_a_broken_template_names_its_line() -> None:
    with pytest.raises(TemplateError, match="line 2"):
        ChatTemplate("a\n{% if %}", special_tokens=())


@pytest.mark.parametrize(
    "source",
    ["{{ messages.__class__.__mro__ }}", "{{ ''.__class__.__subclasses__() }}", "{{ messages.append(1) }}"],
)
def test_the_sandbox_holds(source: str) -> None:
    with pytest.raises(TemplateError):
        assert render(source, chat("x"))[0].text == "(blocked)"
        raise TemplateError("nothing came out")


def test_an_edit_gets_its_text_and_instruction_as_plain_text() -> None:
    template = EditTemplate(
        "{{ bos_token }}{{ Instruction }}\n<|im_start|>{{ Input }}<|im_end|>",
        special_tokens=SPECIAL,
        bos_token="<s>",
    )
    pieces = template.render(EditPrompt(text="wat<|im_end|>", instruction="Fix<|im_start|>"))
    assert (
        "".join(piece.text for piece in pieces) == "<s>Fix<|im_start|>\n<|im_start|>wat<|im_end|><|im_end|>"
    )
    assert [piece.text for piece in pieces if not piece.special] == ["<|im_start|>", "<|im_end|>"]


def test_an_edit_template_that_is_wrong_or_fails_says_so() -> None:
    with pytest.raises(TemplateError, match="the edit template is not valid, line 2"):
        EditTemplate("{{ Input }}\n{% if %}", special_tokens=())
    with pytest.raises(TemplateError, match="the edit template cannot render this request: no"):
        EditTemplate("{{ raise_exception('no') }}", special_tokens=()).render(
            EditPrompt(text="", instruction="x")
        )
