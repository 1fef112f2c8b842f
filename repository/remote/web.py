"""One file from an http address: goes on where it was cut, and is checked before it counts as there."""

import contextlib
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
from huggingface_hub.utils import WeakFileLock

from repository.hub.choose import show_bytes
from repository.hub.errors import HubError
from repository.hub.failures import BUSY, KEPT, asked_pause, disk_problem
from repository.hub.patience import MOST_ASKED_S, PAUSES_S
from repository.remote.wanted import shown

CONNECT_S = 10.0
SILENCE_S = 30.0
"""A server that sends nothing for so long is taken for gone."""

_CHUNK = 1 << 20


class _Busy(Exception):
    """An answer that may be another one soon; after `pause_s`, where the server says so."""

    def __init__(self, message: str, *, pause_s: float | None = None) -> None:
        super().__init__(message)
        self.pause_s = pause_s


def download(
    uri: str,
    target: Path,
    *,
    sha256: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Have the content of `uri` in `target`, where it appears whole.

    `progress(done, total)`, in bytes, may raise to end the download, which a later call goes on with; `total` is
    `done` where the server does not tell. HubError: one sentence for a person; kind offline may pass.
    """
    part = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(target.with_name(f"{target.name}.lock")):
            if not target.exists():
                _Download(uri, part, sha256=sha256, progress=progress, say=say, sleep=sleep).run()
                part.replace(target)
                _mark(part).unlink(missing_ok=True)
    except OSError as error:
        raise disk_problem(error) from error
    size = target.stat().st_size
    progress(size, size)


class _Download:
    def __init__(
        self,
        uri: str,
        part: Path,
        *,
        sha256: str | None,
        progress: Callable[[int, int], None],
        say: Callable[[str], None],
        sleep: Callable[[float], None],
    ) -> None:
        self._uri = uri
        self._shown = shown(uri)
        self._part = part
        self._sha256 = sha256
        self._progress = progress
        self._say = say
        self._sleep = sleep

    def run(self) -> None:
        """Until the whole file is in `part`, its hash right."""
        resumed = self._size()
        tries = 0
        with httpx2.Client(
            follow_redirects=True, timeout=httpx2.Timeout(SILENCE_S, connect=CONNECT_S)
        ) as client:
            while True:
                before = self._size()
                try:
                    self._go_on(client)
                except (httpx2.TransportError, _Busy) as error:
                    tries = 0 if self._size() > before else tries + 1
                    asked = error.pause_s if isinstance(error, _Busy) else None
                    if tries > len(PAUSES_S) or (asked is not None and asked > MOST_ASKED_S):
                        why = str(error) or type(error).__name__
                        raise HubError(
                            f"no connection to {self._shown} ({why}); {KEPT}", "offline"
                        ) from error
                    if asked is not None:
                        self._say(f"{self._shown}: {error}; going on in {asked:.0f} s")
                    self._sleep(PAUSES_S[max(0, tries - 1)] if asked is None else asked)
                    continue
                except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                    raise HubError(f"{self._shown} cannot be fetched: {error}", "broken") from error
                if self._is_right():
                    return
                self._forget()
                if not resumed:
                    raise HubError(
                        f"{self._shown} is not the file that was meant: its sha256 is another one; "
                        "correct the sha256 or the address",
                        "broken",
                    )
                resumed = 0
                self._say(f"{self._shown}: what was there from before does not fit; taking it anew")

    def _go_on(self, client: httpx2.Client) -> None:
        start, headers = self._size(), {"Accept-Encoding": "identity"}
        mark = self._read_mark()
        if start and (
            mark or self._sha256
        ):  # with neither nobody could tell whether the two halves are of one file
            headers["Range"] = f"bytes={start}-"
            if mark:
                headers["If-Range"] = mark
        with client.stream("GET", self._uri, headers=headers) as response:
            if response.status_code == 416:
                if response.headers.get("content-range") == f"bytes */{start}":
                    return  # nothing was left of it
                self._forget()
                raise _Busy("it has become shorter")
            if response.status_code == 429:
                raise _Busy("it asks for fewer requests", pause_s=asked_pause(response.headers))
            if response.status_code in BUSY:
                raise _Busy(f"it answers with status {response.status_code}")
            if response.status_code not in (200, 206):
                what = "there is nothing at" if response.status_code in (404, 410) else "no access to"
                raise HubError(f"{what} {self._shown} (status {response.status_code})", "missing")
            if response.status_code == 200:
                start = 0
                self._write_mark(response.headers)
            elif not response.headers.get("content-range", "").startswith(f"bytes {start}-"):
                self._forget()
                raise _Busy("it sends another part than was asked for")
            length = response.headers.get("content-length", "")
            total = start + int(length) if length.isdigit() else 0
            if start and total:
                self._say(f"{self._shown}: going on at {show_bytes(start)} of {show_bytes(total)}")
            with self._part.open("ab") as file:
                file.truncate(start)
                self._progress(start, max(start, total))
                for data in response.iter_bytes(_CHUNK):
                    file.write(data)
                    start += len(data)
                    self._progress(start, max(start, total))
        if start < total:
            raise httpx2.ReadError(f"it ended after {start} of {total} bytes")

    def _is_right(self) -> bool:
        with self._part.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if self._sha256 is None:
            self._say(f"{self._shown} came without a sha256 to check it by; that of what came is {found}")
        return self._sha256 in (None, found)

    def _size(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _forget(self) -> None:
        self._part.unlink(missing_ok=True)
        _mark(self._part).unlink(missing_ok=True)

    def _read_mark(self) -> str:
        try:
            return _mark(self._part).read_text()
        except OSError:
            return ""

    def _write_mark(self, headers: httpx2.Headers) -> None:
        """What tells later whether the server still has the same file."""
        etag = headers.get("etag", "")
        mark = etag if etag and not etag.startswith("W/") else headers.get("last-modified", "")
        if mark:
            _mark(self._part).write_text(mark)
        else:
            with contextlib.suppress(FileNotFoundError):
                _mark(self._part).unlink()


def _mark(part: Path) -> Path:
    return part.with_name(f"{part.name}.mark")
