"""A backend's own options: the top-level keys of a `config.yaml` that are not common to all backends.

Checks them against the JSON Schema that the backend's plugin declares; knows no backend itself.
"""

from collections.abc import Collection, Mapping
from typing import Any, TypeAlias

from repository.checking import check
from repository.document import Entry, Node
from repository.localai.elsewhere import ELSEWHERE
from repository.localai.translation import belongs
from repository.problem import Problem, did_you_mean

Schemas: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Backend name or alias -> JSON Schema of its own options."""


def option_problems(
    options: Mapping[str, Entry], backend: str, schemas: Schemas, *, path: str, common: Mapping[str, Any]
) -> list[Problem]:
    """What is wrong with options for one backend of `schemas`.

    Keys that its schema does not name are refused unless it allows them expressly (`additionalProperties`), or they
    are of no effect there.
    `common` is the schema of the common keys, for hints.
    """
    schema = schemas[backend]
    known = schema.get("properties", {})
    problems: list[Problem] = []
    if not schema.get("additionalProperties"):
        unknown = {key: each for key, each in options.items() if key not in known and key not in ELSEWHERE}
        problems = [
            _unknown(
                entry, known, path=path, subject=f"for backend {backend}", schemas=schemas, common=common
            )
            for entry in unknown.values()
        ]
        options = {key: entry for key, entry in options.items() if key in known}
    try:
        return problems + check(Node(dict(options)), schema, path=path)
    except Exception as error:  # a plugin's schema is someone else's code; it must not take other models down
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
        return [*problems, Problem(path, 0, 0, f"the option schema of backend {backend} is broken: {reason}")]


def unknown_keys(
    options: Mapping[str, Entry], schemas: Schemas, *, path: str, common: Mapping[str, Any]
) -> list[Problem]:
    """The options that none of the backends knows."""
    if any(schema.get("additionalProperties") for schema in schemas.values()):
        return []
    known = {key for schema in schemas.values() for key in schema.get("properties", {})} | ELSEWHERE.keys()
    unknown = [entry for key, entry in options.items() if key not in known]
    return [
        _unknown(entry, known, path=path, subject="for any backend", schemas=schemas, common=common)
        for entry in unknown
    ]


def _unknown(
    entry: Entry,
    known: Collection[str],
    *,
    path: str,
    subject: str,
    schemas: Schemas,
    common: Mapping[str, Any],
) -> Problem:
    key = entry.key.text or str(entry.key.value)
    owner = min(
        (name for name, schema in schemas.items() if key in schema.get("properties", {})), default=None
    )
    if owner is not None:
        hint = f" (it belongs to {owner})"
    elif key in common["properties"]["parameters"]["properties"]:
        hint = ' (it belongs under "parameters")'
    else:
        hint = belongs(key) or did_you_mean(key, [*known, *common["properties"]])
    return Problem(path, entry.key.line, entry.key.column, f'unknown key "{key}" {subject}{hint}')
