"""Environments on disk, made with uv: whole, half-made, changed behind our back, in use, removed."""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from runner.environments.folder import Environments, stamp_of
from runner.environments.making import make, remove, workers_in
from runner.environments.uv import Uv
from runner.environments.values import RECORD, REQUEST, EnvironmentProblem, Wanted
from tests.runner.environments.conftest import PLUGIN, Made

QUIET = Uv(lambda _: None)


@pytest.fixture
def changed(made: Made, tmp_path: Path) -> Environments:
    """A state folder with the environment's files, which may be replaced and removed, not written to."""
    copy = tmp_path / "environments" / "markov"
    shutil.copytree(made.environment.folder, copy, symlinks=True, copy_function=os.link)
    return Environments(tmp_path)


def make_quietly(environments: Environments, name: str, wanted: Wanted) -> None:
    make(environments, name, wanted, uv=QUIET, say=lambda _: None)


def test_a_new_environment_has_the_workers_half_and_what_was_asked_for(made: Made) -> None:
    record = made.environment.record
    assert record is not None
    assert record.wanted.packages == (str(PLUGIN),)
    assert {"msgspec", "numpy", "llguidance", "modelyard-markov"} <= record.description.packages.keys()
    [markov] = record.description.backends
    assert (markov.name, markov.is_built_in, markov.found and markov.found.problem) == ("markov", False, "")
    assert made.environments.problem(made.environment) == ""
    assert any("msgspec" in line for line in made.said)


def test_an_environment_is_found_by_its_name_and_by_its_backend(made: Made) -> None:
    assert made.environments.get("markov") == made.environment == made.environments.of_backend("markov")
    assert made.environments.of_backend("echo") is None
    with pytest.raises(EnvironmentProblem, match="'markow'; did you mean 'markov'"):
        made.environments.get("markow")


@pytest.mark.parametrize("name", ["..", "a/b", "", ".hidden", "two words"])
def test_a_name_that_is_no_folders_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(EnvironmentProblem, match="cannot be a name"):
        make_quietly(Environments(tmp_path), name, Wanted())
    assert Environments(tmp_path).find(name) is None


def test_nothing_is_left_of_an_environment_that_could_not_be_made(tmp_path: Path) -> None:
    environments = Environments(tmp_path)
    with pytest.raises(EnvironmentProblem, match="there is no such Python"):
        make_quietly(environments, "bad", Wanted(python=str(tmp_path / "nowhere" / "python")))
    assert environments.all() == ()


def test_a_refresh_that_uv_refuses_leaves_the_environment_as_it_was(changed: Environments) -> None:
    before = changed.get("markov")
    with pytest.raises(EnvironmentProblem, match="do not fit together"):
        make_quietly(changed, "markov", Wanted(packages=("numpy<1", str(PLUGIN))))
    assert changed.get("markov") == before


def test_an_environment_without_its_record_was_left_half_made_and_is_made_again(
    changed: Environments,
) -> None:
    (changed.folder / "markov" / RECORD).unlink()
    half_made = changed.get("markov")
    assert changed.problem(half_made).endswith(
        "'markov' was left half-made; run `modelyard env create markov --refresh`"
    )
    assert changed.plugins() == ()
    assert half_made.wanted is not None
    make_quietly(changed, "markov", half_made.wanted)
    assert changed.problem(changed.get("markov")) == ""


def test_an_environment_whose_python_is_gone_is_told_and_made_again(changed: Environments) -> None:
    environment = changed.get("markov")
    environment.python.unlink()
    assert "the Python of environment 'markov' is gone; run `modelyard env create" in changed.problem(
        environment
    )
    assert environment.wanted is not None
    make_quietly(changed, "markov", environment.wanted)
    assert changed.problem(changed.get("markov")) == ""


def test_nobody_else_makes_the_environment_meanwhile(changed: Environments) -> None:
    with (changed.folder / ".markov.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for refused in (lambda: make_quietly(changed, "markov", Wanted()), lambda: remove(changed, "markov")):
            with pytest.raises(EnvironmentProblem, match="by another process"):
                refused()


def test_an_environment_in_use_is_neither_changed_nor_removed(changed: Environments) -> None:
    environment = changed.get("markov")
    words = [str(environment.python), "-c", "import sys; print(flush=True); sys.stdin.read()"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert workers_in(environment) == [process.pid]
        for refused in (lambda: make_quietly(changed, "markov", Wanted()), lambda: remove(changed, "markov")):
            with pytest.raises(EnvironmentProblem, match=f"used by process {process.pid}; unload its models"):
                refused()
        process.kill()
    remove(changed, "markov")
    assert changed.all() == ()
    with pytest.raises(EnvironmentProblem, match="there is no environment 'markov'"):
        remove(changed, "markov")


def test_plugins_are_described_again_only_when_packages_changed(changed: Environments) -> None:
    record = changed.folder / "markov" / RECORD

    def described() -> int:
        [elsewhere] = changed.plugins()
        assert [spec.name for spec in elsewhere.specs] == ["markov"]
        return record.stat().st_mtime_ns

    first = described()  # the copy's folders are new
    assert described() == first
    os.utime(next((changed.folder / "markov").glob("lib/*/site-packages/modelyard_markov-*.dist-info")))
    assert described() > first


def test_a_plugin_that_breaks_is_told_with_its_place_and_hides_no_other(changed: Environments) -> None:
    packages = next((changed.folder / "markov").glob("lib/*/site-packages"))
    (packages / "modelyard_markov" / "__init__.py").unlink()
    (packages / "modelyard_markov" / "__init__.py").write_text("import no_such_library\n")
    os.utime(next(packages.glob("modelyard_markov-*.dist-info")))
    [elsewhere] = changed.plugins()
    assert elsewhere.specs == ()
    assert "No module named 'no_such_library'" in elsewhere.broken["markov"]


def test_an_environment_that_cannot_be_asked_any_more_is_told(changed: Environments) -> None:
    packages = next((changed.folder / "markov").glob("lib/*/site-packages"))
    shutil.rmtree(packages / "msgspec")
    os.utime(next(packages.glob("msgspec-*.dist-info")))
    [elsewhere] = changed.plugins()
    told = elsewhere.broken["environment markov"]
    assert "No module named 'msgspec" in told and "run `modelyard env create markov --refresh`" in told
    asked = (changed.folder / "markov" / RECORD).stat().st_mtime_ns
    assert changed.plugins() == (elsewhere,)
    assert (changed.folder / "markov" / RECORD).stat().st_mtime_ns == asked, "it was asked once more"


def test_what_was_asked_for_is_kept_beside_what_came_of_it(made: Made) -> None:
    wanted = msgspec.json.decode((made.environment.folder / REQUEST).read_bytes(), type=Wanted)
    assert made.environment.record is not None
    assert wanted == made.environment.record.wanted
    assert made.environment.record.stamp == stamp_of(made.environment.folder)
