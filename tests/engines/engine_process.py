"""Engines of another Python environment with the interface of the contract, so that one suite tests them all."""

import asyncio
import itertools
import multiprocessing
import os
import queue
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from backends.contract import (
    Engine,
    EngineInfo,
    EngineRequest,
    LoadRequest,
    Progress,
    Sampling,
    StepEngine,
    StepPlan,
    StepResult,
    StreamEngine,
    TokenChunk,
)
from tests.engines.environments import STATE

HOST = Path(__file__).with_name("engine_host.py")
Receive = Callable[[str, Any], None]


class EngineProcess:
    """A process of one environment that holds engines. Calls may come from any thread."""

    def __init__(self, python: Path) -> None:
        here, there = multiprocessing.Pipe()
        words = [str(python), "-I", str(HOST), str(there.fileno())]
        environment = {**os.environ, "MODELYARD_STATE": str(STATE)}
        self._process = subprocess.Popen(words, pass_fds=[there.fileno()], env=environment)
        there.close()
        self._pipe = here
        self._numbers = itertools.count()
        self._receivers: dict[int, Receive] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def make(self, engine: str) -> int:
        """An engine that is not loaded yet, by "module:Class"; returns its number."""
        number = next(self._numbers)
        self.ask(number, "make", engine=engine)
        return number

    def ask(self, number: int, method: str, *, progress: Progress = lambda _: None, **arguments: Any) -> Any:
        """Call and wait. Raises what the engine raised."""
        answers: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self.start(number, method, lambda kind, payload: answers.put((kind, payload)), **arguments)
        while True:
            match answers.get():
                case "progress", share:
                    progress(share)
                case "error", error:
                    raise error
                case _, value:
                    return value

    def start(self, number: int, method: str, receive: Receive, **arguments: Any) -> int:
        """Call without waiting; `receive` gets (kind, payload) on another thread until "value" or "error"."""
        call = next(self._numbers)
        self._receivers[call] = receive
        self._pipe.send((call, number, method, arguments))
        return call

    def close(self) -> None:
        with socket.socket(fileno=os.dup(self._pipe.fileno())) as end:
            end.shutdown(socket.SHUT_RDWR)  # the reader waits on it, so closing it alone would tell nobody
        self._pipe.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self) -> None:
        try:
            while True:
                call, kind, payload = self._pipe.recv()
                last = kind in ("value", "error")
                (self._receivers.pop(call) if last else self._receivers[call])(kind, payload)
        except (EOFError, OSError):
            for receive in self._receivers.values():
                receive("error", RuntimeError("the engine's process is gone; its stderr says why"))


class _Away(Engine):
    """What both shapes do alike."""

    def __init__(self, process: EngineProcess, engine: str) -> None:
        self.process = process
        self.number = process.make(engine)

    def load(self, request: LoadRequest, progress: Progress) -> EngineInfo:
        self.info = self.process.ask(self.number, "load", progress=progress, request=request)
        return self.info

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        return self._call("tokenize", text, special=special)  # type: ignore[no-any-return]

    def token_bytes(self, token: int, *, special: bool = False) -> bytes:
        return self._call("token_bytes", token, special=special)  # type: ignore[no-any-return]

    def embed(self, batch: Sequence[Sequence[int]]) -> list[list[float]]:
        return self._call("embed", batch)  # type: ignore[no-any-return]

    def unload(self) -> None:
        self._call("unload")

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self.process.ask(self.number, method, args=args, kwargs=kwargs)


class StepEngineAway(_Away, StepEngine):
    """A step engine in another process."""

    def open(self, seq: int, sampling: Sampling, history: Sequence[int]) -> None:
        self._call("open", seq, sampling, tuple(history))

    def close(self, seq: int) -> None:
        self._call("close", seq)

    def step(self, plan: StepPlan) -> StepResult:
        return self._call("step", plan)  # type: ignore[no-any-return]

    def truncate(self, lane: int, keep: int) -> int:
        return self._call("truncate", lane, keep)  # type: ignore[no-any-return]

    def fork(self, source: int, target: int, keep: int) -> bool:
        return self._call("fork", source, target, keep)  # type: ignore[no-any-return]

    def save(self, lane: int, start: int, stop: int) -> memoryview | None:
        state = self._call("save", lane, start, stop)
        return None if state is None else memoryview(state)

    def restore(self, lane: int, start: int, state: memoryview) -> bool:
        return self._call("restore", lane, start, bytes(state))  # type: ignore[no-any-return]


class StreamEngineAway(_Away, StreamEngine):
    """A stream engine in another process."""

    async def generate(self, request: EngineRequest) -> AsyncIterator[TokenChunk]:
        loop = asyncio.get_running_loop()
        answers: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()

        def receive(kind: str, payload: Any) -> None:
            loop.call_soon_threadsafe(answers.put_nowait, (kind, payload))

        call = self.process.start(self.number, "generate", receive, request=request)
        kind = ""
        try:
            while kind not in ("value", "error"):
                kind, payload = await answers.get()
                if kind == "chunk":
                    yield payload
                elif kind == "error":
                    raise payload
        finally:
            if kind not in ("value", "error"):
                self.process.ask(self.number, "close_stream", stream=call)
                while kind not in ("value", "error"):
                    kind, _ = await answers.get()
