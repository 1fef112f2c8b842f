"""The hub library's cache on disk, by its documented layout: blobs by hash, snapshots of links, names of commits.

Knows where things are and what is there; downloads nothing.
"""

import os
import re
import shutil
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

from repository.hub.reference import HubReference
from repository.hub.values import HubFile, Listing

_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


class RepoCache:
    """One repository's part of the cache in `folder` (by default where HF_HOME or HF_HUB_CACHE say)."""

    def __init__(self, folder: Path | None, repo: str) -> None:
        self.folder = folder or Path(constants.HF_HUB_CACHE)
        self.repo = repo
        name = repo_folder_name(repo_id=repo, repo_type="model")
        self._home = self.folder / name
        self._locks = self.folder / ".locks" / name

    def blob(self, key: str) -> Path:
        """Where the content with this hash is, or will be."""
        return self._home / "blobs" / key

    def partial(self, key: str) -> Path:
        """Where a download of it stands until it is whole."""
        return self._home / "blobs" / f"{key}.incomplete"

    def lock(self, key: str) -> Path:
        """The lock file of its download, the same that the hub's library uses."""
        return self._locks / f"{key}.lock"

    def snapshot(self, revision: str) -> Path:
        """The folder with the files of a commit."""
        return self._home / "snapshots" / revision

    def link(self, key: str, place: Path) -> None:
        """Names a blob in a snapshot."""
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        try:
            place.symlink_to(os.path.relpath(self.blob(key), place.parent))
        except FileExistsError:  # by another process, meanwhile
            pass
        except OSError:
            shutil.copyfile(self.blob(key), place)  # this filesystem has no links

    def remember(self, name: str | None, commit: str) -> None:
        """Notes that a branch or tag stood at this commit."""
        if name is None:
            name = constants.DEFAULT_REVISION
        ref = self._home / "refs" / name
        if name != commit and not (ref.is_file() and ref.read_text() == commit):
            ref.parent.mkdir(parents=True, exist_ok=True)
            ref.write_text(commit)

    def listing(self, reference: HubReference) -> Listing | None:
        """What the cache has of a repository at the revision named; None where it has nothing."""
        commit = self._commit(reference.revision or constants.DEFAULT_REVISION)
        snapshot = self.snapshot(commit) if commit else None
        if commit is None or snapshot is None or not snapshot.is_dir():
            return None
        files = [_cached_file(path, snapshot) for path in sorted(snapshot.rglob("*")) if path.is_file()]
        return Listing(self.repo, commit, tuple(files), is_cached=True) if files else None

    def _commit(self, revision: str) -> str | None:
        if _COMMIT.match(revision):
            return revision
        try:
            return (self._home / "refs" / revision).read_text().strip() or None
        except OSError:
            return None


def _cached_file(path: Path, snapshot: Path) -> HubFile:
    name = path.relative_to(snapshot).as_posix()
    key = os.path.basename(os.path.realpath(path))  # noqa: PTH119  the blob's name is its hash
    return HubFile(
        name,
        path.stat().st_size,
        sha256=key if _SHA256.match(key) else None,
        blob=key if _COMMIT.match(key) else None,
    )
