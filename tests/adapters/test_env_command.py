"""`modelyard env` and what `backends` and `check` say of environments, with one that is really made."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from adapters.cli.app import build_cli
from runner.environments.folder import Environments
from runner.environments.values import RECORD

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "examples" / "plugin_markov"

Run = Callable[..., Result]


def run_in(state: Path, *words: object) -> Result:
    variables = {"MODELYARD_STATE": str(state), "COLUMNS": "200"}
    return CliRunner().invoke(build_cli(), [str(word) for word in words], env=variables)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return lambda *words: run_in(tmp_path / "state", *words)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A state folder with an environment made by the command, and what the command said."""
    state = tmp_path_factory.mktemp("state")
    return state, run_in(state, "env", "create", "markov", "--package", PLUGIN, "--device", "cpu")


def test_an_environment_is_made_with_progress_and_shown(made: tuple[Path, Result]) -> None:
    state, result = made
    assert result.exit_code == 0, result.output
    assert "markov: modelyard-markov 0.1.0\n" in result.stderr
    assert result.stderr.endswith(f"environment markov is ready in {state}/environments/markov\n")
    listed = run_in(state, "env", "list").stdout
    assert "markov" in listed and "cpu" in listed and "run `modelyard" not in listed
    assert "environment markov" in run_in(state, "backends", "-v").stdout
    checked = run_in(state, "check", PLUGIN / "models", "-v")
    assert checked.exit_code == 0 and "runs on markov (claims: markov 1)" in checked.stdout
    assert '"markov-chain"' in run_in(state, "schema").stdout


def test_one_that_is_there_is_only_changed_when_that_is_said(made: tuple[Path, Result]) -> None:
    state, _ = made
    refused = run_in(state, "env", "create", "markov")
    assert (refused.exit_code, len(refused.stderr.splitlines())) == (1, 1)
    assert "there is an environment 'markov' already; --refresh brings it up to date" in refused.stderr
    (state / "environments" / "markov" / RECORD).unlink()
    assert (
        "was left half-made; run `modelyard env create markov --refresh`"
        in run_in(state, "env", "list").stdout
    )
    again = run_in(state, "env", "create", "markov", "--refresh")
    assert again.exit_code == 0, again.output
    assert Environments(state).get("markov").record is not None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["create", "vlm"], "there is no requirement set for a backend 'vlm'; did you mean 'vllm'?"),
        (["create", "x", "--backend", "rwvk"], "'rwvk'; did you mean 'rwkv'?"),
        (["create", "a/b", "--backend", "rwkv"], "'a/b' cannot be a name"),
        (["create", "exllamav2", "--device", "cpu"], "there is no requirement set of exllamav2 for cpu"),
        (["create", "openvino", "--device", "cuda"], "there is no requirement set of openvino for cuda"),
        (["create", "x", "--package", "p", "--python", "/nowhere/python"], "there is no such Python"),
        (["remove", "x"], "there is no environment 'x'"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(run: Run, words: list[str], told: str) -> None:
    result = run("env", *words)
    assert result.exit_code == 1
    assert told in result.stderr.splitlines()[-1]
    assert run("env", "list").stdout.startswith("There are no environments in ")


def test_a_package_that_is_not_there_leaves_nothing(run: Run, tmp_path: Path) -> None:
    result = run("env", "create", "x", "--package", tmp_path / "no-such-folder")
    assert result.exit_code == 1
    assert "no-such-folder" in result.stderr.splitlines()[-1]
    assert run("env", "list").stdout.startswith("There are no environments in ")


def test_a_plugin_that_does_not_work_is_told_and_installed_anew_once_it_is_mended(
    run: Run, tmp_path: Path
) -> None:
    plugin = tmp_path / "bad"
    plugin.mkdir()
    (plugin / "bad_plugin.py").write_text("import no_such_library\n")
    (plugin / "pyproject.toml").write_text(
        (PLUGIN / "pyproject.toml")
        .read_text()
        .replace("modelyard_markov:SPEC", "bad_plugin:SPEC")
        .replace('packages = ["modelyard_markov"]', 'include = ["*.py"]')
    )
    result = run("env", "create", "bad", "--package", plugin)
    assert result.exit_code == 1
    assert "markov does not work: ModuleNotFoundError: No module named 'no_such_library'" in result.stderr
    (plugin / "bad_plugin.py").write_text("from modelyard_markov import SPEC\n")
    (plugin / "modelyard_markov.py").write_text((PLUGIN / "modelyard_markov" / "__init__.py").read_text())
    again = run("env", "create", "bad", "--refresh")
    assert (again.exit_code, "does not work" in again.stderr) == (
        1,
        True,
    )  # it introduces itself, but has no engine
    assert "No module named 'modelyard_markov.engine'" in again.stderr


def test_check_tells_the_place_of_an_environment_that_is_not_there(run: Run, tmp_path: Path) -> None:
    (tmp_path / "models" / "orca").mkdir(parents=True)
    config = tmp_path / "models" / "orca" / "config.yaml"
    config.write_text("backend: echo\nenvironment: sea\n")
    result = run("check", tmp_path / "models")
    assert result.exit_code == 1
    assert f"{config}:2:14: there is no environment 'sea'" in result.stdout


def test_an_engine_that_is_not_installed_is_shown_with_its_command(run: Run) -> None:
    assert "run `modelyard env create exllamav2`" in run("backends").stdout


def test_an_environment_is_removed(made: tuple[Path, Result]) -> None:
    state, _ = made
    assert run_in(state, "env", "remove", "markov").stdout == "environment markov is removed\n"
    assert not (state / "environments" / "markov").exists()
