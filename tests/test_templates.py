"""Prompt templates in LocalAI's shapes, through a whole server: the echo model repeats the last user's turn, so that
what it was shown is seen.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import pytest

from repository.scan import scan
from tests.serving import Served, serve

CHATML_MESSAGE = """\
<|im_start|>{{if eq .RoleName "assistant"}}assistant{{else if eq .RoleName "system"}}system{{else}}user{{end}}
{{- if .FunctionCall }}
<tool_call>{{toJson .FunctionCall}}</tool_call>
{{- end }}
{{ .Content }}<|im_end|>"""

CHATML = "<|bos|>{{.Input}}\n<|im_start|>assistant\n"

GPT = """\
name: gpt-4
backend: echo
system_prompt: Be brief.
template:
  chat: chatml
  chat_message: chatml-message.tmpl
  completion: |-
    <|im_start|>user
    Go on: {{.Input}}<|im_end|>
    <|im_start|>assistant
    {{ "" }}
  edit: |-
    <|im_start|>user
    {{.Instruction}}: {{ .Input | trim | upper }}<|im_end|>
    <|im_start|>assistant
    {{ "" }}
  function: |-
    <|im_start|>system
    {{range .Functions}}{{.Name}}({{range $name, $_ := .Parameters.properties}}{{$name}}{{end}}){{end}}
    Write <tool_call>{"name": ..., "arguments": ...}</tool_call><|im_end|>
    {{.Input}}
    <|im_start|>assistant
    {{ "" }}
"""

MODELS = {
    "jinja": """\
backend: echo
template:
  chat: "{{ Input }}\\n<|im_start|>assistant{{ '\\n' }}"
  chat_message: "<|im_start|>{{ RoleName }}\\n{{ Content }}{{ '!' if LastMessage }}<|im_end|>"
  join_chat_messages_by_character: "+"
  reply_prefix: "Well: "
""",
    "roles": """\
backend: echo
system_prompt: Be kind.
roles: {user: "HUMAN:", assistant: "GPT:", system: "RULES:"}
template:
  chat: |
    {{.Input}}
    GPT:
""",
}
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("templates")
    models = root / "models"
    models.mkdir()
    (models / "gpt-4.yaml").write_text(GPT)
    (models / "chatml.tmpl").write_text(CHATML)
    (models / "chatml-message.tmpl").write_text(CHATML_MESSAGE)
    for name, config in MODELS.items():
        (models / name / "1").mkdir(parents=True)
        (models / name / "config.yaml").write_text(config)
    with serve(models, root / "state") as running:
        yield running


def prompt_of(served: Served, model: str, *messages: tuple[str, str], **given: Any) -> str:
    body = {"model": model, "messages": [{"role": role, "content": text} for role, text in messages], **given}
    answer = httpx.post(f"{served.url}/apply-template", json=body)
    assert answer.status_code == 200, answer.text
    prompt: str = answer.json()["prompt"]
    return prompt


def test_messages_are_rendered_one_by_one_joined_and_put_into_the_chat(served: Served) -> None:
    messages = (("user", "Hi"), ("assistant", "Ho"), ("user", "So?"))
    assert prompt_of(served, "gpt-4", *messages) == (
        "<|bos|><|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHo<|im_end|>\n<|im_start|>user\nSo?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_system_message_takes_the_place_of_the_system_prompt(served: Served) -> None:
    made = prompt_of(served, "gpt-4", ("system", "Be long."), ("user", "Hi"))
    assert "Be long." in made and "Be brief." not in made
    assert prompt_of(served, "roles", ("user", "Hi")) == "RULES:Be kind.\nHUMAN:Hi\nGPT:\n"


def test_a_chat_is_answered(served: Served) -> None:
    answer = served.client.chat.completions.create(
        model="gpt-4", messages=[{"role": "user", "content": "So what"}]
    )
    assert answer.choices[0].message.content == "So what"


def test_a_completion_and_an_edit_are_answered_by_their_templates(served: Served) -> None:
    completion = served.client.completions.create(model="gpt-4", prompt="one two", max_tokens=99)
    assert completion.choices[0].text == "Go on: one two"
    body = {"model": "gpt-4", "input": " wat ", "instruction": "Mend"}
    edit = httpx.post(f"{served.url}/v1/edits", json=body).json()
    assert edit["choices"][0]["text"] == "Mend: WAT"


def test_other_protocols_ask_by_the_same_templates(served: Served) -> None:
    response = served.client.responses.create(model="gpt-4", input="Over responses")
    assert response.output_text == "Over responses"
    with anthropic.Anthropic(base_url=served.url, api_key="none", max_retries=0) as client:
        message = client.messages.create(
            model="gpt-4", max_tokens=99, messages=[{"role": "user", "content": "Over messages"}]
        )
    assert message.content[0].text == "Over messages"  # type: ignore[union-attr]
    body = {"text_input": "kserve", "parameters": {"max_tokens": 99, "exclude_input_in_output": True}}
    answer = httpx.post(f"{served.url}/v2/models/gpt-4/generate", json=body).json()
    assert answer["text_output"] == "Go on: kserve"


def test_what_a_user_writes_is_no_control_token_and_what_a_template_writes_is(served: Served) -> None:
    text = "a<|im_end|>b"
    answer = served.client.chat.completions.create(
        model="gpt-4", messages=[{"role": "user", "content": text}]
    )
    assert answer.choices[0].message.content == text
    completion = served.client.completions.create(model="gpt-4", prompt=text, max_tokens=99)
    assert completion.choices[0].text == f"Go on: {text}"


def test_the_function_template_shows_the_tools(served: Served) -> None:
    made = prompt_of(served, "gpt-4", ("user", "Rain?"), tools=TOOLS)
    assert made.startswith("<|im_start|>system\nweather(city)\nWrite <tool_call>{")
    refused = httpx.post(
        f"{served.url}/v1/chat/completions",
        json={"model": "roles", "messages": [{"role": "user", "content": "x"}], "tools": TOOLS},
    )
    assert refused.status_code == 400 and "template.function" in refused.json()["error"]["message"]


def test_calls_are_read_as_the_format_says(served: Served) -> None:
    said = '<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>'
    choice = served.client.chat.completions.create(
        model="gpt-4", messages=[{"role": "user", "content": said}], tools=TOOLS
    ).choices[0]
    [call] = choice.message.tool_calls or ()
    assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Rome"}')  # type: ignore[union-attr]
    assert choice.finish_reason == "tool_calls"


def test_a_call_that_was_made_reaches_the_message_template(served: Served) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    body = {
        "model": "gpt-4",
        "messages": [
            {"role": "user", "content": "Rain?"},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "no"},
        ],
    }
    made = httpx.post(f"{served.url}/apply-template", json=body).json()["prompt"]
    function = '{"name":"weather","arguments":"{\\"city\\":\\"Rome\\"}"}'
    calls = f'[{{"index":0,"id":"c1","type":"function","function":{function}}}]'
    assert f"<|im_start|>assistant\n<tool_call>{calls}</tool_call>\n<|im_end|>" in made


def test_jinja_gets_the_same_variables_and_answers_begin_as_told(served: Served) -> None:
    made = prompt_of(served, "jinja", ("system", "S"), ("user", "Hi"))
    assert made == "<|im_start|>system\nS<|im_end|>+<|im_start|>user\nHi!<|im_end|>\n<|im_start|>assistant\n"
    answer = served.client.chat.completions.create(
        model="jinja", messages=[{"role": "user", "content": "Hi"}]
    )
    assert answer.choices[0].message.content == "Well: Hi!"
    stream = served.client.chat.completions.create(
        model="jinja", messages=[{"role": "user", "content": "Hi"}], stream=True
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "Well: Hi!"


def test_a_final_message_is_continued(served: Served) -> None:
    given = {"continue_final_message": True, "add_generation_prompt": False}
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho ho"}]
    body = {"model": "gpt-4", "messages": messages, **given}
    made = httpx.post(f"{served.url}/apply-template", json=body).json()["prompt"]
    assert made.endswith("<|im_start|>assistant\nHo ho")
    open_end = prompt_of(served, "gpt-4", ("user", "Hi"), add_generation_prompt=False)
    assert open_end.endswith("<|im_start|>user\nHi<|im_end|>")


def test_a_text_to_tokenize_stays_as_it_is(served: Served) -> None:
    body = {"model": "gpt-4", "prompt": "abc", "add_special_tokens": False}
    assert httpx.post(f"{served.url}/tokenize", json=body).json()["tokens"] == [97, 98, 99]


def test_a_template_file_that_changes_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "backend: echo\nname: a\ntemplate: {chat: shape}\nparameters: {temperature: 0}\n"
    )
    (tmp_path / "shape.tmpl").write_text("one {{.Input}}")
    first = scan(tmp_path)
    assert first.models["a"].config.template.chat == "one {{ go_text(Input) }}"  # type: ignore[union-attr]
    (tmp_path / "shape.tmpl").write_text("and two {{.Input}}")
    moving = scan(tmp_path, first)
    assert scan(tmp_path, moving).models["a"].config.template.chat == "and two {{ go_text(Input) }}"  # type: ignore[union-attr]
