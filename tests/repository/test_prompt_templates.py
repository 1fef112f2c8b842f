"""Templates in a configuration: Go's are translated, names are files, and what is wrong or idle is told."""

from pathlib import Path

import pytest

from repository.config_file import Loaded, load_config, override_config
from repository.problem import Problem


def load(folder: Path, text: str, **files: str) -> Loaded:
    """A configuration in a folder below the root; `files` are templates, below the root where their name begins
    with `root_`."""
    (folder / "a").mkdir()
    for name, content in files.items():
        place = folder if name.startswith("root_") else folder / "a"
        (place / f"{name.removeprefix('root_')}.tmpl").write_text(content)
    path = folder / "a" / "config.yaml"
    path.write_text(text)
    return load_config(path, root=folder)


def said(loaded: Loaded) -> list[str]:
    return [f"{Path(each.path).name}:{each.line}:{each.column}: {each.message}" for each in loaded.problems]


def notes(loaded: Loaded) -> list[tuple[int, str]]:
    return [(each.line, each.message.partition(":")[0]) for each in loaded.notes]


@pytest.mark.parametrize(
    ("written", "made"),
    [
        ("'{{.Input}}'", "{{ go_text(Input) }}"),
        ('"{{ Input }}\\n{% if x %}y{% endif %}"', "{{ Input }}\n{% if x %}y{% endif %}"),
        ("'{{ messages[0].content }}'", "{{ messages[0].content }}"),
        ("'a text with spaces'", "a text with spaces"),
    ],
)
def test_gos_templates_become_jinja_and_jinja_stays(tmp_path: Path, written: str, made: str) -> None:
    config = load(tmp_path, f"template: {{chat: {written}}}").config
    assert config is not None and config.template.chat == made


@pytest.mark.parametrize("name", ["shape", "shape.tmpl"])
def test_a_template_may_be_a_file_beside_its_configuration_or_at_the_root(tmp_path: Path, name: str) -> None:
    text = f"template: {{chat: {name}, edit: rooted}}"
    loaded = load(tmp_path, text, shape="a {{.Input}}\n", root_shape="no", root_rooted="{{ Input }}\n")
    assert loaded.config is not None
    assert loaded.config.template.chat == 'a {{ go_text(Input) }}\n{{ "" }}'
    assert loaded.config.template.edit == "{{ Input }}\n"
    names = [path.relative_to(tmp_path).as_posix() for path in loaded.template_files]
    assert sorted(names) == ["a/rooted.tmpl", "a/shape.tmpl", "rooted.tmpl"]


def test_what_is_wrong_in_a_template_is_told_with_its_place(tmp_path: Path) -> None:
    text = (
        "template:\n  chat: |\n    {{.Input}}\n    {{ .Content }}\n  edit: broken\n  completion: gone\n"
        "  chat_message: '{% if a %}{{.Content}}{% endif %}'\n  function: latin\n"
    )
    (tmp_path / "latin.tmpl").write_bytes(b"\xe9")
    loaded = load(tmp_path, text, broken="x\n{{ if .Input }}")
    assert loaded.config is None
    problems = said(loaded)
    assert len(problems) == 5
    assert problems[0] == 'broken.tmpl:2:4: this "if" has no "{{end}}"'
    assert problems[1].startswith(
        "config.yaml:2:9: template.chat: line 2, column 4 of the text: there is no .Content"
    )
    assert problems[2].startswith('config.yaml:6:15: template.completion: no file "gone.tmpl" in ')
    assert (
        "config.yaml:7:17: template.chat_message: line 1, column 11 of the text: this is Go's" in problems[3]
    )
    assert "latin.tmpl cannot be read" in problems[4]


def test_each_template_knows_its_own_variables(tmp_path: Path) -> None:
    text = "template: {chat_message: '{{.RoleName}}{{.Content}}', completion: '{{.RoleName}}'}"
    [problem] = said(load(tmp_path, text))
    assert problem.startswith(
        "config.yaml:1:67: template.completion: line 1, column 3 of the text: there is no .RoleName"
    )


def test_no_template_leads_out_of_the_repository(tmp_path: Path) -> None:
    (tmp_path / "secret.tmpl").write_text("secret")
    (tmp_path / "models").mkdir()
    for name in ("../secret", "/secret", "a/../../secret"):
        text = f"template: {{chat: {name}}}"
        folder = tmp_path / "models" / name.replace("/", "_")
        folder.mkdir()
        config = load(folder, text).config
        assert config is not None and config.template.chat == name


def test_what_another_key_decides_is_told(tmp_path: Path) -> None:
    chat = "{% for m in messages %}{% endfor %}"
    whole = f"roles: {{user: x}}\ntemplate:\n  chat: '{chat}'\n  chat_message: '{{{{ Content }}}}'\n"
    assert notes(load(tmp_path, whole)) == [(4, "template.chat_message"), (1, "roles")]


def test_templates_beside_the_tokenizers_own_are_told(tmp_path: Path) -> None:
    text = "template:\n  use_tokenizer_template: true\n  chat: '{{.Input}}'\n  completion: '{{.Input}}'\n"
    loaded = load(tmp_path, text)
    assert notes(loaded) == [(3, "template.chat")] and loaded.config is not None
    assert notes(load(tmp_path / "a", text.replace("true", "false"))) == []


def test_a_template_given_with_a_load_is_read_the_same_way(tmp_path: Path) -> None:
    load(tmp_path, "template: {chat: shape}", shape="{{.Input}}!")
    path = tmp_path / "a" / "config.yaml"
    kept = override_config(path, '{"system_prompt": "x"}', root=tmp_path).config
    assert kept is not None and kept.template.chat == "{{ go_text(Input) }}!"
    [problem] = override_config(path, '{"template": {"chat": "{{.Inputs}}"}}').problems
    assert isinstance(problem, Problem) and 'did you mean "Input"?' in problem.message


def test_a_file_named_after_the_weights_shapes_what_has_no_other_template(tmp_path: Path) -> None:
    text = "parameters: {model: orca.gguf}\ntemplate: {completion: 'mine {{.Input}}'}\n"
    config = load(tmp_path, text, **{"orca.gguf": "theirs {{.Input}}"}).config
    assert config is not None
    assert config.template.chat == "theirs {{ go_text(Input) }}"
    assert config.template.completion == "mine {{ go_text(Input) }}"
    assert config.template.edit is None


def test_a_name_too_long_for_a_file_is_told_with_its_place(tmp_path: Path) -> None:
    loaded = load(tmp_path, f"template: {{completion: {'x' * 300}}}")
    (problem,) = said(loaded)
    assert problem.startswith("config.yaml:1:24: ")
