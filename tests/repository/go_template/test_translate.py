"""Telling Go's templates from Jinja2, what is said of one that is wrong, and that nothing crashes."""

import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from repository.go_template.functions import FUNCTIONS
from repository.go_template.translate import is_go, mixed_with_jinja, translate
from runner.worker.go_functions import table
from runner.worker.sandbox import CompiledTemplate, TemplateError

PARTS = [
    *(
        "{{",
        "}}",
        "{{-",
        "-}}",
        "{{- ",
        " -}}",
        "{{/*",
        "*/}}",
        "{%",
        "%}",
        "{#",
        " ",
        "\n",
        "\r\n",
        "x",
        "{",
        "}",
    ),
    *(
        "if ",
        "else ",
        "else if ",
        "end",
        "range ",
        "with ",
        "define ",
        "block ",
        "template ",
        "break",
        "continue",
    ),
    *(
        "{{end}}",
        "{{else}}",
        "{{if .A}}",
        "{{range .L}}",
        "{{range $i, $x := .L}}",
        "{{with .A}}",
        "{{.A}}",
        "{{$x}}",
    ),
    *(
        '{{define "t"}}',
        '{{template "t" .}}',
        '{{template "t"}}',
        "{{$x := .L}}",
        "{{$x = 1}}",
        "{{$x := 2}}",
    ),
    *(
        ".",
        ".A",
        ".A.B",
        ".L",
        "$",
        "$x",
        "$.A",
        ":=",
        "=",
        "|",
        "(",
        ")",
        ",",
        '"a"',
        "`b`",
        "'c'",
        "1",
        "-2",
        "3.5",
    ),
    *(
        "true",
        "nil",
        "eq ",
        "and ",
        "or ",
        "not ",
        "len ",
        "index ",
        "printf ",
        "list ",
        "dict ",
        "trim ",
        "toJson ",
    ),
    *(
        "repeat ",
        "until ",
        "set ",
        "\\",
        '"',
        "'",
        "`",
        "é",
        "\ud7ff",
        "\u2028",
        "99999999999999999999",
        "0x",
        "1e999",
    ),
]


@given(st.lists(st.sampled_from(PARTS), max_size=30).map("".join))
@example("{{range .L}}" * 9 + "{{end}}" * 9)
@example("{{if .A}}" * 100)
@example("{{" + "(" * 100 + "1" + ")" * 100 + "}}")
@example("{{1" + "|print" * 100 + "}}")
@example('{{define "t"}}{{template "t" .}}{{end}}{{template "t" .}}')
@example('{{define "t"}}{{template "t" .}}{{template "t" .}}{{end}}{{template "t" .}}')
@example("{{$d := dict}}{{$e := set $d `a` $d}}{{$d}}{{toJson $d}}")
@example("{{$l := list 1 1}}{{range until 60}}{{$l = list $l $l}}{{end}}{{$l}}")
@example("{{$s := `aaaaaaaa`}}{{range until 60}}{{$s = print $s $s}}{{end}}{{$s}}")
@example("{{range until 99999}}{{range until 99999}}{{range until 99999}}{{end}}{{end}}{{end}}")
@example("{{repeat 1000000000000 `x`}}{{until 1000000000000}}{{printf `%999999999d` 1}}")
@settings(max_examples=400, deadline=None)
def test_a_text_is_translated_and_rendered_or_refused_and_nothing_else(text: str) -> None:
    is_go(text)
    mixed_with_jinja(text)
    translated = translate(text)
    if translated.fault is not None:
        assert translated.fault.message and translated.fault.line > 0 and translated.fault.column > 0
        return
    template = CompiledTemplate("chat", translated.text)
    try:
        template.fill({"A": {"B": "b"}, "L": [1, "two", None]})
    except TemplateError:
        pass


@given(st.text(max_size=40), st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_text_around_actions_comes_out_as_it_is(before: str, after: str) -> None:
    before, after = before.replace("{{", "{"), after.replace("{{", "{")
    if before.endswith("{"):
        before += " "
    translated = translate(f"{before}{{{{.A}}}}{after}")
    assert translated.fault is None
    assert CompiledTemplate("chat", translated.text).fill({"A": "-"}) == f"{before}-{after}"


@pytest.mark.parametrize(
    "text",
    [
        "{{.Input}}",
        "{{ .Input }}",
        "{{- .Input -}}",
        "{{if .Input}}a{{end}}",
        "{{ if eq .RoleName `x` }}{{ end }}",
        "{{/* nothing else */}}x",
        "{{range $i, $x := .Functions}}{{end}}",
        "{{ toJson .Functions }}",
        "{{ $x := 1 }}",
        "{{ end }}",
        "{{ (index .Functions 0).Name }}",
        '{"a": {{ .Input | quote }}}',
    ],
)
def test_a_go_template_is_known(text: str) -> None:
    assert is_go(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no action",
        "{{ Input }}",
        "{{ messages[0].content }}",
        "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}",
        "{%- if x -%}y{%- endif -%}",
        "{# a note #}{{ Input }}",
        "{{ 'a .B' + Input }}",
        "{{ content | trim }}",
        "{{ x if y else z }}",
        "{{ '{{.Input}}' }}{% set x = 1 %}",
        "{{ 1.5 }}{{ [0.5, .5] }}",
        "{{ ifs }}{{ range(3) }}{{ ending }}",
    ],
)
def test_jinja_is_left_alone(text: str) -> None:
    assert not is_go(text)


def test_a_text_in_both_languages_is_told_where() -> None:
    fault = mixed_with_jinja("{% if x %}\n  {{.Input}}{% endif %}")
    assert fault is not None and (fault.line, fault.column) == (2, 3) and "one of the two" in fault.message
    assert mixed_with_jinja("{% if x %}{{ Input }}{% endif %}") is None


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("{{.Imput}}", (1, 3), 'there is no .Imput (did you mean "Input"?); there are .Input'),
        ("a\n  {{if .Input}}", (2, 5), 'this "if" has no "{{end}}"'),
        ("{{end}}", (1, 3), '"end" without an "if"'),
        ("{{ else }}", (1, 4), '"else" without'),
        ("{{if .Input}}{{else}}{{else}}{{end}}", (1, 24), 'the "if" of line 1 has an "else" already'),
        ("{{ .Input", (1, 1), "never closed"),
        ('{{ "abc }}', (1, 4), "text is never closed"),
        ("{{ now | date `2006` }}", (1, 4), "strftime_now"),
        ("{{ trimm .Input }}", (1, 4), 'did you mean "trim"?'),
        ("{{ Input }}", (1, 4), "if it is a variable, write .Input"),
        ("{{ include `a` . }}", (1, 4), "{{template"),
        ("{{ trim }}", (1, 4), '"trim" takes one argument, not 0'),
        ("{{ trim .Input 1 }}", (1, 4), "takes one argument, not 2"),
        ("{{ .Input 1 }}", (1, 11), "a field takes no arguments"),
        ("{{ $x }}", (1, 4), "$x is not declared here"),
        ("{{ $x = 1 }}", (1, 4), "is set before it is declared"),
        ("{{ 1 | .Input }}", (1, 8), "behind a pipe stands a function"),
        ("{{ . }}", (1, 4), "name a part of it"),
        ('{{ template "x" }}', (1, 4), 'no template "x" is defined'),
        ("{{ /* x */ }}", (1, 4), '"{{/* ... */}}"'),
        ("{{ }}", (1, 4), "this action is empty"),
        ("{{ (1 }}", (1, 7), 'a ")" is missing'),
        ("{{ 99999999999999999999 }}", (1, 4), "does not fit 64 bits"),
        ("{{ break }}", (1, 4), 'inside of a "range" only'),
        ('{{ "\\q" }}', (1, 4), "is not an escape"),
        ("{{ 3x }}", (1, 4), '"3x" is not a number'),
        ("{{ .Input ! }}", (1, 11), "'!' has no meaning"),
        ('{{define "a"}}{{end}}{{define "a"}}{{end}}', (1, 24), "defined twice"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, place: tuple[int, int], said: str) -> None:
    fault = translate(text, {"Input"}).fault
    assert fault is not None
    assert ((fault.line, fault.column), said in fault.message) == (place, True), fault


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("{{range 3}}{{.}}{{end}}", "012"),
        ("{{with .No}}a{{else with .A}}{{.}}{{end}}", "x"),
        ("{{range $i, $n := 2}}{{$i}}{{$n}};{{end}}", "00;11;"),
    ],
)
def test_what_newer_versions_of_go_have_is_there_too(text: str, made: str) -> None:
    assert CompiledTemplate("chat", translate(text).text).fill({"A": "x", "No": None}) == made


def test_the_functions_that_may_be_called_are_those_that_are_there() -> None:
    written_out = {"and", "or", "not"}
    only_emitted = {"text", "step", "field", "range"}
    assert FUNCTIONS.keys() - written_out == table.FUNCTIONS.keys() - only_emitted


def test_the_page_on_templates_names_every_function() -> None:
    page = (Path(__file__).parents[3] / "docs" / "templates.md").read_text()
    words = set(re.findall(r"\w+", page))
    assert {name for name in FUNCTIONS if not name.startswith("must")} <= words


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text", ["{{" + " " * 200_000, "{{" * 200_000, "{{ x" * 100_000, "{{-" + "\n" * 200_000]
)
def test_telling_the_language_takes_no_time(text: str) -> None:
    assert not is_go(text)


@pytest.mark.parametrize("chain", ["{{else with .A}}x", "{{else if $x := .A}}x"])
def test_a_chain_without_end_is_a_fault(chain: str) -> None:
    word = "with .A" if "with" in chain else "if $x := .A"
    made = translate("{{" + word + "}}x" + chain * 2000 + "{{end}}")
    assert made.fault is not None and "in one chain" in made.fault.message
