"""What is known of a model's markup, and jobs that are read by it."""

from typing import Any, get_args

import msgspec
import pytest

from backends.contract import TokenLogprobs
from backends.echo.tokenizer import ByteTokenizer
from repository.config import ModelConfig, ToolFormat
from runner.errors import UnsupportedFeature
from runner.launch import template_texts
from runner.wire.messages import CallDelta, CallFinished, TemplateTexts
from runner.wire.requests import ChatPrompt, Delta, GenerateRequest, ToolUse
from runner.worker.jobs import Job
from runner.worker.output.markup import Markup
from runner.worker.output.reasoning import ReasoningTags, find_reasoning_tags
from runner.worker.output.tool_formats import TOOL_FORMATS, find_tool_format
from tests.support import echo_engine

THINK = ReasoningTags("<think>", "</think>")
CALL = '<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>'
PROMPT = ChatPrompt(
    messages=({"role": "user", "content": "x"},), tools=({"type": "function", "function": {"name": "f"}},)
)
HERMES = TemplateTexts(tool_format="hermes", reasoning_tags=("<think>", "</think>"))


def make_job(configured: TemplateTexts = HERMES, *, prompt: str = "x", **given: Any) -> Job:
    """A job that is read for tools and reasoning."""
    engine = echo_engine()
    fields = {"prompt": PROMPT, "tool_use": ToolUse(), "split_reasoning": True, **given}
    return Job(
        1,
        GenerateRequest(**fields),
        prompt=list(prompt.encode()),
        stops=("STOP",),
        engine=engine,
        markup=Markup(engine, "", configured),
        clock=lambda: 0.0,
    )


def feed(job: Job, text: str, **given: Any) -> list[Delta]:
    """The deltas that `text` gives, a byte being a token."""
    messages = job.feed(0, tuple(text.encode()), **given)
    return [message.delta for message in messages if isinstance(message, CallDelta)]


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{{ '<tool_call>' }}{{ call | tojson }}{{ '</tool_call>' }}", "hermes"),
        ("{{ '<tool_call>\\n<function=' + name + '>' }}", None),
        ("{{ '<tool_call>\\n<function=' + name + '>\\n<parameter=' + key + '>' }}", "qwen3-coder"),
        ("{{ '<tool_call>' + name + '<arg_key>' }}", "glm"),
        ("{{ '<|tool_calls_section_begin|>' }}", "kimi"),
        ("{{ '<|python_tag|>' }}", "llama3"),
        ('{{ \'{"name": "\' + name + \'", "parameters": \' }}{{ "<|eot_id|>" }}', "llama3"),
        ("{{ '[TOOL_CALLS] [' }}", "mistral"),
        ("{{ '[TOOL_CALLS]' + name + '[ARGS]' }}", "mistral-v11"),
        ("{{ '<|tool_call|>' }}", "granite"),
        ("{{ '<｜tool▁calls▁begin｜>' + '\\n```json\\n' }}", "deepseek-v3"),
        ("{{ '<｜tool▁calls▁begin｜>' }}", "deepseek-v3.1"),
        ("{{ message.content }}", None),
        ("", None),
    ],
)
def test_the_chat_template_tells_the_format_of_calls(template: str, name: str | None) -> None:
    assert find_tool_format(template) == (name and TOOL_FORMATS[name])


def test_the_configuration_knows_the_formats_that_there_are() -> None:
    assert set(get_args(ToolFormat)) == {*TOOL_FORMATS, "none"}


@pytest.mark.parametrize(
    ("template", "configured", "format", "tags"),
    [
        ("<tool_call>", {}, "hermes", None),
        ("<tool_call> </think>", {"tool_format": "none"}, None, THINK),
        ("<tool_call>", {"tool_format": "llama3"}, "llama3", None),
        ("[/THINK]", {}, None, ReasoningTags("[THINK]", "[/THINK]")),
        ("</think>", {"reasoning": {"split": False}}, None, None),
        ("", {"reasoning": {}}, None, THINK),
        ("</think>", {"reasoning": {"open": "<a>", "close": "<b>"}}, None, ReasoningTags("<a>", "<b>")),
    ],
)
def test_the_configuration_goes_before_what_the_template_shows(
    template: str, configured: dict[str, Any], format: str | None, tags: ReasoningTags | None
) -> None:
    texts = template_texts(msgspec.convert({"template": configured}, ModelConfig))
    markup = Markup(echo_engine(), template, texts)
    assert markup.tool_format == (format and TOOL_FORMATS[format])
    assert markup.reasoning == tags


def test_a_vocabulary_with_a_token_for_each_tag_tells_them_too() -> None:
    assert find_reasoning_tags("", lambda text: [1]) == THINK
    assert find_reasoning_tags("", lambda text: [1, 2]) is None


@pytest.mark.parametrize(("split", "read"), [(True, ("hm", "so")), (False, ("", "hmso"))])
def test_tags_that_are_control_tokens_are_read_where_they_are_looked_for(
    split: bool, read: tuple[str, str]
) -> None:
    job = make_job(TemplateTexts(reasoning_tags=("<|bos|>", "<|pad|>")), tool_use=None, split_reasoning=split)
    tokens = (ByteTokenizer.BOS, *b"hm", ByteTokenizer.PAD, *b"so", ByteTokenizer.IM_END)
    messages = job.feed(0, tokens, finish="stop")
    deltas = [message.delta for message in messages if isinstance(message, CallDelta)]
    assert ("".join(d.reasoning for d in deltas), "".join(d.text for d in deltas)) == read


@pytest.mark.parametrize(
    ("prompt", "is_open"),
    [
        ("user: hi\n<think>\n", True),
        ("<think>", True),
        ("<think>\n\n</think>\n\n", False),
        ("hi", False),
        ("", False),
    ],
)
def test_the_prompt_tells_whether_reasoning_is_open(prompt: str, is_open: bool) -> None:
    assert Markup(echo_engine(), "", HERMES).is_reasoning(list(prompt.encode())) == is_open
    deltas = feed(make_job(prompt=prompt), "Hm.</think>So.")
    assert deltas[0].reasoning == ("Hm." if is_open else "")


def test_tools_are_refused_where_the_model_has_no_format_for_calls() -> None:
    with pytest.raises(UnsupportedFeature, match=r"template\.tool_format") as caught:
        make_job(TemplateTexts())
    assert caught.value.param == "tools"


def test_plain_text_is_left_as_it_is_where_nobody_asks_for_more() -> None:
    job = make_job(tool_use=None, split_reasoning=False)
    [delta] = feed(job, f"<think>Hm.</think>{CALL}")
    assert delta.text == f"<think>Hm.</think>{CALL}"


def test_a_job_tells_reasoning_text_and_calls_apart_and_counts() -> None:
    job = make_job()
    deltas = feed(job, f"<think>Hm.</think>So.\n{CALL}!")
    messages = job.feed(0, (ByteTokenizer.IM_END,), finish="stop")
    assert [(d.reasoning, d.text, len(d.tool_calls)) for d in deltas] == [("Hm.", "So.", 1), ("", "!", 0)]
    [call] = deltas[0].tool_calls
    assert (call.index, call.name, call.arguments) == (0, "f", '{"x": 1}')
    assert call.id is not None and call.id.startswith("call_") and len(call.id) == 29
    last, finished = messages
    assert isinstance(last, CallDelta) and isinstance(finished, CallFinished)
    assert last.delta.finish == "tool_calls"
    assert finished.finished.usage.reasoning_tokens == len("<think>Hm.</think>")


def test_tokens_and_their_logprobs_come_with_the_delta_that_releases_them() -> None:
    job = make_job(logprobs=0)
    given: list[int] = []
    for byte in CALL.encode():
        deltas = feed(job, chr(byte), logprobs=(TokenLogprobs(byte, -1.0),))
        for delta in deltas:
            assert len(delta.logprobs) == len(delta.token_ids)
            given += delta.token_ids
    assert given == list(CALL[: CALL.index("</tool_call>") - 1].encode())
    messages = job.feed(0, (), finish="stop")
    assert isinstance(messages[0], CallDelta)
    assert bytes(messages[0].delta.token_ids) == b"}</tool_call>"


def test_a_sample_is_finished_after_the_one_call_it_may_make() -> None:
    job = make_job(tool_use=ToolUse(parallel=False), n=2)
    deltas = feed(job, f"So. {CALL}{CALL}")
    assert deltas[-1].finish == "tool_calls"
    assert len({call.index for delta in deltas for call in delta.tool_calls}) == 1
    assert [sample.is_finished for sample in job.samples] == [True, False]


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("<think>one STOP two", "one ", ""),
        ("<think>one</think>two STOP", "one", "two "),
        ("<think>END</think>one END two", "END", "one "),
    ],
)
def test_the_models_own_stops_end_all_and_those_of_the_request_the_answer(
    text: str, reasoning: str, answer: str
) -> None:
    job = make_job(stop=("END",))
    deltas = feed(job, text)
    assert deltas[-1].finish == "stop"
    assert deltas[-1].stop_reason in ("STOP", "END")
    assert ("".join(d.reasoning for d in deltas), "".join(d.text for d in deltas)) == (reasoning, answer)


def test_only_the_last_delta_tells_the_end() -> None:
    deltas = feed(make_job(), f"{CALL}!", finish="length")
    assert [delta.finish for delta in deltas] == [None, "length"]


def test_an_engine_that_gives_text_is_read_too() -> None:
    job = make_job()
    messages = job.feed(0, text=f"<think>Hm.</think>{CALL}", finish="stop")
    delta = messages[0]
    assert isinstance(delta, CallDelta)
    assert (delta.delta.reasoning, len(delta.delta.tool_calls), delta.delta.finish) == (
        "Hm.",
        1,
        "tool_calls",
    )


def test_ids_of_calls_are_such_as_the_template_takes() -> None:
    job = make_job(TemplateTexts(tool_format="mistral"))
    [delta] = feed(job, "[TOOL_CALLS]f{}")
    [call] = delta.tool_calls
    assert call.id is not None and len(call.id) == 9 and call.id.isalnum()
