"""The demo model gives the same greedy answers through every engine, over HTTP."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.equivalence import NUM_QUESTIONS, Outcome, Variant, questions, run, table, variants
from tests.engines.environments import STATE, interpreter
from tests.engines.making.gptq import quantised_demo

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def outcomes() -> Iterator[dict[str, Outcome]]:
    chosen = variants(quantised_demo(STATE, interpreter("transformers")))
    yield {outcome.variant.name: outcome for outcome in run(STATE, chosen)}


@pytest.mark.parametrize("name", [one.name for one in variants(Path())])
def test_an_engine_answers_as_llama_cpp_does(outcomes: dict[str, Outcome], name: str) -> None:
    outcome, reference = outcomes[name], outcomes["llamacpp"].answers
    assert not outcome.failure
    assert outcome.engine and outcome.load_s > 0
    assert len(set(reference)) > NUM_QUESTIONS / 2  # they do say something
    equal = outcome.num_equal(reference)
    differing = [
        (question, ours, theirs)
        for question, ours, theirs in zip(questions(), outcome.answers, reference, strict=True)
        if ours != theirs
    ]
    assert equal >= outcome.variant.at_least, differing


def test_the_table_shows_what_failed_beside_the_rest() -> None:
    asked = Outcome(
        variant=Variant(name="a", label="A", config={}), engine="a 1", answers=("x",) * NUM_QUESTIONS
    )
    failed = Outcome(variant=Variant(name="b", label="B", config={}), failure="no weights")
    text = table([asked, failed])
    assert "| A | a 1 | 20 | 100% |" in text
    assert "| B | - | failed: no weights |" in text
