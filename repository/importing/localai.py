"""Models of a LocalAI folder: each of its YAML files, in its own words, with weights and templates brought along.

What the words mean is `repository.localai`'s, which reads a `config.yaml` too.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from repository.document import Document, read_document
from repository.hub.reference import looks_like_reference
from repository.importing.values import Importable, ImportProblem, SourceFile, files_below, source_file
from repository.localai.recognition import recognise
from repository.pick import first_parts, is_projector, parts_of, stem

_TEMPLATE = ".tmpl"
_BESIDE = (".tokenizer.json",)
"""Endings of files that belong to the weights beside them, by name."""

_FILES = ("lora_adapter", "lora_adapters")
"""Keys that name files below the models folder, besides the weights."""


def find_models(folder: Path) -> Iterator[Importable]:
    """The models of its YAML files, then the GGUFs that none of them names. ImportProblem: there is no folder."""
    if not folder.is_dir():
        raise ImportProblem(f"{folder} is no folder")
    taken: set[Path] = set()
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        if path.name.startswith("."):
            continue
        found = recognise(read_document(path), path)
        for item in found.items:
            model = _model(folder, path, item)
            taken |= {file.path for file in model.files}
            yield model
    names = sorted(path.name for path in folder.iterdir() if path.suffix.lower() == ".gguf")
    for head in first_parts([name for name in names if not is_projector(name)]):
        if (folder / head).resolve() not in taken:
            yield _bare(folder / head)


def _bare(path: Path) -> Importable:
    try:
        files = tuple(source_file(path.with_name(part)) for part in parts_of(path.name))
    except ImportProblem as problem:
        return Importable(name=stem(path.name), label=path.name, problem=str(problem))
    return Importable(name=stem(path.name), label=path.name, files=files)


def _model(folder: Path, path: Path, item: Document) -> Importable:
    values: Any = item.root.plain() if item.root is not None else None
    name = values.get("name") if isinstance(values, dict) else None
    name = name if isinstance(name, str) and name else path.stem
    try:
        if item.problems:
            raise ImportProblem("; ".join(map(str, item.problems)))
        if not isinstance(values, dict):
            raise ImportProblem("it is no mapping")
        config = {key: value for key, value in values.items() if key != "name"}
        _inline_templates(folder, config)
        files = _weights(folder, config)
        return Importable(name=name, label=path.name, files=files, config=config)
    except ImportProblem as problem:
        return Importable(name=name, label=path.name, problem=str(problem))


def _inline_templates(folder: Path, config: dict[str, Any]) -> None:
    """Templates that are names of files become their text."""
    template = config.get("template")
    if not isinstance(template, Mapping):
        return
    config["template"] = {
        key: path.read_text(encoding="utf-8", errors="replace")
        if isinstance(text, str) and (path := _template_file(folder, text))
        else text
        for key, text in template.items()
    }


def _template_file(folder: Path, text: str) -> Path | None:
    if not text or "\n" in text or "{" in text:
        return None
    named = folder / text
    path = named if named.suffix == _TEMPLATE else named.with_name(named.name + _TEMPLATE)
    return path if os.path.isfile(path) else None  # noqa: PTH113  a name too long for a file is none


def _weights(folder: Path, config: dict[str, Any]) -> tuple[SourceFile, ...]:
    """The files that a model needs; `config` then names them as they will lie. None: its weights are on a hub."""
    given = config.get("parameters")
    parameters: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
    named = parameters.get("model")
    if not isinstance(named, str) or not named:
        return ()
    path = folder / named
    if path.is_dir():
        config["parameters"] = {key: value for key, value in parameters.items() if key != "model"}
        return files_below(path)
    if not path.exists() and not path.is_symlink():
        if looks_like_reference(named) or "://" in named or config.get("download_files"):
            return ()
        raise ImportProblem(f"{path}, its weights, is not there")
    files = [source_file(path.with_name(part)) for part in parts_of(path.name)]
    files += [source_file(beside) for end in _BESIDE if (beside := path.with_name(path.name + end)).exists()]
    config["parameters"] = {**parameters, "model": path.name}
    for key in _FILES:
        if key in config:
            config[key], brought = _brought(folder, config[key])
            files += brought
    if isinstance(wanted := config.get("download_files"), list):
        config["download_files"] = [each for each in wanted if not _is_here(folder, each, files)]
        if not config["download_files"]:
            del config["download_files"]
    return tuple({file.name: file for file in files}.values())


def _brought(folder: Path, value: Any) -> tuple[Any, list[SourceFile]]:
    """Files that a key names, and the value that names them beside the weights."""
    if isinstance(value, str) and (folder / value).is_file():
        file = source_file(folder / value)
        return file.name, [file]
    if isinstance(value, list):
        pairs = [_brought(folder, each) for each in value]
        return [each for each, _ in pairs], [file for _, files in pairs for file in files]
    return value, []


def _is_here(folder: Path, wanted: Any, files: list[SourceFile]) -> bool:
    name = wanted.get("filename") if isinstance(wanted, Mapping) else None
    return isinstance(name, str) and (folder / name).resolve() in [file.path for file in files]
