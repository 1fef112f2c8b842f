"""From the fields of a LocalAI file to the keys of `repository.config`, each with its place in the file.

What is not LocalAI's is left as it is, so that one file may hold both, and a plain `config.yaml` comes out as it went
in. Whether the values are right is checked afterwards, by the schemas of what they became.
"""

from msgspec import Struct

from repository.config import ModelConfig, Parameters
from repository.document import Entry, Node
from repository.localai.draft import Draft
from repository.localai.fields import FIELDS
from repository.localai.options import OPTIONS
from repository.localai.values import READERS
from repository.problem import Problem, did_you_mean

_SECTIONS = frozenset(key.rpartition(".")[0] for key in FIELDS if "." in key) | {"function"}
_OURS = ("parameters", "template")
"""Sections that both have."""

_NEVER_EMPTY = ("name", "backend", "alias", "parameters.model")
"""Texts that mean nothing where they are empty; any other is then as good as absent, as in LocalAI."""

_MEANT_EMPTY = ("template.join_chat_messages_by_character",)

_TOP = frozenset(key for key in FIELDS if "." not in key) | frozenset(ModelConfig.__struct_fields__)


class Translated(Struct, frozen=True):
    """`root` is the configuration in Modelyard's words. `notes` say what does nothing here, and what to write instead;
    with `problems` the model cannot be served."""

    root: Node
    problems: tuple[Problem, ...] = ()
    notes: tuple[Problem, ...] = ()


def translate(root: Node, path: str) -> Translated:
    """`path` names the file in what is told. A root that is no mapping comes back as it is."""
    if not isinstance(root.value, dict):
        return Translated(root)
    draft = Draft(path)
    taken = _take_over(root, "")
    draft.entries.update(_kept(draft, root, ""))
    for key, entry in taken:
        _translate(draft, key, entry)
    return Translated(
        Node(draft.entries, root.line, root.column), tuple(sorted(draft.problems)), tuple(sorted(draft.notes))
    )


def belongs(key: str) -> str:
    """` (it belongs under "x")` for a key at the top level that LocalAI has in a section; else nothing."""
    if key in OPTIONS and key not in FIELDS:
        return f' (it belongs into the list `options`, as "{key}:value")'
    section = next((each.rpartition(".")[0] for each in FIELDS if each.endswith(f".{key}")), "")
    return f' (it belongs under "{section}")' if section and key not in FIELDS else ""


def _take_over(node: Node, prefix: str) -> list[tuple[str, Entry]]:
    """The fields below `node` that do not stay what they are, in the order of the file."""
    assert isinstance(node.value, dict)
    taken: list[tuple[str, Entry]] = []
    for key, entry in node.value.items():
        place = prefix + key
        if place in FIELDS:
            if not _stays(place, entry):
                taken.append((place, entry))
        elif place in _SECTIONS and isinstance(entry.value.value, dict):
            taken += _take_over(entry.value, f"{place}.")
    return taken


def _kept(draft: Draft, node: Node, prefix: str) -> dict[str, Entry]:
    """The others: those that are the same here, and those that are none of LocalAI's."""
    assert isinstance(node.value, dict)
    kept: dict[str, Entry] = {}
    section = prefix.partition(".")[0]
    for key, entry in node.value.items():
        place = prefix + key
        if place in FIELDS:
            if _stays(place, entry):
                kept[key] = entry
        elif place in _SECTIONS and isinstance(entry.value.value, dict):
            inside = _kept(draft, entry.value, f"{place}.")
            if inside or place in _OURS:
                kept[key] = Entry(entry.key, Node(inside, entry.value.line, entry.value.column))
        elif section and section not in _OURS:
            near = did_you_mean(place, FIELDS)
            draft.problem(entry.key, f'unknown key "{key}" in {prefix[:-1]}{near}')
        elif place in _SECTIONS and place not in _OURS and entry.value.value is None:
            pass
        elif section == "parameters" and key not in Parameters.__struct_fields__ and key in _TOP:
            draft.problem(entry.key, f'unknown key "{key}" in parameters (it belongs at the top level)')
        else:
            kept[key] = entry
    return kept


def _stays(place: str, entry: Entry) -> bool:
    field = FIELDS[place]
    if field.kind != "acts" or field.to is not None or place in READERS:
        return False
    value = entry.value.value
    if value == "" and place not in (*_NEVER_EMPTY, *_MEANT_EMPTY):
        return False
    return not any(value == each and type(value) is type(each) for each in field.neutral)


def _translate(draft: Draft, key: str, entry: Entry) -> None:
    field = FIELDS[key]
    if field.kind == "acts" and field.to is None and key not in READERS:
        return  # it says what holds anyway
    if field.is_neutral(entry.value):
        return
    match field.kind:
        case "idle":
            draft.idle(entry, key, field.does)
        case "refused":
            draft.problem(entry.key, f"{key}: {field.does}")
        case _ if key in READERS:
            READERS[key](draft, entry)
        case _:
            draft.put(field.to or key, entry)
