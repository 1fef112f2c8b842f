"""Every format, whole and in pieces: what are calls, what is content, and that nothing is lost."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.worker.output.parts import Kind
from runner.worker.output.tool_calls import ToolCallReader
from runner.worker.output.tool_formats import TOOL_FORMATS
from tests.runner.worker.output.reading import TOOLS, WEATHER, Message, read, splits

PARIS = ("get_weather", '{"city": "Paris"}')
LIST = ("list_models", "{}")
DEEPSEEK = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
KIMI = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"

CALLS = [
    ("hermes", '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}</tool_call>', "", [PARIS]),
    (
        "hermes",
        'Let me see.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "list_models", "arguments": {}}\n</tool_call>\n',
        "Let me see.",
        [PARIS, LIST],
    ),
    ("hermes", '<tool_call>{"arguments": {"city": "Paris"}, "name": "get_weather"}</tool_call>', "", [PARIS]),
    (
        "hermes",
        '<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}</tool_call>',
        "",
        [PARIS],
    ),
    ("hermes", '<tool_call>{"name": "list_models"}</tool_call>', "", [LIST]),
    ("hermes", '<tool_call>{"name": "list_models", "arguments": null}</tool_call>', "", [LIST]),
    ("hermes", '<tool_call>{"name": "list_models", "arguments": {}</tool_call> Done.', "Done.", [LIST]),
    ("hermes", '<tool_call>{"name": "list_models", "arguments": {}}', "", [LIST]),
    (
        "hermes",
        '<tool_call>{"type": "function", "function": {"name": "list_models", "arguments": {}}}</tool_call>',
        "",
        [LIST],
    ),
    ("llama3", '{"name": "get_weather", "parameters": {"city": "Paris"}}', "", [PARIS]),
    ("llama3", ' {"type": "function", "name": "list_models", "parameters": {}}', "", [LIST]),
    (
        "llama3",
        '<|python_tag|>{"name": "get_weather", "parameters": {"city": "Paris"}}; '
        '{"name": "list_models", "parameters": {}}',
        "",
        [PARIS, LIST],
    ),
    (
        "mistral",
        '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Paris"}, "id": "a1b2c3d4e"}, '
        '{"name": "list_models", "arguments": {}}]',
        "",
        [PARIS, LIST],
    ),
    ("mistral", '[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}', "", [PARIS]),
    (
        "mistral-v11",
        'Yes. [TOOL_CALLS]get_weather[CALL_ID]a1b2c3d4e[ARGS]{"city": "Paris"}[TOOL_CALLS]list_models{}',
        "Yes.",
        [PARIS, LIST],
    ),
    ("mistral-v11", '[TOOL_CALLS][{"name": "list_models", "arguments": {}}]', "", [LIST]),
    ("mistral-v11", "[TOOL_CALLS]list_models{}} Done.", "} Done.", [LIST]),
    ("mistral", '[TOOL_CALLS][{"foo": 1}] [TOOL_CALLS]list_models{}', '[TOOL_CALLS][{"foo": 1}]', [LIST]),
    ("granite", '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Paris"}}]', "", [PARIS]),
    ("granite", '<|tool_call|>[{"name": "list_models", "arguments": {}}]<|/tool_call|>', "", [LIST]),
    (
        "deepseek-v3",
        f"{DEEPSEEK[0]}<｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
        '{"city": "Paris"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>list_models\n```json\n'
        f"{{}}\n```<｜tool▁call▁end｜>{DEEPSEEK[1]}",
        "",
        [PARIS, LIST],
    ),
    (
        "deepseek-v3.1",
        f'{DEEPSEEK[0]}<｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{{"city": "Paris"}}<｜tool▁call▁end｜>'
        f"<｜tool▁call▁begin｜>list_models<｜tool▁sep｜>{{}}<｜tool▁call▁end｜>{DEEPSEEK[1]}",
        "",
        [PARIS, LIST],
    ),
    (
        "qwen3-coder",
        "I look.\n<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n"
        "</tool_call>\n<tool_call>\n<function=list_models>\n</function>\n</tool_call>",
        "I look.",
        [PARIS, LIST],
    ),
    ("qwen3-coder", "<tool_call><function=list_models></function></tool_call> Done.", "Done.", [LIST]),
    ("qwen3-coder", '<tool_call>{"name": "list_models", "arguments": {}}</tool_call>', "", [LIST]),
    (
        "glm",
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n</tool_call>\n"
        "<tool_call>list_models\n</tool_call>",
        "",
        [PARIS, LIST],
    ),
    (
        "kimi",
        f'{KIMI[0]}<|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{{"city": "Paris"}}'
        f"<|tool_call_end|><|tool_call_begin|>list_models<|tool_call_argument_begin|>{{}}<|tool_call_end|>{KIMI[1]}",
        "",
        [PARIS, LIST],
    ),
]

NO_CALLS = [
    ("hermes", "Just an answer, 1 < 2.\n"),
    ("hermes", "<tool_call> is what I would write."),
    ("hermes", '<tool_call>{"name": "get_weather", "arguments": [1]}</tool_call>'),
    ("hermes", '<tool_call>{"name": 5, "arguments": {}}</tool_call>'),
    ("hermes", '<tool_call>{"name": "get_weather", "argu'),
    ("hermes", "<tool_c"),
    ("hermes", '<tool_call>{"answer": 42}</tool_call>'),
    ("hermes", '<tool_call>{"name": "a", "arguments": "not json"}</tool_call>'),
    ("hermes", '<tool_call>{"name": "\\ud800"}</tool_call>'),
    ("hermes", '<tool_call>{"arguments": {"a": "\\ud800"}, "name": "f"}</tool_call>'),
    ("hermes", '<tool_call>{"arguments": {"a": 1e999}, "name": "f"}</tool_call>'),
    ("hermes", '<tool_call>{"arguments": "{\\"a\\": NaN}", "name": "f"}</tool_call>'),
    ("hermes", '<tool_call>{"name": "f", "arguments": "' + "[" * 100_000 + '"}</tool_call>'),
    ("llama3", '{"name": "Bob", "parameters": {"age": 3}}'),
    ("llama3", '{"title": "An answer in JSON", "name": "get_weather"}'),
    ("llama3", '{"name": "get_weather", "parameters"'),
    ("llama3", "Hello {}"),
    ("llama3", '<|python_tag|>print("hello")'),
    ("mistral", "[TOOL_CALLS][]"),
    ("mistral", "[TOOL_CALLS] and words"),
    ("mistral", "[TOOL_CALLS]" + "x" * 300 + "{}"),
    ("mistral-v11", "[TOOL_CALLS]two words{}"),
    ("granite", "<|tool_call|>[1, 2]"),
    ("deepseek-v3.1", "<｜tool▁call▁begin｜>get weather"),
    ("qwen3-coder", "<tool_call>\n<function=get_weather"),
    ("qwen3-coder", "<tool_call> is what I would write, and so on" + "." * 300),
    ("glm", "<tool_call>"),
    ("kimi", "<|tool_call_begin|>functions.get_weather:0"),
]

PIECES = {
    "hermes": ("<tool_call>", "</tool_call>", "\n"),
    "llama3": ("<|python_tag|>", ";", "; ", '{"name": "get_weather", "parameters": '),
    "mistral": ("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "get_weather", "[", "]", ","),
    "mistral-v11": ("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "get_weather", "[", "]", ","),
    "granite": ("<|tool_call|>", "<|/tool_call|>", "[", "]", ","),
    "deepseek-v3": (
        *DEEPSEEK,
        "<｜tool▁call▁begin｜>",
        "function<｜tool▁sep｜>f\n```json\n",
        "\n```<｜tool▁call▁end｜>",
    ),
    "deepseek-v3.1": (*DEEPSEEK, "<｜tool▁call▁begin｜>", "f<｜tool▁sep｜>", "<｜tool▁call▁end｜>"),
    "qwen3-coder": (
        "<tool_call>",
        "</tool_call>",
        "<function=get_weather>",
        "</function>",
        "<parameter=city>",
        "<parameter=days>\n",
        "</parameter>",
        "\n",
    ),
    "glm": (
        "<tool_call>",
        "</tool_call>",
        "get_weather\n",
        "<arg_key>days</arg_key>",
        "<arg_value>",
        "</arg_value>",
    ),
    "kimi": (
        *KIMI,
        "<|tool_call_begin|>",
        "functions.f:0",
        "<|tool_call_argument_begin|>",
        "<|tool_call_end|>",
    ),
}
JSON_PIECES = (
    '{"name": "get_weather", "arguments": ',
    '{"city": "Paris"}',
    '{"a": [1.5, true, "\\u00e9\\n{"]}',
    '"arguments"',
    '"name": "list_models"',
    '{"x": nope}',
    "{}",
    "{",
    "}",
    '"',
    ":",
    ",",
)


@pytest.mark.parametrize(("format", "text", "content", "calls"), CALLS)
def test_calls_are_found(format: str, text: str, content: str, calls: list[tuple[str, str]]) -> None:
    order = ("text",) * bool(content) + ("calls",) if not text.endswith("Done.") else ("calls", "text")
    wanted = Message(text=content, calls=tuple(calls), finish="tool_calls", order=order)
    assert read([text], format) == wanted
    assert read(text, format) == wanted


@pytest.mark.parametrize(("format", "text"), NO_CALLS)
def test_what_only_looks_like_a_call_is_content(format: str, text: str) -> None:
    wanted = Message(text=text, order=("text",))
    assert read([text], format) == wanted
    assert read(text, format) == wanted


@pytest.mark.parametrize("format", TOOL_FORMATS)
def test_no_split_of_the_text_changes_the_message(format: str) -> None:
    pieces = st.one_of(
        st.sampled_from(PIECES[format]), st.sampled_from(JSON_PIECES), st.text("ab \n<{[", max_size=3)
    )

    @settings(deadline=None)
    @given(st.lists(pieces, max_size=12).map("".join), st.booleans(), st.data())
    def check(text: str, parallel: bool, data: st.DataObject) -> None:
        whole = read([text], format, parallel=parallel, stops=["ab"])
        assert read(data.draw(splits(text)), format, parallel=parallel, stops=["ab"]) == whole
        if whole.finish == "tool_calls":
            assert all(isinstance(json.loads(arguments), dict) for _, arguments in whole.calls)

    check()


@settings(deadline=None)
@given(st.sampled_from(CALLS), st.data())
def test_no_split_of_a_call_changes_it(row: tuple[str, str, str, object], data: st.DataObject) -> None:
    assert read(data.draw(splits(row[1])), row[0]) == read([row[1]], row[0])


def test_arguments_are_passed_on_as_they_are_written() -> None:
    reader = ToolCallReader(TOOL_FORMATS["hermes"], dict.fromkeys(TOOLS, WEATHER))
    text = '<tool_call>{"name": "get_weather", "arguments": {"city": "Pa'
    assert reader.feed(text) == [(Kind.CALL, "get_weather", ""), (Kind.ARGUMENTS, '{"city": "Pa', "")]
    assert reader.feed("ris") == [(Kind.ARGUMENTS, "ris", "")]
    assert reader.feed('"}}') == [(Kind.ARGUMENTS, '"}', ""), (Kind.END, "", "")]


def test_a_call_that_is_cut_off_keeps_what_came_and_is_not_told_as_made() -> None:
    text = '<tool_call>{"name": "get_weather", "arguments": {"city": "Par'
    assert read(text, "hermes", finish="length") == Message(
        calls=(("get_weather", '{"city": "Par'),), finish="length", order=("calls",)
    )
    assert read(text, "hermes").finish == "stop"
    for value in ("12", '"\\u00'):
        text = '<tool_call>{"name": "f", "arguments": {"a": ' + value
        assert read(text, "hermes").calls == (("f", '{"a": ' + value),)


def test_what_follows_broken_arguments_is_content() -> None:
    message = read('<tool_call>{"name": "f", "arguments": {"a": nope}} and so on', "hermes")
    assert message == Message(
        text="nope}} and so on", calls=(("f", '{"a": '),), finish="stop", order=("calls", "text")
    )


def test_a_whole_call_beside_a_broken_one_is_not_told_as_all_there_is() -> None:
    call = '<tool_call>{"name": "list_models", "arguments": {}}</tool_call>'
    assert read(call + call[:-14], "hermes").finish == "stop"


def test_one_call_is_all_where_calls_may_not_be_parallel() -> None:
    text = CALLS[1][1]
    wanted = Message(text="Let me see.", calls=(PARIS,), finish="tool_calls", order=("text", "calls"))
    assert read([text], "hermes", parallel=False) == wanted
    assert read(text, "hermes", parallel=False, finish="length") == wanted


def test_a_call_keeps_the_id_that_its_model_gave_it() -> None:
    call = "<|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{}<|tool_call_end|>"
    reader = ToolCallReader(TOOL_FORMATS["kimi"], {})
    ids = [part.id for part in reader.feed(KIMI[0] + call + KIMI[1]) if part.kind is Kind.CALL]
    assert ids == ["functions.f:0"]


def test_text_of_a_parameter_is_passed_on_as_it_is_written() -> None:
    reader = ToolCallReader(TOOL_FORMATS["qwen3-coder"], dict.fromkeys(TOOLS, WEATHER))
    parts = reader.feed("<tool_call>\n<function=get_weather>\n<parameter=city>\nPa")
    assert [part[:2] for part in parts] == [(Kind.CALL, "get_weather"), (Kind.ARGUMENTS, '{"city": "Pa')]
    assert reader.feed("ris\n</param") == [(Kind.ARGUMENTS, "ris", "")]


def test_half_a_character_in_arguments_stays_escaped() -> None:
    message = read(['<tool_call>{"name": "f", "arguments": {"a": "\\ud800"}}</tool_call>'], "hermes")
    assert message.calls == (("f", '{"a": "\\ud800"}'),)


def test_a_long_call_whose_name_comes_last_is_read_once() -> None:
    value = "x" * 200_000
    chunks = [
        '<tool_call>{"arguments": {"a": "',
        *(value[i : i + 100] for i in range(0, len(value), 100)),
        '"},',
    ]
    message = read([*chunks, '"name": "f"}</tool_call>'], "hermes")
    assert message.calls == (("f", json.dumps({"a": value})),)
