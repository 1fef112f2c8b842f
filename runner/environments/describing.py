"""Asks an interpreter what it has of the backends. The process ends with all that it started."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

from runner.environments.values import EnvironmentProblem
from runner.wire.description import Description

SPECS_TIMEOUT_S = 30.0
PROBES_TIMEOUT_S = 600.0
"""Importing an engine takes half a minute at the first time."""


def describe_specs(python: Path) -> Description:
    """The plugins of others in it, untried. Raises EnvironmentProblem where the worker's half does not run there."""
    return _ask(python, "--describe-specs", timeout_s=SPECS_TIMEOUT_S)


def describe(python: Path, names: Sequence[str]) -> Description:
    """What it has of the built-in backends of these names and of the plugins of others, each tried out. Raises
    EnvironmentProblem as well."""
    return _ask(python, "--describe", *names, timeout_s=PROBES_TIMEOUT_S)


def _ask(python: Path, *words: str, timeout_s: float) -> Description:
    try:
        process = subprocess.Popen(
            [str(python), "-I", "-m", "runner.worker", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise EnvironmentProblem(f"{python} cannot be run: {error.strerror}") from error
    with process:
        try:
            answer, said = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise EnvironmentProblem(f"{python} did not tell its backends within {timeout_s:g} s") from error
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
    try:
        return msgspec.json.decode(answer, type=Description)
    except msgspec.MsgspecError as error:
        last = said.decode(errors="replace").strip().splitlines()[-1:] or [f"status {process.returncode}"]
        raise EnvironmentProblem(f"the worker's half does not run with {python}: {last[0]}") from error
