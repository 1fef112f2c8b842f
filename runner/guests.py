"""Models that nobody put into the repository, but a request names as a hub has them: `owner/repo[/file][@revision]`."""

from pathlib import Path

from repository.remote.wanted import Remote, request_remote
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
