"""A text of the configuration's that begins every answer."""

from typing import Any

import pytest

from runner.wire.messages import CallDelta, TemplateTexts
from runner.wire.requests import ChatPrompt, Constraint, Delta, GenerateRequest, TextPrompt
from runner.worker.jobs import Job
from tests.support import echo_engine, make_intake, make_start

PROMPT = TextPrompt("hello")


def job(prefix: str, prompt: Any = PROMPT, *, chat: str | None = None, **given: Any) -> Job:
    texts = TemplateTexts(reply_prefix=prefix, chat=chat, reasoning_tags=("<think>", "</think>"))
    return make_intake(echo_engine(), make_start(template=texts)).job(
        1, GenerateRequest(prompt=prompt, **given)
    )


def fed(job: Job, *texts: bytes) -> list[Delta]:
    messages: list[Any] = []
    for number, text in enumerate(texts, start=1):
        messages += job.feed(0, tuple(text), finish="length" if number == len(texts) else None)
    return [message.delta for message in messages if isinstance(message, CallDelta)]


@pytest.mark.parametrize("texts", [(b"one ", b"two"), (b"one two",)])
def test_it_begins_the_first_text_and_no_other(texts: tuple[bytes, ...]) -> None:
    deltas = fed(job("Well: "), *texts)
    assert deltas[0].text.startswith("Well: one ")
    assert "".join(delta.text for delta in deltas) == "Well: one two"


def test_an_empty_answer_is_the_prefix() -> None:
    assert "".join(delta.text for delta in fed(job("Well"), b"")) == "Well"


def test_no_stop_text_is_looked_for_in_it() -> None:
    deltas = fed(job("a. ", stop=(".",)), b"b. c")
    assert "".join(delta.text for delta in deltas) == "a. b"


def test_an_answer_of_a_given_form_is_without_it() -> None:
    deltas = fed(job("Well: ", constraint=Constraint("regex", "x+")), b"xx")
    assert "".join(delta.text for delta in deltas) == "xx"


def test_reasoning_that_prompt_and_prefix_both_open_is_open_once() -> None:
    prompt = ChatPrompt(messages=({"role": "user", "content": "x"},))
    deltas = fed(job("<think>\n", prompt, chat="{{ Input }}<think>", split_reasoning=True), b"hm</think>so")
    assert ("".join(d.reasoning for d in deltas), "".join(d.text for d in deltas)) == ("hm", "so")


def test_no_stop_text_is_looked_for_in_it_in_chats_either() -> None:
    prompt = ChatPrompt(messages=({"role": "user", "content": "x"},))
    deltas = fed(
        job("Answer:\n", prompt, chat="{{ Input }}", split_reasoning=True, stop=("\n",)), b"4", b"2\nno"
    )
    assert "".join(delta.text for delta in deltas) == "Answer:\n42"
