import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager

import pytest

from benchmarks.client import Endpoint, drive, run_load, stream
from benchmarks.measure import Record
from benchmarks.workload import Load, Request

Handler = Callable[[dict[str, object], asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[Endpoint]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        try:
            await handler(json.loads(await reader.readexactly(length)), writer)
            await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, asyncio.timeout(20):
        yield Endpoint(port=server.sockets[0].getsockname()[1], model="m")


def event(payload: object) -> bytes:
    data = b"data: " + (payload if isinstance(payload, bytes) else json.dumps(payload).encode()) + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


def usage(completion_tokens: int) -> dict[str, object]:
    details = {"cached_tokens": 2}
    counts = {"prompt_tokens": 3, "completion_tokens": completion_tokens, "prompt_tokens_details": details}
    return {"choices": [], "usage": counts}


async def stream_tokens(body: dict[str, object], writer: asyncio.StreamWriter) -> None:
    count = body["max_tokens"]
    assert isinstance(count, int)
    writer.write(HEAD + event({"choices": [{"text": ""}]}))
    for _ in range(count):
        writer.write(event({"choices": [{"text": " x"}], "usage": None}))
        await writer.drain()
    writer.write(event(usage(count)) + event(b"[DONE]") + b"0\r\n\r\n")


async def one(handler: Handler, *, max_tokens: int = 3) -> Record:
    async with serving(handler) as endpoint:
        load = Load(clients=1, requests=[Request("a", max_tokens)])
        return (await drive(endpoint, load, timeout_s=5)).records[0]


async def test_a_stream_is_recorded_token_by_token():
    record = await one(stream_tokens)
    assert record.error is None
    assert (record.prompt_tokens, record.cached_tokens, record.completion_tokens) == (3, 2, 3)
    assert len(record.chunk_times_s) == 3
    assert record.start_s < record.chunk_times_s[0] <= record.chunk_times_s[-1] <= record.end_s


async def test_the_request_asks_for_the_same_work_everywhere():
    bodies = []

    async def keep(body: dict[str, object], writer: asyncio.StreamWriter) -> None:
        bodies.append(body)
        await stream_tokens(body, writer)

    await one(keep)
    assert bodies == [
        {
            "model": "m",
            "prompt": "a",
            "max_tokens": 3,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ]


async def test_chat_deltas_count_as_tokens():
    async def chat(body: dict[str, object], writer: asyncio.StreamWriter) -> None:
        assert body["messages"] == [{"role": "user", "content": "a"}]
        role, text = {"role": "assistant", "content": ""}, {"content": "x"}
        deltas = [event({"choices": [{"delta": delta}]}) for delta in (role, text, text, {})]
        writer.write(HEAD + b"".join(deltas) + event(usage(2)) + event(b"[DONE]") + b"0\r\n\r\n")

    async with serving(chat) as endpoint:
        chat_endpoint = Endpoint(port=endpoint.port, model="m", chat=True)
        load = Load(clients=1, requests=[Request("a", 2)])
        (record,) = (await drive(chat_endpoint, load, timeout_s=5)).records
    assert (record.error, len(record.chunk_times_s)) == (None, 2)


async def test_an_error_status_is_the_record_s_error():
    async def refuse(body: dict[str, object], writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nfull")

    assert (await one(refuse)).error == "RequestError: status 503: full"


async def test_an_error_event_is_the_record_s_error():
    async def break_off(body: dict[str, object], writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + event({"choices": [{"text": "x"}]}) + event({"error": {"message": "crashed"}}))

    assert (await one(break_off)).error == 'RequestError: {"message": "crashed"}'


async def test_a_cut_stream_is_the_record_s_error():
    async def cut(body: dict[str, object], writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + event({"choices": [{"text": "x"}]}))

    assert (await one(cut)).error == "RequestError: connection closed inside a response"


async def test_a_stream_that_ends_without_done_is_whole_where_it_said_why_it_ended():
    async def end(body: dict[str, object], writer: asyncio.StreamWriter) -> None:
        last = usage(3) | {"choices": [{"text": "x", "finish_reason": "length"}]}
        writer.write(HEAD + event(last) + b"0\r\n\r\n")

    async def stop(body: dict[str, object], writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + event({"choices": [{"text": "x"}]}) + event(usage(3)) + b"0\r\n\r\n")

    assert (await one(end)).error is None
    assert (await one(stop)).error == "RequestError: status 200: "


@pytest.mark.parametrize(
    ("reason", "error"),
    [("length", None), ("stop", "the stream carried no usage"), (None, "the stream carried no usage")],
)
async def test_tokens_that_nobody_counts_are_as_many_as_asked_for_where_the_length_ended_it(
    reason: str | None, error: str | None
):
    async def uncounted(body: dict[str, object], writer: asyncio.StreamWriter) -> None:
        last = {"choices": [{"text": "", "finish_reason": reason}]}
        writer.write(
            HEAD + event({"choices": [{"text": "x"}]}) + event(last) + event(b"[DONE]") + b"0\r\n\r\n"
        )

    record = await one(uncounted)
    assert record.error == error
    assert record.completion_tokens == (3 if error is None else 0)


async def test_fewer_tokens_than_asked_for_is_an_error():
    async def stop_early(body: dict[str, object], writer: asyncio.StreamWriter) -> None:
        await stream_tokens(body | {"max_tokens": 2}, writer)

    assert (await one(stop_early)).error == "2 tokens instead of 3"


async def test_a_server_that_is_not_there_is_the_record_s_error():
    async with serving(stream_tokens) as endpoint:
        pass
    result = await drive(endpoint, Load(clients=2, requests=[Request("a", 1)] * 3), timeout_s=5)
    assert len(result.records) == 3
    assert all((record.error or "").startswith("ConnectionRefusedError") for record in result.records)


async def test_no_more_clients_than_asked_for_are_at_work():
    at_work, most = 0, 0
    all_clients = asyncio.Barrier(3)

    async def count(body: dict[str, object], writer: asyncio.StreamWriter) -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await all_clients.wait()
        await stream_tokens(body, writer)
        at_work -= 1

    async with serving(count) as endpoint:
        result = await run_load(endpoint, Load(clients=3, requests=[Request("a", 4)] * 9))
    assert [record.error for record in result.records] == [None] * 9
    assert most == 3
    assert result.client_cpu_s > 0


async def test_the_intruder_comes_when_the_streams_have_their_tokens():
    prompts = []

    async def note(body: dict[str, object], writer: asyncio.StreamWriter) -> None:
        prompts.append(body["prompt"])
        await stream_tokens(body, writer)

    load = Load(clients=1, requests=[Request("a", 4)] * 2, intruder=Request("b", 1), intruder_after_tokens=5)
    async with serving(note) as endpoint:
        result = await drive(endpoint, load, timeout_s=5)
    assert prompts == ["a", "a", "b"]
    assert result.intruder is not None
    assert result.intruder.completion_tokens == 1


async def test_leaving_a_stream_closes_its_connection():
    hung_up = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + event({"choices": [{"text": "x"}]}))
        await reader.read()  # all of the request, up to the hang-up
        hung_up.set()
        writer.close()

    async with asyncio.timeout(20), await asyncio.start_server(endless, "127.0.0.1", 0) as server:
        endpoint = Endpoint(port=server.sockets[0].getsockname()[1], model="m")
        async with aclosing(stream(endpoint, Request("a", 9))) as chunks:
            assert (await anext(chunks)).has_text
        await hung_up.wait()
