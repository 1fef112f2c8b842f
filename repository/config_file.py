"""Reads a model's configuration: from its `config.yaml`, or with values that a load request gives in their place.

The keys common to all backends are checked against `repository.config`, the others against an option schema that the
caller hands in (this package knows no backend). Which backend serves a model without `backend` is decided elsewhere;
`check_options` then checks its options.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from repository.checking import check, find, schema_of
from repository.config import ModelConfig
from repository.contradictions import contradictions
from repository.document import Document, Entry, Node, read_document
from repository.json_text import read_json
from repository.names import name_problem
from repository.options import Schemas, option_problems, unknown_keys
from repository.problem import Problem, did_you_mean

OVERRIDES = "the configuration given with the load"
"""What stands in a problem in place of a file's path."""


class Loaded(Struct, frozen=True):
    """`config` is None when there are problems; `name` is the name the file gives, readable even then."""

    config: ModelConfig | None
    problems: tuple[Problem, ...] = ()
    name: str | None = None


def load_config(path: Path, schemas: Schemas | None = None) -> Loaded:
    """Reads and checks a `config.yaml`, reporting all that is wrong with it at once.

    With `backend` set, options are checked against that backend's schema; without it, only that some backend
    knows them. `schemas` None: options are taken as they are.
    """
    return _load(read_document(path), str(path), schemas)


def override_config(path: Path | None, text: str, schemas: Schemas | None = None) -> Loaded:
    """What `load_config` would say if the file's top-level keys had the values of a JSON object instead; null takes
    a key out.

    `path` None: there is no file. Problems have no position: who wrote the JSON did not write the file.
    """
    try:
        overrides = read_json(text)
    except ValueError as error:
        return Loaded(None, (Problem(OVERRIDES, 0, 0, str(error)),))
    fixed = [
        Problem(OVERRIDES, 0, 0, f'"{key}" cannot be given with a load: it is settled between all models')
        for key in ("name", "aliases")
        if key in overrides
    ]
    written = read_document(path) if path is not None else Document(Node({}))
    below = written.root.plain() if written.root is not None else None
    if fixed or written.problems:
        return Loaded(None, (*fixed, *written.problems))
    if not isinstance(below, dict | None):
        return _load(written, str(path), schemas)
    return _load(Document(_node({**(below or {}), **overrides})), OVERRIDES, schemas)


def _load(document: Document, shown: str, schemas: Schemas | None) -> Loaded:
    if document.root is None:
        return Loaded(None, document.problems)
    root, schema = _settled(document.root, common_schema()), common_schema()
    problems = list(document.problems)
    if not isinstance(root.value, dict):
        return Loaded(None, (*problems, *check(root, schema, path=shown, label="the file")))
    common = Node({key: entry for key, entry in root.value.items() if key in schema["properties"]})
    options = {key: entry for key, entry in root.value.items() if key not in schema["properties"]}
    problems += check(common, schema, path=shown)
    problems += contradictions(common, shown)
    name = find(common, ["name"]).value
    if schemas is not None:
        backend = find(common, ["backend"])
        if not isinstance(backend.value, str):
            problems += unknown_keys(options, schemas, path=shown, common=schema)
        elif backend.value in schemas:
            problems += option_problems(options, backend.value, schemas, path=shown, common=schema)
        else:
            problems += unknown_keys(options, schemas, path=shown, common=schema)
            message = f'unknown backend "{backend.value}"{did_you_mean(backend.value, schemas)}'
            problems.append(Problem(shown, backend.line, backend.column, message))
    name = name if isinstance(name, str) and not name_problem(name) else None
    if problems:
        return Loaded(None, tuple(sorted(problems)), name)
    config = msgspec.convert(common.plain(), ModelConfig)
    return Loaded(msgspec.structs.replace(config, options=Node(options).plain()), (), name)


def check_options(
    config: ModelConfig, backend: str, schema: Mapping[str, Any], *, path: Path | None = None
) -> list[Problem]:
    """What is wrong with a configuration's options for the backend that was inferred for it.

    `path` is the file the configuration came from; read again, for positions, only if something is wrong.
    """
    shown, schemas, common = str(path or "options"), {backend: schema}, common_schema()
    options = {key: Entry(Node(key), _node(value)) for key, value in config.options.items()}
    problems = option_problems(options, backend, schemas, path=shown, common=common)
    written = read_document(path).root if problems and path is not None else None
    if written is None or not isinstance(written.value, dict):
        return problems
    located = {key: entry for key, entry in written.value.items() if key in config.options}
    return option_problems(located, backend, schemas, path=shown, common=common)


def idle_options(
    config: ModelConfig, schema: Mapping[str, Any], *, path: Path | None = None
) -> list[Problem]:
    """The options that the backend takes and does nothing with: its schema calls them deprecated and says why."""
    known = schema.get("properties", {})
    idle = [key for key in config.options if known.get(key, {}).get("deprecated")]
    return [
        Problem(
            str(path or "options"),
            *(locate(path, key) if path is not None else (0, 0)),
            f"{key}: {known[key].get('description') or 'no effect'}",
        )
        for key in idle
    ]


def locate(path: Path, *keys: str) -> tuple[int, int]:
    """Line and column at which a value stands in a file; zeros when it cannot be found any more."""
    root = read_document(path).root
    node = find(root, keys) if root is not None else Node(None)
    return node.line, node.column


@functools.cache
def common_schema() -> dict[str, Any]:
    """JSON Schema of the keys common to all backends; other top-level keys are left open."""
    schema = schema_of(ModelConfig)
    del schema["properties"]["options"], schema["additionalProperties"]
    return schema


def _settled(node: Node, schema: Mapping[str, Any]) -> Node:
    """A node as the common keys mean it: nulls are absent (or an empty mapping), one text may be a list."""
    kind = schema.get("type")
    if node.value is None and kind == "object":
        return Node({}, node.line, node.column)
    if isinstance(node.value, str) and isinstance(kind, list):
        return Node((node,), node.line, node.column)
    if not isinstance(node.value, dict):
        return node
    known = schema.get("properties", {})
    entries = {
        key: Entry(entry.key, _settled(entry.value, known.get(key, {})))
        for key, entry in node.value.items()
        if entry.value.value is not None or key not in known or known[key].get("type") == "object"
    }
    return Node(entries, node.line, node.column)


def _node(value: Any) -> Node:
    match value:
        case dict():
            return Node({key: Entry(Node(key), _node(each)) for key, each in value.items()})
        case list():
            return Node(tuple(_node(each) for each in value))
        case _:
            return Node(value)
