"""Runs child processes: this package's own modules, with JSON in on stdin and out on stdout, and other commands."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

LAST_LINES, LAST_LETTERS = 8, 800
"""So much of what a failed command said is told."""


class ChildError(Exception):
    """A child process failed. What a module of ours said on stderr has been printed; the message has what any other
    command said last."""


async def run_child(module: str, job: bytes, *, environment: Mapping[str, str] | None = None) -> bytes:
    """The child's output. A cancelled wait kills the child. Raises ChildError when it ends with an error."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | (environment or {}),
        cwd=Path(__file__).parents[1],
    )
    try:
        output, _ = await process.communicate(job)
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise ChildError(f"{module} ended with code {process.returncode}; its output is above")
    return output


def run_command(command: Sequence[str]) -> str:
    """What the command said. However the wait ends, nothing of its process group is left. Raises ChildError."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            said, _ = process.communicate()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        last = " ".join(said.strip().splitlines()[-LAST_LINES:])[-LAST_LETTERS:]
        raise ChildError(f"{Path(command[0]).name} ended with code {process.returncode}: {last}")
    return said


def answer(output: bytes) -> None:
    """In the child: the whole output. `sys.stdout.buffer` may write only a part where Python is unbuffered."""
    with open(sys.stdout.fileno(), "wb", closefd=False) as stdout:
        stdout.write(output)
