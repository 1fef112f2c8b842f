"""One file from the hub into the cache: goes on where it was cut, and is checked before it counts as there.

The hub's library keeps nothing of a download that was interrupted, so the bytes are read here, with its session,
headers and locks, into its own cache; it makes the links.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import httpx2
from huggingface_hub import constants, get_session, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import WeakFileLock, build_hf_headers, hf_raise_for_status

from repository.hub.cache import RepoCache
from repository.hub.choose import show_bytes
from repository.hub.errors import HubError
from repository.hub.failures import explain
from repository.hub.patience import Patience
from repository.hub.reference import HubReference
from repository.hub.values import FetchedFile, HubFile

_CHUNK = 1 << 20
_LONG_BYTES = 1 << 30  # reading so much takes seconds
PIECE_BYTES = 10 << 30  # hubs refuse to send more than 50 GB in one answer


class Digest(Protocol):
    """A hash that is being computed."""

    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


class Downloader:
    """Brings files of one commit into the cache.

    `on_bytes(file, done)` is told how much of a file is there; what it raises ends the download, and what came
    so far is kept.
    """

    def __init__(
        self,
        reference: HubReference,
        revision: str,
        *,
        endpoint: str,
        cache: RepoCache,
        patience: Patience,
        say: Callable[[str], None],
        on_bytes: Callable[[HubFile, int], None],
    ) -> None:
        self._reference = reference
        self._revision = revision
        self._endpoint = endpoint
        self._cache = cache
        self._patience = patience
        self._say = say
        self._on_bytes = on_bytes

    def bring(self, file: HubFile, *, verify: bool) -> FetchedFile:
        """The file, from the cache if it is there whole; `verify` reads what is there and compares its hash."""
        place = self._cache.snapshot(self._revision) / file.name
        try:
            if not self._is_whole(file, place, verify=verify):
                self._bring_blob(file, place, verify=verify)
            sha256 = file.sha256 or hash_of(place)
        except OSError as error:
            raise explain(error, self._reference, endpoint=self._endpoint) from error
        self._on_bytes(file, file.size)
        return FetchedFile(file.name, file.size, sha256, place)

    def _is_whole(self, file: HubFile, path: Path, *, verify: bool) -> bool:
        size = size_of(path)
        if size is None:
            return False
        if size == file.size:
            if not verify or not file.key:
                return True
            if size >= _LONG_BYTES:
                self._say(f"{file.name}: checking {show_bytes(size)} in the cache")
            if _digest(file, path).hexdigest() == file.key:
                return True
        self._say(f"{file.name} is damaged in the cache; taking it anew")
        path.unlink()
        return False

    def _bring_blob(self, file: HubFile, place: Path, *, verify: bool) -> None:
        blob, lock = self._cache.blob(file.key), self._cache.lock(file.key)
        for folder in (blob.parent, lock.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(lock):
            if not self._is_whole(file, blob, verify=verify):
                self._download(file, self._cache.partial(file.key)).replace(blob)
            if (
                size_of(place) != file.size
            ):  # the library removes a link that is there, which others may be reading by
                self._cache.link(file.key, place)

    def _download(self, file: HubFile, path: Path) -> Path:
        """The whole file at `path`, its hash right."""
        resumed = best = size_of(path) or 0
        if resumed:
            self._say(f"{file.name}: going on at {show_bytes(resumed)} of {show_bytes(file.size)}")
        partial = _Partial(file, path)
        self._check_room(file.size - resumed, file)
        self._patience.relax()
        while True:
            try:
                self._go_on(file, partial)
            except (httpx2.HTTPError, OSError) as error:
                if isinstance(error, HfHubHTTPError) and error.response.status_code == 416:
                    partial.restart()
                if partial.size > best:
                    self._patience.relax()
                    best = partial.size
                self._patience.wait(error)
                continue
            if partial.digest.hexdigest() == file.key:
                return path
            path.unlink()
            if not resumed:
                raise self._broken(file, "has another hash than promised")
            self._say(f"{file.name}: what was there from before does not fit; taking it anew")
            partial = _Partial(file, path)
            resumed = best = 0

    def _go_on(self, file: HubFile, partial: "_Partial") -> None:
        """Reads from where `partial` ends to the end of the file."""
        while partial.size < file.size:
            with self._opened(file, partial.size) as response:
                if partial.size and response.status_code == 200:  # the whole file, whatever was asked for
                    partial.restart()
                self._check_promise(file, response, partial.size)
                before = partial.size
                with partial.path.open("ab") as out:
                    for data in response.iter_bytes():
                        if partial.size + len(data) > file.size:
                            raise self._broken(file, f"is longer than the {file.size} bytes promised")
                        out.write(data)
                        partial.count(data)
                        self._on_bytes(file, partial.size)
            if partial.size == before:
                raise httpx2.ReadError(f"nothing came after {before} of {file.size} bytes")

    @contextmanager
    def _opened(self, file: HubFile, start: int) -> Iterator[httpx2.Response]:
        url = hf_hub_url(self._reference.repo, file.name, revision=self._revision, endpoint=self._endpoint)
        headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
        if start or file.size > PIECE_BYTES:
            headers["Range"] = f"bytes={start}-{min(start + PIECE_BYTES, file.size) - 1}"
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with get_session().stream("GET", url, headers=headers, timeout=timeout) as response:
            if response.status_code >= 400:
                response.read()
            hf_raise_for_status(response)
            yield response

    def _check_promise(self, file: HubFile, response: httpx2.Response, start: int) -> None:
        """That the answer is the file, or goes on at `start`, as far as its headers tell."""
        size = response.headers.get("Content-Length", "")
        if response.status_code == 206:
            told = response.headers.get("Content-Range", "")
            size = told.rpartition("/")[2]
            if not told.startswith(f"bytes {start}-"):
                raise self._broken(file, f'comes as "{told}" where what follows {start} was asked for')
        if size.isdigit() and int(size) != file.size and "Content-Encoding" not in response.headers:
            raise self._broken(file, f"has {size} bytes where {file.size} were promised")

    def _check_room(self, missing: int, file: HubFile) -> None:
        self._cache.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._cache.folder).free
        if missing > free:
            raise HubError(
                f"{file.name} needs {show_bytes(missing)}, and {self._cache.folder} has {show_bytes(free)} free; "
                "make room, or set HF_HOME to a folder on another disk",
                "disk",
            )

    def _broken(self, file: HubFile, what: str) -> HubError:
        return HubError(
            f"{file.name} of {self._reference.repo} {what}; try again, and if it stays so, the hub's copy is "
            "damaged or something on the way changes it",
            "broken",
        )


class _Partial:
    """A file on its way: how much of it is at `path`, and the hash of that."""

    def __init__(self, file: HubFile, path: Path) -> None:
        self.path = path
        self._file = file
        if (size_of(path) or 0) > file.size:
            path.unlink()
        path.touch()
        self.digest = _digest(file, path)
        self.size = path.stat().st_size

    def restart(self) -> None:
        """Nothing of it is there."""
        self.path.write_bytes(b"")
        self.digest = _digest(self._file, self.path)
        self.size = 0

    def count(self, data: bytes) -> None:
        """More of it was written."""
        self.digest.update(data)
        self.size += len(data)


def hash_of(path: Path) -> str:
    """The sha256 of a file's content."""
    return _read_into(hashlib.sha256(), path).hexdigest()


def size_of(path: Path) -> int | None:
    """A file's size in bytes; None where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def _digest(file: HubFile, path: Path) -> Digest:
    """The hash by which the hub knows the file, over what is in `path`."""
    if file.sha256 is not None:
        return _read_into(hashlib.sha256(), path)
    git = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    return _read_into(git, path)


def _read_into(digest: Digest, path: Path) -> Digest:
    with path.open("rb") as file:
        while data := file.read(_CHUNK):
            digest.update(data)
    return digest
