from benchmarks.figures import Figure, Target, compare, table
from benchmarks.measure import Summary


def ran(
    speed: float, *, tokens: int = 100, errors: int = 0, ttft_s: float = 0.5, chunks: float = 1
) -> Summary:
    return Summary(
        prompt_tokens=10,
        completion_tokens=tokens,
        wall_s=1,
        tokens_per_s=speed,
        requests=4,
        errors=errors,
        first_error="cut" if errors else None,
        ttft_median_s=ttft_s,
        chunks_per_token=chunks,
    )


def speed(samples: dict[str, list[Summary]], *, at_least: float = 1.0) -> Figure:
    return compare(
        "speed",
        samples,
        pair=("ours", "theirs"),
        pick=lambda summary: summary.tokens_per_s,
        unit="tok/s",
        target=Target(at_least),
    )


def test_the_ratio_is_the_median_of_paired_repeats():
    figure = speed({"ours": [ran(10), ran(30), ran(8)], "theirs": [ran(10), ran(10), ran(4)]})
    assert (figure.ratio, figure.ours, figure.other) == (2, "10 tok/s", "10 tok/s (theirs)")
    assert (figure.verdict, figure.notes) == ("met", [])


def test_where_less_is_better_the_ratio_is_turned():
    figure = compare(
        "ttft",
        {"ours": [ran(1, ttft_s=0.5)], "theirs": [ran(1, ttft_s=4)]},
        pair=("ours", "theirs"),
        pick=lambda summary: summary.ttft_median_s,
        unit="s",
        target=Target(7),
        less_is_better=True,
    )
    assert (figure.ratio, figure.verdict) == (8, "met")


def test_a_missed_target_says_so():
    assert speed({"ours": [ran(9)], "theirs": [ran(10)]}).verdict == "MISSED"
    assert not Target(3, is_at_most=True).is_met_by(3.1)


def test_failed_requests_are_in_the_notes():
    figure = speed({"ours": [ran(9, errors=1), ran(9)], "theirs": [ran(9), ran(9)]})
    assert figure.notes == ["ours: 1 of 8 requests failed, the first with: cut"]


def test_a_system_without_a_figure_is_not_measured():
    figure = speed({"ours": [ran(0, errors=4)], "theirs": [ran(9)]})
    assert (figure.ratio, figure.is_met, figure.verdict) == (None, False, "not measured")


def test_different_work_is_in_the_notes():
    (note,) = speed({"ours": [ran(9, tokens=99)], "theirs": [ran(9)]}).notes
    assert note.startswith("the systems did different work")


def test_chunks_of_several_tokens_are_in_the_notes():
    (note,) = speed({"ours": [ran(9, chunks=0.5)], "theirs": [ran(9)]}).notes
    assert note.startswith("ours: chunks are not tokens")


def test_the_table_is_markdown_with_its_notes_below():
    lines = table(
        [Figure(name="a|b", target=Target(2), notes=["why"]), speed({"ours": [ran(2)], "theirs": [ran(1)]})]
    )
    assert [line.count("|") for line in lines.splitlines()[1:2]] == [7]
    assert lines.splitlines()[-1] == "- a|b: why"
