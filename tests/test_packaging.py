"""What is installed: five packages, one command, and names that no other distribution takes."""

import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import msgspec
import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("adapters", "backends", "benchmarks", "repository", "runner")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)],
        check=True,
    )
    (built,) = folder.glob("modelyard-*.whl")
    return built


def test_the_wheel_holds_exactly_the_five_packages(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == set(PACKAGES)
    assert "adapters/web/index.html" in names
    assert {"backends/vllm/env/cpu.txt", "runner/worker/requirements.txt"} <= set(names)


def test_no_other_distribution_here_takes_one_of_the_names() -> None:
    owners = packages_distributions()
    for package in PACKAGES:
        assert set(owners.get(package, ["modelyard"])) == {"modelyard"}, f"{package}: {owners[package]}"
        module = __import__(package)
        assert module.__file__ is not None and Path(module.__file__).is_relative_to(ROOT)


def test_no_module_hides_one_of_pythons_own() -> None:
    mine = {path.stem for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    allowed = {"__init__", "__main__"}
    assert (mine & sys.stdlib_module_names) - allowed == set()


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command, installed from the wheel into an environment that has nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    python = str(folder / "venv" / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", str(wheel)], check=True, cwd=folder)
    subprocess.run([python, "-m", "pip", "check"], check=True, cwd=folder, stdout=subprocess.DEVNULL)
    return folder / "venv" / "bin" / "modelyard"


@contextmanager
def serving(command: Path, models: Path, state: Path) -> Iterator[str]:
    words = [str(command), "serve", str(models), "--port", "0", "--state-dir", str(state)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=state.parent) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().split(" at ")[1].split()[0]
        finally:
            server.terminate()
            until = time.monotonic() + 30
            assert server.wait(until - time.monotonic()) == 0


def ask(url: str, **body: Any) -> Any:
    """The one choice of an answer."""
    request = urllib.request.Request(url, msgspec.json.encode(body), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return msgspec.json.decode(answer.read())["choices"][0]


@pytest.mark.timeout(900)
def test_the_wheel_in_an_empty_environment_serves_a_checkouts_models(command: Path, tmp_path: Path) -> None:
    with serving(command, ROOT / "models", tmp_path / "state") as url:
        messages = [{"role": "user", "content": "How do I add a model?"}]
        content = ask(f"{url}/v1/chat/completions", model="demo", messages=messages)["message"]["content"]
        assert content.startswith("Put a folder with the weights into models/")


@pytest.mark.timeout(900)
def test_an_installed_modelyard_copies_its_workers_half_into_environments(
    command: Path, tmp_path: Path
) -> None:
    state, plugin = tmp_path / "state", ROOT / "examples" / "plugin_markov"
    words = [str(command), "env", "create", "markov", "--package", str(plugin), "--state-dir", str(state)]
    subprocess.run(words, check=True, cwd=tmp_path, stderr=subprocess.DEVNULL)
    assert (state / "environments" / "markov" / "modelyard" / "runner" / "worker").is_dir()
    with serving(command, plugin / "models", state) as url:
        answer = ask(f"{url}/v1/completions", model="proverbs", prompt="Still ", max_tokens=64)
        assert answer["text"] == "waters run deep."
