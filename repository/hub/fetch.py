"""From a reference to files in the hub library's cache: list, choose, download, check.

Goes to the hub each time and falls back on the cache when there is no connection. Blocks: call it from a thread.
Importing this takes 0.3 s; import it where it is used.
"""

import re
import time
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_url
from huggingface_hub.hf_api import RepoSibling
from msgspec.structs import replace

from repository.hub.cache import RepoCache
from repository.hub.choose import Chosen, choose
from repository.hub.download import Downloader
from repository.hub.errors import HubError
from repository.hub.failures import hub_endpoint
from repository.hub.patience import Patience
from repository.hub.reference import HubReference, is_inside
from repository.hub.values import Choice, Fetched, HubFile, Listing, Progress

_COMMIT = re.compile("[0-9a-f]{40}")
_SHA256 = re.compile("[0-9a-f]{64}")


def fetch(
    reference: HubReference,
    *,
    choice: Choice = Choice(),  # noqa: B008  frozen
    cache_dir: Path | None = None,
    endpoint: str | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
    verify: bool = False,
) -> Fetched:
    """Have the files of a model in the cache, whole and checked.

    `cache_dir` and `endpoint`: None is what HF_HOME, HF_HUB_CACHE and HF_ENDPOINT say. `progress` may raise to end
    the download, which a later call goes on with. `say` gets lines about waits and repairs. `verify` compares the
    hashes also of files that were in the cache. HubError: one sentence for a person.
    """
    hub = Hub(reference, cache_dir=cache_dir, endpoint=endpoint, say=say, sleep=sleep)
    listing = hub.listing()
    return hub.download(listing, choose(listing, reference, choice), progress=progress, verify=verify)


def fetch_cached(
    reference: HubReference,
    *,
    choice: Choice = Choice(),  # noqa: B008  frozen
    cache_dir: Path | None = None,
) -> Fetched | None:
    """The same from the cache alone, without asking the hub; None where it is not all there."""
    hub = Hub(reference, cache_dir=cache_dir)
    listing = hub.cache.listing(reference)
    if listing is None:
        return None
    try:
        return hub.download(listing, choose(listing, reference, choice))
    except HubError:
        return None


class Hub:
    """One repository on the hub, and its place in the cache."""

    def __init__(
        self,
        reference: HubReference,
        *,
        cache_dir: Path | None = None,
        endpoint: str | None = None,
        say: Callable[[str], None] = lambda _: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.cache = RepoCache(cache_dir, reference.repo)
        self._reference = reference
        self._endpoint = hub_endpoint(endpoint)
        self._say = say
        self._patience = Patience(reference, endpoint=self._endpoint, say=say, sleep=sleep)

    def listing(self) -> Listing:
        """All files at the revision named; what the cache has of them where the hub cannot be asked."""
        try:
            return self._patience.call(self._ask)
        except HubError as error:
            known = self.cache.listing(self._reference) if error.kind == "offline" else None
            if known is None:
                raise
            self._say(f"{self._reference.repo}: the hub cannot be asked; taking what is in the cache")
            return known

    def _ask(self) -> Listing:
        api = HfApi(endpoint=self._endpoint)
        repo = self._reference.repo
        info = api.model_info(
            repo,
            revision=self._reference.revision,
            files_metadata=True,
            timeout=constants.HF_HUB_ETAG_TIMEOUT,
        )
        if not _COMMIT.fullmatch(info.sha or "") or info.siblings is None:
            raise ValueError("no commit or no files in its answer")
        files = tuple(map(_hub_file, info.siblings))
        if strange := [file.name for file in files if not is_inside(file.name)]:
            raise ValueError(f"a file called {strange[0]!r}")
        return Listing(repo, info.sha or "", files)

    def download(
        self,
        listing: Listing,
        chosen: Chosen,
        *,
        progress: Callable[[Progress], None] = lambda _: None,
        verify: bool = False,
    ) -> Fetched:
        """Has the chosen files in the cache; the weights come last, so that they are never there alone."""
        if listing.is_cached:
            files = chosen.files
        else:
            files = tuple(file if _is_known(file) else self._look_up(file, listing) for file in chosen.files)
        total = sum(file.size for file in files)
        done: dict[str, int] = {}

        def on_bytes(file: HubFile, so_far: int) -> None:
            done[file.name] = so_far
            progress(Progress(file.name, sum(done.values()), total, so_far, file.size))

        downloader = Downloader(
            self._reference,
            listing.revision,
            endpoint=self._endpoint,
            cache=self.cache,
            patience=self._patience,
            say=self._say,
            on_bytes=on_bytes,
        )
        fetched = tuple(downloader.bring(file, verify=verify) for file in files)
        if not listing.is_cached:
            self.cache.remember(self._reference.revision, listing.revision)
        return Fetched(
            self.cache.snapshot(listing.revision) / chosen.load,
            listing.repo,
            listing.revision,
            fetched,
            chosen.notes,
        )

    def _look_up(self, file: HubFile, listing: Listing) -> HubFile:
        """Size and hash of a file, where a listing (a mirror's, say) has only names."""
        url = hf_hub_url(listing.repo, file.name, revision=listing.revision, endpoint=self._endpoint)
        seen = self._patience.call(lambda: get_hf_file_metadata(url, endpoint=self._endpoint, token=None))
        if seen.size is None or seen.etag is None:
            raise HubError(f"{self._endpoint} does not tell the size of {file.name}", "broken")
        if _SHA256.fullmatch(seen.etag):
            return replace(file, size=seen.size, sha256=seen.etag)
        if _COMMIT.fullmatch(seen.etag):
            return replace(file, size=seen.size, blob=seen.etag)
        raise HubError(f"{self._endpoint} does not tell the hash of {file.name}", "broken")


def _hub_file(sibling: RepoSibling) -> HubFile:
    sha256 = sibling.lfs.sha256 if sibling.lfs else None
    return HubFile(
        sibling.rfilename,
        -1 if sibling.size is None else sibling.size,
        sha256=sha256 if sha256 and _SHA256.fullmatch(sha256) else None,
        blob=sibling.blob_id if sibling.blob_id and _COMMIT.fullmatch(sibling.blob_id) else None,
    )


def _is_known(file: HubFile) -> bool:
    return file.size >= 0 and bool(file.key)
