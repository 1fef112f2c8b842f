"""Regular expressions in Go's syntax, as configurations have them."""

from pathlib import Path

import pytest
import regex

from repository.config_file import load_config
from repository.patterns import PatternError, python_pattern


@pytest.mark.parametrize(
    "pattern", ["(?=x)", "(?<!x)a", r"(a)\1", "a++", "(?U)a", "[a", "a**", r"\Z", "(", r"\y"]
)
def test_what_go_cannot_read_is_refused(pattern: str) -> None:
    with pytest.raises(PatternError):
        python_pattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "text", "match"),
    [
        (r"a$", "a\n", None),
        (r"\w+", "éa", "a"),
        (r"[\W]+", "aé!", "é!"),
        (r"[[:digit:]&]+", "a1&2", "1&2"),
        (r"\x{e9}\x41", "éA", "éA"),
        (r"\Q(a)\E+", "(a))", "(a))"),
        (r"a{,2}", "a{,2}", "a{,2}"),
        (r"\pL+", "1é2", "é"),
        (r"(?P<word>a)b|(?:c)", "xab", "ab"),
        (r"a+?", "aa", "a"),
        (r"[]a]+", "]a", "]a"),
    ],
)
def test_patterns_mean_what_they_mean_in_go(pattern: str, text: str, match: str | None) -> None:
    found = regex.search(python_pattern(pattern).whole, text, regex.V1)
    assert (found and found[0]) == match


def test_a_pattern_that_cannot_be_used_is_told_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("cutstrings:\n- fine\n- '(?=ahead)'\nextract_regex: '['\n")
    first, second = map(str, load_config(path).problems)
    assert first.startswith(
        f"{path}:3:3: cutstrings: the pattern '(?=ahead)' cannot be used: there is no group"
    )
    assert second.startswith(f"{path}:4:16: extract_regex: the pattern '[' cannot be used: the bracket at 0")
