"""Brings what a model has from the network: into the hub library's cache, and single files into the state folder.

Blocks, and imports the hub's library, which takes 0.3 s: `runner.fetching` has it done in a process of its own.
"""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from msgspec.structs import replace

from repository.hub.choose import choose, show_bytes
from repository.hub.download import size_of
from repository.hub.errors import HubError
from repository.hub.failures import disk_problem
from repository.hub.fetch import Hub
from repository.hub.reference import SCHEMES, HubReference, parse_reference
from repository.hub.values import Choice, Fetched, FetchedFile, HubFile, Progress, Quantisation
from repository.remote.record import Kept, Record, known, read_record, write_record
from repository.remote.wanted import Remote, RemoteFile, shown
from repository.remote.web import download

DOWNLOADS = "downloads"


def bring(
    remote: Remote,
    *,
    state_dir: Path,
    keep_free_bytes: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda _: None,
) -> Record:
    """Have all of it here, checked, and remember that. `progress(done, total)` is of all files, in bytes.

    HubError: one sentence for a person; what came so far is kept, and a later call goes on from there.
    """
    record = known(state_dir, remote)
    if record is None:
        try:
            record = _Bringing(remote, state_dir, keep_free_bytes, progress, say).run()
            write_record(state_dir, remote, record)
        except OSError as error:
            raise disk_problem(error) from error
    return record


class _Bringing:
    def __init__(
        self,
        remote: Remote,
        state_dir: Path,
        keep_free_bytes: int,
        progress: Callable[[int, int], None],
        say: Callable[[str], None],
    ) -> None:
        self._remote = remote
        self._folder = state_dir.absolute() / DOWNLOADS
        self._keep_free_bytes = keep_free_bytes
        self._meter = _Meter(progress)
        self._say = say
        before = read_record(state_dir, remote)
        self._revision = before.revision if before is not None else None  # which it stays at

    def run(self) -> Record:
        remote = self._remote
        weights: Path | None = None
        kept: list[Kept] = []
        if remote.hub is not None:
            fetched = self._fetch_weights(remote.hub)
            weights, self._revision = fetched.path, fetched.revision
            kept += [Kept(str(file.place), file.size) for file in fetched.files]
        places = {file.name: self._place(file) for file in remote.files}
        if places:
            tree = self._folder / f"tree-{remote.key}"
            _lay_out(tree, places)
            kept += [Kept(str(tree / name), place.stat().st_size) for name, place in places.items()]
            if remote.weights is not None:
                weights = tree / remote.weights
        return Record(str(remote), str(weights) if weights else None, tuple(kept), self._revision)

    def _fetch_weights(self, reference: HubReference) -> Fetched:
        if self._revision is not None:
            reference = replace(reference, revision=self._revision)

        def ask(among: Sequence[Quantisation], suggestion: str) -> str:
            labels = ", ".join(each.label for each in among)
            self._say(f"{reference} has {labels}; taking {suggestion}. Name its file to have another one")
            return suggestion

        choice = Choice(allow=self._remote.allow, ignore=self._remote.ignore, ask=ask)
        return self._fetch(reference, choice, self._meter.part("hub"))

    def _place(self, file: RemoteFile) -> Path:
        """Where the file is, once it is here."""
        on_progress = self._meter.part(file.name)
        if not file.uri.startswith(SCHEMES):
            return self._from_web(file, on_progress)
        reference = parse_reference(file.uri)
        name = PurePosixPath(reference.file or "").name
        fetched = self._fetch(reference, Choice(allow=(name,)), on_progress)
        found: FetchedFile | None = next((e for e in fetched.files if e.name == reference.file), None)
        if found is None:
            raise HubError(f"{shown(file.uri)} names a folder; write one entry for each file", "ambiguous")
        if file.sha256 not in (None, found.sha256):
            raise HubError(
                f"{shown(file.uri)} is not the file that was meant: its sha256 is {found.sha256}; "
                "correct sha256 or uri",
                "broken",
            )
        return found.place

    def _from_web(self, file: RemoteFile, on_progress: Callable[[int, int], None]) -> Path:
        key = hashlib.blake2b(f"{file.uri}\0{file.sha256 or ''}".encode(), digest_size=12).hexdigest()
        name = unquote(PurePosixPath(urlsplit(file.uri).path).name) or "file"
        target = self._folder / key / name.replace("/", "_")

        def move(done: int, total: int) -> None:
            if done < total:
                self._check_room(total - done, target.parent)
            on_progress(done, total)

        download(file.uri, target, sha256=file.sha256, progress=move, say=self._say)
        return target

    def _fetch(
        self, reference: HubReference, choice: Choice, on_progress: Callable[[int, int], None]
    ) -> Fetched:
        hub = Hub(reference, say=self._say)
        listing = hub.listing()
        if listing.is_cached and self._remote.by_request:
            # What the owner fetched for himself may be private.
            raise HubError(f"{reference}: the hub cannot be asked now; ask again later", "offline")
        chosen = choose(listing, reference, choice)
        if not listing.is_cached:
            self._check_room(sum(_missing(hub, file) for file in chosen.files), hub.cache.folder)
        for note in chosen.notes:
            self._say(f"{reference}: {note}")

        def move(at: Progress) -> None:  # others may fill the disk meanwhile
            self._check_room(at.file_total_bytes - at.file_done_bytes, hub.cache.folder)
            on_progress(at.done_bytes, at.total_bytes)

        return hub.download(listing, chosen, progress=move)

    def _check_room(self, missing_bytes: int, folder: Path) -> None:
        if not self._keep_free_bytes or not missing_bytes:
            return
        there = next(each for each in (folder, *folder.parents) if each.exists())
        free = shutil.disk_usage(there).free
        if free - missing_bytes < self._keep_free_bytes:
            raise HubError(
                f"{self._remote} needs {show_bytes(missing_bytes)} more, and of the {show_bytes(free)} free on the "
                f"disk downloads that requests ask for leave {show_bytes(self._keep_free_bytes)} alone",
                "disk",
            )


class _Meter:
    """Adds up what several downloads tell."""

    def __init__(self, progress: Callable[[int, int], None]) -> None:
        self._progress = progress
        self._parts: dict[str, tuple[int, int]] = {}

    def part(self, name: str) -> Callable[[int, int], None]:
        def move(done: int, total: int) -> None:
            self._parts[name] = (done, total)
            self._progress(
                sum(done for done, _ in self._parts.values()), sum(total for _, total in self._parts.values())
            )

        return move


def _missing(hub: Hub, file: HubFile) -> int:
    """Bytes of it that are not in the cache."""
    key = file.sha256 or file.blob
    if key is None:
        return max(0, file.size)
    there = size_of(hub.cache.blob(key)) or size_of(hub.cache.partial(key)) or 0
    return max(0, file.size - there)


def _lay_out(tree: Path, places: dict[str, Path]) -> None:
    """Links in `tree` under the names that the files are to have."""
    for name, place in places.items():
        link = tree / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(place.absolute())
