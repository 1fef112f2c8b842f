"""What people are told when uv fails, and which builds of PyTorch it is told to take."""

import sys
from pathlib import Path

import pytest

from runner.environments.uv import Uv, explain
from runner.environments.values import EnvironmentProblem

DISK = """\
Resolved 4 packages in 12ms
error: Failed to install: numpy-2.4.0.whl (numpy==2.4.0)
  cause: failed to write to file `/state/x`: No space left on device (os error 28)"""
NETWORK = """\
error: Failed to fetch: http://127.0.0.1:9/msgspec/
  cause: error sending request for url (http://127.0.0.1:9/msgspec/)
  cause: client error (Connect)"""
CONFLICT = """\
error: No solution found when resolving dependencies
  cause: Because you require numpy<1 and numpy>=1.26, we can conclude that your requirements are unsatisfiable."""
OFFLINE = """\
error: No solution found when resolving dependencies
  cause: Because msgspec was not found in the cache and you require msgspec, we can conclude that your requirements are
         unsatisfiable.

hint: Packages were unavailable because the network was disabled."""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (DISK, ["the disk is full", "make room", "No space left on device"]),
        (NETWORK, ["look after the network", "--find-links", "/msgspec/"]),
        (OFFLINE, ["look after the network", "msgspec was not found in the cache"]),
        (CONFLICT, ["do not fit together", "numpy<1 and numpy>=1.26"]),
        ("error: something new", ["uv failed with status 2", "something new"]),
    ],
)
def test_a_failure_of_uv_is_told_with_what_to_do_and_uvs_own_words(text: str, words: list[str]) -> None:
    told = explain(text.splitlines(), status=2)
    assert all(word in told for word in words), told
    assert "\n" not in told


def test_lines_of_uv_are_passed_on_and_its_failure_raises(tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(EnvironmentProblem, match="there is no such Python"):
        Uv(said.append).run(
            "venv", "--python", "2.99", "--no-python-downloads", str(tmp_path / "x"), cwd=tmp_path
        )
    assert any("2.99" in line for line in said)


def test_a_machine_without_network_is_told(tmp_path: Path) -> None:
    uv = Uv(
        lambda _: None,
        environ={"UV_DEFAULT_INDEX": "http://127.0.0.1:9/", "UV_HTTP_RETRIES": "0", "UV_NO_CACHE": "1"},
    )
    with pytest.raises(EnvironmentProblem, match="look after the network"):
        uv.run(
            "pip", "install", "--python", sys.executable, "--target", str(tmp_path), "msgspec", cwd=tmp_path
        )


@pytest.mark.parametrize(
    ("device", "environ", "has_links", "words"),
    [
        ("cpu", {}, False, ["--torch-backend", "cpu"]),
        ("cuda", {}, False, []),
        ("cpu", {}, True, []),
        ("cpu", {"UV_FIND_LINKS": "/wheels"}, False, []),
        ("cpu", {"UV_TORCH_BACKEND": "cpu"}, False, []),
        ("cpu", {"UV_FIND_LINKS": ""}, False, ["--torch-backend", "cpu"]),
    ],
)
def test_builds_without_cuda_are_looked_for_unless_somebody_said_where(
    device: str, environ: dict[str, str], has_links: bool, words: list[str]
) -> None:
    uv = Uv(lambda _: None, environ=environ)
    assert uv.torch_words(device, has_links=has_links) == words  # type: ignore[arg-type]
