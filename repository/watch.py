"""Follows a repository: looks again and again, and hands out a snapshot when a reader would see a change."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from repository.options import Schemas
from repository.scan import RepositoryError, scan
from repository.snapshot import Snapshot

log = logging.getLogger(__name__)

SETTLE_S = 1.0


async def watch(
    root: Path | str,
    *,
    poll_s: float,
    schemas: Schemas | None = None,
    latest: Callable[[], Snapshot | None] = lambda: None,
    lock: asyncio.Lock | None = None,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    settle_s: float = SETTLE_S,
) -> AsyncIterator[Snapshot]:
    """Yields the first snapshot at once (if it differs from the latest one), then one per change; never ends.

    Each scan goes on from the one before. Where somebody else scans too, `latest` gives the newest snapshot that the
    reader has, and the lock is held during a scan: one that came from elsewhere is gone on from.

    Looks every `poll_s` seconds, or after `settle_s` if that is sooner while files are changing. Scans run in
    a thread. A scan that fails is logged once and tried again; the last snapshot stays in force.
    """
    failure = ""
    seen: Snapshot | None = None
    known: Snapshot | None = None  # what the reader had when `seen` was made, which it need not have taken
    while True:
        pause = poll_s
        try:
            async with lock or contextlib.nullcontext():
                newest = latest()
                previous = newest if seen is None or newest is not known else seen
                snapshot = await asyncio.to_thread(scan, root, previous, schemas=schemas)
        except RepositoryError as error:
            if str(error) != failure:
                log.error("%s; looking again every %g s", error, poll_s)
            failure = str(error)
        except Exception as error:
            if repr(error) != failure:
                log.exception("the scan of %s failed; looking again every %g s", root, poll_s)
            failure = repr(error)
        else:
            if failure:
                log.info("the repository %s can be read again", root)
            failure = ""
            is_news = previous is None or not snapshot.shows_same(previous)
            seen, known = snapshot, newest
            if snapshot.is_moving:
                pause = min(poll_s, settle_s)
            if is_news:
                yield snapshot
        await sleep(pause)
