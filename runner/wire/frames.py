"""Frames: a 4-byte little-endian length, then a msgpack list of messages (all events of a step share one)."""

import struct
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

import msgspec

from runner.wire.messages import FromWorker, ToWorker

MAX_FRAME_BYTES = 256 * 1024 * 1024
_LENGTH = struct.Struct("<I")

Message = TypeVar("Message")


class ProtocolError(Exception):
    """The peer sent something that is not a frame of ours."""


def encode(messages: Sequence[ToWorker | FromWorker]) -> bytes:
    """One frame holding `messages` in order."""
    body = msgspec.msgpack.encode(messages)
    return _LENGTH.pack(len(body)) + body


class FrameDecoder(Generic[Message]):
    """Cuts a byte stream into messages; keeps what is not yet complete."""

    def __init__(self, message_type: object) -> None:
        self._decoder = msgspec.msgpack.Decoder(list[message_type])  # type: ignore[valid-type]
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yield every message that `data` completes. Raises ProtocolError where it is not one of ours."""
        self._buffer += data
        start = 0
        try:
            while len(self._buffer) - start >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(self._buffer, start)
                if length > MAX_FRAME_BYTES:
                    raise ProtocolError(f"a frame of {length} bytes is over the limit of {MAX_FRAME_BYTES}")
                end = start + _LENGTH.size + length
                if len(self._buffer) < end:
                    break
                body = bytes(self._buffer[start + _LENGTH.size : end])
                start = end
                try:
                    messages = self._decoder.decode(body)
                except msgspec.MsgspecError as error:
                    raise ProtocolError(f"a frame of {length} bytes could not be read: {error}") from error
                yield from messages
        finally:
            del self._buffer[:start]


def worker_decoder() -> "FrameDecoder[ToWorker]":
    """Decodes what a worker receives."""
    return FrameDecoder(ToWorker)


def server_decoder() -> "FrameDecoder[FromWorker]":
    """Decodes what a server receives."""
    return FrameDecoder(FromWorker)
