"""Listens, and gives each connection to Hypercorn's protocols. Owns how long a connection may be idle, stuck or left.

Hypercorn's own server keeps the socket of a client that has left until the idle time is over, and one whose client
reads nothing for ever; here both are closed.
"""

import asyncio
import dataclasses
import logging
import socket
import struct
import sys
from typing import Any

import h11
import msgspec
from hypercorn.asyncio.task_group import TaskGroup
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Body, Response
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr, wrap_app
from starlette.types import ASGIApp

from adapters.asgi import ApiError, new_request_id

_BACKLOG = 1024
_HEAD_LIMIT_BYTES = 1 << 15
_REFUSALS = {
    431: f"The head of the request is larger than {_HEAD_LIMIT_BYTES} bytes, the most this server reads.",
    501: "This transfer encoding is not known; send chunked, or a content-length.",
}
_HIGH_WATER_BYTES = 1 << 16
_LAST_WORDS_S = 5.0

logger = logging.getLogger(__name__)


def listen(host: str, port: int) -> socket.socket:
    """A socket that accepts connections from now on. Raises OSError, such as when the port is in use."""
    family, _, _, _, address = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    return socket.create_server(address[:2], family=family, backlog=_BACKLOG)


async def serve_app(
    app: ASGIApp,
    sock: socket.socket,
    *,
    stop: asyncio.Event,
    grace_s: float,
    idle_s: float = 75.0,
    send_timeout_s: float = 60.0,
) -> None:
    """Serve `app` on `sock` until `stop` is set; open requests then have `grace_s` to finish.

    A connection is closed that brings no whole request head for `idle_s`, and cut when its client takes nothing of
    what was sent for `send_timeout_s`.
    """
    loop = asyncio.get_running_loop()
    config = _config(idle_s)
    context = WorkerContext(None)
    wrapped = wrap_app(app, config.wsgi_max_body_size, "asgi")
    open_ones: dict[asyncio.Task[Any], Connection] = {}

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connection = Connection(
            wrapped, loop, config, context, {}, reader, writer, send_timeout_s=send_timeout_s
        )
        open_ones[task] = connection
        try:
            await connection
        except* OSError as error:
            logger.info("a connection was lost: %s", error.exceptions[0])
        finally:
            del open_ones[task]

    server = await asyncio.start_server(connected, sock=sock, backlog=_BACKLOG)
    try:
        await stop.wait()
    finally:
        await context.terminated.set()  # idle connections close by themselves now
        server.close()
        if open_ones:
            await asyncio.wait(open_ones, timeout=grace_s)
        for connection in open_ones.values():
            connection.writer.transport.abort()
        if open_ones:
            await asyncio.wait(open_ones, timeout=_LAST_WORDS_S)


class Connection(TCPServer):  # type: ignore[misc]
    """One client's connection, which ends when the client has left and is cut when it is stuck."""

    def __init__(self, *given: Any, send_timeout_s: float) -> None:
        super().__init__(*given)
        self._send_timeout_s = send_timeout_s
        self._has_left = False

    async def run(self) -> None:
        sock = self.writer.get_extra_info("socket")
        try:
            async with TaskGroup(self.loop) as tasks:
                self._task_group = tasks
                self.protocol = Http1(
                    self.app,
                    self.config,
                    self.context,
                    tasks,
                    ConnectionState({}),
                    False,
                    parse_socket_addr(sock.family, sock.getpeername()),
                    parse_socket_addr(sock.family, sock.getsockname()),
                    self.protocol_send,
                )
                await self.idle_task.restart(tasks, self._idle_timeout)
                await self._read_data()
                self._has_left = True
                await self.idle_task.stop()
        finally:
            await self._close()

    async def protocol_send(self, event: Event) -> None:
        match event:
            case RawData():
                await self._write(event.data)
            case Updated(idle=True) if self._has_left:
                pass  # there is no next request to wait for
            case _:
                await super().protocol_send(event)

    async def _write(self, data: bytes) -> None:
        transport = self.writer.transport
        if not transport.is_closing():
            self.writer.write(data)
            if transport.get_write_buffer_size() <= _HIGH_WATER_BYTES:
                return
            if await self._is_taken():
                return
        await self.protocol.handle(Closed())

    async def _is_taken(self) -> bool:
        """Wait until little of what was written is left. False where the client has gone, or took nothing for too long
        and is cut."""
        transport = self.writer.transport
        while True:
            left = transport.get_write_buffer_size()
            try:
                async with asyncio.timeout(self._send_timeout_s) as limit:
                    await self.writer.drain()
                return True
            except OSError:  # the connection is lost, or the time is over
                if not limit.expired():
                    return False
            if transport.get_write_buffer_size() >= left:
                self._cut()
                return False

    async def _close(self) -> None:
        async with asyncio.timeout(self._send_timeout_s) as limit:
            await super()._close()  # which ends early rather than raise when it is cancelled
        if limit.expired():
            self._cut()

    def _cut(self) -> None:
        """Close a connection that is still there, at once: what was not sent is dropped, by the kernel too."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Http1(H11Protocol):  # type: ignore[misc]
    """HTTP/1.1 that stays so: a client of HTTP/2 could hold up a stream without ever being stuck. What is not HTTP is
    answered as errors are everywhere."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._is_chunked = False

    async def stream_send(self, event: StreamEvent) -> None:
        match event:
            case Body() if (
                self._is_chunked
            ):  # needs no state machine, which would cost as much as all else here
                await self.send(RawData(b"%x\r\n%b\r\n" % (len(event.data), event.data)))
                return
            case Response():
                has_length = any(name == b"content-length" for name, _ in event.headers)
                self._is_chunked = not has_length and self.connection.their_http_version == b"1.1"
                if self.connection.their_state is h11.SEND_BODY:
                    # Answered before all of the request is here, after which Hypercorn closes: say so, or the
                    # client's next request may go down a connection that is being closed.
                    event = dataclasses.replace(event, headers=[*event.headers, (b"connection", b"close")])
        await super().stream_send(event)

    async def _check_protocol(self, event: h11.Request) -> None:
        pass

    async def _send_error_response(self, status_code: int) -> None:
        message = _REFUSALS.get(status_code, "What was sent is not a request of HTTP/1.1.")
        body = msgspec.json.encode(ApiError(status_code, message, code="invalid_http").body())
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
            (b"x-request-id", new_request_id().encode()),
            *self.config.response_headers("h11"),
        ]
        await self._send_h11_event(h11.Response(status_code=status_code, headers=headers))
        await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())


def _config(idle_s: float) -> Config:
    config = Config()
    config.h11_max_incomplete_size = _HEAD_LIMIT_BYTES
    config.keep_alive_timeout = idle_s
    config.keep_alive_max_requests = sys.maxsize
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    # No read_timeout: it would cut every stream whose client is silent, which all of them are.
    return config
