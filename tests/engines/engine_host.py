"""`python -I engine_host.py FD`: engines of one Python environment, called over a pipe by `engine_process.py`.

Runs where the engine is installed: imports nothing of the tests, and of Modelyard what a worker does. Every call runs
on the event loop's thread, one after the other; streams run beside each other.
"""

import asyncio
import pkgutil
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

from backends.contract import Engine, EngineError


class Host:
    """Answers (call, engine, method, arguments) with (call, kind, payload)."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._engines: dict[int, Engine] = {}
        self._streams: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        calls: asyncio.Queue[Any] = asyncio.Queue()

        def read() -> None:
            try:
                while True:
                    loop.call_soon_threadsafe(calls.put_nowait, self._pipe.recv())
            except EOFError:
                loop.call_soon_threadsafe(calls.put_nowait, None)

        threading.Thread(target=read, daemon=True).start()
        while (message := await calls.get()) is not None:
            self._answer(*message)

    def _answer(self, call: int, number: int, method: str, arguments: dict[str, Any]) -> None:
        try:
            match method:
                case "make":
                    self._engines[number] = pkgutil.resolve_name(arguments["engine"])()
                    self._pipe.send((call, "value", None))
                case "load":
                    progress = lambda share: self._pipe.send((call, "progress", share))  # noqa: E731
                    info = self._engines[number].load(arguments["request"], progress)
                    self._pipe.send((call, "value", info))
                case "generate":
                    stream = self._stream(call, number, arguments["request"])
                    self._streams[call] = asyncio.create_task(stream)
                case "close_stream":
                    task = self._streams.pop(arguments["stream"], None)
                    if task is not None:
                        task.cancel()
                    self._pipe.send((call, "value", None))
                case _:
                    value = getattr(self._engines[number], method)(*arguments["args"], **arguments["kwargs"])
                    self._pipe.send((call, "value", bytes(value) if isinstance(value, memoryview) else value))
        except Exception as error:
            self._pipe.send((call, "error", _sendable(error)))

    async def _stream(self, call: int, number: int, request: Any) -> None:
        chunks = self._engines[number].generate(request)  # type: ignore[attr-defined]
        try:
            async for chunk in chunks:
                self._pipe.send((call, "chunk", chunk))
            self._pipe.send((call, "value", None))
        except asyncio.CancelledError:
            await chunks.aclose()
            self._pipe.send((call, "value", None))
        except Exception as error:
            self._pipe.send((call, "error", _sendable(error)))


def _sendable(error: Exception) -> Exception:
    """Engine errors as they are; of any other only the words, as its class may not exist on the other side."""
    return error if isinstance(error, EngineError) else RuntimeError(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    asyncio.run(Host(Connection(int(sys.argv[1]))).run())
