"""Makes the entry of one model from what the scan saw: configuration, versions, weights, what is wrong.

Names are settled between models elsewhere (`repository.naming`). Opens `config.yaml` and nothing else.
"""

from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from msgspec.structs import replace

from repository import pick
from repository.builder import CONFIG, Built, EntryBuilder, dead_links, fingerprint
from repository.config import ModelConfig
from repository.config_file import OVERRIDES, Loaded, load_config, load_document, load_values
from repository.document import Document, read_document
from repository.localai.recognition import recognise
from repository.look import Tree, look_at
from repository.names import name_problem, printable
from repository.options import Schemas
from repository.problem import Problem
from repository.snapshot import ModelEntry, VersionEntry
from repository.triton.model import read_triton_model
from repository.triton.pbtxt import NAME as PBTXT
from repository.versions import parse_version_folder

DEPTH = 3  # version / a folder inside / one more


class Unit(NamedTuple):
    """One thing in the repository that is, or claims to be, a model. `rel` is its path below the root."""

    rel: str
    kind: Literal["folder", "yaml", "file"]
    tree: Tree


def build_entry(root: Path, unit: Unit, schemas: Schemas | None) -> Built:
    """The models of one place below `root`, mostly one; whatever is wrong is said in its entry."""
    match unit.kind:
        case "folder":
            path, name = root / unit.rel, root.resolve().name if unit.rel == "." else unit.rel
            if is_hub_cache(unit.rel, unit.tree):
                message = "kept in the hub library's cache; `modelyard import huggingface` takes it over"
                problem = Problem(printable(str(path)), 0, 0, message)
                return Built((ModelEntry(unit_name(root, unit), path, "folder", problems=(problem,)),))
            if PBTXT in unit.tree.names and CONFIG not in unit.tree.names:
                return _triton_model(root, path, unit.tree, name=name, schemas=schemas)
            config_path = path / CONFIG if CONFIG in unit.tree.names else None
            loaded = load_config(config_path, schemas, root=root) if config_path else Loaded(ModelConfig())
            return EntryBuilder(
                root, path, unit.tree, name=name, loaded=loaded, config_path=config_path
            ).build()
        case "yaml":
            return _root_file(root, unit, schemas)
        case "file":
            return Built((_loose_file(root, unit),))


def overridden_entry(entry: ModelEntry, loaded: Loaded, *, path: Path, root: Path) -> ModelEntry:
    """`entry` with another configuration, and with the versions that are in the folder `path`."""
    tree = look_at(str(path), DEPTH) or Tree(error="cannot be read")
    if entry.kind == "yaml" and path == entry.path:
        file = EntryBuilder(root, path, Tree(), name=entry.name, loaded=loaded, config_path=None)
        return replace(file.build_file(), name=entry.name, aliases=entry.aliases)
    if entry.kind == "file" and path == entry.path:
        problems = loaded.problems or _unfit_for_a_file(loaded)
        return replace(entry, config=loaded.config, config_path=None, problems=problems)
    built = (
        EntryBuilder(root, path, tree, name=entry.name, loaded=loaded, config_path=None).build().entries[0]
    )
    return replace(built, name=entry.name, aliases=entry.aliases)


def _unfit_for_a_file(loaded: Loaded) -> tuple[Problem, ...]:
    if loaded.config is None or loaded.config.parameters.model is None:
        return ()
    message = "parameters.model: this model is a single file, which is its weights"
    return (Problem(OVERRIDES, 0, 0, message),)


def unit_name(root: Path, unit: Unit) -> str:
    """The name a unit has from its place on disk; the root's own where it is the model."""
    if unit.rel == ".":
        return printable(root.resolve().name)
    return printable(unit.rel if unit.kind == "folder" else pick.stem(unit.rel))


def is_hub_cache(rel: str, tree: Tree) -> bool:
    """A folder of the hub library's cache, in which names of weights stand for links to blobs."""
    return rel.rpartition("/")[2].startswith("models--") and tree.folder("snapshots") is not None


def _triton_model(root: Path, path: Path, tree: Tree, *, name: str, schemas: Schemas | None) -> Built:
    """A folder of a Triton repository: `config.pbtxt` and the vLLM backend's `model.json`."""
    versions = [number for each, _ in tree.folders if (number := parse_version_folder(each))]
    found = read_triton_model(path, versions)
    if found.problems:
        return Built((ModelEntry(printable(name), path, "folder", None, problems=found.problems),))
    loaded = load_values(found.values, printable(str(path / PBTXT)), schemas)
    folder = EntryBuilder(root, path, tree, name=name, loaded=loaded, config_path=None)
    folder.weights = found.weights
    folder.ignored += found.ignored
    return folder.build()


def _root_file(root: Path, unit: Unit, schemas: Schemas | None) -> Built:
    """The models of a YAML file at the root, one or a list of them, or why it is passed over."""
    path = root / unit.rel
    document = read_document(path)
    recognised = recognise(document, path)
    if recognised.reason:
        return Built((), ignored=(Problem(printable(str(path)), *_position(document), recognised.reason),))
    entries: list[ModelEntry] = []
    outside: dict[str, Tree | None] = {}
    for item, part in enumerate(recognised.items):
        loaded, name = load_document(part, str(path), schemas, folders=(root,)), unit_name(root, unit)
        if recognised.is_list and loaded.name is None:
            name = f"{name}-{item + 1}"
            problem = Problem(str(path), *_position(part), "a model in a list needs a `name`")
            loaded = replace(loaded, config=None, problems=(problem, *loaded.problems))
        file = EntryBuilder(root, path, unit.tree, name=name, loaded=loaded, config_path=path)
        entries.append(file.build_file(item if recognised.is_list else None))
        outside |= file.outside
    return Built(tuple(entries), tuple(outside.items()))


def _position(document: Document) -> tuple[int, int]:
    return (document.root.line, document.root.column) if document.root is not None else (0, 0)


def _loose_file(root: Path, unit: Unit) -> ModelEntry:
    path = root / unit.rel
    missing = pick.missing_parts([PurePosixPath(unit.rel).name], unit.tree.names)
    message = f"incomplete: {', '.join(missing[:5])} missing" if missing else dead_links(unit.tree)
    problem = Problem(printable(str(path)), 0, 0, message) if message else None
    version = VersionEntry(1, path, None if problem else path, fingerprint(unit.tree), problem)
    named = name_problem(pick.stem(unit.rel))
    problems = (Problem(printable(str(path)), 0, 0, named),) if named else ()
    return ModelEntry(unit_name(root, unit), path, "file", versions=(version,), problems=problems)
