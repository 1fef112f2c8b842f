"""Models of LM Studio's folder: publisher / repository / files."""

from collections.abc import Iterator
from pathlib import Path

from repository.importing.values import Importable, ImportProblem, files_below, source_file
from repository.pick import (
    first_parts,
    is_checkpoint,
    is_projector,
    missing_parts,
    parts_of,
    stem,
    unfinished,
)


def find_models(folder: Path) -> Iterator[Importable]:
    """Each GGUF, split files as one, and each checkpoint. ImportProblem: there is no such folder."""
    if not folder.is_dir():
        raise ImportProblem(f"{folder} is no folder; name the one that LM Studio keeps its models in")
    for repo in sorted({path.parent for path in folder.rglob("*") if _is_weights(path, folder)}):
        names = [path.name for path in repo.iterdir() if not path.name.startswith(".")]
        if is_checkpoint(names) and "config.json" in names:
            yield _checked(repo.name, repo, names, [])
            continue
        ggufs = [name for name in names if name.lower().endswith(".gguf")]
        heads = sorted(first_parts([name for name in ggufs if not is_projector(name)]))
        for head in heads:
            yield _checked(stem(head), repo / head, names, [name for name in ggufs if is_projector(name)])


def _is_weights(path: Path, folder: Path) -> bool:
    parts = path.relative_to(folder).parts
    return path.suffix.lower() in (".gguf", ".safetensors") and not any(
        part.startswith(".") for part in parts
    )


def _checked(name: str, path: Path, names: list[str], projectors: list[str]) -> Importable:
    """`path` is a GGUF, or the folder of a checkpoint."""
    publisher = (path if path.is_dir() else path.parent).parent.name
    label = f"{publisher}/{path.name}"
    try:
        if half := unfinished(names):
            raise ImportProblem(f"{path.parent / half} is still being downloaded")
        if path.is_dir():
            return Importable(name=name, label=label, files=files_below(path))
        if missing := missing_parts([path.name], names):
            raise ImportProblem(f"{path} is incomplete: {', '.join(missing[:5])} missing")
        files = tuple(source_file(path.with_name(part)) for part in parts_of(path.name))
    except ImportProblem as problem:
        return Importable(name=name, label=label, problem=str(problem))
    left = f"{', '.join(projectors)} left behind: prompts here are text, not pictures"
    return Importable(name=name, label=label, files=files, notes=(left,) if projectors else ())
