"""Reads HTTP/1.1 responses, plain or as event streams, from bytes in any portions. No sockets here.

It knows what a load client needs: content-length, chunked and until-close bodies, `data:` lines of events.
Comments and other event fields are skipped. It is no general HTTP library.
"""

from enum import Enum


class ProtocolError(Exception):
    """The server's bytes are not an HTTP/1.1 response; the message says where."""


class _Body(Enum):
    CHUNKED = "chunked"
    COUNTED = "counted"
    UNTIL_CLOSE = "until close"


class ResponseParser:
    """One response. `feed` bytes as they come; make a new parser for the next response on the connection."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.is_complete = False
        self._buffer = bytearray()
        self._event_line = bytearray()
        self._event_data: list[bytes] = []
        self._framing = _Body.UNTIL_CLOSE
        self._remaining = 0
        self._in_head = True
        self._in_trailer = False
        self._is_event_stream = False

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads of the events that these bytes complete; any other response is kept in `body`.

        Raises ProtocolError for bytes that are no HTTP response, or that follow the end of one.
        """
        self._buffer += data
        if self._in_head and not self._take_head():
            return []
        return self._take_events(self._take_body())

    def close(self) -> None:
        """The server closed the connection. Raises ProtocolError when that cuts the response."""
        if self._framing is _Body.UNTIL_CLOSE and not self._in_head:
            self.is_complete = True
        if not self.is_complete:
            raise ProtocolError("connection closed inside a response")

    def _take_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        status_line, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        version, _, rest = status_line.partition(" ")
        if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
            raise ProtocolError(f"not a status line: {status_line[:80]!r}")
        if rest.startswith("1"):  # 100 Continue and its kind: the real head follows
            return self._take_head()
        self.status = int(rest[:3])
        for line in lines:
            name, _, value = line.partition(":")
            self.headers[name.strip().lower()] = value.strip()
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            self._framing = _Body.CHUNKED
        elif "content-length" in self.headers:
            self._framing = _Body.COUNTED
            self._remaining = int(self.headers["content-length"])
        self._is_event_stream = self.headers.get("content-type", "").startswith("text/event-stream")
        self._in_head = False
        return True

    def _take_body(self) -> bytes:
        match self._framing:
            case _Body.CHUNKED:
                body = self._take_chunks()
            case _Body.COUNTED:
                body = self._take_counted()
                self.is_complete = self._remaining == 0
            case _Body.UNTIL_CLOSE:
                body = bytes(self._buffer)
                self._buffer.clear()
        if self.is_complete and self._buffer:
            raise ProtocolError(f"{len(self._buffer)} bytes follow the end of the response")
        return body

    def _take_counted(self) -> bytes:
        part = bytes(self._buffer[: self._remaining])
        del self._buffer[: len(part)]
        self._remaining -= len(part)
        return part

    def _take_chunks(self) -> bytes:
        # `_remaining` counts a chunk's payload and the line end after it; the line end is cut off on the way.
        parts: list[bytes] = []
        while self._buffer and not self.is_complete:
            if self._remaining:
                part = self._take_counted()
                line_end = max(0, min(len(part), 2 - self._remaining))
                parts.append(part[: len(part) - line_end])
                continue
            end = self._buffer.find(b"\r\n")
            if end < 0:
                break
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 2]
            if self._in_trailer:
                self.is_complete = not line
                continue
            try:
                size = int(line.split(b";")[0], 16)
            except ValueError:
                raise ProtocolError(f"not a chunk size: {line[:40]!r}") from None
            self._in_trailer = size == 0
            self._remaining = size + 2 if size else 0
        return b"".join(parts)

    def _take_events(self, body: bytes) -> list[bytes]:
        if not self._is_event_stream:
            self.body += body
            return []
        self._event_line += body
        *lines, rest = self._event_line.split(b"\n")
        self._event_line = rest
        events: list[bytes] = []
        for raw in lines:
            line = bytes(raw).removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._event_data.append(line[5:].removeprefix(b" "))
            elif not line and self._event_data:
                events.append(b"\n".join(self._event_data))
                self._event_data = []
        return events
