"""Tries every new constraint in a process of its own before the pipeline compiles it.

One that cannot be compiled would break the pipeline in the middle of a step, and one that is too hard would hold up
all that run for as long as it takes. What passes here is safe there.
"""

import asyncio
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import msgspec

from backends.contract import UnsupportedError

logger = logging.getLogger(__name__)

CHECKING = "backends.openvino.checking"

CHECK_S = 2.0
"""Of processor time: for so long, at most, others wait while a constraint is compiled again in the pipeline."""

PATIENCE = 20
"""How much longer than that a check may take by the clock."""

START_S = 120.0
MAX_KEPT = 256


class Running(NamedTuple):
    process: subprocess.Popen[bytes]
    connection: Connection


class ConstraintChecker:
    """Of the model in `folder`, whose logits have `vocabulary` entries. Starts its process when it is first needed, and
    anew when it had to end it."""

    def __init__(self, folder: Path, vocabulary: int, *, check_s: float = CHECK_S) -> None:
        self._folder = folder
        self._vocabulary = vocabulary
        self._check_s = check_s
        self._running: Running | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="constraints")
        self._passed: OrderedDict[tuple[tuple[str, str], ...], None] = OrderedDict()

    async def check(self, form: dict[str, str], *, param: str) -> None:
        """`form` holds the field of a structured output config, which the request's field `param` asked for. Raises
        UnsupportedError where it cannot be used."""
        key = tuple(form.items())
        if key not in self._passed:
            refusal = await asyncio.get_running_loop().run_in_executor(self._thread, self._ask, form)
            if refusal:
                raise UnsupportedError(f"`{param}` cannot be used: {refusal}")
            self._passed[key] = None
        self._passed.move_to_end(key)
        if len(self._passed) > MAX_KEPT:
            self._passed.popitem(last=False)

    def close(self) -> int:
        """End the process, if one runs; returns its exit status, negative for a signal."""
        if self._running is None:
            return 0
        process, connection = self._running
        self._running = None
        connection.close()
        process.kill()  # one that is ending keeps the status that it ends with
        return process.wait()

    def _ask(self, form: dict[str, str]) -> str:
        """Why `form` is refused; empty where it is not. Raises ChildProcessError where the process does not run."""
        connection = (self._running or self._start()).connection
        too_slow = f"it takes longer than {self._check_s:g} seconds to compile; simplify it"
        try:
            connection.send_bytes(msgspec.json.encode(form))
            if not connection.poll(PATIENCE * self._check_s):
                self.close()
                return too_slow
            return connection.recv_bytes().decode()
        except (EOFError, ConnectionError) as error:
            status = self.close()
            if status >= 0:
                raise ChildProcessError(f"the check of constraints ended with status {status}") from error
            logger.warning("a constraint was refused: checking it ended with signal %d", -status)
            too_large = "it needs too much memory or is nested too deeply; simplify it"
            return too_slow if -status == signal.SIGPROF else too_large

    def _start(self) -> Running:
        ours, theirs = multiprocessing.Pipe()
        words = [str(theirs.fileno()), str(self._check_s), str(self._folder), str(self._vocabulary)]
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-I", "-m", CHECKING, *words],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "MALLOC_ARENA_MAX": "1"},  # arenas reserve address space, which is limited
            )
        self._running = Running(process, ours)
        try:
            if ours.poll(START_S):
                ours.recv_bytes()
                return self._running
        except (EOFError, ConnectionError):
            pass
        raise ChildProcessError(f"the check of constraints did not start (status {self.close()})")
