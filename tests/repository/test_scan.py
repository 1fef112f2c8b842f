import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repository.scan import RepositoryError, scan
from repository.snapshot import ModelEntry, Snapshot


def put(root: Path, *files: str, text: str = "x") -> None:
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def touch(path: Path, text: str) -> None:
    """A change that any clock sees."""
    path.write_text(text)
    later = path.stat().st_mtime_ns + 1_000_000_000
    os.utime(path, ns=(later, later))


def model(snapshot: Snapshot, name: str) -> ModelEntry:
    return snapshot.models[name]


def changed(old: Snapshot, new: Snapshot) -> set[str]:
    """Models that came, went or are not what they were."""
    names = old.models.keys() | new.models.keys()
    return {name for name in names if old.models.get(name) != new.models.get(name)}


def weights(snapshot: Snapshot, name: str) -> list[str | None]:
    """The weights of each version, relative to the repository."""
    return [
        version.weights_path and str(version.weights_path.relative_to(snapshot.root))
        for version in model(snapshot, name).versions
    ]


def said(entry: ModelEntry) -> str:
    return "\n".join(str(problem) for problem in entry.all_problems)


def test_a_canonical_folder_has_its_versions(tmp_path: Path) -> None:
    put(tmp_path, "orca/1/model.gguf", "orca/2/model.gguf", "orca/10/model.gguf")
    snapshot = scan(tmp_path)
    assert [version.number for version in model(snapshot, "orca").versions] == [1, 2, 10]
    assert weights(snapshot, "orca") == ["orca/1/model.gguf", "orca/2/model.gguf", "orca/10/model.gguf"]
    assert model(snapshot, "orca").selection().versions == [10]
    assert not said(model(snapshot, "orca"))


def test_a_folder_with_weights_is_version_1(tmp_path: Path) -> None:
    put(tmp_path, "mistral/config.json", "mistral/model.safetensors", "mistral/onnx/model.onnx", "one/x.gguf")
    snapshot = scan(tmp_path)
    assert weights(snapshot, "mistral") == ["mistral"]
    assert weights(snapshot, "one") == ["one/x.gguf"]
    assert model(snapshot, "mistral").ignored == ()


def test_a_loose_file_is_a_model(tmp_path: Path) -> None:
    put(tmp_path, "tiny.gguf", "Big.Q4.GGUF", "README.md", ".hidden.gguf", ".git/config")
    snapshot = scan(tmp_path)
    assert weights(snapshot, "tiny") == ["tiny.gguf"]
    assert sorted(snapshot.models) == ["Big.Q4", "tiny"]


def test_folders_two_deep_are_owner_and_repo(tmp_path: Path) -> None:
    put(tmp_path, "owner/a/x.gguf", "owner/b/config.json", "owner/b/m.safetensors", "owner/notes/readme.md")
    snapshot = scan(tmp_path)
    assert sorted(snapshot.models) == ["owner/a", "owner/b"]
    assert [str(each) for each in snapshot.ignored] == [f"{tmp_path}/owner/notes: no weights in this folder"]


def test_split_files_are_one_model(tmp_path: Path) -> None:
    put(tmp_path, "big-00001-of-00002.gguf", "big-00002-of-00002.gguf")
    put(tmp_path, "half-00002-of-00002.gguf", "m/1/m-00001-of-00002.gguf", "m/1/m-00002-of-00002.gguf")
    snapshot = scan(tmp_path)
    assert weights(snapshot, "big") == ["big-00001-of-00002.gguf"]
    assert weights(snapshot, "m") == ["m/1/m-00001-of-00002.gguf"]
    assert "incomplete: half-00001-of-00002.gguf missing" in said(model(snapshot, "half"))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["a.gguf", "b.gguf"], "several GGUF files (a.gguf, b.gguf); name one in parameters.model"),
        (["README.md"], "no weights; found README.md"),
        (["x-00001-of-00003.gguf", "x-00003-of-00003.gguf"], "incomplete: x-00002-of-00003.gguf missing"),
        (["config.json", "m-00001-of-00002.safetensors"], "incomplete: m-00002-of-00002.safetensors missing"),
        (["a.pth", "b.pth"], "several weight files (a.pth, b.pth)"),
    ],
)
def test_a_version_without_one_choice_of_weights_says_what_is_there(
    tmp_path: Path, files: list[str], words: str
) -> None:
    put(tmp_path, *(f"orca/1/{file}" for file in files), "orca/2/model.gguf")
    snapshot = scan(tmp_path)
    assert weights(snapshot, "orca") == [None, "orca/2/model.gguf"]
    assert words in said(model(snapshot, "orca"))
    assert model(snapshot, "orca").problems == ()


def test_a_projector_is_not_a_second_model(tmp_path: Path) -> None:
    put(tmp_path, "llava/1/llava.gguf", "llava/1/mmproj-f16.gguf")
    assert weights(scan(tmp_path), "llava") == ["llava/1/llava.gguf"]


def test_a_folder_with_nothing_in_it_is_listed_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no weights; the folder is empty" in said(model(scan(tmp_path), "empty"))


def test_a_backend_may_need_no_weights(tmp_path: Path) -> None:
    put(tmp_path, "echo/config.yaml", text="backend: echo\n")
    entry = model(scan(tmp_path), "echo")
    assert [(version.number, version.weights_path) for version in entry.versions] == [(1, None)]
    assert entry.versions[0].no_weights == "no weights; found config.yaml"
    assert not said(entry)


def test_misnamed_versions_are_ignored_and_told(tmp_path: Path) -> None:
    put(tmp_path, "orca/1/m.gguf", "orca/02/m.gguf", "orca/v3/m.gguf", "orca/old/m.gguf", "orca/0/m.gguf")
    put(tmp_path, "only/01/m.gguf")
    snapshot = scan(tmp_path)
    entry = model(snapshot, "orca")
    assert [version.number for version in entry.versions] == [1]
    assert [problem.path.rpartition("/")[2] for problem in entry.ignored] == ["0", "02", "old", "v3"]
    assert "no version" in said(model(snapshot, "only"))


def test_parameters_model_is_inside_the_version_or_relative_to_the_repository(tmp_path: Path) -> None:
    put(tmp_path, "a/1/x.gguf", "a/1/y.gguf", "b/1/sub/x.gguf", "shared/s.gguf", "shared/notes.txt")
    put(tmp_path, "a/config.yaml", text="parameters: {model: y.gguf}\n")
    put(tmp_path, "b/config.yaml", text="parameters: {model: sub/x.gguf}\n")
    put(tmp_path, "c/config.yaml", text="parameters: {model: shared/s.gguf}\n")
    snapshot = scan(tmp_path)
    assert weights(snapshot, "a") == ["a/1/y.gguf"]
    assert weights(snapshot, "b") == ["b/1/sub/x.gguf"]
    assert weights(snapshot, "c") == ["shared/s.gguf"]


@pytest.mark.parametrize("named", ["none.gguf", "models/none.gguf", "some model"])
def test_parameters_model_that_is_nowhere_is_a_located_problem(tmp_path: Path, named: str) -> None:
    put(tmp_path, "a/1/x.gguf")
    put(tmp_path, "a/config.yaml", text=f"description: x\nparameters:\n  model: {named}\n")
    entry = model(scan(tmp_path), "a")
    assert said(entry).startswith(f'{tmp_path}/a/config.yaml:3:10: parameters.model: no "{named}" in')
    assert ("on a hub is written owner/repo" in said(entry)) is ("/" in named)


def test_weights_elsewhere_are_looked_at_again(tmp_path: Path) -> None:
    put(tmp_path, "a/config.yaml", text="parameters: {model: shared/s.gguf}\n")
    first = scan(tmp_path)
    assert said(model(first, "a"))
    put(tmp_path, "shared/s.gguf")
    second = scan(tmp_path, scan(tmp_path, first))
    assert weights(second, "a") == ["shared/s.gguf"]
    touch(tmp_path / "shared/s.gguf", "longer")
    third = scan(tmp_path, scan(tmp_path, second))
    assert "a" in changed(second, third)


def test_a_loose_file_that_a_model_uses_is_its_alias(tmp_path: Path) -> None:
    put(tmp_path, "tiny.gguf")
    put(tmp_path, "nice/config.yaml", text="parameters: {model: tiny.gguf}\n")
    snapshot = scan(tmp_path)
    assert [entry.name for entry in snapshot.entries] == ["nice"]
    assert snapshot.aliases == {"tiny": "nice"}


def test_a_name_goes_to_the_folder_then_the_yaml_then_the_file(tmp_path: Path) -> None:
    put(tmp_path, "x/m.gguf", "x.gguf", "y.gguf", "elsewhere.bin")
    put(tmp_path, "x.yaml", "y.yaml", text="parameters: {model: elsewhere.bin}\n")
    snapshot = scan(tmp_path)
    assert (model(snapshot, "x").kind, model(snapshot, "y").kind) == ("folder", "yaml")
    losers = {
        str(entry.path): said(entry) for entry in snapshot.entries if snapshot.models[entry.name] is not entry
    }
    assert sorted(losers) == [f"{tmp_path}/x.gguf", f"{tmp_path}/x.yaml", f"{tmp_path}/y.gguf"]
    assert f"name taken by {tmp_path}/x" in losers[f"{tmp_path}/x.gguf"]
    assert f"name taken by {tmp_path}/y.yaml" in losers[f"{tmp_path}/y.gguf"]


def test_a_folders_own_name_beats_a_name_from_a_configuration(tmp_path: Path) -> None:
    put(tmp_path, "a/m.gguf", "b/m.gguf")
    put(tmp_path, "a/config.yaml", text="name: b\n")
    snapshot = scan(tmp_path)
    assert model(snapshot, "b").path == tmp_path / "b"
    (tmp_path / "b/m.gguf").unlink()
    (tmp_path / "b").rmdir()
    later = scan(tmp_path, snapshot)
    assert model(later, "b").path == tmp_path / "a"
    assert not said(model(later, "b"))
    assert changed(snapshot, later) == {"b"}


def test_an_alias_goes_to_the_first_and_never_hides_a_name(tmp_path: Path) -> None:
    put(tmp_path, "a/m.gguf", "b/m.gguf", "c/m.gguf")
    put(tmp_path, "a/config.yaml", text="aliases: [gpt, c]\n")
    put(tmp_path, "b/config.yaml", text="aliases: [gpt, other]\n")
    snapshot = scan(tmp_path)
    assert snapshot.aliases == {"gpt": "a", "other": "b"}
    assert (model(snapshot, "a").aliases, model(snapshot, "b").aliases) == (("gpt",), ("other",))
    assert f'alias "c" taken by {tmp_path}/c' in str(model(snapshot, "a").ignored[0])
    assert f'alias "gpt" taken by {tmp_path}/a' in str(model(snapshot, "b").ignored[0])
    assert not said(model(snapshot, "b"))


def test_a_colon_in_a_name_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "a:b/m.gguf", "c:d.gguf", "e:f/m.gguf")
    put(tmp_path, "e:f/config.yaml", text="name: fine\n")
    snapshot = scan(tmp_path)
    assert "colon" in said(model(snapshot, "a:b"))
    assert "colon" in said(model(snapshot, "c:d"))
    assert not said(model(snapshot, "fine"))


def test_a_name_that_is_not_utf_8_is_refused_and_printable(tmp_path: Path) -> None:
    put(tmp_path, os.fsdecode(b"bad\xff/m.gguf"))
    entry = scan(tmp_path).entries[0]
    assert "cannot be a model's name" in said(entry)
    (entry.name + said(entry)).encode()


def test_a_broken_configuration_makes_only_its_model_unavailable(tmp_path: Path) -> None:
    put(tmp_path, "a/1/m.gguf", "b/1/m.gguf")
    put(tmp_path, "a/config.yaml", text="name: nice\nthreads: 0\nfoo: 1\n")
    snapshot = scan(tmp_path, schemas={"llamacpp": {"properties": {}}})
    entry = model(snapshot, "nice")
    assert entry.config is None
    assert len(entry.problems) == 2
    assert not said(model(snapshot, "b"))


def test_versions_that_the_policy_names_but_are_not_there_are_told(tmp_path: Path) -> None:
    put(tmp_path, "a/1/m.gguf", "b/1/m.gguf", "c/1/m.gguf", "c/2/m.gguf")
    put(tmp_path, "a/config.yaml", text="version_policy: {specific: {versions: [1, 3]}}\n")
    put(tmp_path, "b/config.yaml", text="version_policy: {specific: {versions: [3]}}\n")
    put(tmp_path, "c/config.yaml", text="default_version: 1\n")
    snapshot = scan(tmp_path)
    assert not said(model(snapshot, "a"))
    assert str(model(snapshot, "a").ignored[0]).endswith("config.yaml:1:39: there is no version 3")
    assert "there is no version 3" in said(model(snapshot, "b"))
    assert "config.yaml:1:18: default_version: version 1 is not served (served: 2)" in said(
        model(snapshot, "c")
    )


def test_an_unreadable_folder_is_the_problem_of_its_entry_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a/m.gguf", "b/m.gguf", "c/1/m.gguf", "c/2/m.gguf")
    closed = (str(tmp_path / "a"), str(tmp_path / "c/1"))
    real = os.scandir

    def scandir(path: str) -> object:  # root may read everything, so the refusal is made here
        if path in closed:
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    snapshot = scan(tmp_path)
    assert "a: cannot be read: Permission denied" in said(model(snapshot, "a"))
    assert not said(model(snapshot, "b"))
    assert "c/1: cannot be read: Permission denied" in said(model(snapshot, "c"))
    assert weights(snapshot, "c") == [None, "c/2/m.gguf"]


def test_what_nobody_thought_of_is_the_problem_of_its_entry_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, "a/m.gguf", "b/m.gguf")
    put(tmp_path, "a/config.yaml", text="threads: 1\n")
    snapshot = scan(tmp_path, schemas={"odd": 7})  # type: ignore[dict-item]
    assert "cannot be understood: AttributeError" in said(model(snapshot, "a"))
    assert "Traceback" in caplog.text
    assert not said(model(snapshot, "b"))


def test_links_that_lead_back_or_nowhere_are_told(tmp_path: Path) -> None:
    put(tmp_path, "a/m.gguf", "elsewhere/w.gguf", "d/1/ok.gguf")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "a/self").symlink_to("self")
    (tmp_path / "dead.gguf").symlink_to("none.gguf")
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "d/2").mkdir()
    (tmp_path / "d/2/m.gguf").symlink_to("none")
    (tmp_path / "linked").symlink_to(tmp_path / "elsewhere")
    snapshot = scan(tmp_path)
    assert "is a link to a folder that holds it" in said(model(snapshot, "loop"))
    assert "dead.gguf is a link that leads nowhere" in said(model(snapshot, "dead"))
    assert "m.gguf is a link that leads nowhere" in said(model(snapshot, "d"))
    assert [str(each) for each in snapshot.ignored] == [f"{tmp_path}/gone: a link that leads nowhere"]
    assert weights(snapshot, "linked") == ["linked/w.gguf"]
    assert weights(snapshot, "a") == ["a/m.gguf"]


def test_the_root_must_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="No such file or directory"):
        scan(tmp_path / "none")
    put(tmp_path, "file")
    with pytest.raises(RepositoryError, match="Not a directory"):
        scan(tmp_path / "file")


def test_nothing_changed_gives_the_same_snapshot(tmp_path: Path) -> None:
    put(tmp_path, "a/1/m.gguf", "b.gguf", "c/config.yaml", "d.yaml", "e/01/x")
    first = scan(tmp_path)
    assert scan(tmp_path, first) is first


def test_a_new_model_waits_until_a_look_sees_no_change(tmp_path: Path) -> None:
    first = scan(tmp_path)
    put(tmp_path, "a/1/m.gguf")
    second = scan(tmp_path, first)
    assert not model(second, "a").settled
    assert "still being copied (its files are changing)" in said(model(second, "a"))
    assert second.is_moving
    touch(tmp_path / "a/1/m.gguf", "more")
    third = scan(tmp_path, second)
    assert not model(third, "a").settled
    fourth = scan(tmp_path, third)
    assert model(fourth, "a").settled
    assert not said(model(fourth, "a"))
    assert not fourth.is_moving
    assert changed(first, fourth) == {"a"}


def test_a_changing_model_keeps_its_entry_until_it_settles(tmp_path: Path) -> None:
    put(tmp_path, "a/1/m.gguf")
    first = scan(tmp_path)
    put(tmp_path, "a/2/m.gguf")
    second = scan(tmp_path, first)
    assert model(second, "a") is model(first, "a")
    assert not changed(first, second)
    assert [str(each) for each in second.waiting] == [
        f"{tmp_path}/a: still being copied (its files are changing)"
    ]
    third = scan(tmp_path, second)
    assert [version.number for version in model(third, "a").versions] == [1, 2]
    assert third.waiting == ()
    assert model(third, "a").versions[0] == model(first, "a").versions[0]


@pytest.mark.parametrize("part", ["m.gguf.part", "m.gguf.incomplete", "m.tmp"])
def test_an_unfinished_download_waits_however_long_it_rests(tmp_path: Path, part: str) -> None:
    put(tmp_path, "a/1/m.gguf", f"a/1/{part}")
    snapshot = scan(tmp_path)
    for _ in range(3):
        assert not model(snapshot, "a").settled
        assert part in said(model(snapshot, "a"))
        snapshot = scan(tmp_path, snapshot)
    assert not snapshot.is_moving
    (tmp_path / "a/1" / part).unlink()
    assert model(scan(tmp_path, scan(tmp_path, snapshot)), "a").settled


def test_replaced_weights_change_the_stamp_of_their_version_only(tmp_path: Path) -> None:
    put(tmp_path, "a/1/m.gguf", "a/2/m.gguf")
    first = scan(tmp_path)
    touch(tmp_path / "a/2/m.gguf", "other")
    second = scan(tmp_path, scan(tmp_path, first))
    old, new = model(first, "a").versions, model(second, "a").versions
    assert old[0].stamp == new[0].stamp
    assert old[1].stamp != new[1].stamp
    assert changed(first, second) == {"a"}


def test_a_comment_in_a_configuration_changes_nothing(tmp_path: Path) -> None:
    put(tmp_path, "a/m.gguf", "a/config.yaml", text="threads: 2\n")
    first = scan(tmp_path)
    touch(tmp_path / "a/config.yaml", "# two\nthreads: 2\n")
    second = scan(tmp_path, scan(tmp_path, first))
    assert not changed(first, second)
    touch(tmp_path / "a/config.yaml", "threads: 3\n")
    assert changed(first, scan(tmp_path, scan(tmp_path, second))) == {"a"}


def test_a_removed_model_is_gone_at_once(tmp_path: Path) -> None:
    put(tmp_path, "a.gguf", "b.gguf")
    first = scan(tmp_path)
    (tmp_path / "a.gguf").unlink()
    assert changed(first, scan(tmp_path, first)) == {"a"}


def test_a_scan_opens_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a/1/m.gguf", "b.gguf", "c/config.json", "c/m.safetensors")
    put(tmp_path, "a/config.yaml", text="threads: 1\n")
    opened: list[str] = []
    real = Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, *rest, **more: opened.append(path.name) or real(path, *rest, **more)
    )
    scan(tmp_path)
    assert opened == ["config.yaml"]


BAD_MODELS = [
    {"config.yaml": "threads: 0\n", "1/m.gguf": "x"},
    {"config.yaml": "\t{", "m.gguf": "x"},
    {"config.yaml": "name: good-0\n", "m.gguf": "x"},
    {"config.yaml": "aliases: [good-0, good-1]\n", "m.gguf": "x"},
    {"config.yaml": "parameters: {model: ../good-0/1/m.gguf}\n"},
    {"config.yaml": "parameters: {model: good-0/1/m.gguf}\n"},
    {"1/a.gguf": "x", "1/b.gguf": "x"},
    {"01/a.gguf": "x"},
    {"1/a.gguf.part": "x"},
    {"README": "x"},
    {"config.yaml/x": "a folder"},
]


@given(st.lists(st.sampled_from(BAD_MODELS), max_size=6), st.integers(1, 3))
def test_one_bad_model_never_hides_another(
    tmp_path_factory: pytest.TempPathFactory, bad: list[dict[str, str]], good: int
) -> None:
    root = tmp_path_factory.mktemp("models")
    for number in range(good):
        put(root, f"good-{number}/1/m.gguf")
    for number, files in enumerate(bad):
        for name, text in files.items():
            put(root, f"bad-{number}/{name}", text=text)
    snapshot = scan(root)
    for number in range(good):
        entry = model(snapshot, f"good-{number}")
        assert entry.path == root / f"good-{number}"
        assert (said(entry), weights(snapshot, entry.name)) == ("", [f"good-{number}/1/m.gguf"])
    assert {entry.path.name for entry in snapshot.entries if entry.path.name.startswith("bad")} == {
        f"bad-{number}" for number in range(len(bad))
    }
