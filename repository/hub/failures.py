"""What a failure at the hub, in the network or on the disk means to a person: from an exception to a `HubError`.

Also tells which failures pass, and after how long to try again.
"""

import errno
import os
from collections.abc import Mapping

import httpx2
from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import parse_ratelimit_headers

from repository.hub.errors import HubError
from repository.hub.reference import HubReference

KEPT = "what came so far is kept, and a later call goes on from there"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
BUSY = (408, 425, 429, 500, 502, 503, 504)


def explain(error: Exception, reference: HubReference, *, endpoint: str) -> HubError:
    """The sentence for whatever the hub's library, the network or the disk has raised."""
    repo = reference.repo
    match error:
        case HubError():
            return error
        case OfflineModeIsEnabled():
            return HubError(
                f"{reference} is not in the cache, and HF_HUB_OFFLINE is set; unset it to download", "offline"
            )
        case GatedRepoError():
            return _gated(repo, endpoint)
        case RevisionNotFoundError():
            return HubError(f'{repo} has no branch, tag or commit "{reference.revision}"', "missing")
        case RemoteEntryNotFoundError():
            return HubError(f"{repo} does not have all the files that it lists; try again later", "missing")
        case HfHubHTTPError():
            return _refused(error, repo, endpoint)
        case LocalEntryNotFoundError() if isinstance(error.__cause__, Exception):
            return explain(error.__cause__, reference, endpoint=endpoint)
        case httpx2.TransportError() | httpx2.TooManyRedirects():
            why = str(error) or type(error).__name__
            return HubError(f"no connection to {endpoint} ({why}); {KEPT}", "offline")
        case OSError():
            return disk_problem(error)
        case _:
            why = f"{type(error).__name__}: {error}".splitlines()[0]
            return HubError(
                f"{endpoint} does not answer as a model hub does ({why}); is HF_ENDPOINT right?", "broken"
            )


def disk_problem(error: OSError) -> HubError:
    """A full disk, a folder that cannot be written to."""
    where = f" {os.fsdecode(error.filename)}" if error.filename else ""
    if error.errno in _FULL:
        return HubError(
            f"the disk is full{where and f' at{where}'}; make room, or set HF_HOME to a folder on another one; {KEPT}",
            "disk",
        )
    return HubError(f"cannot write{where}: {error.strerror or error}", "disk")


def pause_after(error: Exception, usual_s: float) -> float | None:
    """Seconds to wait before it is worth trying again; None where that is no use."""
    if isinstance(error, HfHubHTTPError):
        if error.response.status_code not in BUSY:
            return None
        return asked_pause(error.response.headers) if error.response.status_code == 429 else usual_s
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        return pause_after(error.__cause__, usual_s)
    if isinstance(error, OfflineModeIsEnabled):
        return None
    return usual_s if isinstance(error, httpx2.TransportError) else None


def is_rate_limit(error: Exception) -> bool:
    """True where the hub asks for fewer requests."""
    inner = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else error
    return isinstance(inner, HfHubHTTPError) and inner.response.status_code == 429


def asked_pause(headers: Mapping[str, str]) -> float:
    """What `Retry-After` or `RateLimit` says, in seconds; a minute where they say nothing."""
    said = headers.get("Retry-After", "").strip()
    if said.isdigit():
        return float(said)
    limit = parse_ratelimit_headers(headers)
    return float(limit.reset_in_seconds) if limit is not None else 60.0


def _gated(repo: str, endpoint: str) -> HubError:
    if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
        message = f"{repo} is gated, and the hub is asked without a token here"
    elif get_token():
        message = f"{repo} is gated, and the account of the token given has no access; ask for it at {endpoint}/{repo}"
    else:
        message = (
            f"{repo} is gated; accept its conditions at {endpoint}/{repo}, "
            "and set HF_TOKEN to a token of that account"
        )
    return HubError(message, "gated")


def _refused(error: HfHubHTTPError, repo: str, endpoint: str) -> HubError:
    status = error.response.status_code
    said = error.response.headers.get("X-Error-Message", "")
    if status == 401 and "credential" in said.lower():
        return HubError(
            f"{endpoint} refuses the token given; set HF_TOKEN to a valid one, or unset it", "gated"
        )
    if isinstance(error, RepositoryNotFoundError) or status in (401, 404):
        token = _advice("; if it is private, set HF_TOKEN")
        return HubError(f"there is no {repo} at {endpoint}{token}", "missing")
    if status == 403:
        return HubError(f"{endpoint} does not allow {repo}: {said or 'no reason given'}", "gated")
    if status == 429:
        pause = asked_pause(error.response.headers)
        token = _advice(", or set HF_TOKEN, which allows more")
        return HubError(
            f"{endpoint} asks for fewer requests; try again in {pause:.0f} s{token}; {KEPT}", "offline"
        )
    if status >= 500:
        return HubError(f"{endpoint} answers with status {status}; try again later; {KEPT}", "offline")
    return HubError(f"{endpoint} answers with status {status} for {repo}: {said or error}", "broken")


def _advice(text: str) -> str:
    """The text, where a token is not there and would be sent."""
    return "" if get_token() or constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else text


def hub_endpoint(given: str | None) -> str:
    """Where the hub is: `given`, or what HF_ENDPOINT says."""
    return (given or constants.ENDPOINT).rstrip("/")
