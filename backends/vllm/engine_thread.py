"""vLLM's engine in this process, stepped on a thread of its own: the way for one device.

Requests go in and outputs come out without the thread ever waiting for whoever reads them; with nothing to compute it
sleeps. An exception in a step ends it, and with it every stream.
"""

import asyncio
import contextlib
import itertools
import logging
import queue
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

from backends.vllm.failures import refusal

logger = logging.getLogger(__name__)

Command = Callable[[], None]


class EngineThread:
    """Drives one `LLMEngine`. All streams belong to the event loop of the first one."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._streams: dict[str, asyncio.Queue[Any]] = {}
        self._numbers = itertools.count(1)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="vllm-engine", daemon=True)
        self._failure: Exception | None = None

    async def stream(self, prompt: Any, params: Any, *, lora: Any, priority: int) -> AsyncIterator[Any]:
        """vLLM's outputs for one request until it has finished; closing the iterator aborts it."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._thread.start()
        if self._failure is not None:
            raise self._failure
        number = str(next(self._numbers))
        outputs = self._streams[number] = asyncio.Queue()
        is_running = True
        self._commands.put(lambda: self._add(number, prompt, params, lora, priority))
        try:
            while is_running:
                output = await outputs.get()
                if isinstance(output, Exception):
                    is_running = False
                    raise output
                is_running = not output.finished
                yield output
        finally:
            del self._streams[number]
            if is_running:
                self._commands.put(lambda: self._engine.abort_request([number]))

    async def reset_cache(self) -> None:
        """Forget the prefixes of earlier prompts, unless a request is running."""
        if self._loop is None:
            return
        done: asyncio.Future[None] = self._loop.create_future()

        def settle(error: Exception | None) -> None:
            if not done.done():
                done.set_result(None) if error is None else done.set_exception(error)

        def reset() -> None:
            try:
                self._engine.reset_prefix_cache()
            except Exception as error:
                self._post(settle, error)
            else:
                self._post(settle, None)

        self._commands.put(reset)
        await done

    def close(self) -> None:
        """End the thread once its step is done, and give the weights and the cache back."""
        from vllm.distributed import cleanup_dist_env_and_memory

        if self._loop is not None:
            self._commands.put(None)
            self._thread.join()
        self._engine.engine_core.shutdown()
        self._engine = None
        cleanup_dist_env_and_memory()

    def _run(self) -> None:
        try:
            while self._obey():
                outputs = self._engine.step()
                if outputs:
                    self._post(self._deliver, outputs)
        except Exception as error:
            logger.exception("a step failed")
            self._post(self._fail, error)

    def _obey(self) -> bool:
        """Carry out what was asked meanwhile; with nothing to compute, wait to be asked. False at the end."""
        while True:
            try:
                command = self._commands.get(block=not self._engine.has_unfinished_requests())
            except queue.Empty:
                return True
            if command is None:
                return False
            command()

    def _add(self, number: str, prompt: Any, params: Any, lora: Any, priority: int) -> None:
        try:
            self._engine.add_request(number, prompt, params, lora_request=lora, priority=priority)
        except Exception as error:
            refused = refusal(error)
            if refused is None:
                raise
            self._post(self._deliver_to, number, refused)

    def _post(self, call: Callable[..., None], *arguments: Any) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody is left to tell
            self._loop.call_soon_threadsafe(call, *arguments)

    def _deliver(self, outputs: list[Any]) -> None:
        for output in outputs:
            self._deliver_to(output.request_id, output)

    def _deliver_to(self, number: str, output: Any) -> None:
        stream = self._streams.get(number)
        if stream is not None:  # else it was closed meanwhile
            stream.put_nowait(output)

    def _fail(self, error: Exception) -> None:
        self._failure = error
        for stream in self._streams.values():
            stream.put_nowait(error)
