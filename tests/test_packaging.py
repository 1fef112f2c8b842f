"""What is installed: five packages, one command, and names that no other distribution takes."""

import subprocess
import sys
import time
import urllib.request
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

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


@pytest.mark.timeout(900)
def test_the_wheel_in_an_empty_environment_serves_a_checkouts_models(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", str(wheel)], check=True, cwd=tmp_path)
    subprocess.run([str(python), "-m", "pip", "check"], check=True, cwd=tmp_path, stdout=subprocess.DEVNULL)
    command = [str(tmp_path / "venv" / "bin" / "modelyard"), "serve", str(ROOT / "models"), "--port", "0"]
    state = ["--state-dir", str(tmp_path / "state")]
    with subprocess.Popen([*command, *state], stdout=subprocess.PIPE, text=True, cwd=tmp_path) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split(" at ")[1].split()[0]
            body = {"model": "demo", "messages": [{"role": "user", "content": "How do I add a model?"}]}
            request = urllib.request.Request(
                f"{url}/v1/chat/completions", msgspec.json.encode(body), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=60) as answer:
                content = msgspec.json.decode(answer.read())["choices"][0]["message"]["content"]
            assert content.startswith("Put a folder with the weights into models/")
        finally:
            server.terminate()
            until = time.monotonic() + 30
            assert server.wait(until - time.monotonic()) == 0
