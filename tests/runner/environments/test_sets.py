"""Which requirement sets there are, and which kind of device they are chosen for."""

import tomllib
from pathlib import Path

import pytest

from backends.registry import Registry
from runner.environments.sets import choose_device, find_sets, requirement_sets
from runner.environments.values import EnvironmentProblem

ROOT = Path(__file__).parents[3]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for path in ("both/env/cpu.txt", "both/env/cuda.txt", "both/env/overrides.txt", "gpu/env/cuda.txt"):
        (tmp_path / "backends" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "backends" / path).touch()
    (tmp_path / "backends" / "both" / "env" / "export").mkdir()
    (tmp_path / "backends" / "both" / "env" / "export" / "cpu.txt").touch()
    (tmp_path / "backends" / "none" / "env").mkdir(parents=True)
    return tmp_path


def test_a_backend_with_files_has_a_set_and_so_has_a_helper_of_it(home: Path) -> None:
    sets = requirement_sets(home)
    assert {name: each.devices for name, each in sets.items()} == {
        "both": ("cpu", "cuda"),
        "both-export": ("cpu",),
        "gpu": ("cuda",),
    }
    assert sets["both"].overrides == home / "backends/both/env/overrides.txt"
    assert sets["gpu"].overrides is None


@pytest.mark.parametrize(
    ("names", "asked", "has_gpu", "device"),
    [
        (["both"], "auto", False, "cpu"),
        (["both"], "auto", True, "cuda"),
        (["both"], "cpu", True, "cpu"),
        (["both", "both-export"], "auto", True, "cpu"),
        (["gpu"], "cuda", False, "cuda"),
        ([], "auto", False, "cpu"),
    ],
)
def test_the_device_is_the_one_asked_for_or_what_the_machine_has(
    home: Path, names: list[str], asked: str, has_gpu: bool, device: str
) -> None:
    assert choose_device(find_sets(names, home=home), asked, has_gpu=has_gpu) == device


@pytest.mark.parametrize(
    ("names", "asked", "words"),
    [
        (["gpu"], "auto", "gpu needs an NVIDIA GPU.*--device cuda"),
        (["both", "gpu"], "cpu", "no requirement set of gpu for cpu"),
        (["both-export", "gpu"], "auto", "no kind of device suits all of both-export, gpu"),
    ],
)
def test_a_set_that_is_not_there_for_the_device_is_named(
    home: Path, names: list[str], asked: str, words: str
) -> None:
    with pytest.raises(EnvironmentProblem, match=words):
        choose_device(find_sets(names, home=home), asked, has_gpu=False)


def test_an_unknown_backend_brings_the_nearest(home: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="'bth'; did you mean 'both'"):
        find_sets(["bth"], home=home)
    with pytest.raises(EnvironmentProblem, match="there are both, both-export, gpu"):
        find_sets(["xyz"], home=home)


def test_every_set_belongs_to_a_backend() -> None:
    names = Registry.BUILT_IN
    assert all(each in names or each.rpartition("-")[0] in names for each in requirement_sets())


def test_the_workers_half_needs_the_versions_that_the_server_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "runner/worker/requirements.txt").read_text().splitlines()
    needs = {line for line in lines if not line.startswith("#")}
    assert needs and needs <= set(project["dependencies"])
