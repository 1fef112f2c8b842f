"""What is asked for between two texts, by the marks of each family of models."""

import pytest

from backends.echo.engine import EchoEngine
from runner.errors import UnsupportedFeature
from runner.wire.requests import TextPrompt
from runner.worker.infill import find_infill
from tests.support import echo_engine, make_intake, make_start


class Infilling(EchoEngine):
    """Its marks are three of its control tokens."""

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        marks = {"<|fim_prefix|>": 257, "<|fim_suffix|>": 258, "<|fim_middle|>": 259}
        return [marks[text]] if special and text in marks else super().tokenize(text, special=special)


def test_the_texts_stand_between_the_models_marks_and_are_no_marks_themselves() -> None:
    engine = Infilling()
    engine.load(make_start().load, lambda _: None)
    prompts = make_intake(engine).prompts
    assert prompts.tokens(TextPrompt("ab", "c")) == [257, 97, 98, 258, 99, 259]
    assert prompts.tokens(TextPrompt("", "c")) == [257, 258, 99, 259]
    assert prompts.tokens(TextPrompt("<|im_end|>", "c")) == [257, *b"<|im_end|>", 258, 99, 259]
    assert prompts.tokens(TextPrompt("ab")) == [97, 98]


def test_a_model_without_marks_says_so() -> None:
    with pytest.raises(UnsupportedFeature, match="suffix") as caught:
        make_intake(echo_engine()).prompts.tokens(TextPrompt("ab", "c"))
    assert caught.value.param == "suffix"


@pytest.mark.parametrize(
    ("tokens", "order"),
    [
        (
            {"<fim_prefix>", "<fim_suffix>", "<fim_middle>"},
            "<fim_prefix>{prefix}<fim_suffix>{suffix}<fim_middle>",
        ),
        ({"[SUFFIX]", "[PREFIX]", "[MIDDLE]"}, "[SUFFIX]{suffix}[PREFIX]{prefix}"),
        ({"<fim_prefix>", "<fim_suffix>"}, None),
        (set(), None),
    ],
)
def test_the_marks_of_a_model_are_tokens_of_their_own(tokens: set[str], order: str | None) -> None:
    found = find_infill(lambda text: [1] if text in tokens else [1, 2])
    assert (None if found is None else "".join(found)) == order
