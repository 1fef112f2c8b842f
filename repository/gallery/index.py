"""Reads an index of models: the one that is shipped, a file, or an http address; and the files its entries build on."""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import yaml
from msgspec import Struct

from repository.gallery.entry import GalleryEntry, GalleryError, read_entry, with_base
from repository.problem import did_you_mean

SHIPPED = Path(__file__).with_name("index.yaml")

_MOST_BYTES = 16 << 20
_FORMAT = 1
_WEB = ("http://", "https://")
_GITHUB = re.compile(r"github:(?P<repo>[^/]+/[^/]+)/(?P<path>[^@]+)(?:@(?P<revision>.+))?\Z")
_RAW = "https://raw.githubusercontent.com"


class Index(Struct, frozen=True):
    """The models of a gallery; `problems` says of each entry that was left out why. `place`: where it was read."""

    place: str
    entries: tuple[GalleryEntry, ...]
    problems: tuple[str, ...] = ()

    def find(self, name: str) -> GalleryEntry:
        """The entry of that name. GalleryError: there is none."""
        found = next((entry for entry in self.entries if entry.name.casefold() == name.casefold()), None)
        if found is None:
            hint = did_you_mean(name, [entry.name for entry in self.entries])
            raise GalleryError(f'{self.place} has no model "{name}"{hint}')
        return found


def read_index(place: str | None = None) -> Index:
    """The index at a path or an address, None for the one that is shipped. GalleryError: it cannot be read."""
    shown = place or "the index that is shipped"
    found = _load(place or str(SHIPPED), shown)
    is_ours = isinstance(found, Mapping)
    listed: Any = found
    if is_ours:
        if found.get("format") != _FORMAT:
            raise GalleryError(f"{shown} is of format {found.get('format')}; this Modelyard knows {_FORMAT}")
        listed = found.get("models")
    if not isinstance(listed, list):
        raise GalleryError(f"{shown} is no index: expected a list of models")
    entries: dict[str, GalleryEntry] = {}
    problems = []
    for each in listed:
        try:
            entry = read_entry(each, is_ours=is_ours)
        except GalleryError as error:
            problems.append(str(error))
            continue
        if entry.name in entries:
            problems.append(f"{entry.name}: it stands in the index twice; the first holds")
        entries.setdefault(entry.name, entry)
    return Index(place or shown, tuple(entries.values()), tuple(problems))


def complete(entry: GalleryEntry, index: Index) -> GalleryEntry:
    """The entry with what its base says, which is fetched if need be. GalleryError: it cannot be read."""
    if entry.base is None:
        return entry
    address = _address(entry.base, index.place)
    base = _load(address, address)
    if not isinstance(base, Mapping):
        raise GalleryError(f"{address}, on which {entry.name} builds, does not hold a mapping")
    return with_base(entry, base)


def _address(base: str, index: str) -> str:
    if github := _GITHUB.match(base):
        return f"{_RAW}/{github['repo']}/{github['revision'] or 'main'}/{github['path']}"
    if base.startswith(_WEB):
        return base
    plain = base.removeprefix("file://")
    return urljoin(index, plain) if index.startswith(_WEB) else str(Path(index).parent / plain)


def _load(place: str, shown: str) -> Any:
    data = _fetched(place) if place.startswith(_WEB) else _read(Path(place), shown)
    if len(data) > _MOST_BYTES:
        raise GalleryError(f"{shown} is larger than {_MOST_BYTES >> 20} MiB")
    try:
        # Indexes have anchors, merged into each other by the thousand, which this loader shares and does not expand.
        return yaml.load(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        reason = str(error).replace("\n", " ")
        raise GalleryError(f"{shown} is not readable as YAML: {reason[:200]}") from error


def _read(path: Path, shown: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise GalleryError(f"{shown} cannot be read: {error.strerror}") from error


def _fetched(address: str) -> bytes:
    from repository.hub.errors import HubError
    from repository.remote.web import download

    def stop_if_large(done: int, total: int) -> None:
        if max(done, total) > _MOST_BYTES:
            raise GalleryError(f"{address} is larger than {_MOST_BYTES >> 20} MiB")

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "index"
        try:
            download(address, target, progress=stop_if_large)
        except HubError as error:
            raise GalleryError(str(error)) from error
        return target.read_bytes()
