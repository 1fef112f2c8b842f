import pytest

from benchmarks.sse import ProtocolError, ResponseParser

EVENTS = (
    'data: {"text": "grüße"}\n\n: ping\n\nevent: x\r\ndata: one\r\ndata: two\r\n\r\ndata:[DONE]\n\n'.encode()
)
PAYLOADS = ['{"text": "grüße"}'.encode(), b"one\ntwo", b"[DONE]"]


def chunked(body: bytes, *, sizes: tuple[int, ...]) -> bytes:
    parts, start = [], 0
    for size in (*sizes, len(body)):
        part = body[start : start + size]
        start += size
        if part:
            parts.append(b"%x;note=1\r\n%s\r\n" % (len(part), part))
    return b"".join(parts) + b"0\r\nX-Trailer: 1\r\n\r\n"


def stream_response(*, sizes: tuple[int, ...]) -> bytes:
    head = (
        b"HTTP/1.1 100 Continue\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
        b"Content-Type: text/event-stream; charset=utf-8\r\n\r\n"
    )
    return head + chunked(EVENTS, sizes=sizes)


def test_a_stream_reads_the_same_however_its_bytes_are_split_in_three():
    response = stream_response(sizes=(7, 1, 20))
    for first in range(len(response)):
        for second in range(first, len(response)):
            parser = ResponseParser()
            portions = response[:first], response[first:second], response[second:]
            payloads = [event for portion in portions for event in parser.feed(portion)]
            assert payloads == PAYLOADS, (first, second)
            assert parser.is_complete


@pytest.mark.parametrize("size", range(1, len(EVENTS)))
def test_a_stream_reads_the_same_byte_by_byte_whatever_its_chunks(size: int):
    parser = ResponseParser()
    response = stream_response(sizes=(size,))
    payloads = [event for byte in response for event in parser.feed(bytes([byte]))]
    assert payloads == PAYLOADS
    assert parser.is_complete


def test_an_event_is_given_as_soon_as_its_blank_line_is_there():
    parser = ResponseParser()
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n"
    assert parser.feed(head + b"9\r\ndata: 1\n\n") == [b"1"]
    assert not parser.is_complete


def test_an_error_body_is_kept_whole():
    parser = ResponseParser()
    for byte in b'HTTP/1.1 400 Bad Request\r\nContent-Length: 9\r\n\r\n{"e": 12}':
        assert parser.feed(bytes([byte])) == []
    assert (parser.status, parser.body, parser.is_complete) == (400, b'{"e": 12}', True)


def test_a_body_without_length_ends_with_the_connection():
    parser = ResponseParser()
    assert parser.feed(b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n") == [b"1"]
    assert not parser.is_complete
    parser.close()
    assert parser.is_complete


def test_a_cut_stream_is_an_error():
    parser = ResponseParser()
    parser.feed(stream_response(sizes=(30,))[:-5])
    with pytest.raises(ProtocolError, match="closed inside"):
        parser.close()


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (b"SSH-2.0-x\r\n\r\n", "not a status line"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "not a chunk size"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nmore", "4 bytes follow"),
    ],
)
def test_what_is_no_response_is_named(response: bytes, message: str):
    with pytest.raises(ProtocolError, match=message):
        ResponseParser().feed(response)
