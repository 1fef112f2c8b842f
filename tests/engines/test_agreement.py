"""The harness and a client of somebody else's measure the same running server, and say the same.

The engine is an echo whose steps take a known time, so that the figures are known too, however busy the machine is.
"""

from collections.abc import Iterator

import pytest

from benchmarks.agreement import FIGURES, Told, Work, ask_ours, ask_theirs, serving
from tests.engines.environments import interpreter

pytestmark = pytest.mark.timeout(900)

STEP_S = 0.05
WORK = Work(rounds=3, prompt_words=8, output_tokens=20)
CLIENTS = 2
REQUESTS = WORK.rounds * CLIENTS
GENEROUS = 4.0
"""The steps take their time in any case; what a busy machine adds to one run and not to the other is within this."""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Told, Told]]:
    folder = tmp_path_factory.mktemp("agreement")
    with serving({"backend": "echo", "delay_s": STEP_S}, folder=folder) as server:
        path = folder / "work.jsonl"
        WORK.write(path, clients=CLIENTS, seed=1)
        ours = ask_ours(server, path, clients=CLIENTS)
        yield ours, ask_theirs(interpreter("vllm"), server, path, clients=CLIENTS)


def test_both_count_the_same_requests_and_tokens(told: tuple[Told, Told]) -> None:
    ours, theirs = told
    assert ours.counts == theirs.counts
    assert (ours.requests, ours.failed) == (REQUESTS, 0)
    assert ours.completion_tokens == REQUESTS * WORK.output_tokens
    assert ours.prompt_tokens > REQUESTS * WORK.prompt_words


@pytest.mark.parametrize("figure", FIGURES)
def test_both_say_the_same_figures(told: tuple[Told, Told], figure: str) -> None:
    ours, theirs = (one.figures[figure] for one in told)
    assert 1 / GENEROUS < ours / theirs < GENEROUS


def test_both_see_the_steps_as_long_as_they_are(told: tuple[Told, Told]) -> None:
    for one in told:
        for figure in ("ITL p50", "TPOT p50", "TTFT p50"):
            assert one.figures[figure] > STEP_S * 0.9
        assert one.figures["ITL p50"] < STEP_S * GENEROUS
