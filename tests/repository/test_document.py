import math
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repository.document import MAX_BYTES, Document, Node, parse_document, read_document, read_scalar

# Core schema of YAML 1.2: what is written, what it means.
SCALARS = [
    ("", None), ("~", None), ("null", None), ("Null", None), ("NULL", None), ("nULL", "nULL"),
    ("true", True), ("True", True), ("FALSE", False), ("tRue", "tRue"),
    ("no", "no"), ("yes", "yes"), ("on", "on"), ("off", "off"), ("y", "y"), ("n", "n"),
    ("12:30", "12:30"), ("12:30:45", "12:30:45"), ("2001-12-14", "2001-12-14"), ("1_000", "1_000"),
    ("0", 0), ("010", 10), ("-7", -7), ("+7", 7), ("0o17", 15), ("0x1F", 31), ("0b11", "0b11"),
    ("0o18", "0o18"), ("-0x1F", "-0x1F"), ("1e-5", 1e-5), ("1E5", 1e5), (".5", 0.5), ("5.", 5.0),
    ("-1.5e+3", -1500.0), ("+.5", 0.5),
    (".", "."), ("1.2.3", "1.2.3"), ("e5", "e5"), (".e5", ".e5"), ("1e", "1e"), ("=", "="), ("- 1", "- 1"),
    (".inf", math.inf), ("-.Inf", -math.inf), ("+.INF", math.inf), (".inF", ".inF"),
    ("inf", "inf"), ("nan", "nan"),
    ("18446744073709551615", 2**64 - 1), ("-9223372036854775808", -(2**63)),
]  # fmt: skip


def parse(text: str | bytes) -> Document:
    return parse_document(text.encode() if isinstance(text, str) else text, "c.yaml")


def root(document: Document) -> Node:
    assert document.root is not None
    return document.root


@pytest.mark.parametrize(("written", "meaning"), SCALARS)
def test_a_plain_scalar_means_what_yaml_1_2_says(written: str, meaning: object) -> None:
    value = read_scalar(written)
    assert value == meaning
    assert type(value) is type(meaning)


@pytest.mark.parametrize(("written", "meaning"), [row for row in SCALARS if row[0] != "- 1"])
def test_a_scalar_in_a_file_means_the_same(written: str, meaning: object) -> None:
    value = root(parse(f"key: {written}\n")).plain()["key"]
    assert value == meaning
    assert type(value) is type(meaning)


def test_nan_is_a_number() -> None:
    value = read_scalar(".NaN")
    assert isinstance(value, float)
    assert math.isnan(value)


@given(st.integers(-(2**63), 2**64 - 1))
def test_every_64_bit_integer_reads_back(number: int) -> None:
    assert read_scalar(str(number)) == number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_reads_back(number: float) -> None:
    assert read_scalar(repr(number)) == number


@given(st.text(string.printable, max_size=40))
def test_a_quoted_scalar_is_always_text(text: str) -> None:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    quoted = quoted.replace("\x0b", "\\v").replace("\x0c", "\\f").replace("\t", "\\t")
    assert root(parse(f'key: "{quoted}"')).plain() == {"key": text}


@given(st.binary(max_size=300))
def test_garbage_is_a_document_with_located_problems_never_an_exception(data: bytes) -> None:
    document = parse(data)
    assert document.root is not None or document.problems
    assert all(problem.line >= 1 and problem.column >= 1 for problem in document.problems)


@given(st.text("{}[]:,-&*!<>|\"'#%@`?~ \n\tab1", max_size=80))
def test_garbage_of_yaml_signs_is_never_an_exception(text: str) -> None:
    document = parse(text)
    assert document.root is not None or document.problems


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", "c.yaml:3:1", 'the key "a" is given twice (first in line 1)'),
        ("a:\n  x: {b: 1, b: 2}\n", "c.yaml:2:13", 'the key "b" is given twice'),
        ("a: 1\n\tb: 2\n", "c.yaml:2:1", "a tab cannot indent YAML"),
        ("a:\n\tb: 2\n", "c.yaml:2:1", "a tab cannot indent YAML"),
        ("a: b: c\n", "c.yaml:1:5", "mapping values are not allowed"),
        ("a: [1,\n", "c.yaml:2:1", ""),
        ("a: 'x\n", "c.yaml:2:1", "unexpected end"),
        ("a: 1\n---\nb: 2\n", "c.yaml:2:1", "a second document"),
        (
            "a: !!python/object:os.system x\n",
            "c.yaml:1:4",
            "the tag !!python/object:os.system is not supported",
        ),
        ("a: !env HOME\n", "c.yaml:1:4", "the tag !env is not supported"),
        ("a: &x [*x]\n", "c.yaml:1:8", "*x has no &x that ends before it"),
        ("a: *nothing\n", "c.yaml:1:4", ""),
        ("? [a]\n: 1\n", "c.yaml:1:3", "a key must be text"),
        ("a: 18446744073709551616\n", "c.yaml:1:4", "does not fit 64 bits"),
        ("<<: 3\n", "c.yaml:1:5", "<< takes a mapping"),
        ("a: !!int x\n", "c.yaml:1:4", "!!int"),
        ("a:\n  - \x07\n", "c.yaml:2:5", "control character U+0007"),
        (b"ok: 1\nx: \xff\n", "c.yaml:2:4", "byte 0xff is not UTF-8"),
        ("[" * 5000, "c.yaml:1:65", "nested deeper than 64"),
        ("- " * 5000, "c.yaml:1:129", "nested deeper than 64"),
        ("{a: " * 5000, "c.yaml:1:257", "nested deeper than 64"),
        (b"x" * (MAX_BYTES + 1), "c.yaml:1:1", "larger than 1 MiB"),
    ],
)
def test_what_cannot_be_read_is_located(text: str | bytes, place: str, words: str) -> None:
    problems = [str(problem) for problem in parse(text).problems]
    assert len(problems) == 1
    assert problems[0].startswith(place + ": ")
    assert words in problems[0]


def test_aliases_that_expand_without_end_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    document = parse("\n".join(lines))
    assert document.root is None
    assert "holds more than" in document.problems[0].message


def test_merge_keys_that_expand_without_end_are_refused() -> None:
    base = "b: &b {" + ", ".join(f"k{n}: 1" for n in range(1000)) + "}\n"
    document = parse(base + "c:\n  <<: [" + ", ".join(["*b"] * 200) + "]\n")
    assert document.root is None
    assert "holds more than" in document.problems[0].message


def test_merge_keys_give_way_to_own_keys_and_earlier_ones_win() -> None:
    text = "x: &x {p: 1, q: 1}\ny: &y {p: 2, r: 2}\nz:\n  <<: [*x, *y]\n  q: 3\n"
    assert root(parse(text)).plain()["z"] == {"p": 1, "q": 3, "r": 2}


def test_a_quoted_merge_key_is_an_ordinary_key() -> None:
    assert root(parse('"<<": 1\n')).plain() == {"<<": 1}


def test_keys_are_text_as_written_and_every_value_has_its_place() -> None:
    document = root(parse("parameters:\n  no: 1\n  12: [a, b]\n"))
    assert document.plain() == {"parameters": {"no": 1, "12": ["a", "b"]}}
    assert isinstance(document.value, dict)
    inner = document.value["parameters"].value
    assert isinstance(inner.value, dict)
    entry = inner.value["12"]
    assert (entry.key.line, entry.key.column) == (3, 3)
    assert (entry.value.line, entry.value.column) == (3, 7)


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "\ufeff"])
def test_an_empty_document_is_nothing(text: str) -> None:
    document = parse(text)
    assert root(document).value is None
    assert not document.problems


def test_a_file_that_is_not_there_is_a_problem(tmp_path) -> None:
    document = read_document(tmp_path / "none.yaml")
    assert document.root is None
    assert str(document.problems[0]) == f"{tmp_path}/none.yaml: cannot be read: No such file or directory"
