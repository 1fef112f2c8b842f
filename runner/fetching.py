"""Has what a version needs from the network fetched, each wish by a process of its own, which can be ended at once.

Every wish is fetched once at a time, and few of them together. What is fetched and where it goes is
`repository.remote`'s.
"""

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from weakref import WeakValueDictionary

import msgspec

from repository.remote.messages import Done, Failed, Job, Moved, Said, Told
from repository.remote.record import known
from repository.remote.wanted import Remote
from repository.snapshot import VersionEntry
from runner.errors import LoadFailed, ModelNotFound, WeightsUnavailable

logger = logging.getLogger(__name__)

AT_ONCE = 3
RETRY_S = 10.0
LONGEST_LINE_BYTES = 1 << 20


class Transfer(msgspec.Struct, frozen=True):
    """How far a download is; nothing is known of its size before the first answer."""

    done_bytes: int = 0
    total_bytes: int = 0

    @property
    def share(self) -> float:
        """0..1 of what is known."""
        return min(1.0, self.done_bytes / self.total_bytes) if self.total_bytes else 0.0

    def __str__(self) -> str:
        if not self.total_bytes:
            return "downloading"
        unit, factor = ("GB", 1e9) if self.total_bytes >= 1e8 else ("MB", 1e6)
        done, total = self.done_bytes / factor, self.total_bytes / factor
        return f"downloading {int(self.share * 100)} % ({done:.1f} of {total:.1f} {unit})"


class Fetcher:
    """`keep_free_bytes`: what downloads that nobody but a request asked for leave free on the disk."""

    def __init__(self, state_dir: Path, *, keep_free_bytes: int = 0) -> None:
        self._state_dir = state_dir
        self._keep_free_bytes = keep_free_bytes
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._guest_slots = asyncio.Semaphore(AT_ONCE - 1)  # one is always for what the owner wants
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # those that are in use

    async def bring(self, version: VersionEntry, on_move: Callable[[Transfer], None]) -> VersionEntry:
        """The version with its weights on disk. Cancelling it ends the download, which a later one goes on with.

        Raises LoadFailed, WeightsUnavailable where it may pass, ModelNotFound for a request's wish that is nowhere.
        """
        remote = version.source
        if remote is None:
            return version
        record = await asyncio.to_thread(known, self._state_dir, remote)
        if record is None:
            on_move(Transfer())
            guests = self._guest_slots if remote.by_request else contextlib.nullcontext()
            async with self._alone(remote), guests, self._slots:
                weights = await self._fetch(remote, on_move)
        else:
            weights = record.weights
        return msgspec.structs.replace(
            version, weights_path=Path(weights) if weights else version.weights_path
        )

    def _alone(self, remote: Remote) -> asyncio.Lock:
        """Nobody else fetches the same while it is held."""
        return self._locks.setdefault(remote.key, asyncio.Lock())

    async def _fetch(self, remote: Remote, on_move: Callable[[Transfer], None]) -> str | None:
        keep_free = self._keep_free_bytes if remote.by_request else 0
        job = Job(remote, str(self._state_dir.absolute()), keep_free)
        logger.info("fetching %s from %s", remote, remote.origin)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-m",
            "repository.remote",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LONGEST_LINE_BYTES,
            start_new_session=True,
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(msgspec.json.encode(job) + b"\n")
            async for line in process.stdout:
                match msgspec.json.decode(line, type=Told):
                    case Moved(done_bytes, total_bytes):
                        on_move(Transfer(done_bytes, total_bytes))
                    case Said(text):
                        logger.info("%s", text)
                    case Done(weights):
                        logger.info("%s is here", remote)
                        return weights
                    case Failed() as failed:
                        raise _error(failed, remote)
        finally:
            await _end(process)
        raise LoadFailed(
            f"fetching {remote} ended with status {process.returncode}; the server's log has more"
        )


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill it and wait for the end of its pipes, however often somebody wants this given up."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    if process.stdin is not None:
        process.stdin.close()
    ending = asyncio.ensure_future(process.communicate())
    cancelled: asyncio.CancelledError | None = None
    while not ending.done():
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


def _error(failed: Failed, remote: Remote) -> Exception:
    match failed.kind:
        case "offline" | "disk" | "broken":
            return WeightsUnavailable(failed.message, retry_after_s=RETRY_S)
        case "missing" if remote.by_request:
            return ModelNotFound(failed.message, model=str(remote), hint=failed.message)
        case _:
            return LoadFailed(failed.message)
