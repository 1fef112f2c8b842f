"""Models that nobody put into the repository, but a request names as a hub has them: `owner/repo[/file][@revision]`."""

from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from repository.remote.wanted import NOT_FOR_STRANGERS, Remote, request_remote
from repository.snapshot import ModelEntry, VersionEntry
from runner.names import parse_name

HOW_TO_ALLOW = (
    "models are fetched from the hub when requests name them if the server is started with --allow-pull"
)
HOW_TO_LOAD = "a request to load it fetches it from the hub"


def is_on_hub(name: str) -> bool:
    """Whether a model's name can be one on the hub."""
    return request_remote(parse_name(name).model) is not None


def guest_entry(name: str) -> ModelEntry | None:
    """The model that a name on the hub stands for; None for another name."""
    remote = request_remote(name)
    if remote is None:
        return None
    place = Path(name)
    return ModelEntry(
        name, place, "folder", versions=(VersionEntry(1, place, None, remote.key, source=remote),)
    )


def is_guest_of_hub(entry: ModelEntry) -> bool:
    """It came so, and not with files of its own."""
    return any(version.source is not None and version.source.by_request for version in entry.versions)


def new_remotes(entry: ModelEntry, known: ModelEntry | None) -> list[Remote]:
    """What `entry` has from the network and `known` has not."""
    before = [version.source for version in known.versions] if known is not None else []
    return [each.source for each in entry.versions if each.source is not None and each.source not in before]


def refusal(remotes: Sequence[Remote], *, allow_pull: bool) -> str | None:
    """Why a load request may not name these; None where it may. Addresses and tokens are for the server's owner."""
    for remote in remotes:
        if not allow_pull:
            return f"the load names {remote}; {HOW_TO_ALLOW}"
        if remote.files:
            return f"the load names {remote}; what a load names must be a repository on the hub, written owner/repo"
        if remote.token_env is not None:
            return f"the load names {remote} with a token_env; only a config.yaml may choose a token"
    return None


def as_requested(entry: ModelEntry, remotes: Sequence[Remote]) -> ModelEntry:
    """The model whose `remotes` nobody but a request has asked for."""
    return replace(entry, versions=tuple(_as_requested(each, remotes) for each in entry.versions))


def _as_requested(version: VersionEntry, remotes: Sequence[Remote]) -> VersionEntry:
    source = version.source
    if source is None or source not in remotes:
        return version
    ignore = (*source.ignore, *NOT_FOR_STRANGERS)
    return replace(version, source=replace(source, ignore=ignore, by_request=True))
