"""Responses kept in one SQLite file: put, found, deleted, forgotten when they are old or too many.

A response is kept with its own input only and a link to the one before it. One that is deleted or forgotten while
later ones build on it stays hidden until they go too, so that no conversation loses its beginning in silence.
"""

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, TypeVar

import msgspec

from adapters.openai.responses.items import Item

T = TypeVar("T")

_LAYOUT = 1
_TABLE = """
CREATE TABLE IF NOT EXISTS responses (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    previous TEXT,
    created REAL NOT NULL,
    hidden INTEGER NOT NULL DEFAULT 0,
    response BLOB NOT NULL,
    input BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS by_age ON responses (hidden, created);
"""
_INSERT = "INSERT INTO responses VALUES (:id, :owner, :previous, :created, 0, :response, :input)"
_FOUND = "id = :id AND owner = :owner AND NOT hidden AND created >= :oldest"
_GET = f"SELECT response, input FROM responses WHERE {_FOUND}"
_HIDE = f"UPDATE responses SET hidden = 1 WHERE {_FOUND}"
_CHAIN = f"""
WITH RECURSIVE chain (previous, input, response, depth) AS (
    SELECT previous, input, response, 0 FROM responses WHERE {_FOUND}
    UNION ALL
    SELECT r.previous, r.input, r.response, depth + 1 FROM responses r JOIN chain ON r.id = chain.previous
)
SELECT previous, input, response FROM chain ORDER BY depth DESC
"""
_HIDE_OLD = "UPDATE responses SET hidden = 1 WHERE NOT hidden AND created < :oldest"
_HIDE_SURPLUS = """
UPDATE responses SET hidden = 1 WHERE rowid IN
    (SELECT rowid FROM responses WHERE NOT hidden ORDER BY created DESC, rowid DESC LIMIT -1 OFFSET :count)
"""
_DROP_HIDDEN = """
WITH RECURSIVE needed (id) AS (
    SELECT previous FROM responses WHERE NOT hidden AND previous IS NOT NULL
    UNION
    SELECT r.previous FROM responses r JOIN needed ON r.id = needed.id WHERE r.previous IS NOT NULL
)
DELETE FROM responses WHERE hidden AND id NOT IN (SELECT id FROM needed)
"""
_TIDY_EVERY = 64
_BUSY_S = 10.0


class StoreError(Exception):
    """The file cannot be used to keep responses; the message says why."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A response as its client got it, in JSON, and what it was asked with."""

    response: msgspec.Raw
    input: list[Item]


class _Output(msgspec.Struct, frozen=True):
    """What later requests need of a response."""

    output: list[Item]


class ResponseStore:
    """The file is made where it is not there. Raises StoreError where it cannot be used.

    All access is on one thread of its own: the event loop waits neither for the disk nor for a long conversation to
    be read. `owner` is whose responses they are; nobody finds another's. `max_age_s` and `max_count` bound what is
    kept, tidied at the start and now and then. `clock` gives seconds since 1970.
    """

    def __init__(
        self, path: Path, *, max_age_s: float, max_count: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._max_age_s = max_age_s
        self._max_count = max_count
        self._clock = clock
        self._puts = 0
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(list[Item]).decode
        self._decode_output = msgspec.json.Decoder(_Output).decode
        self._database = _open(path)
        with self._database:
            self._tidy()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="response-store")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Finish what was begun; nothing can be asked after this."""
        await self._run(self._database.close)
        self._thread.shutdown()

    async def put(
        self,
        id: str,
        *,
        owner: str,
        previous: str | None,
        response: bytes,
        given: Sequence[Item],
    ) -> None:
        """Keep a response; it can be found once this returns."""
        row = {
            "id": id,
            "owner": owner,
            "previous": previous,
            "created": self._clock(),
            "response": response,
            "input": self._encode(given),
        }

        def put() -> None:
            with self._database:
                self._database.execute(_INSERT, row)
                self._puts += 1
                if self._puts % _TIDY_EVERY == 0:
                    self._tidy()

        await self._run(put)

    async def get(self, id: str, *, owner: str) -> Kept | None:
        """The response; None where it is not there, or no longer."""
        which = self._which(id, owner)

        def get() -> Kept | None:
            row = self._database.execute(_GET, which).fetchone()
            return None if row is None else Kept(response=msgspec.Raw(row[0]), input=self._decode(row[1]))

        return await self._run(get)

    async def conversation(self, id: str, *, owner: str) -> list[Item] | None:
        """Inputs and outputs from the first response of the chain up to this one; None where a part is gone."""
        which = self._which(id, owner)

        def conversation() -> list[Item] | None:
            rows = self._database.execute(_CHAIN, which).fetchall()
            if not rows or rows[0][0] is not None:
                return None
            items: list[Item] = []
            for _, given, response in rows:
                items += self._decode(given)
                items += self._decode_output(response).output
            return items

        return await self._run(conversation)

    async def delete(self, id: str, *, owner: str) -> bool:
        """False where there is none to delete."""
        which = self._which(id, owner)

        def delete() -> bool:
            with self._database:
                found = self._database.execute(_HIDE, which).rowcount > 0
                if found:
                    self._database.execute(_DROP_HIDDEN)
                return found

        return await self._run(delete)

    def _which(self, id: str, owner: str) -> dict[str, str | float]:
        return {"id": id, "owner": owner, "oldest": self._clock() - self._max_age_s}

    def _tidy(self) -> None:
        self._database.execute(_HIDE_OLD, {"oldest": self._clock() - self._max_age_s})
        self._database.execute(_HIDE_SURPLUS, {"count": self._max_count})
        self._database.execute(_DROP_HIDDEN)

    async def _run(self, work: Callable[[], T]) -> T:
        """`work` on the store's thread; it comes to its end even where the caller is cancelled."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _open(path: Path) -> sqlite3.Connection:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # what people said is nobody else's to read
    except OSError as error:
        raise StoreError(f"{path} cannot be used to keep responses: {error.strerror}") from None
    try:
        database = sqlite3.connect(path, timeout=_BUSY_S, check_same_thread=False)
        try:
            (layout,) = database.execute("PRAGMA user_version").fetchone()
            if layout not in (0, _LAYOUT):
                raise StoreError(f"{path} has layout {layout}, which this version of Modelyard does not know")
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.executescript(_TABLE)
            database.execute(f"PRAGMA user_version = {_LAYOUT}")
        except BaseException:
            database.close()
            raise
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be used to keep responses: {error}") from None
    return database
