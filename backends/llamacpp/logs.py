"""llama.cpp's log, handed to Python's logging (logger "llama.cpp") line by line.

llama.cpp knows one log callback per process, and calls it until the process ends. Hence one bridge per
process, which is never taken down.
"""

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from llama_cpp import llama_cpp as ll

# ggml's own numbers, from ggml.h.
INFO, WARN, ERROR, CONTINUED = 2, 3, 4, 5

# Warnings about what is no problem here: a full pool is answered by preemption, the pool of all sequences
# may well be larger than what the model was trained for, and embeddings are pooled outside of llama.cpp.
EXPECTED = ("failed to find a memory slot", "possible training context overflow", "default pooling_type is")


class LogBridge:
    """Owns the callback. ggml's DEBUG is dropped, INFO becomes DEBUG, and the rest keeps its level."""

    def __init__(self) -> None:
        self._logger = logging.getLogger("llama.cpp")
        self._level = INFO
        self._partial = ""
        self._recorders: list[list[tuple[int, str]]] = []
        self._callback = ll.llama_log_callback(self._receive)
        ll.llama_log_set(self._callback, None)

    @contextmanager
    def record(self) -> Iterator[list[tuple[int, str]]]:
        """Collect the block's lines with their ggml levels: some reasons and sizes llama.cpp only logs."""
        lines: list[tuple[int, str]] = []
        self._recorders.append(lines)
        try:
            yield lines
        finally:
            self._flush()
            # By identity: two nested recorders may hold equal lines.
            self._recorders = [recorder for recorder in self._recorders if recorder is not lines]

    def _receive(self, level: int, text: bytes, _user_data: object) -> None:
        if level != CONTINUED:
            if self._partial:
                self._flush()
            self._level = level
        *lines, self._partial = (self._partial + text.decode("utf-8", "replace")).split("\n")
        for line in lines:
            self._emit(line)

    def _flush(self) -> None:
        line, self._partial = self._partial, ""
        self._emit(line)

    def _emit(self, line: str) -> None:
        # Dots without a newline are llama.cpp's progress bar.
        if not line.strip(" .") or self._level not in (INFO, WARN, ERROR):
            return
        for recorder in self._recorders:
            recorder.append((self._level, line))
        if self._level == INFO or any(words in line for words in EXPECTED):
            self._logger.debug("%s", line)
        else:
            self._logger.log(logging.WARNING if self._level == WARN else logging.ERROR, "%s", line)


@functools.cache
def log_bridge() -> LogBridge:
    """The bridge of this process, made on first use."""
    return LogBridge()


def last_errors(lines: list[tuple[int, str]]) -> str:
    """What llama.cpp complained about, without its function names; empty where it said nothing."""
    errors = [line.split(": ", 1)[-1].strip() for level, line in lines if level == ERROR]
    telling = [line for line in errors if not line.startswith("failed to load model")]
    return "; ".join(dict.fromkeys(telling[-3:]))
