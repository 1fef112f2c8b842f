"""`owner/repo[/file][@revision]`: how a model on a hub is named. Pure; what is there is not known here."""

import re

from msgspec import Struct

from repository.hub.errors import HubError

SCHEMES = ("huggingface://", "hf://")
FORM = "owner/repo[/file][@revision]"

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_-])?\Z")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,249}\Z")
_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]*\Z")
_ADDRESS = re.compile(r"https?://[^/]+/([^/?#]+/[^/?#]+)(?:/(?:blob|resolve|tree)/([^/?#]+)(?:/([^?#]+))?)?")


class HubReference(Struct, frozen=True):
    """A repository on a hub, maybe one file of it, maybe a branch, tag or commit."""

    repo: str
    file: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        file = f"/{self.file}" if self.file else ""
        return f"{self.repo}{file}" + (f"@{self.revision}" if self.revision else "")


def parse_reference(text: str) -> HubReference:
    """The reference a text stands for, with or without `huggingface://` or `hf://` in front.

    A revision may stand at the end or behind the repository: `owner/repo@main/file.gguf`. HubError: it is none.
    """
    if address := _ADDRESS.match(text):
        repo, revision, file = address.groups()
        meant = HubReference(repo, file, revision if revision != "main" else None)
        raise HubError(f'"{text}" is an address; write {meant}', "malformed")
    rest = next((text[len(scheme) :] for scheme in SCHEMES if text.startswith(scheme)), text)
    path, at, revision = rest.partition("@")
    if at and path.count("/") == 1 and _names_a_file(revision):
        revision, _, file = revision.partition("/")
        path = f"{path}/{file}"
    owner, _, beyond = path.partition("/")
    name, slash, file = beyond.partition("/")
    for part in (owner, name):
        if not _NAME.match(part) or "--" in part or ".." in part:
            raise HubError(f'"{text}" names no model on a hub: that is written {FORM}', "malformed")
    if slash and not is_inside(file):
        raise HubError(f'"{text}": "{file}" is no file of a repository; write {FORM}', "malformed")
    if at and (not _REVISION.match(revision) or ".." in revision):
        raise HubError(f'"{text}": "{revision}" is no branch, tag or commit', "malformed")
    return HubReference(f"{owner}/{name}", file or None, revision if at else None)


def looks_like_reference(text: str) -> bool:
    """True where a text can be read as a reference."""
    try:
        parse_reference(text)
    except HubError:
        return False
    return True


def is_inside(name: str) -> bool:
    """True where a path with slashes stays below the folder that it is taken from."""
    return name.isprintable() and "\\" not in name and not {"", ".", ".."} & set(name.split("/"))


def _names_a_file(text: str) -> bool:
    """Revisions have slashes too (`refs/pr/1`, `release/1.0`); a suffix such as `.gguf` tells a file."""
    first, slash, rest = text.partition("/")
    return bool(first and slash and _SUFFIX.search(rest))
