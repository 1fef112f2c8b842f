"""Answers lose what a configuration cuts: the same text however it comes in pieces, and as soon as it is certain."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repository.patterns import python_pattern
from runner.wire.messages import CleanUp, Pattern
from runner.worker.output import finder
from runner.worker.output.cleaning import Cleaner

PATTERNS = (
    "a",
    "ab+",
    "a+",
    "b*",
    "ab|abab",
    "abab|ab",
    "a(?:bab)?",
    "(?:ab){2,3}",
    "(?:ab){1,3}?",
    "<.*?>",
    "(?s)<.*?>",
    "<.*>",
    "(?s)<.*>",
    "<[^>]*>",
    "^a",
    "a$",
    "(?m)^a.",
    "(?m)b$",
    r"\ba",
    r"b\b",
    r"\Aab",
    r"b\z",
    r"\s+<",
    "(a|ab)(bb|b)",
    "(?i)AB",
    "a.*?b|a",
)
TEXTS = st.text("abAB<> \n", max_size=24)


def patterns(*texts: str) -> tuple[Pattern, ...]:
    return tuple(Pattern(each.whole, each.growing) for each in map(python_pattern, texts))


def clean_up(cut: tuple[str, ...] = (), extract: tuple[str, ...] = (), **given: tuple[str, ...]) -> CleanUp:
    return CleanUp(cutstrings=patterns(*cut), extract_regex=patterns(*extract), **given)


def cleaned(how: CleanUp, *pieces: str) -> str:
    cleaner = Cleaner(how)
    return "".join([*map(cleaner.feed, pieces), cleaner.flush()])


def at_once(how: CleanUp, text: str) -> str:
    """What the fields mean, of a whole text."""
    for pattern in how.cutstrings:
        text = re.sub(pattern.whole, "", text)
    firsts = [found[0] for each in how.extract_regex if (found := re.search(each.whole, text))]
    text = "".join(firsts) or text
    for prefix in how.trimspace:
        text = text.removeprefix(prefix).strip()
    for suffix in how.trimsuffix:
        text = text.removesuffix(suffix).strip()
    return text


@given(
    TEXTS,
    st.lists(st.integers(1, 4), max_size=24),
    st.builds(
        lambda cut, extract, prefixes, suffixes: clean_up(
            tuple(cut), tuple(extract), trimspace=tuple(prefixes), trimsuffix=tuple(suffixes)
        ),
        st.lists(st.sampled_from(PATTERNS), max_size=2),
        st.lists(st.sampled_from(PATTERNS), max_size=2),
        st.lists(st.sampled_from(("", "a", "ab", " b", "<a>", "\n")), max_size=2),
        st.lists(st.sampled_from(("", "a", "ba", " b", "b ", "<a>", "\n", "aa")), max_size=2),
    ),
)
def test_every_split_gives_what_the_whole_text_gives(text: str, sizes: list[int], how: CleanUp) -> None:
    pieces, rest = [], text
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    assert cleaned(how, *pieces, rest) == at_once(how, text)


@given(TEXTS, st.sampled_from(PATTERNS))
def test_character_by_character_is_no_different(text: str, pattern: str) -> None:
    how = clean_up((pattern,))
    assert cleaned(how, *text) == at_once(how, text)


@given(st.text("ab<>", max_size=40), st.lists(st.integers(1, 7), max_size=40), st.sampled_from(PATTERNS))
def test_a_bound_on_what_is_held_back_does_not_depend_on_the_split(
    text: str, sizes: list[int], pattern: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finder, "MOST_CHARACTERS", 5)
        pieces, rest = [], text
        for size in sizes:
            pieces.append(rest[:size])
            rest = rest[size:]
        assert cleaned(clean_up((pattern,)), *pieces, rest) == cleaned(clean_up((pattern,)), *text)


@pytest.mark.parametrize(
    ("how", "text", "told"),
    [
        (clean_up(("<.*?>",)), "one <two", "one "),
        (clean_up(("<.*?>",)), "one <two> three", "one  three"),
        (clean_up(("ab+",)), "xabb", "x"),
        (clean_up(("ab+",)), "xabbc", "xc"),
        (clean_up(("ab+",)), "no such thing", "no such thing"),
        (clean_up(trimspace=("Answer:",)), "Answ", ""),
        (clean_up(trimspace=("Answer:",)), "Answer: yes ", "yes"),
        (clean_up(trimspace=("Answer:",)), "Another", "Another"),
        (clean_up(trimsuffix=("END",)), "yes E", "yes"),
        (clean_up(trimsuffix=("END",)), "yes Ex", "yes Ex"),
        (clean_up(extract=("<a>.*?</a>",)), "well, <a>yes</", ""),
        (clean_up(extract=("<a>.*?</a>",)), "well, <a>yes</a> and", "<a>yes</a>"),
    ],
)
def test_only_what_may_still_be_cut_is_held_back(how: CleanUp, text: str, told: str) -> None:
    assert Cleaner(how).feed(text) == told


def test_what_has_no_match_stays_whole() -> None:
    assert cleaned(clean_up(extract=("[0-9]+",)), "no ", "numbers") == "no numbers"


def test_no_more_than_a_bound_is_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finder, "MOST_CHARACTERS", 8)
    cleaner = Cleaner(clean_up(("<[^>]*>",)))
    assert cleaner.feed("<123456") == ""
    assert cleaner.feed("7") == "<1234567"  # not closed within the bound: it stays
    assert cleaner.feed("89> <b>") == "89> "


def test_a_pattern_without_end_is_given_up(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finder, "MOST_SECONDS", 0.01)
    cleaner = Cleaner(clean_up(("(a+)+b",)))
    assert cleaner.feed("x" + "a" * 60 + "c") + cleaner.flush() == "x" + "a" * 60 + "c"
    assert "takes too long" in caplog.text


def test_a_text_that_follows_is_cleaned_anew() -> None:
    cleaner = Cleaner(clean_up(trimspace=("A:",)))
    assert cleaner.feed("A: one ") + cleaner.flush() == "one"
    assert cleaner.feed("A: two ") + cleaner.flush() == "two"
