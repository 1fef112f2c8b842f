"""Which YAML files at the root of a repository are models, one or a list of them, and what the others seem to be."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from repository.config import ModelConfig
from repository.document import MAX_BYTES, Document, Node
from repository.localai.fields import FIELDS
from repository.problem import Problem, did_you_mean

_ANYBODYS = frozenset(
    [
        "name",
        "description",
        "usage",
        "disabled",
        "debug",
        "options",
        "environment",
        "type",
        "roles",
        "step",
        "agent",
        "pipeline",
        "proxy",
        "router",
        "mcp",
        "artifacts",
        "download_files",
        "aliases",
        "parameters",
    ]
)
"""Keys that say little: other programs' files have them too."""

_SURE = ("backend", "alias", "parameters")
_OWN = (
    frozenset(key.partition(".")[0] for key in FIELDS) | frozenset(ModelConfig.__struct_fields__)
) - _ANYBODYS

_FOREIGN = {
    "services": "a Compose file",
    "apiVersion": "a Kubernetes manifest",
    "jobs": "a workflow of a build service",
    "stages": "a workflow of a build service",
    "repos": "a list of hooks",
    "lockfileVersion": "a lock file",
    "channels": "an environment of conda",
    "dependencies": "an environment of conda",
    "site_name": "a documentation site",
    "openapi": "a description of an API",
    "config_file": "a gallery's description of a model; `modelyard gallery` installs it",
}
_BEGINS = re.compile(rb"^(?:- +)?(?:backend|parameters|alias) *:", re.MULTILINE)


class Recognised(Struct, frozen=True):
    """`items`: the models in the file, each with the problems in its lines. None of them: `reason` says why it is
    passed over. `is_list`: it holds a list, in which each has its own place."""

    items: tuple[Document, ...] = ()
    is_list: bool = False
    reason: str = ""


def recognise(document: Document, path: Path) -> Recognised:
    """What the file at `path` is, which was read as `document`. One that is broken is a model if it begins like one."""
    root = document.root
    if root is None:
        if _BEGINS.search(_bytes(path)):
            return Recognised((document,))
        return Recognised(reason=f"not taken for a model: {document.problems[0].message}")
    match root.value:
        case dict():
            reason = _foreign(root)
            return Recognised(reason=f"not a model: {reason}") if reason else Recognised((document,))
        case tuple(items) if items and all(isinstance(item.value, dict) for item in items):
            reasons = [reason for item in items if (reason := _foreign(item))]
            if len(reasons) < len(items):
                return Recognised(_parts(items, document.problems), is_list=True)
            return Recognised(reason=f"not a list of models: its first entry is {reasons[0]}")
        case None:
            return Recognised(reason="not a model: the file is empty")
        case _:
            return Recognised(reason="not a model: expected keys such as `backend` and `parameters`")


def _parts(items: Sequence[Node], problems: Sequence[Problem]) -> tuple[Document, ...]:
    """Each of a list with the problems that stand in its lines."""
    begins = [item.line for item in items]
    ends = [*begins[1:], math.inf]
    return tuple(
        Document(item, tuple(problem for problem in problems if begin <= problem.line < end))
        for item, begin, end in zip(items, begins, ends, strict=True)
    )


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES)
    except OSError:
        return b""


def _foreign(node: Node) -> str:
    """What a mapping is if it is no model; empty if it is one."""
    keys = node.value if isinstance(node.value, dict) else {}
    if any(_says_model(key, keys[key].value) for key in keys):
        return ""
    for key, what in _FOREIGN.items():
        if key in keys:
            return what
    if {"url", "urls", "files"} & keys.keys():
        return "an entry of a gallery; `modelyard gallery` installs those"
    if not _OWN.isdisjoint(keys):
        return ""
    near = next((hint for key in keys if (hint := did_you_mean(key, _SURE))), "")
    return f"something with neither `backend` nor `parameters`{near}"


def _says_model(key: str, value: Node) -> bool:
    """A key that no other program's file has on top; `parameters` is a model's where it holds its fields."""
    if key == "parameters":
        inside = value.value if isinstance(value.value, dict) else {}
        return any(f"parameters.{each}" in FIELDS for each in inside)
    return key in ("backend", "alias") and isinstance(value.value, str)
