"""Figures of records whose times are known."""

from typing import Any

import pytest

from benchmarks.harness.measures import measure, ratio
from benchmarks.harness.work import Slo
from benchmarks.measure import Record


def record(
    start_s: float = 0.0, *, tokens: int = 5, ttft_s: float = 0.5, itl_s: float = 0.1, **fields: Any
) -> Record:
    times = [start_s + ttft_s + i * itl_s for i in range(tokens)]
    given = {
        "prompt_tokens": 10,
        "completion_tokens": tokens,
        "chunk_times_s": times,
        "end_s": times[-1],
        **fields,
    }
    return Record(start_s=start_s, **given)


def test_every_figure_follows_its_formula() -> None:
    m = measure([record(0.0), record(1.0)], slo=Slo())
    assert m.ttft is not None and m.itl is not None and m.tpot is not None and m.e2e is not None
    assert m.ttft.p50.value == pytest.approx(0.5)
    assert m.itl.p50.value == pytest.approx(0.1)
    assert m.tpot.p50.value == pytest.approx(0.1)
    assert m.e2e.p99.value == pytest.approx(0.9)
    assert m.wall_s == pytest.approx(1.9)
    assert m.output_tokens_per_s is not None
    assert m.output_tokens_per_s.value == pytest.approx(10 / 1.9)
    assert m.input_tokens_per_s == pytest.approx(20 / 1.9)
    assert (m.completion_tokens, m.prompt_tokens, m.failed, m.goodput_per_s) == (10, 20, 0, None)


def test_a_request_that_was_due_earlier_than_it_was_sent_waited_too() -> None:
    m = measure([record(2.0, due_s=1.0)], slo=Slo())
    assert m.ttft is not None and m.e2e is not None
    assert m.ttft.p50.value == pytest.approx(1.5)
    assert m.e2e.p50.value == pytest.approx(1.9)


def test_failed_requests_are_counted_and_enter_no_figure() -> None:
    broken = Record(start_s=0.0, end_s=50.0, completion_tokens=999, chunk_times_s=[40.0], error="cut")
    m = measure([record(0.0), broken, broken], slo=Slo(ttft_s=1.0))
    assert (m.requests, m.failed, m.errors) == (3, 2, {"cut": 2})
    assert m.completion_tokens == 5
    assert m.ttft is not None and m.ttft.p99.value == pytest.approx(0.5)
    assert m.goodput_per_s == pytest.approx(1 / 50)


def test_only_what_failed_gives_no_figures() -> None:
    m = measure([Record(start_s=0.0, end_s=1.0, error="no")], slo=Slo())
    assert m.ttft is m.itl is m.tpot is m.e2e is m.output_tokens_per_s is None


@pytest.mark.parametrize(
    ("slo", "kept"),
    [(Slo(ttft_s=0.4), 0), (Slo(ttft_s=0.6), 2), (Slo(tpot_s=0.05), 0), (Slo(e2e_s=1.0, tpot_s=0.2), 2)],
)
def test_goodput_counts_requests_that_keep_every_limit(slo: Slo, kept: int) -> None:
    m = measure([record(0.0), record(0.1)], slo=slo)
    assert m.goodput_per_s == pytest.approx(kept / m.wall_s)


def test_an_interval_holds_its_value_and_narrows_with_more_requests() -> None:
    few = measure([record(i, ttft_s=0.3 + i % 7 / 10) for i in range(10)], slo=Slo()).ttft
    many = measure([record(i, ttft_s=0.3 + i % 7 / 10) for i in range(400)], slo=Slo()).ttft
    assert few is not None and many is not None
    for latency in (few, many):
        assert latency.p50.low <= latency.p50.value <= latency.p50.high
    assert many.p50.high - many.p50.low < few.p50.high - few.p50.low


def test_a_ratio_knows_noise_from_change() -> None:
    noise = [[1.0 + i % 10 / 10] for i in range(100)]
    same = ratio(noise, list(reversed(noise)))
    twice = ratio(noise, [[2 * v] for [v] in noise])
    assert same is not None and same.low <= 1 <= same.high
    assert twice is not None and twice.value == pytest.approx(2) and twice.low > 1.5
    assert ratio([], noise) is None
