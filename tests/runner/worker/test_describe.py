"""What a Python environment says of its backends."""

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import msgspec
import pytest

from backends.contract import BackendSpec, PlainClaims, Probe
from backends.registry import Registry
from runner.wire.description import Description
from runner.wire.messages import PROTOCOL
from runner.worker.describe import describe, probe

PLUGIN = """
import os

from backends.contract import BackendSpec, PlainClaims, Probe

print("a plugin may print")
SPEC = BackendSpec(
    name="whale", engine="plugin_whale:NAME", claims={claims}, aliases=("orca",), probe="plugin_whale:look"
)
NAME = "whale"

def look():
    os.system("echo a probe may start what prints")
    return Probe(engine="whale 2.0", devices=("sea",))

def nothing():
    return None
"""


@pytest.fixture
def whale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    (tmp_path / "plugin_whale.py").write_text(
        PLUGIN.format(claims='PlainClaims(names=("whale",), formats=("gguf",))')
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "plugin_whale", raising=False)
    return Registry(
        [
            EntryPoint("whale", "plugin_whale:SPEC", Registry.GROUP),
            EntryPoint("broken", "no_such_module:SPEC", Registry.GROUP),
        ]
    )


def test_plugins_of_others_and_the_backends_asked_for_are_described(whale: Registry) -> None:
    description = describe(whale, ["echo"], with_probes=True)
    echo, other = description.backends
    assert (echo.name, echo.is_built_in, echo.claims) == ("echo", True, None)
    assert (other.name, other.is_built_in, other.aliases) == ("whale", False, ("orca",))
    assert other.claims == PlainClaims(names=("whale",), formats=("gguf",))
    assert description.found("whale") == Probe(engine="whale 2.0", devices=("sea",))
    assert description.broken == {"broken": "ModuleNotFoundError: No module named 'no_such_module'"}


def test_without_probes_no_engine_is_touched(whale: Registry) -> None:
    assert describe(whale, [], with_probes=False).found("whale") is None


def test_a_backend_that_is_not_there_is_among_the_broken() -> None:
    assert "did you mean 'echo'" in describe(Registry(()), ["ecko"], with_probes=True).broken["ecko"]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"engine": "backends.echo.engine:EchoEngine"}, ""),
        ({"engine": "no_such_module:Engine"}, "ModuleNotFoundError: No module named 'no_such_module'"),
        ({"engine": "backends.echo.engine:Missing"}, "AttributeError"),
        (
            {"engine": "x:y", "probe": "plugin_whale:nothing"},
            "TypeError: plugin_whale:nothing gave a NoneType",
        ),
    ],
)
def test_an_engine_without_a_probe_is_imported(whale: Registry, fields: dict[str, str], problem: str) -> None:
    found = probe(BackendSpec(name="one", claims=lambda *_: 0, **fields))
    assert found.problem.startswith(problem) and bool(found.problem) == bool(problem)


@pytest.mark.parametrize("flag", ["--describe", "--describe-specs"])
def test_the_answer_is_json_and_nothing_else(flag: str) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-m", "runner.worker", flag, "echo"], capture_output=True, check=True
    )
    description = msgspec.json.decode(done.stdout, type=Description)
    assert description.protocol == PROTOCOL
    assert "msgspec" in description.packages
    assert (description.found("echo") is not None) == (flag == "--describe")


def test_what_a_plugin_prints_is_no_part_of_the_answer(tmp_path: Path) -> None:
    (tmp_path / "plugin_whale.py").write_text(PLUGIN.format(claims="lambda facts, config: 1"))
    code = (
        "import sys\nfrom importlib.metadata import EntryPoint\nfrom backends.registry import Registry\n"
        "from runner.worker.describe import print_description\n"
        "point = EntryPoint('whale', 'plugin_whale:SPEC', Registry.GROUP)\n"
        "print_description(Registry([point]), [], with_probes=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, env={"PYTHONPATH": str(tmp_path)}
    )
    [whale] = msgspec.json.decode(done.stdout, type=Description).backends
    assert whale.claims is None  # a function: it stays where it is
    assert b"a plugin may print" in done.stderr and b"a probe may start what prints" in done.stderr
