"""Runs uv: its lines are passed on as they come, and its failures become sentences."""

import collections
import os
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from runner.environments.values import Device, EnvironmentProblem

Say = Callable[[str], None]

KEPT_LINES = 60

_INDEXES = (
    "UV_TORCH_BACKEND",
    "UV_FIND_LINKS",
    "UV_INDEX",
    "UV_DEFAULT_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
)

_CAUSES = (
    (r"No space left on device|Disk quota exceeded", "the disk is full; make room and try again"),
    (
        r"No interpreter found|Invalid version request",
        "there is no such Python; name another one with --python",
    ),
    (
        r"error sending request|dns error|network was disabled|operation timed out",
        "packages cannot be fetched; look after the network, or name a folder of wheels with --find-links",
    ),
    (r"No solution found", "the packages do not fit together"),
)


class Uv:
    """The uv that was installed with Modelyard. `say` is given each line that it prints."""

    def __init__(self, say: Say, *, environ: Mapping[str, str] | None = None) -> None:
        self._say = say
        self._environ = os.environ if environ is None else environ

    def run(self, *words: str, cwd: Path) -> None:
        """Raises EnvironmentProblem with uv's own words and what to do. `cwd` decides which project's settings it
        reads, so it should have none."""
        kept: collections.deque[str] = collections.deque(maxlen=KEPT_LINES)
        environ = {name: value for name, value in self._environ.items() if name != "VIRTUAL_ENV"}
        try:
            process = subprocess.Popen(
                [_binary(), *words],
                cwd=cwd,
                env={**environ, "NO_COLOR": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
        except OSError as error:
            raise EnvironmentProblem(f"uv could not be started: {error.strerror}") from error
        with process:
            assert process.stdout is not None
            for line in process.stdout:
                kept.append(line.rstrip())
                self._say(line.rstrip())
        if process.returncode:
            raise EnvironmentProblem(explain([*kept], status=process.returncode))

    def torch_words(self, device: Device, *, has_links: bool) -> list[str]:
        """Which builds of PyTorch to take. Plain ones are for CUDA, so that without a GPU uv is told to look for those
        without it, unless somebody said where to look."""
        is_told = has_links or any(self._environ.get(name) for name in _INDEXES)
        return [] if device != "cpu" or is_told else ["--torch-backend", "cpu"]


def explain(lines: Sequence[str], *, status: int) -> str:
    """What to tell of a failed run: its cause where it is known, and uv's own account."""
    text = "\n".join(lines)
    start = next(
        (index for index, line in enumerate(lines) if line.startswith("error:")), max(0, len(lines) - 3)
    )
    account = ": ".join(
        line.strip().removeprefix("error: ").removeprefix("cause: ") for line in lines[start:] if line
    )
    known = (cause for pattern, cause in _CAUSES if re.search(pattern, text))
    return f"{next(known, f'uv failed with status {status}')} (uv: {account})"


def _binary() -> str:
    try:
        from uv import find_uv_bin

        return find_uv_bin()
    except (ImportError, FileNotFoundError) as error:
        raise EnvironmentProblem("uv is missing; install Modelyard again: it comes with it") from error
