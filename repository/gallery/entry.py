"""One entry of a gallery as values, read from our own form or from LocalAI's. Pure: fetches nothing."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from repository.problem import did_you_mean
from repository.remote.wanted import file_problem, uri_problem

_SHA256 = re.compile(r"(?:[0-9a-fA-F]{64})?\Z")
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kKmMgGtT])i?[bB]\s*\Z")
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}

OURS = ("name", "description", "license", "backend", "memory", "model", "quant", "files", "config", "tags")
LOCALAI = (
    "name",
    "description",
    "license",
    "tags",
    "url",
    "urls",
    "icon",
    "config_file",
    "overrides",
    "files",
)
_ALSO_LOCALAI = ("prompt_templates", "gallery", "installed", "last_checked", "backend", "size")


class GalleryError(Exception):
    """An index, or an entry of one, that cannot be used; the message is one sentence."""


class GalleryFile(Struct, frozen=True):
    """A file of an entry, `filename` relative to the version's folder."""

    filename: str
    uri: str
    sha256: str | None = None


class GalleryEntry(Struct, frozen=True, kw_only=True):
    """A model that can be installed.

    `model` is a reference to a hub, of which `quant` says which quantisation; or `files` are the weights. `config`
    are keys of a `config.yaml`, in our words or LocalAI's; `base` is where more of them are, over which `config`
    stands. `templates` are texts that the configuration names. `memory_bytes`: about what it takes when loaded.
    """

    name: str
    description: str = ""
    license: str = ""
    backend: str = ""
    memory_bytes: int | None = None
    tags: tuple[str, ...] = ()
    model: str | None = None
    quant: str | None = None
    files: tuple[GalleryFile, ...] = ()
    config: dict[str, Any] = {}
    base: str | None = None
    templates: dict[str, str] = {}


def read_entry(given: Any, *, is_ours: bool) -> GalleryEntry:
    """An entry of an index. GalleryError: something in it is wrong."""
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
        raise GalleryError("an entry needs a name")
    name = given["name"]
    try:
        return _read_ours(given) if is_ours else _read_localai(given)
    except GalleryError as error:
        raise GalleryError(f"{name}: {error}") from None
    except msgspec.ValidationError as error:
        raise GalleryError(f"{name}: {error}") from None


def with_base(entry: GalleryEntry, base: Mapping[str, Any]) -> GalleryEntry:
    """The entry over the file that its `base` names, which has the form of an entry itself. Of two files of one name
    the entry's holds. GalleryError: something in the base is wrong."""
    under = read_entry({**base, "name": entry.name}, is_ours=False)
    return GalleryEntry(
        name=entry.name,
        description=entry.description or under.description,
        license=entry.license or under.license,
        backend=entry.backend or under.backend,
        memory_bytes=entry.memory_bytes,
        tags=entry.tags,
        files=tuple({file.filename: file for file in (*under.files, *entry.files)}.values()),
        config=merged(under.config, entry.config),
        templates={**under.templates, **entry.templates},
    )


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Two mappings as one, `over` winning, mappings inside them merged too."""
    result = dict(under)
    for key, value in over.items():
        below = result.get(key)
        is_deeper = isinstance(below, Mapping) and isinstance(value, Mapping)
        result[key] = merged(below, value) if is_deeper else value  # type: ignore[arg-type]
    return result


def read_size(text: str) -> int:
    """Bytes of a size such as `2GiB`, in powers of 1024. GalleryError: it is none."""
    found = _SIZE.match(text)
    if found is None:
        raise GalleryError(f'memory: "{text}" is no size; write it like 2GiB')
    return int(float(found[1]) * 1024 ** _POWERS[found[2].lower()])


def _read_ours(given: Mapping[str, Any]) -> GalleryEntry:
    for key in given:
        if key not in OURS:
            raise GalleryError(f'unknown key "{key}"{did_you_mean(key, OURS)}')
    if bool(given.get("model")) == bool(given.get("files")):
        raise GalleryError("it needs either `model`, a reference to a hub, or `files`")
    memory = given.get("memory")
    fields = {key: given[key] for key in OURS if key not in ("memory", "files") and key in given}
    return msgspec.convert(
        {
            **fields,
            "files": _files(given),
            "memory_bytes": read_size(str(memory)) if memory else None,
        },
        GalleryEntry,
    )


def _read_localai(given: Mapping[str, Any]) -> GalleryEntry:
    inline = given.get("config_file")
    config = _parsed(inline) if isinstance(inline, str) else _mapping(given, "config_file")
    config = merged(config, _mapping(given, "overrides"))
    config.pop("name", None)
    templates = {
        str(each["name"]): str(each["content"])
        for each in _listed(given, "prompt_templates")
        if isinstance(each, Mapping) and "name" in each and "content" in each
    }
    return msgspec.convert(
        {
            "name": given["name"],
            "description": str(given.get("description") or "").strip(),
            "license": str(given.get("license") or ""),
            "backend": str(config.get("backend") or given.get("backend") or ""),
            "tags": [str(tag) for tag in _listed(given, "tags")],
            "files": _files(given),
            "config": config,
            "base": given.get("url") or None,
            "templates": templates,
        },
        GalleryEntry,
    )


def _files(given: Mapping[str, Any]) -> list[dict[str, Any]]:
    files: dict[str, dict[str, Any]] = {}
    for each in _listed(given, "files"):
        if not isinstance(each, Mapping) or not each.get("filename") or not each.get("uri"):
            raise GalleryError("each of `files` needs a filename and a uri")
        name, uri, sha256 = str(each["filename"]), str(each["uri"]), str(each.get("sha256") or "")
        if problem := file_problem(name) or uri_problem(uri):
            raise GalleryError(problem)
        if not _SHA256.match(sha256):
            raise GalleryError(
                f'sha256 of {name}: "{sha256}" is no SHA-256 hash, which has 64 hexadecimal digits'
            )
        if name in files:
            raise GalleryError(f'files: the filename "{name}" is given twice')
        files[name] = {"filename": name, "uri": uri, "sha256": sha256.lower() or None}
    return list(files.values())


def _mapping(given: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = given.get(key) or {}
    if not isinstance(value, Mapping):
        raise GalleryError(f"{key}: expected a mapping, found {value!r}")
    return value


def _listed(given: Mapping[str, Any], key: str) -> list[Any]:
    value = given.get(key) or []
    if not isinstance(value, list):
        raise GalleryError(f"{key}: expected a list, found {value!r}")
    return value


def _parsed(text: str) -> dict[str, Any]:
    from repository.document import parse_document

    document = parse_document(text.encode(), "config_file")
    if document.problems or document.root is None:
        raise GalleryError("; ".join(map(str, document.problems)))
    value = document.root.plain()
    if value is not None and not isinstance(value, dict):
        raise GalleryError("config_file: it does not hold a mapping")
    return value or {}
