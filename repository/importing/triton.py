"""Models of a Triton repository: those of its vLLM backend, whose `model.json` names the weights."""

from collections.abc import Iterator
from pathlib import Path

from repository.hub.reference import looks_like_reference
from repository.importing.values import Importable, ImportProblem, SourceFile, files_below, source_file
from repository.pick import parts_of
from repository.triton.model import read_triton_model
from repository.triton.pbtxt import NAME
from repository.versions import parse_version_folder


def find_models(folder: Path) -> Iterator[Importable]:
    """Every folder with a `config.pbtxt`. ImportProblem: there is none."""
    homes = sorted(path.parent for path in folder.glob(f"*/{NAME}"))
    if not homes:
        raise ImportProblem(f"{folder} is no Triton repository: no folder in it has a {NAME}")
    for home in homes:
        try:
            yield _model(folder, home)
        except ImportProblem as problem:
            yield Importable(name=home.name, label=home.name, problem=str(problem))


def _model(folder: Path, home: Path) -> Importable:
    versions = [number for path in home.iterdir() if (number := parse_version_folder(path.name))]
    found = read_triton_model(home, versions)
    if found.problems:
        raise ImportProblem("; ".join(map(str, found.problems)))
    newest = max(found.weights)
    notes = [str(each) for each in found.ignored]
    if len(versions) > 1:
        others = ", ".join(str(number) for number in sorted(versions) if number != newest)
        notes.append(f"{home}: version {newest} is imported; left behind: {others}")
    values = {key: value for key, value in found.values.items() if key != "version_policy"}
    named = found.weights[newest]
    files = _weights(folder, home, newest, named)
    if not files:
        values = {"parameters": {"model": named}, **values}
    return Importable(name=home.name, label=home.name, files=files, config=values, notes=tuple(notes))


def _weights(folder: Path, home: Path, version: int, named: str) -> tuple[SourceFile, ...]:
    """The files that `model` names; none where it is an id on a hub."""
    for base in (home / str(version), home, folder):
        path = base / named  # an absolute path stays what it is
        if path.is_dir():
            return files_below(path)
        if path.is_file():
            return tuple(source_file(path.with_name(part)) for part in parts_of(path.name))
    if looks_like_reference(named) and not Path(named).is_absolute():
        return ()
    raise ImportProblem(
        f'{home / str(version) / "model.json"}: there is no "{named}" here; a path in a container stands for '
        "another one outside"
    )
