"""Reads a model's configuration: from its `config.yaml` or a file at the repository's root, in Modelyard's words or in
LocalAI's, or with values that a load request gives in their place.

The keys common to all backends are checked against `repository.config`, the others against an option schema that the
caller hands in (this package knows no backend). Which backend serves a model without `backend` is decided elsewhere;
`check_options` then checks its options.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from repository.checking import check, find, schema_of
from repository.config import ModelConfig
from repository.contradictions import contradictions, redirect_problems
from repository.document import Document, Entry, Node, read_document
from repository.json_text import read_json
from repository.localai.elsewhere import ELSEWHERE
from repository.localai.translation import translate
from repository.names import name_problem
from repository.options import Schemas, option_problems, unknown_keys
from repository.problem import Problem, did_you_mean
from repository.prompt_templates import read_templates

OVERRIDES = "the configuration given with the load"
"""What stands in a problem in place of a file's path."""

_COMMON_OPTIONS = ("trust_remote_code", "f16", "main_gpu", "gpu_layers")
"""Common keys that a backend's schema may call deprecated, for it does nothing with them."""


class Loaded(Struct, frozen=True):
    """`config` is None when there are problems; `name` is the name the file gives, readable even then. `notes` are what
    the file says and nothing here acts on. `template_files` were looked for, there or not: the configuration changes
    with them."""

    config: ModelConfig | None
    problems: tuple[Problem, ...] = ()
    name: str | None = None
    notes: tuple[Problem, ...] = ()
    template_files: tuple[Path, ...] = ()


def load_config(path: Path, schemas: Schemas | None = None, *, root: Path | None = None) -> Loaded:
    """Reads and checks a `config.yaml`, reporting all that is wrong with it at once.

    With `backend` set, options are checked against that backend's schema; without it, only that some backend
    knows them. `schemas` None: options are taken as they are. Templates may be files beside it, or at the `root`.
    """
    return load_document(read_document(path), str(path), schemas, folders=_folders(path, root))


def load_document(
    document: Document, shown: str, schemas: Schemas | None = None, *, folders: Sequence[Path] = ()
) -> Loaded:
    """As `load_config`, of a document that was read already; `shown` names its file. `folders` may hold templates."""
    return _load(document, shown, schemas, folders)


def load_values(values: Mapping[str, Any], shown: str, schemas: Schemas | None = None) -> Loaded:
    """The same for values that were read from another server's files; `shown` names these in problems."""
    return _load(Document(_node(dict(values))), shown, schemas)


def override_config(
    path: Path | None,
    text: str,
    schemas: Schemas | None = None,
    *,
    root: Path | None = None,
    item: int | None = None,
) -> Loaded:
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
        for key in ("name", "aliases", "alias")
        if key in overrides
    ]
    written = read_document(path) if path is not None else Document(Node({}))
    below = _item(written.root, item).plain() if written.root is not None else None
    if fixed or written.problems:
        return Loaded(None, (*fixed, *written.problems))
    if not isinstance(below, dict | None):
        return _load(written, str(path), schemas)
    merged = Document(_node({**(below or {}), **overrides}))
    return _load(merged, OVERRIDES, schemas, _folders(path, root))


def _folders(path: Path | None, root: Path | None) -> list[Path]:
    """Where the templates of a configuration may be."""
    folders = [path.parent] if path is not None else []
    return folders if root is None or root in folders else [*folders, root]


def _load(document: Document, shown: str, schemas: Schemas | None, folders: Sequence[Path] = ()) -> Loaded:
    if document.root is None:
        return Loaded(None, document.problems)
    schema, translated = common_schema(), translate(document.root, shown)
    root = _settled(translated.root, schema)
    problems = [*document.problems, *translated.problems]
    if not isinstance(root.value, dict):
        return Loaded(None, (*problems, *check(root, schema, path=shown, label="the file")))
    common = Node({key: entry for key, entry in root.value.items() if key in schema["properties"]})
    options = {key: entry for key, entry in root.value.items() if key not in schema["properties"]}
    problems += check(common, schema, path=shown)
    problems += contradictions(common, shown)
    templates = read_templates(common, shown, folders)
    common, files = templates.common, templates.files
    problems += templates.problems
    notes = (*translated.notes, *templates.notes)
    problems += redirect_problems(root, shown)
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
        return Loaded(None, tuple(sorted(problems)), name, notes, files)
    config = msgspec.convert(common.plain(), ModelConfig)
    config = msgspec.structs.replace(config, options=Node(options).plain())
    return Loaded(config, (), name, notes, files)


def check_options(
    config: ModelConfig,
    backend: str,
    schema: Mapping[str, Any],
    *,
    path: Path | None = None,
    item: int | None = None,
) -> list[Problem]:
    """What is wrong with a configuration's options for the backend that was inferred for it.

    `path` is the file the configuration came from, and `item` its place there if it holds several; read again, for
    positions, only if something is wrong.
    """
    shown, schemas, common = str(path or "options"), {backend: schema}, common_schema()
    options = {key: Entry(Node(key), _node(value)) for key, value in config.options.items()}
    problems = option_problems(options, backend, schemas, path=shown, common=common)
    written = _written(path, item) if problems and path is not None else Node(None)
    if not isinstance(written.value, dict):
        return problems
    located = {key: entry for key, entry in written.value.items() if key in config.options}
    return option_problems(located, backend, schemas, path=shown, common=common)


def idle_options(
    config: ModelConfig,
    backend: str,
    schema: Mapping[str, Any],
    *,
    path: Path | None = None,
    item: int | None = None,
) -> list[Problem]:
    """The keys that the backend does nothing with: its schema calls them deprecated and says why, or they are another
    backend's and ask only how to compute."""
    known = schema.get("properties", {})
    written = {**config.options, **{key: getattr(config, key) for key in _COMMON_OPTIONS}}
    idle: dict[str, str] = {}
    for key, value in written.items():
        if known.get(key, {}).get("deprecated"):
            if key in config.options or value:
                idle[key] = known[key].get("description") or "No effect."
        elif (
            key in config.options
            and key not in known
            and key in ELSEWHERE
            and not schema.get("additionalProperties")
        ):
            idle[key] = f"No effect: backend {backend} has no such option, {ELSEWHERE[key]} has."
    root = _written(path, item) if idle and path is not None else Node(None)
    return [
        Problem(str(path or "options"), (node := find(root, [key])).line, node.column, f"{key}: {why}")
        for key, why in idle.items()
    ]


def locate(path: Path, *keys: str, item: int | None = None) -> tuple[int, int]:
    """Line and column at which a value stands in a file; zeros when it cannot be found any more."""
    node = find(_written(path, item), keys)
    return node.line, node.column


def _written(path: Path, item: int | None) -> Node:
    """What a file says, in our words; `item`: of the models that it lists, that one."""
    root = read_document(path).root
    return translate(_item(root, item), str(path)).root if root is not None else Node(None)


def _item(root: Node, item: int | None) -> Node:
    """Of a file that lists models that one, else the whole."""
    return root if item is None else find(root, [item])


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
    if isinstance(node.value, tuple) and schema.get("items", {}).get("type") == "object":
        return Node(tuple(_settled(each, schema["items"]) for each in node.value), node.line, node.column)
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
