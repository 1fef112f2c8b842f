"""YAML files at the root of a repository: models, lists of models, redirects, and what is something else."""

from pathlib import Path

import pytest

from repository.scan import scan
from repository.snapshot import ModelEntry, Snapshot


def write(root: Path, name: str, text: str = "x") -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def said(entry: ModelEntry) -> str:
    return "\n".join(str(problem) for problem in entry.all_problems)


def weights(snapshot: Snapshot, name: str) -> list[str]:
    return [
        str(version.weights_path.relative_to(snapshot.root)) if version.weights_path else ""
        for version in snapshot.models[name].versions
    ]


MODEL = "backend: llama\nparameters: {model: tiny.gguf}\n"


def test_a_yaml_file_is_a_model_of_one_version(tmp_path: Path) -> None:
    write(tmp_path, "tiny.gguf")
    write(tmp_path, "orca.yaml", f"name: orca-mini\n{MODEL}context_size: 64\n")
    snapshot = scan(tmp_path)
    entry = snapshot.models["orca-mini"]
    assert (entry.kind, entry.path, said(entry)) == ("yaml", tmp_path / "orca.yaml", "")
    assert [version.number for version in entry.versions] == [1]
    assert weights(snapshot, "orca-mini") == ["tiny.gguf"]
    assert entry.config is not None and entry.config.context_size == 64


def test_its_name_is_the_files_where_it_gives_none(tmp_path: Path) -> None:
    write(tmp_path, "tiny.gguf")
    write(tmp_path, "orca.yml", MODEL)
    assert list(scan(tmp_path).models) == ["orca"]


@pytest.mark.parametrize(
    ("named", "files", "loaded"),
    [
        ("tiny.gguf", ["tiny.gguf"], "tiny.gguf"),
        ("old.pth", ["old.pth"], "old.pth"),
        ("acme/tiny", ["acme/tiny/config.json", "acme/tiny/model.safetensors"], "acme/tiny"),
        ("hf", ["hf/config.json", "hf/model.safetensors"], "hf"),
        ("one", ["one/x.gguf"], "one/x.gguf"),
        ("one/x.gguf", ["one/x.gguf"], "one/x.gguf"),
        ("many", ["many/1/a.gguf", "many/2/b.gguf"], "many/2/b.gguf"),
        (
            "big-00001-of-00002.gguf",
            ["big-00001-of-00002.gguf", "big-00002-of-00002.gguf"],
            "big-00001-of-00002.gguf",
        ),
    ],
)
def test_weights_are_named_from_the_repository(
    tmp_path: Path, named: str, files: list[str], loaded: str
) -> None:
    for file in files:
        write(tmp_path, file)
    write(tmp_path, "orca.yaml", f"parameters: {{model: {named}}}\n")
    snapshot = scan(tmp_path)
    assert weights(snapshot, "orca") == [loaded]
    assert not said(snapshot.models["orca"])


def test_weights_that_a_file_names_are_not_listed_again_and_their_name_is_an_alias(tmp_path: Path) -> None:
    write(tmp_path, "tiny.gguf")
    write(tmp_path, "hf/config.json")
    write(tmp_path, "hf/model.safetensors")
    write(tmp_path, "old.pth")
    write(tmp_path, "a.yaml", "parameters: {model: tiny.gguf}\n")
    write(tmp_path, "b.yaml", "parameters: {model: hf}\n")
    write(tmp_path, "c.yaml", "parameters: {model: old.pth}\n")
    snapshot = scan(tmp_path)
    assert sorted(entry.name for entry in snapshot.entries) == ["a", "b", "c"]
    assert snapshot.aliases == {"tiny": "a", "hf": "b"}
    assert snapshot.ignored == ()


def test_two_files_may_name_the_same_weights(tmp_path: Path) -> None:
    write(tmp_path, "tiny.gguf")
    write(tmp_path, "warm.yaml", f"{MODEL}")
    write(tmp_path, "cold.yaml", "parameters: {model: tiny.gguf, temperature: 0}\n")
    snapshot = scan(tmp_path)
    assert (weights(snapshot, "warm"), weights(snapshot, "cold")) == (["tiny.gguf"], ["tiny.gguf"])
    assert snapshot.aliases == {"tiny": "cold"}


def test_a_file_may_have_the_name_of_the_folder_it_names(tmp_path: Path) -> None:
    write(tmp_path, "llama/config.json")
    write(tmp_path, "llama/model.safetensors")
    write(tmp_path, "llama.yaml", "name: llama\nparameters: {model: llama}\n")
    snapshot = scan(tmp_path)
    assert (snapshot.models["llama"].kind, weights(snapshot, "llama")) == ("yaml", ["llama"])
    assert len(snapshot.entries) == 1


def test_a_model_with_a_configuration_or_versions_of_its_own_stays_a_model(tmp_path: Path) -> None:
    write(tmp_path, "own/1/a.gguf")
    write(tmp_path, "own/config.yaml", "threads: 1\n")
    write(tmp_path, "two/1/a.gguf")
    write(tmp_path, "two/2/a.gguf")
    write(tmp_path, "a.yaml", "parameters: {model: own}\n")
    write(tmp_path, "b.yaml", "parameters: {model: two/1/a.gguf}\n")
    assert sorted(scan(tmp_path).models) == ["a", "b", "own", "two"]


def test_a_file_that_is_wrong_claims_no_weights(tmp_path: Path) -> None:
    write(tmp_path, "tiny.gguf")
    write(tmp_path, "orca.yaml", MODEL + "threads: many\n")
    snapshot = scan(tmp_path)
    assert weights(snapshot, "tiny") == ["tiny.gguf"]
    assert f"{tmp_path}/orca.yaml:3:10: threads: expected a whole number" in said(snapshot.models["orca"])


def test_missing_weights_are_a_located_problem(tmp_path: Path) -> None:
    write(tmp_path, "none.yaml", MODEL)
    write(tmp_path, "bare.yaml", "context_size: 64\n")
    write(tmp_path, "split.yaml", "parameters:\n  model: big-00001-of-00002.gguf\n")
    write(tmp_path, "big-00001-of-00002.gguf")
    snapshot = scan(tmp_path)
    none = said(snapshot.models["none"])
    assert none == f'{tmp_path}/none.yaml:2:21: parameters.model: no "tiny.gguf" in {tmp_path}'
    assert "bare.yaml: no weights; name them in parameters.model" in said(snapshot.models["bare"])
    assert "split.yaml:2:10: incomplete: big-00002-of-00002.gguf missing" in said(snapshot.models["split"])


def test_a_folder_of_several_files_must_be_named_to_the_file(tmp_path: Path) -> None:
    write(tmp_path, "zoo/a.gguf")
    write(tmp_path, "zoo/b.gguf")
    write(tmp_path, "orca.yaml", "parameters: {model: zoo}\n")
    snapshot = scan(tmp_path)
    assert "orca.yaml:1:21: parameters.model: " in said(snapshot.models["orca"])
    assert "several GGUF files (a.gguf, b.gguf); name one in parameters.model" in said(
        snapshot.models["orca"]
    )


def test_a_file_that_names_a_deep_folder_settles(tmp_path: Path) -> None:
    write(tmp_path, "deep/1/model.gguf")
    write(tmp_path, "deep/1/more/notes/x.txt")
    write(tmp_path, "orca.yaml", "parameters: {model: deep}\n")
    first = scan(tmp_path)
    assert weights(first, "orca") == ["deep/1/model.gguf"]
    assert scan(tmp_path, first) is first


def test_weights_are_looked_at_again(tmp_path: Path) -> None:
    write(tmp_path, "orca.yaml", MODEL)
    first = scan(tmp_path)
    write(tmp_path, "tiny.gguf")
    second = scan(tmp_path, scan(tmp_path, first))
    assert weights(second, "orca") == ["tiny.gguf"]
    stamp = second.models["orca"].versions[0].stamp
    write(tmp_path, "tiny.gguf", "longer")
    third = scan(tmp_path, scan(tmp_path, second))
    assert third.models["orca"].versions[0].stamp != stamp


def test_what_does_nothing_is_told_and_keeps_nothing_from_being_served(tmp_path: Path) -> None:
    write(tmp_path, "tiny.gguf")
    write(tmp_path, "orca.yaml", MODEL + "rms_norm_eps: 1e-5\n")
    entry = scan(tmp_path).models["orca"]
    assert not said(entry)
    assert [str(each) for each in entry.ignored] == [
        f"{tmp_path}/orca.yaml:3:1: rms_norm_eps: No effect: the weights' own header says it"
    ]


def test_a_list_of_models_is_that_many_models(tmp_path: Path) -> None:
    write(tmp_path, "tiny.gguf")
    text = (
        "- name: one\n  parameters: {model: tiny.gguf}\n"
        "- name: two\n  parameters: {model: tiny.gguf}\n  threads: many\n"
        "- parameters: {model: none.gguf}\n"
        "- name: four\n  threads: 1\n  threads: 2\n  backend: llama\n"
    )
    write(tmp_path, "all.yaml", text)
    snapshot = scan(tmp_path)
    path = tmp_path / "all.yaml"
    assert sorted(snapshot.models) == ["all-3", "four", "one", "two"]
    assert not said(snapshot.models["one"])
    assert said(snapshot.models["two"]).startswith(f"{path}:5:12: threads: expected a whole number")
    assert f"{path}:6:3: a model in a list needs a `name`" in said(snapshot.models["all-3"])
    assert said(snapshot.models["four"]) == f'{path}:9:3: the key "threads" is given twice (first in line 8)'
    assert scan(tmp_path, snapshot) is snapshot


def test_places_in_a_list_are_those_of_their_model(tmp_path: Path) -> None:
    text = "- name: one\n  parameters: {model: a.gguf}\n- name: two\n  parameters:\n    model: b.gguf\n"
    write(tmp_path, "all.yaml", text)
    assert said(scan(tmp_path).models["two"]).startswith(
        f'{tmp_path}/all.yaml:5:12: parameters.model: no "b.gguf"'
    )


def test_an_alias_is_another_name_of_its_model(tmp_path: Path) -> None:
    write(tmp_path, "tiny.gguf")
    write(tmp_path, "gpt.yaml", "name: gpt-4\nalias: tiny\n")
    snapshot = scan(tmp_path)
    assert list(snapshot.models) == ["tiny"]
    assert snapshot.aliases == {"gpt-4": "tiny"}
    assert snapshot.models["tiny"].aliases == ("gpt-4",)
    write(tmp_path, "other.gguf")
    write(tmp_path, "gpt.yaml", "name: gpt-4\nalias: other # now\n")
    assert scan(tmp_path, scan(tmp_path, snapshot)).aliases == {"gpt-4": "other"}


def test_an_alias_that_leads_nowhere_or_on_is_told(tmp_path: Path) -> None:
    write(tmp_path, "tiny.gguf")
    write(tmp_path, "a.yaml", "name: a\nalias: none\n")
    write(tmp_path, "b.yaml", "name: b\nalias: c\n")
    write(tmp_path, "c.yaml", "name: c\nalias: tiny\n")
    write(tmp_path, "d.yaml", "name: d\nalias: tiny\nparameters: {model: tiny.gguf}\n")
    write(tmp_path, "e/config.yaml", "alias: tiny\n")
    snapshot = scan(tmp_path)
    assert 'there is no model "none"' in said(snapshot.models["a"])
    assert '"c" is an alias itself' in said(snapshot.models["b"])
    assert snapshot.aliases == {"c": "tiny"}
    assert "d.yaml:3:1: parameters: a file with `alias` is a name for another model" in said(
        snapshot.models["d"]
    )
    assert "e/config.yaml:1:8: alias: a folder is a model of its own" in said(snapshot.models["e"])


OTHERS = [
    ("docker-compose.yaml", "name: stack\nservices:\n  web: {image: x}\n", "a Compose file"),
    ("compose.yml", "services: {web: {image: x}}\n", "a Compose file"),
    ("pod.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n", "a Kubernetes manifest"),
    ("ci.yml", "name: test\njobs: {a: {}}\n", "a workflow of a build service"),
    ("env.yaml", "name: e\nchannels: [c]\ndependencies: [d]\n", "an environment of conda"),
    ("index.yaml", "- name: a\n  url: x\n  files: [{filename: a, uri: b}]\n", "an entry of a gallery"),
    ("gallery.yaml", "name: a\nconfig_file: |\n  backend: llama\n", "a gallery's description of a model"),
    ("empty.yaml", "", "the file is empty"),
    ("text.yaml", "just words\n", "expected keys such as `backend` and `parameters`"),
    ("numbers.yaml", "[1, 2]\n", "expected keys such as"),
    ("names.yaml", "name: a\ndescription: b\n", "something with neither `backend` nor `parameters`"),
    ("typo.yaml", "name: a\nparamters: {model: x}\n", 'nor `parameters` (did you mean "parameters"?)'),
    ("workflow.yaml", "parameters: {branch: {type: text}}\nname: x\n", "neither `backend` nor"),
    ("tags.yaml", "a: !reset null\n", "not taken for a model: the tag !reset is not supported"),
    ("two.yaml", "kind: A\n---\nkind: B\n", "not taken for a model: a second document"),
]


@pytest.mark.parametrize(("name", "text", "words"), OTHERS, ids=[name for name, _, _ in OTHERS])
def test_a_file_that_is_something_else_is_passed_over_with_a_reason(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    write(tmp_path, name, text)
    snapshot = scan(tmp_path)
    assert snapshot.entries == ()
    (ignored,) = map(str, snapshot.ignored)
    assert ignored.startswith(f"{tmp_path}/{name}")
    assert words in ignored
    assert scan(tmp_path, snapshot) is snapshot


def test_files_that_are_hidden_or_of_another_kind_need_no_word(tmp_path: Path) -> None:
    write(tmp_path, ".pre-commit-config.yaml", "repos: []\n")
    write(tmp_path, "modelyard.lock", "models: []\n")
    snapshot = scan(tmp_path)
    assert (snapshot.entries, snapshot.ignored) == ((), ())


def test_a_broken_file_that_begins_like_a_model_is_one(tmp_path: Path) -> None:
    write(tmp_path, "orca.yaml", "name: orca\nbackend: llama\n\tthreads: 1\n")
    assert "orca.yaml:3:1: a tab cannot indent YAML" in said(scan(tmp_path).models["orca"])
