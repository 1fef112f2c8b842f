"""Clients that break, bend or abuse HTTP: each is answered or cut, and the server goes on for the others."""

import asyncio
import os
import socket

import psutil
import pytest
from starlette.types import Receive, Scope, Send

from adapters.listener import listen, serve_app
from adapters.settings import AppSettings
from runner.wire.requests import Delta
from tests.adapters.support import (
    ScriptedRunner,
    Server,
    accepted,
    ask_user,
    finished,
    parse_answer,
    says,
    serving,
)

CHAT = "/v1/chat/completions"
BODY = b'{"messages":[{"role":"user","content":"Hi"}]}'
FORM = b"host: x\r\ncontent-type: application/json\r\n"


async def exchange(server: Server, raw: bytes, *, leaves: bool = False) -> bytes:
    """Send these bytes and return all that comes until the server closes. `leaves`: nothing more will be sent,
    which the server takes for a client that has gone."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(raw)
        await writer.drain()
        if leaves:
            writer.write_eof()
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def post(body: bytes = BODY, more: bytes = b"", version: bytes = b"1.1") -> bytes:
    return b"POST %b HTTP/%b\r\n%bcontent-length: %d\r\n%b\r\n%b" % (
        CHAT.encode(),
        version,
        FORM,
        len(body),
        more,
        body,
    )


def connections(port: int) -> int:
    """How many sockets this process holds as the server on `port`."""
    held = psutil.Process(os.getpid()).net_connections("tcp")
    return sum(1 for one in held if one.laddr and one.laddr.port == port and one.raddr)


async def until_closed(server: Server) -> None:
    """Return once the server holds no connection; the test's timeout is the limit."""
    while connections(server.port):
        await asyncio.sleep(0.01)


async def test_pipelined_requests_are_answered_in_order():
    async with serving(ScriptedRunner(lambda request: says(request.request_id[:1])(request))) as server:
        ids = [b"a", b"b", b"c"]
        raw = b"".join(post(more=b"x-request-id: %b\r\n" % one) for one in ids[:-1])
        answer = await exchange(server, raw + post(more=b"x-request-id: c\r\nconnection: close\r\n"))
    assert answer.count(b"HTTP/1.1 200") == 3
    assert [answer.index(b'"content":"%b"' % one) for one in ids] == sorted(
        answer.index(b'"content":"%b"' % one) for one in ids
    )


async def test_http_1_0_gets_an_answer_and_a_stream_that_ends_with_the_connection():
    async with serving(ScriptedRunner(says("a"))) as server:
        plain = await exchange(server, post(version=b"1.0"))
        stream = await exchange(server, post(BODY[:-1] + b',"stream":true}', version=b"1.0"))
    assert plain.startswith(b"HTTP/1.1 200")
    assert b'"content":"a"' in plain
    assert b"transfer-encoding" not in stream.lower()
    assert stream.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /health HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET /health HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 100_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 431),
        (b"GET /health HTTP/1.1\r\n" + b"x: y\r\n" * 20_000 + b"\r\n", 431),
        (b"GET /health HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nhost: x\r\nx: a\0b\r\n\r\n", 400),
        (b"GET /health HTTP/9.9\r\nhost: x\r\n\r\n", None),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), 400),  # TLS to a plain port
        (b"\r\n\r\n\r\n", None),
        (post(more=b"content-length: 3\r\n"), 400),
        (b"POST %b HTTP/1.1\r\n%bcontent-length: -1\r\n\r\n" % (CHAT.encode(), FORM), 400),
        (b"POST %b HTTP/1.1\r\n%btransfer-encoding: zip\r\n\r\n" % (CHAT.encode(), FORM), 501),
        (b"POST %b HTTP/1.1\r\n%btransfer-encoding: chunked\r\n\r\nzz\r\n" % (CHAT.encode(), FORM), None),
        (
            b"POST %b HTTP/1.1\r\n%btransfer-encoding: chunked\r\n\r\nffffffffff\r\nx"
            % (CHAT.encode(), FORM),
            None,
        ),
        (b"POST %b HTTP/1.1\r\n%bcontent-length: 99\r\n\r\n{" % (CHAT.encode(), FORM), None),
    ],
)
async def test_what_is_not_http_is_refused_and_the_next_client_is_served(
    raw: bytes, status: int | None, caplog
):
    runner = ScriptedRunner()
    async with serving(runner) as server:
        answer = await exchange(server, raw, leaves=status is None)
        fine = await server.post(CHAT, ask_user())
        await until_closed(server)
    if status is not None:
        told = parse_answer(answer)
        assert (told.status, told.json()["error"]["code"]) == (status, "invalid_http")
        assert told.headers["x-request-id"]
    assert fine.status == 200
    assert len(runner.asked) == 1
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_client_that_leaves_an_idle_connection_leaves_no_socket_behind():
    async with serving(ScriptedRunner()) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        await reader.readuntil(b'"ok"}')
        assert connections(server.port) == 1
        writer.close()
        await until_closed(server)


@pytest.mark.parametrize(
    "raw",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
        b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: upgrade, http2-settings, close\r\nupgrade: h2c\r\n"
        b"http2-settings: AAMAAABkAAQAAP__\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    ],
    ids=["http-2", "upgrade-to-http-2", "websocket"],
)
async def test_other_protocols_are_not_spoken(raw: bytes):
    async with serving(ScriptedRunner()) as server:
        answer = await exchange(server, raw, leaves=raw.startswith(b"PRI"))
        await until_closed(server)
    assert b" 101 " not in answer
    assert answer == b"" or answer.startswith(b"HTTP/1.1 ")


async def test_a_chunked_body_is_a_body():
    chunked = b"".join(b"%x\r\n%b\r\n" % (1, bytes((byte,))) for byte in BODY) + b"0\r\n\r\n"
    head = b"POST %b HTTP/1.1\r\n%bconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    async with serving(ScriptedRunner(says("a"))) as server:
        answer = await exchange(server, head % (CHAT.encode(), FORM) + chunked)
    assert answer.startswith(b"HTTP/1.1 200")


async def test_who_expects_100_gets_it_before_the_body_is_sent():
    async with serving(ScriptedRunner(says("a"))) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(post(b"", more=b"expect: 100-continue\r\n").replace(b": 0", b": %d" % len(BODY)))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        writer.write(BODY)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_an_answer_that_does_not_wait_for_the_body_says_that_the_connection_ends():
    async with serving(ScriptedRunner()) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST /nowhere HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 404") and b"connection: close" in head.lower()
        writer.close()


async def test_request_heads_that_drip_are_cut_off():
    async with serving(ScriptedRunner(), idle_s=0.2) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /health HTTP/1.1\r\nhost: x\r\n")

        async def drip() -> None:
            while True:
                writer.write(b"x: y\r\n")
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        try:
            await reader.read()
        except ConnectionError:
            pass
        dripping.cancel()
        await until_closed(server)
        writer.close()


async def test_bodies_that_drip_get_a_408_and_are_cut_off():
    async with serving(ScriptedRunner(), AppSettings(body_timeout_s=0.2)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST %b HTTP/1.1\r\n%bcontent-length: 5000\r\n\r\n" % (CHAT.encode(), FORM))

        async def drip() -> None:
            while True:
                writer.write(b" ")
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        head = await reader.readuntil(b"\r\n\r\n")
        try:
            await reader.read()
        except ConnectionError:
            pass
        dripping.cancel()
        await until_closed(server)
        writer.close()
    assert head.startswith(b"HTTP/1.1 408")
    assert b"connection: close" in head.lower()


@pytest.mark.parametrize(
    ("path", "settings", "status"),
    [
        (CHAT, AppSettings(body_limit_bytes=1_000_000), 413),
        (CHAT, AppSettings(api_keys=("k",)), 401),
        ("/v1/nothing", AppSettings(), 404),
        ("/health", AppSettings(), 405),
    ],
)
async def test_a_large_body_that_nobody_reads_leaves_no_connection_behind(path, settings, status):
    async with serving(ScriptedRunner(), settings) as server:
        head = b"POST %b HTTP/1.1\r\n%bcontent-length: 30000000\r\n\r\n" % (path.encode(), FORM)
        answer = await exchange(server, head + b"x" * 30_000_000)
        await until_closed(server)
        fine = await server.get("/health")
    assert answer.startswith(b"HTTP/1.1 %d" % status) or not answer  # a reset may overtake the answer
    assert fine.status == 200


async def test_a_client_that_never_reads_the_end_of_its_answer_is_cut_off_too():
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": bytes(60_000)})  # too little to be waited for

    stop = asyncio.Event()
    with listen("127.0.0.1", 0) as sock, socket.socket() as client:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        server = Server(sock.getsockname()[1])
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(serve_app(app, sock, stop=stop, grace_s=10, send_timeout_s=0.2))
            client.setblocking(False)
            await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", server.port))
            client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            while not connections(server.port):
                await asyncio.sleep(0.01)
            await until_closed(server)
            stop.set()


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_never_reads_is_cut_off(stream: bool, caplog: pytest.LogCaptureFixture):
    def script(request):
        yield accepted()
        yield Delta(0, "x" * 50_000_000, (1,), finish=None if stream else "stop")
        if stream:
            yield never
        yield finished(1)

    never = asyncio.Event()
    runner = ScriptedRunner(script)
    async with serving(runner, AppSettings(send_timeout_s=0.2)) as server:
        reader, writer = await server.send("POST", CHAT, ask_user(stream=stream))
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        if stream:
            await runner.closed.wait()
        await until_closed(server)
        reader._transport.resume_reading()  # type: ignore[attr-defined]
        with pytest.raises(ConnectionError):
            while await reader.read(1 << 20):
                pass
        writer.close()
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_client_that_reads_slowly_but_steadily_gets_its_whole_answer():
    size = 2_000_000

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": bytes(size)})

    stop, got = asyncio.Event(), 0
    with listen("127.0.0.1", 0) as sock, socket.socket() as client:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(serve_app(app, sock, stop=stop, grace_s=10, send_timeout_s=0.2))
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", sock.getsockname()[1]))
            client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            while data := await loop.sock_recv(client, 1 << 15):
                got += len(data)
                await asyncio.sleep(0.01)
            stop.set()
    assert got > size
