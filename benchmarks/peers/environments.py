"""Installs the peers with uv, each into an environment of its own, from the pinned set beside this file.

An environment is made once and again when its set changes; one that was broken off is made anew.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from uv import find_uv_bin

from benchmarks.child import run_command

HERE = Path(__file__).parent
OVERRIDES = HERE.parents[1] / "backends" / "vllm" / "env" / "overrides.txt"
"""What nobody here needs: builds for CUDA of packages for pictures and sound."""
COMPILED = "llama-cpp-python"
"""This package has no wheel, and compiling takes minutes: pip may have kept the wheel of Modelyard's own copy."""

_INDEXES = ("UV_FIND_LINKS", "UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_TORCH_BACKEND")


def install(name: str, *, root: Path, find_links: Sequence[str] = ()) -> Path:
    """The interpreter of peer `name`'s environment below `root`, made where it is not as its set says. `find_links`:
    more folders or pages of wheels. Raises ChildError with the installer's own words."""
    requirements = HERE / f"{name}.txt"
    folder, links = root / name, list(find_links)
    python, stamp = folder / "bin" / "python", folder / "requirements.txt"
    wanted = set_text(requirements)
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"installing {name} into {folder}", file=sys.stderr, flush=True)
    root.mkdir(parents=True, exist_ok=True)
    if wheel := next((line for line in wanted.splitlines() if line.startswith(COMPILED)), None):
        links.append(str(_compile(wheel.replace("[server]", ""), root / "wheels", find_links=find_links)))
    uv = find_uv_bin()
    run_command([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)])
    words = [word for link in links for word in ("--find-links", link)]
    if not (find_links or any(os.environ.get(name) for name in _INDEXES)):
        words += ["--torch-backend", "cpu"]  # a plain build of PyTorch is for CUDA
    words += ["--overrides", str(OVERRIDES), "--requirements", str(requirements)]
    run_command([uv, "pip", "install", "--quiet", "--python", str(python), *words])
    stamp.write_text(wanted)
    return python


def version(python: Path, distribution: str) -> str:
    """The version of a distribution in that environment; empty where it is not there."""
    script = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
    done = subprocess.run(
        [str(python), "-I", "-c", script, distribution], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def _compile(requirement: str, folder: Path, *, find_links: Sequence[str]) -> Path:
    """A folder with that wheel: pip's kept one, or compiled now."""
    words = ["wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), requirement]
    links = [word for link in find_links for word in ("--find-links", link)]
    run_command([sys.executable, "-m", "pip", "--disable-pip-version-check", *words, *links])
    return folder


def set_text(requirements: Path) -> str:
    """A set with those that it includes, without comments."""
    lines: list[str] = []
    for line in requirements.read_text().splitlines():
        if line.startswith("-r "):
            lines.append(set_text(requirements.parent / line.removeprefix("-r ").strip()))
        elif line.strip() and not line.startswith("#"):
            lines.append(line.strip())
    return "\n".join(lines)
