"""An asyncio load client: a closed loop of streaming completions, every chunk timed.

`run_load` runs it as a process of its own: a `_Job` as JSON on stdin, a `LoadResult` on stdout. Every request has
its own connection; leaving `stream` early closes it, which is how a client cancels.
"""

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Any
from urllib.parse import urlsplit

import msgspec
import uvloop

from benchmarks.child import answer, run_child
from benchmarks.measure import LoadResult, Record
from benchmarks.sse import ProtocolError, ResponseParser
from benchmarks.workload import Load, Request


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where to send requests: one model of one server, through completions or chat. `prefix` is what the API's routes
    begin with."""

    host: str = "127.0.0.1"
    port: int
    model: str
    chat: bool = False
    prefix: str = "/v1"
    tls: bool = False
    api_key: str = ""

    @classmethod
    def at(cls, url: str, *, model: str, api_key: str = "") -> "Endpoint":
        """A model behind a base URL such as `http://127.0.0.1:8080/v1`; `/v1` is taken where it has no path. Raises
        ValueError for what is no such URL."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not a URL; write one such as http://127.0.0.1:8080/v1")
        tls = parts.scheme == "https"
        return cls(
            host=parts.hostname,
            port=parts.port or (443 if tls else 80),
            model=model,
            prefix=parts.path.rstrip("/") or "/v1",
            tls=tls,
            api_key=api_key,
        )


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it is sent: a route after the endpoint's prefix and a body to which the model's name is added.
    `tokens` is how many must come back, None for any number. A body with `stream` false is answered in one piece."""

    path: str
    body: dict[str, Any]
    tokens: int | None = None


class _Job(msgspec.Struct, frozen=True):
    endpoint: Endpoint
    load: Load
    timeout_s: float


class _Details(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int = 0  # embeddings have none
    prompt_tokens_details: _Details | None = None


class _Delta(msgspec.Struct, frozen=True):
    content: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct, frozen=True):
    text: str | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None

    @property
    def has_text(self) -> bool:
        delta = self.delta
        return bool(self.text or (delta and (delta.content or delta.reasoning_content)))

    @property
    def said(self) -> str:
        return self.text or (self.delta.content if self.delta else None) or ""


class Chunk(msgspec.Struct, frozen=True):
    """One event of a stream, as far as it is measured; `error` is the server's error object, undecoded."""

    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: msgspec.Raw = msgspec.Raw()

    @property
    def has_text(self) -> bool:
        return any(choice.has_text for choice in self.choices)

    @property
    def said(self) -> str:
        return "".join(choice.said for choice in self.choices)

    @property
    def finish_reason(self) -> str | None:
        """Why the answer ended, where this event says so."""
        return next((choice.finish_reason for choice in self.choices if choice.finish_reason), None)


class RequestError(Exception):
    """A request did not end as it should; the message is what the server or the connection said."""


async def stream(endpoint: Endpoint, request: Request | Call) -> AsyncGenerator[Chunk]:
    """The chunks of one answer until `[DONE]`, or until the body's end where a chunk has said why the answer ended; an
    answer in one piece is one chunk. Closing the iterator closes the connection.

    Raises RequestError for any answer other than a whole one, OSError when the server cannot be reached.
    """
    reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port, ssl=endpoint.tls or None)
    try:
        writer.write(encode_request(endpoint, request))
        parser = ResponseParser()
        decoder = msgspec.json.Decoder(Chunk)
        has_ended = False
        while not parser.is_complete:
            data = await reader.read(1 << 16)
            for payload in parser.feed(data) if data else _closed(parser):
                if payload == b"[DONE]":
                    return
                chunk = decoder.decode(payload)
                if chunk.error:
                    raise RequestError(bytes(chunk.error).decode())
                has_ended = has_ended or chunk.finish_reason is not None
                yield chunk
        if has_ended:
            return
        if parser.status != 200 or isinstance(request, Request) or request.body.get("stream", True):
            raise RequestError(f"status {parser.status}: {parser.body[:500].decode(errors='replace')}")
        yield decoder.decode(parser.body)
    except ProtocolError as error:
        raise RequestError(str(error)) from error
    finally:
        writer.close()


def encode_request(endpoint: Endpoint, request: Request | Call) -> bytes:
    """The whole HTTP request."""
    call = request if isinstance(request, Call) else completion_call(request, chat=endpoint.chat)
    content = msgspec.json.encode({"model": endpoint.model, **call.body})
    key = f"Authorization: Bearer {endpoint.api_key}\r\n" if endpoint.api_key else ""
    head = (
        f"POST {endpoint.prefix}{call.path} HTTP/1.1\r\nHost: {endpoint.host}:{endpoint.port}\r\n"
        f"Connection: close\r\n{key}Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def completion_call(request: Request, *, chat: bool = False) -> Call:
    """Greedy, streamed, `ignore_eos`, usage asked for."""
    body = {
        "max_tokens": request.max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if chat:
        messages = [{"role": "user", "content": request.prompt}]
        return Call(path="/chat/completions", body=body | {"messages": messages}, tokens=request.max_tokens)
    return Call(path="/completions", body=body | {"prompt": request.prompt}, tokens=request.max_tokens)


async def record(
    endpoint: Endpoint,
    request: Request | Call,
    *,
    timeout_s: float,
    on_text: Callable[[], None] = lambda: None,
    due_s: float | None = None,
    keep_text: bool = False,
) -> Record:
    """Run one request to its end and time it; whatever goes wrong is in the record's `error`. `due_s` is when it should
    have been sent, where that was decided before.

    Tokens are counted by the server's `usage`. Where a stream has none, an answer that ended for its length has as many
    as were asked for.
    """
    call = request if isinstance(request, Call) else completion_call(request, chat=endpoint.chat)
    start = time.perf_counter()
    times: list[float] = []
    said: list[str] = []
    usage: _Usage | None = None
    reason: str | None = None
    error: str | None = None
    try:
        async with asyncio.timeout(timeout_s), aclosing(stream(endpoint, call)) as chunks:
            async for chunk in chunks:
                if chunk.has_text:
                    times.append(time.perf_counter())
                    on_text()
                    if keep_text:
                        said.append(chunk.said)
                usage = chunk.usage or usage
                reason = chunk.finish_reason or reason
    except TimeoutError:
        error = f"no end after {timeout_s:g} s"
    except (RequestError, OSError, msgspec.MsgspecError) as failure:
        error = f"{type(failure).__name__}: {failure}"
    if usage is None and reason == "length" and call.tokens is not None:
        usage = _Usage(prompt_tokens=0, completion_tokens=call.tokens)
    if error is None:
        error = _shortfall(usage, call)
    details = usage.prompt_tokens_details if usage else None
    return Record(
        start_s=start,
        end_s=time.perf_counter(),
        chunk_times_s=times,
        prompt_tokens=usage.prompt_tokens if usage else 0,
        cached_tokens=(details.cached_tokens or 0) if details else 0,
        completion_tokens=usage.completion_tokens if usage else 0,
        error=error,
        due_s=due_s,
        text="".join(said),
    )


async def drive(endpoint: Endpoint, load: Load, *, timeout_s: float) -> LoadResult:
    """Run a whole load in this process; `timeout_s` is per request."""
    cpu_at_start = time.process_time()
    waiting: Iterator[Request] = iter(load.requests)
    records: list[Record] = []
    texts_seen = 0
    intruder_due = asyncio.Event()

    def on_text() -> None:
        nonlocal texts_seen
        texts_seen += 1
        if texts_seen >= load.intruder_after_tokens:
            intruder_due.set()

    async def client() -> None:
        for request in waiting:
            done = await record(endpoint, request, timeout_s=timeout_s, on_text=on_text)
            records.append(done)

    async def intrude(request: Request) -> Record:
        await intruder_due.wait()
        return await record(endpoint, request, timeout_s=timeout_s, on_text=lambda: None)

    async with asyncio.TaskGroup() as tasks:
        intruding = tasks.create_task(intrude(load.intruder)) if load.intruder else None
        async with asyncio.TaskGroup() as clients:
            for _ in range(load.clients):
                clients.create_task(client())
        intruder_due.set()  # streams that failed early must not leave the intruder waiting
    return LoadResult(
        records=records,
        intruder=intruding.result() if intruding else None,
        client_cpu_s=time.process_time() - cpu_at_start,
    )


async def run_load(endpoint: Endpoint, load: Load, *, timeout_s: float = 120.0) -> LoadResult:
    """Run a load in a client process of its own, so that its work is apart from the caller's."""
    output = await run_child("benchmarks.client", msgspec.json.encode(_Job(endpoint, load, timeout_s)))
    return msgspec.json.decode(output, type=LoadResult)


def _closed(parser: ResponseParser) -> list[bytes]:
    parser.close()
    return []


def _shortfall(usage: _Usage | None, call: Call) -> str | None:
    if usage is None:
        return "the stream carried no usage"
    if call.tokens is not None and usage.completion_tokens != call.tokens:
        return f"{usage.completion_tokens} tokens instead of {call.tokens}"
    return None


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=_Job)
    result = uvloop.run(drive(job.endpoint, job.load, timeout_s=job.timeout_s))
    answer(msgspec.json.encode(result))


if __name__ == "__main__":
    main()
