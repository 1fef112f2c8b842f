"""Server-sent events: one response that several event iterators feed and one client reads.

Owns when headers go out, keep-alive comments, error events and cancelling when the client leaves. What the
bytes of a chunk are is the business of `chunks.py`.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Protocol

import msgspec
from starlette.types import Receive, Scope, Send

from adapters.asgi import ApiError, ClientGoneError, closing, wait_for_disconnect
from adapters.openai.errors import to_api_error
from adapters.openai.generation import MAX_PROMPTS_AT_ONCE
from runner.errors import GenerationFailed, RunnerError
from runner.wire.requests import Event


class Frames(Protocol):
    """How events become the bytes of a stream."""

    def add(self, prompt: int, event: Event, out: list[bytes]) -> None: ...

    def end(self) -> bytes: ...


Item = tuple[int, Event | Exception | None]


class Inbox:
    """What several tasks put, taken all at once by one: what waits together is sent together."""

    def __init__(self) -> None:
        self._items: list[Item] = []
        self._waiter: asyncio.Future[None] | None = None

    def put(self, item: Item) -> None:
        self._items.append(item)
        self._wake()

    async def take(self, timeout_s: float) -> list[Item]:
        """All that is there, in order; an empty list when nothing came for `timeout_s`."""
        if not self._items:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(timeout_s, self._wake)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        items, self._items = self._items, []
        return items

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class EventStream:
    """An ASGI answer. Until the first chunk exists nothing is sent, so that an error can still have a status;
    only when that takes longer than `keepalive_s` do the headers go out with a comment.

    `progress` gives the words of such a comment. A client that reads nothing for `send_timeout_s` is
    given up.
    """

    def __init__(
        self,
        sources: Sequence[AsyncIterator[Event]],
        frames: Frames,
        *,
        progress: Callable[[], str],
        keepalive_s: float,
        send_timeout_s: float,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._sources = sources
        self._frames = frames
        self._progress = progress
        self._keepalive_s = keepalive_s
        self._send_timeout_s = send_timeout_s
        self._headers = {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-cache",
            "x-accel-buffering": "no",
        } | dict(headers or {})
        self._is_started = False
        self._has_chunks = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        inbox = Inbox()
        slots = asyncio.Semaphore(MAX_PROMPTS_AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            helpers = [tasks.create_task(_listen(receive, inbox))]
            for prompt, events in enumerate(self._sources):
                helpers.append(tasks.create_task(_pump(prompt, events, inbox, slots)))
            failure = await self._write(inbox, send)
            for helper in helpers:
                helper.cancel()
        if failure is not None:
            raise failure  # out here, where no task group wraps it

    async def _write(self, inbox: Inbox, send: Send) -> Exception | None:
        """Send until the end. Returns what went wrong while a plain status could still be sent, or that the
        client left."""
        running = len(self._sources)
        while running:
            items = await inbox.take(self._keepalive_s)
            out: list[bytes] = []
            failure: Exception | None = None
            for prompt, event in items:
                if event is None:
                    running -= 1
                elif isinstance(event, Exception):
                    failure = event
                    break
                else:
                    self._frames.add(prompt, event, out)
            if isinstance(failure, ClientGoneError) or (failure is not None and not self._is_started):
                return failure
            if failure is not None:
                out.append(_error_event(failure))
                running = 0
            elif not running:
                out.append(self._frames.end())
            elif out:
                self._has_chunks = True
            elif not items:
                words = "waiting for the next token" if self._has_chunks else self._progress()
                out.append(f": {words}\n\n".encode())
            if out:
                try:
                    async with asyncio.timeout(self._send_timeout_s):
                        await self._send(send, b"".join(out), more=running > 0)
                except TimeoutError:
                    return ClientGoneError()
        return None

    async def _send(self, send: Send, body: bytes, *, more: bool) -> None:
        if not self._is_started:
            headers = [(name.encode(), value.encode()) for name, value in self._headers.items()]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            self._is_started = True
        await send({"type": "http.response.body", "body": body, "more_body": more})


async def _pump(prompt: int, events: AsyncIterator[Event], inbox: Inbox, slots: asyncio.Semaphore) -> None:
    try:
        async with slots, closing(events):
            async for event in events:
                inbox.put((prompt, event))
    except Exception as error:  # told to the client, or raised where a status can still be sent
        inbox.put((prompt, error))
    except asyncio.CancelledError:
        inbox.put((prompt, GenerationFailed("The request was cancelled in the server.")))
        raise
    else:
        inbox.put((prompt, None))


async def _listen(receive: Receive, inbox: Inbox) -> None:
    await wait_for_disconnect(receive)
    inbox.put((0, ClientGoneError()))


def _error_event(failure: Exception) -> bytes:
    if isinstance(failure, RunnerError):
        error = to_api_error(failure)
    else:
        logging.getLogger("modelyard.http").error("a stream failed", exc_info=failure)
        error = ApiError(
            500,
            "Something went wrong in the server; its log has the details.",
            type="server_error",
            code="internal_error",
        )
    return b"data: " + msgspec.json.encode(error.body()) + b"\n\n"
