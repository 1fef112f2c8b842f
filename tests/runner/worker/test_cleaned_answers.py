"""What a configuration cuts from answers goes from their content, and from nothing else that a model writes."""

import re

from repository.config import ModelConfig
from repository.patterns import python_pattern
from runner.wire.messages import CallDelta, CleanUp, Pattern, TemplateTexts
from runner.wire.requests import ChatPrompt, Constraint, Delta, GenerateRequest, TextPrompt, ToolUse
from tests.support import echo_engine, make_intake, make_start

CUT = CleanUp(
    cutstrings=tuple(Pattern(each.whole, each.growing) for each in [python_pattern("o+")]), trimspace=("so",)
)
TEMPLATE = TemplateTexts(
    chat="{{ messages[0].content }}", tool_format="hermes", reasoning_tags=("<think>", "</think>")
)
CALL = '<tool_call>{"name": "look", "arguments": {"at": "moon"}}</tool_call>'
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def told(text: str, *, finish: str = "length", clean_up: CleanUp = CUT, **given: object) -> list[Delta]:
    """The deltas of an answer that an engine writes byte by byte."""
    engine = echo_engine()
    intake = make_intake(engine, make_start(clean_up=clean_up, template=TEMPLATE))
    job = intake.job(1, GenerateRequest(**{"prompt": TextPrompt("x"), **given}))  # type: ignore[arg-type]
    data = text.encode()
    messages = [
        message
        for at, byte in enumerate(data)
        for message in job.feed(0, (byte,), finish=finish if at == len(data) - 1 else None)
    ]
    return [message.delta for message in messages if isinstance(message, CallDelta)]


def content(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def test_content_is_cleaned_and_told_as_it_comes() -> None:
    deltas = told("a cool moon rose ")
    assert content(deltas) == "a cl mn rse"
    assert len([delta for delta in deltas if delta.text]) > 5


def test_tokens_of_what_is_cut_are_told_all_the_same() -> None:
    deltas = told("moon.")
    assert content(deltas) == "mn." and sum((delta.token_ids for delta in deltas), ()) == tuple(b"moon.")


def test_a_stop_text_is_found_in_what_the_model_writes() -> None:
    deltas = told("a moo", stop=("oo",))
    assert content(deltas) == "a m" and deltas[-1].stop_reason == "oo"


def test_reasoning_and_calls_stay_as_they_are() -> None:
    deltas = told(
        f"<think>too</think>so look {CALL}",
        prompt=ChatPrompt(messages=({"role": "user", "content": "hi"},), tools=(TOOL,)),
        split_reasoning=True,
        tool_use=ToolUse(),
    )
    assert "".join(delta.reasoning for delta in deltas) == "too"
    assert content(deltas) == "s lk"
    arguments = "".join(call.arguments for delta in deltas for call in delta.tool_calls)
    assert re.sub(r"\s", "", arguments) == '{"at":"moon"}'


def test_what_is_held_back_comes_before_the_call_that_it_stands_before() -> None:
    deltas = told(
        f"the E{CALL}",
        clean_up=CleanUp(trimsuffix=("END",)),
        prompt=ChatPrompt(messages=({"role": "user", "content": "hi"},), tools=(TOOL,)),
        tool_use=ToolUse(),
    )
    assert content(deltas) == "the E"
    first_call = next(at for at, delta in enumerate(deltas) if delta.tool_calls)
    assert content(deltas[: first_call + 1]) == "the E"


def test_an_answer_of_a_given_form_stays_as_it_is() -> None:
    assert content(told('"moon"', constraint=Constraint("regex", '"moon"'))) == '"moon"'


def test_by_default_nothing_is_cleaned() -> None:
    config = ModelConfig()
    assert (config.cutstrings, config.extract_regex, config.trimspace, config.trimsuffix) == ((), (), (), ())
    assert content(told(" moon ", clean_up=None)) == " moon "  # type: ignore[arg-type]
