"""The form of a file that holds an engine's state of some tokens.

    "MYSTATE1" | lengths and checksums | origin (msgpack) | state

Written beside its place and then moved there, so that a file is whole or absent; what is damaged later on shows in
the checksums.
"""

import array
import contextlib
import hashlib
import logging
import os
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

logger = logging.getLogger(__name__)

MAGIC = b"MYSTATE1"
SUFFIX = ".state"
UNFINISHED = ".part"
_HEAD = struct.Struct("<8sIQII")  # magic, bytes of origin and of state, checksums of both


class BadState(Exception):
    """This file cannot be used; the message says why."""


class Origin(msgspec.Struct, frozen=True, array_like=True):
    """What a state is of: the `ids` from `start` on, computed behind those before them."""

    stamp: str
    adapter: str | None
    start: int
    tokens: bytes
    state_bytes: int

    @property
    def ids(self) -> list[int]:
        return array.array("I", self.tokens).tolist()


def packed(tokens: Sequence[int]) -> bytes:
    """Tokens as an Origin has them."""
    return array.array("I", tokens).tobytes()


def file_name(origin: Origin) -> str:
    """The same for the same origin, and for no other."""
    digest = hashlib.blake2b(msgspec.msgpack.encode(origin), digest_size=16)
    return f"{origin.stamp}-{digest.hexdigest()}{SUFFIX}"


def write_state(path: Path, origin: Origin, state: memoryview) -> None:
    """Put a whole file at `path`. Raises OSError."""
    described = msgspec.msgpack.encode(origin)
    head = _HEAD.pack(MAGIC, len(described), state.nbytes, zlib.crc32(described), zlib.crc32(state))
    unfinished = path.with_suffix(f".{os.getpid()}{UNFINISHED}")
    try:
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.writelines((head, described, state))
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def is_abandoned(path: Path) -> bool:
    """Whether this is an unfinished file whose writer is no more."""
    *_, writer, suffix = ("", "", *path.suffixes)
    if suffix != UNFINISHED:
        return False
    try:
        os.kill(int(writer[1:]), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError):
        return False
    return False


def read_origin(path: Path, *, stamp: str) -> Origin:
    """What the state in a file is of; the state itself is not read. Raises BadState and OSError."""
    with path.open("rb") as file:
        found = _read_head(file)
        if os.fstat(file.fileno()).st_size != found.size:
            raise BadState("it is cut off")
    if found.origin.stamp != stamp:
        raise BadState("it is of another model")
    return found.origin


class _Head(msgspec.Struct, frozen=True):
    """The beginning of a file; all of it has `size` bytes."""

    origin: Origin
    checksum: int
    size: int


def _read_head(file: BinaryIO) -> _Head:
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        raise BadState("it is cut off")
    magic, length, state_bytes, origin_checksum, checksum = _HEAD.unpack(head)
    if magic != MAGIC:
        raise BadState("it is no state of a prompt")
    described = file.read(length)
    if zlib.crc32(described) != origin_checksum:
        raise BadState("it is damaged or cut off")
    try:
        origin = msgspec.msgpack.decode(described, type=Origin)
    except msgspec.DecodeError as error:
        raise BadState(str(error)) from error
    return _Head(origin, checksum, _HEAD.size + length + state_bytes)


class StateFile:
    """A state that is in a file, or on its way there. `discard` is told when the file is not wanted any more."""

    def __init__(
        self,
        path: Path,
        nbytes: int,
        *,
        discard: Callable[[Path], None],
        is_read_only: bool = False,
        unwritten: memoryview | None = None,
    ) -> None:
        self.path = path
        self.nbytes = nbytes
        self._is_read_only = is_read_only
        self._discard = discard
        self._unwritten = unwritten

    def read(self) -> memoryview | None:
        """The state; None, and a line in the log, where the file has gone or is damaged."""
        unwritten = self._unwritten
        if unwritten is not None:
            return unwritten
        try:
            with self.path.open("rb") as file:
                head = _read_head(file)
                state = memoryview(file.read())
            if state.nbytes != self.nbytes or zlib.crc32(state) != head.checksum:
                raise BadState("it is damaged or cut off")
            if not self._is_read_only:
                with contextlib.suppress(OSError):
                    os.utime(self.path)  # what is used stays longest, also when the files are found again
        except (BadState, OSError) as error:
            logger.warning("prompt cache: %s is passed over: %s", self.path, error)
            return None
        return state

    def discard(self) -> None:
        """The file may go."""
        self._discard(self.path)

    def written(self) -> None:
        """It is in the file now."""
        self._unwritten = None
