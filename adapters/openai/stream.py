"""Server-sent events: one response that several event iterators feed and one client reads.

Owns when headers go out, when a waiting client hears something, and cancelling when the client leaves. What the
bytes are is the business of `Frames`: each protocol has its own.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import MappingProxyType
from typing import Protocol

from starlette.types import Receive, Scope, Send

from adapters.asgi import ClientGoneError, closing, wait_for_disconnect
from adapters.openai.generation import MAX_PROMPTS_AT_ONCE
from adapters.openai.ignored import Ignored
from runner.errors import GenerationFailed, RunnerError
from runner.wire.requests import Accepted, Event


class Frames(Protocol):
    """How events become the bytes of a stream."""

    def add(self, prompt: int, event: Event, out: list[bytes]) -> None: ...

    def end(self) -> bytes: ...

    def fail(self, error: RunnerError) -> bytes:
        """What tells of an error, after which nothing comes."""
        ...

    def ping(self, words: str) -> bytes:
        """What shows a waiting client that something is alive."""
        ...


PROGRESS_S = 2.0
"""A client that hears of a load or a download hears again when there is news, no more often than this."""

_MOST_WAITING = 1 << 16
_HEADERS = MappingProxyType(
    {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-cache",
        "x-accel-buffering": "no",
    }
)

Item = tuple[int, Event | Exception | None]


class Inbox:
    """What several tasks put, taken all at once by one: what waits together is sent together. Close it at the end.

    A stream takes once per token, so one timer is kept that looks whether a time is over, not one per taking.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._items: list[Item] = []
        self._waiter: asyncio.Future[None] | None = None
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Item) -> None:
        self._items.append(item)
        self._wake()

    async def take(self, timeout_s: float) -> list[Item]:
        """All that is there, in order; an empty list when nothing came for `timeout_s`."""
        if not self._items:
            self._due = self._loop.time() + timeout_s
            if self._timer is None:
                self._timer = self._loop.call_at(self._due, self._look)
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        items, self._items = self._items, []
        return items

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        if self._waiter is None:
            return
        if self._loop.time() >= self._due:
            self._wake()
        else:
            self._timer = self._loop.call_at(self._due, self._look)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class EventStream:
    """An ASGI answer. Until the first chunk exists nothing is sent, so that an error can still have a status;
    only when that takes longer than `keepalive_s` do the headers go out with a ping. From then on one goes out whenever
    the words change, and at the latest after `keepalive_s`.

    `progress` gives the words of a ping. `settle` is awaited when all events are there or, with what failed, no
    more will come, before the end is sent.
    """

    def __init__(
        self,
        sources: Sequence[AsyncIterator[Event]],
        frames: Frames,
        *,
        progress: Callable[[], str],
        keepalive_s: float,
        ignored: Ignored,
        settle: Callable[[Exception | None], Awaitable[None]] | None = None,
    ) -> None:
        self._sources = sources
        self._frames = frames
        self._settle = settle
        self._progress = progress
        self._keepalive_s = keepalive_s
        self._ignored = ignored
        self._is_started = False
        self._has_chunks = False
        self._words = ""
        self._silent_s = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        inbox = Inbox()
        slots = asyncio.Semaphore(MAX_PROMPTS_AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            helpers = [tasks.create_task(_listen(receive, inbox))]
            for prompt, events in enumerate(self._sources):
                helpers.append(tasks.create_task(_pump(prompt, events, inbox, slots, self._ignored)))
            failure = await self._write(inbox, send)
            for helper in helpers:
                helper.cancel()
        inbox.close()
        if failure is not None:
            raise failure  # out here, where no task group wraps it

    async def _write(self, inbox: Inbox, send: Send) -> Exception | None:
        """Send until the end. Returns what went wrong while a plain status could still be sent, or that the
        client left."""
        running = len(self._sources)
        while running:
            is_waiting = self._is_started and not self._has_chunks
            pause_s = min(PROGRESS_S, self._keepalive_s) if is_waiting else self._keepalive_s
            items = await inbox.take(pause_s)
            out: list[bytes] = []
            failure: Exception | None = None
            for prompt, event in items:
                if event is None:
                    running -= 1
                elif isinstance(event, Exception):
                    failure = event if running else None  # a client that leaves at the end has missed nothing
                    break
                else:
                    self._frames.add(prompt, event, out)
            if not running and failure is None:
                failure = await self._settled(None)  # answered as one of the sources' errors is
            if failure is not None and not self._is_started:
                return failure
            if isinstance(failure, ClientGoneError):
                await self._settled(failure)
                return failure
            if failure is not None:
                out.append(self._frames.fail(_fit_to_tell(failure)))
                await self._settled(failure)
                running = 0
            elif not running:
                out.append(self._frames.end())
            elif out:
                self._has_chunks = True
            elif not items:
                words = "waiting for the next token" if self._has_chunks else self._progress()
                self._silent_s += pause_s
                if words != self._words or self._silent_s >= self._keepalive_s:
                    self._words, self._silent_s = words, 0.0
                    out.append(self._frames.ping(words))
            if out:
                await self._send(send, b"".join(out), more=running > 0)
        return None

    async def _settled(self, failure: Exception | None) -> RunnerError | None:
        """What went wrong in settling."""
        try:
            if self._settle is not None:
                await self._settle(failure)
        except Exception as error:
            return _fit_to_tell(error)
        return None

    async def _send(self, send: Send, body: bytes, *, more: bool) -> None:
        if not self._is_started:
            headers = {**_HEADERS, **self._ignored.headers}
            raw = [(name.encode(), value.encode()) for name, value in headers.items()]
            await send({"type": "http.response.start", "status": 200, "headers": raw})
            self._is_started = True
        await send({"type": "http.response.body", "body": body, "more_body": more})


async def _pump(
    prompt: int, events: AsyncIterator[Event], inbox: Inbox, slots: asyncio.Semaphore, ignored: Ignored
) -> None:
    try:
        async with slots, closing(events):
            async for event in events:
                if type(event) is Accepted:
                    ignored.hear(event)
                inbox.put((prompt, event))
                if len(inbox) > _MOST_WAITING:
                    raise GenerationFailed(f"The answer was not read in time: {len(inbox)} parts of it wait.")
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


def _fit_to_tell(failure: Exception) -> RunnerError:
    if isinstance(failure, RunnerError):
        return failure
    logging.getLogger("modelyard.http").error("a stream failed", exc_info=failure)
    return RunnerError("Something went wrong in the server; its log has the details.")
