"""What a model has from the network: a repository on a hub, single files, and under which names. Pure.

Nothing here goes to the network; `repository.remote.bring` does.
"""

import hashlib
import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Struct

from repository import pick
from repository.config import Artifact, ModelConfig
from repository.hub.errors import HubError
from repository.hub.reference import SCHEMES, HubReference, parse_reference

WEB = ("http://", "https://")

# Pickles, which are programs, and code: a request that names a model is no reason to run either. OpenVINO's weights
# have a suffix that pickles have too.
_RUNNABLE = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.py", "openvino_*")
NOT_FOR_STRANGERS = tuple(
    re.sub(r"[a-z]", lambda found: f"[{found[0]}{found[0].upper()}]", each) for each in _RUNNABLE
)

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


class RemoteFile(Struct, frozen=True):
    """One file: where it comes from, and its path below the folder that a model's files are laid out in."""

    name: str
    uri: str
    sha256: str | None = None


class Remote(Struct, frozen=True):
    """What has to come before a version can be loaded.

    `hub`: the repository that the weights are in, narrowed by patterns; `token_env` names the variable with the
    token for it. `files` are single ones; `weights` is the one of them, or the folder of them, that an engine loads,
    None where the weights are elsewhere. `by_request`: nobody but a request has asked for it.
    """

    hub: HubReference | None = None
    allow: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    token_env: str | None = None
    files: tuple[RemoteFile, ...] = ()
    weights: str | None = None
    by_request: bool = False

    @property
    def key(self) -> str:
        """The same for the same wish, in every process."""
        return hashlib.blake2b(msgspec.json.encode(self), digest_size=12).hexdigest()

    @property
    def origin(self) -> str:
        """Where it comes from, for people: `the hub`, or a host."""
        if self.hub is not None or all(file.uri.startswith(SCHEMES) for file in self.files):
            return "the hub"
        return urlsplit(shown(next(f.uri for f in self.files if not f.uri.startswith(SCHEMES)))).netloc

    def __str__(self) -> str:
        wishes = [str(self.hub)] if self.hub is not None else []
        wishes += [shown(file.uri) for file in self.files]
        return wishes[0] + (f" and {len(wishes) - 1} more" if len(wishes) > 1 else "")


def shown(uri: str) -> str:
    """An address as anybody may read it: without user, password and query, which can be secrets."""
    if uri.startswith(SCHEMES):
        return uri
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def remote_of(
    config: ModelConfig, model: str | None, *, has: Callable[[str], bool], has_weights: bool
) -> Remote | None:
    """What a version whose weights are named `model` has from the network; None for nothing.

    `has` tells whether there is a file on disk under a name, which is then taken as it is; `has_weights` that the
    weights are on disk.
    """
    files = tuple(
        RemoteFile(each.filename, each.uri, each.sha256.lower() if each.sha256 else None)
        for each in config.download_files
        if not has(each.filename)
    )
    if has_weights:
        return Remote(files=files) if files else None
    if config.artifacts:
        return _of_artifact(config.artifacts[0], model, files)
    if model is None:
        picked = pick.pick_weights([file.name for file in files])
        return Remote(files=files, weights=picked.name) if files and picked.name is not None else None
    name = local_name(config, model) or ""
    if model.startswith(WEB) and name not in [file.name for file in files]:
        files = (*files, RemoteFile(name, model))
    path = PurePosixPath(name)
    if name and any(path in (PurePosixPath(file.name), *PurePosixPath(file.name).parents) for file in files):
        return Remote(files=files, weights=name)
    reference = hub_reference(model)
    return Remote(hub=reference, files=files) if reference is not None else None


def local_name(config: ModelConfig, model: str) -> str | None:
    """The path that weights named `model` have on disk, if they are there; None where they cannot be."""
    if not model.startswith(WEB):
        return None if model.startswith(SCHEMES) else model
    return next((each.filename for each in config.download_files if each.uri == model), _file_name(model))


def hub_reference(model: str) -> HubReference | None:
    """The model on a hub that `parameters.model` can mean where no path is of that name."""
    try:
        reference = parse_reference(model)
    except HubError:
        return None
    is_a_file = pick.holds_weights([reference.repo]) and not (reference.file or reference.revision)
    return None if is_a_file and not model.startswith(SCHEMES) else reference


def request_remote(name: str) -> Remote | None:
    """What a request that names `owner/repo[/file][@revision]` asks for; None where the name is no such."""
    if "://" in name:
        return None
    reference = hub_reference(name)
    return Remote(hub=reference, ignore=NOT_FOR_STRANGERS, by_request=True) if reference else None


def model_problem(model: str) -> str | None:
    """Why `parameters.model` cannot be had from where it says; None for what is no address."""
    if model.startswith(SCHEMES):
        return _reference_problem(model)
    if model.startswith(WEB):
        if not pick.holds_weights([_file_name(model)]):
            return f'"{shown(model)}" ends in the name of no weight file; a repository on a hub is written owner/repo'
        return None
    if "://" in model:
        return f'"{shown(model)}": {_unknown(model)}'
    return None


def uri_problem(uri: str) -> str | None:
    """Why a file cannot be had from there."""
    if uri.startswith(SCHEMES):
        if problem := _reference_problem(uri):
            return problem
        if parse_reference(uri).file is None:
            return f'"{uri}" names no file; write huggingface://owner/repo/file'
        return None
    if uri.startswith(WEB):
        return None if urlsplit(uri).netloc else f'"{shown(uri)}" names no host'
    return f'"{shown(uri)}": {_unknown(uri)}'


def file_problem(name: str) -> str | None:
    """Why a downloaded file cannot have this name."""
    parts = name.split("/")
    if not name.isprintable() or "\\" in name or name.startswith("~"):
        return f'"{name}" cannot be a file\'s name here'
    if any(part in ("", ".", "..") for part in parts):
        return f'"{name}" must be a path relative to the repository'
    return None


def artifact_problems(artifacts: tuple[Any, ...]) -> str | None:
    """Why LocalAI's `artifacts`, as plain values, cannot be had."""
    if len(artifacts) > 1:
        return "one artifact is the model; put single files into download_files"
    for artifact in artifacts:
        source = artifact.get("source")
        if not isinstance(source, dict):
            continue  # which the schema says
        for key in ("name", "target"):
            if artifact.get(key) not in (None, "", "model"):
                return f'{key} "{artifact[key]}": an artifact is the model itself, written "model"'
        if source.get("type") not in ("hf", "huggingface"):
            return f'source.type "{source.get("type")}": expected "huggingface"'
        if problem := _reference_problem(str(source.get("repo"))):
            return f"source.repo: {problem}"
    return None


def _of_artifact(artifact: Artifact, model: str | None, files: tuple[RemoteFile, ...]) -> Remote:
    source = artifact.source
    whole = parse_reference(source.repo)
    revision = (
        (artifact.resolved.revision if artifact.resolved else None) or source.revision or whole.revision
    )
    named = hub_reference(model) if model is not None else None
    if model is None or (named is not None and named.repo == whole.repo):
        file = named.file if named is not None else whole.file
    else:
        file = model
    return Remote(
        hub=HubReference(whole.repo, file, revision),
        allow=source.allow_patterns,
        ignore=source.ignore_patterns,
        token_env=source.token_env,
        files=files,
    )


def _reference_problem(text: str) -> str | None:
    try:
        parse_reference(text)
    except HubError as error:
        return str(error)
    return None


def _file_name(address: str) -> str:
    return unquote(PurePosixPath(urlsplit(address).path).name)


def _unknown(uri: str) -> str:
    scheme = _SCHEME.match(uri)
    what = f"{scheme[0]}// is not fetched" if scheme else "that is no address"
    return f"{what}; write huggingface://owner/repo/file, or an http address"
