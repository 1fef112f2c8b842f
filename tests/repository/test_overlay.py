"""Files that a load request gives: which names are taken, and how they lie beside the repository's own."""

import os
from pathlib import Path

import pytest

from repository.config_file import Loaded, override_config
from repository.entries import overridden_entry
from repository.overlay import MOST_FILES, lay_out, overlay_problem
from repository.scan import scan
from repository.snapshot import ModelEntry

REFUSED = [
    "",
    "model.gguf",
    "1",
    "1/",
    "0/x",
    "01/x",
    "-1/x",
    "v1/x",
    "../1/x",
    "1/../x",
    "1/x/../../../y",
    "1/./x",
    "1//x",
    "/1/x",
    "//etc/passwd",
    "1//etc/passwd",
    "1/.hidden",
    "1/a\\b",
    "1/a\x00b",
    "1/a\nb",
    "1/\ud800",
    "1/" + "x" * 256,
    "1/" + "x/" * 600 + "x",
    "9" * 30 + "/x",
]


@pytest.mark.parametrize("name", REFUSED)
def test_a_name_that_leads_elsewhere_or_is_none_is_refused(name: str) -> None:
    assert overlay_problem([name])


@pytest.mark.parametrize("name", ["1/model.gguf", "12/a b.txt", "1/sub/folder/ü.json", "1/x..y"])
def test_an_honest_name_is_taken(name: str) -> None:
    assert overlay_problem([name]) is None


def test_a_file_that_is_a_folder_too_is_refused() -> None:
    assert "given as a file too" in str(overlay_problem(["1/a/b", "1/a"]))
    assert "at most" in str(overlay_problem([f"1/{n}" for n in range(MOST_FILES + 1)]))


def scanned(root: Path, name: str = "orca") -> ModelEntry:
    return scan(root).models[name]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "orca"
    for version in (1, 2):
        (folder / str(version) / "sub").mkdir(parents=True)
        (folder / str(version) / "model.gguf").write_text(f"weights {version}")
        (folder / str(version) / "sub" / "extra.json").write_text("old")
        (folder / str(version) / "sub" / "other.json").write_text("kept")
    (folder / "config.yaml").write_text("version_policy: {all: {}}\n")
    return tmp_path / "models"


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    folder = tmp_path / "overlay"
    folder.mkdir()
    return folder


def content(root: Path) -> dict[str, str]:
    """Every file below, links followed, by its path."""
    return {
        str(Path(folder, name).relative_to(root)): Path(folder, name).read_text()
        for folder, _, names in os.walk(root, followlinks=True)
        for name in names
    }


def test_given_files_take_the_place_of_the_repositorys_and_the_others_stay(root: Path, overlay: Path) -> None:
    before = content(root)
    lay_out(overlay, scanned(root), {"1/sub/extra.json": b"new", "3/model.gguf": b"weights 3"})
    assert content(overlay) == {
        "1/model.gguf": "weights 1",
        "1/sub/extra.json": "new",
        "1/sub/other.json": "kept",
        "2/model.gguf": "weights 2",
        "2/sub/extra.json": "old",
        "2/sub/other.json": "kept",
        "3/model.gguf": "weights 3",
    }
    assert content(root) == before


def test_nothing_is_written_through_a_link_of_the_repository(
    root: Path, overlay: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "orca" / "1" / "link").symlink_to(outside)
    (root / "orca" / "1" / "file").symlink_to(tmp_path / "not-there")
    lay_out(overlay, scanned(root), {"1/link/new.txt": b"x", "1/file": b"y"})
    assert not list(outside.iterdir()) and not (tmp_path / "not-there").exists()
    assert content(overlay)["1/link/new.txt"] == "x" and content(overlay)["1/file"] == "y"


def test_a_folder_of_weights_and_a_loose_file_are_their_version_1(tmp_path: Path, overlay: Path) -> None:
    root = tmp_path / "models"
    (root / "flat").mkdir(parents=True)
    (root / "flat" / "config.yaml").write_text("threads: 1\n")
    (root / "flat" / "model.gguf").write_text("flat weights")
    (root / "loose.gguf").write_text("loose weights")
    for name, weights in (("flat", "model.gguf"), ("loose", "loose.gguf")):
        folder = overlay / name
        folder.mkdir()
        lay_out(folder, scanned(root, name), {"1/notes.txt": b"new"})
        assert content(folder) == {f"1/{weights}": f"{name} weights", "1/notes.txt": "new"}


def test_an_entry_is_made_of_the_overlay_under_its_old_name(root: Path, overlay: Path) -> None:
    entry = scanned(root)
    lay_out(overlay, entry, {"3/model.gguf": b"weights 3"})
    config = override_config(entry.config_path, '{"version_policy": {"latest": {}}, "threads": 2}')
    made = overridden_entry(entry, config, path=overlay, root=root)
    assert (made.name, made.selection().versions, made.problems) == ("orca", [3], ())
    assert made.config is not None and made.config.threads == 2
    assert made.version(3) != entry.version(3)


def test_a_policy_that_the_overlay_does_not_meet_is_told(root: Path, overlay: Path) -> None:
    entry = scanned(root)
    config = override_config(entry.config_path, '{"default_version": 7}')
    (problem,) = overridden_entry(entry, config, path=entry.path, root=root).problems
    assert str(problem) == (
        "the configuration given with the load: default_version: version 7 is not served (served: 1, 2)"
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{", "not JSON: Expecting property name"),
        ("[]", "not a JSON object"),
        ('{"a": 1, "a": 2}', 'the key "a" is given twice'),
        ('{"ttl_s": NaN}', "NaN is no JSON number"),
        ('{"description": "\\ud800"}', "half of a surrogate pair"),
        ('{"stopwords": ["\\udfff"]}', "half of a surrogate pair"),
        ("[" * 100_000, "nested deeper than 64 levels"),
        ('{"a": ' + "[" * 70 + "]" * 70 + "}", "nested deeper than 64 levels"),
        ('{"threads": "two"}', 'threads: expected a whole number of at least 1, found text "two"'),
        ('{"thread": 2}', 'unknown key "thread" for any backend (did you mean "threads"?)'),
        ('{"backend": "lama"}', 'unknown backend "lama" (did you mean "llama"?)'),
        ('{"name": "other"}', '"name" cannot be given with a load'),
        ('{"aliases": ["other"]}', '"aliases" cannot be given with a load'),
        ('{"parameters": {"model": "../x"}}', 'parameters.model: "../x" leads out of the repository'),
    ],
)
def test_a_configuration_given_with_a_load_is_checked_as_the_file_is(
    tmp_path: Path, given: str, message: str
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("backend: llama\nthreads: 4\n" if 'thread"' not in given else "threads: 4\n")
    made = override_config(path, given, {"llama": {"properties": {"mmap": {"type": "boolean"}}}})
    assert made.config is None and message in str(made.problems[0])


def test_given_keys_replace_the_files_and_null_takes_one_out(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("threads: 4\ncontext_size: 100\nparameters: {top_k: 3, seed: 1}\n")
    made = override_config(path, '{"threads": null, "parameters": {"seed": 2}}')
    assert isinstance(made, Loaded) and made.config is not None
    assert (made.config.threads, made.config.context_size) == (None, 100)
    assert (made.config.parameters.seed, made.config.parameters.top_k) == (2, None)
