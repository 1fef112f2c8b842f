"""Models of an Ollama store: manifests name blobs by hash, one a layer: weights, template, parameters, licence.

What a template becomes is `ollama_template`'s.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from repository.importing.ollama_template import chat_template
from repository.importing.values import Importable, ImportProblem, SourceFile, source_file

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_LAYER = "application/vnd.ollama.image."
_MOST_BYTES = 4 << 20

_KEYS = {
    "num_ctx": "context_size",
    "num_gpu": "gpu_layers",
    "num_thread": "threads",
    "main_gpu": "main_gpu",
    "use_mmap": "mmap",
    "use_mlock": "mmlock",
    "numa": "numa",
    "stop": "stopwords",
}
_PARAMETERS = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "repeat_penalty": "repeat_penalty",
    "repeat_last_n": "repeat_last_n",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "seed": "seed",
    "num_predict": "max_tokens",
}


class _Layer(Struct, frozen=True, rename="camel"):
    media_type: str
    digest: str
    size: int = 0


class _Manifest(Struct, frozen=True, rename="camel"):
    config: _Layer
    layers: tuple[_Layer, ...] | None = None
    media_type: str = _MANIFEST


def find_models(folder: Path) -> Iterator[Importable]:
    """Every model that the store's manifests name. ImportProblem: there is no store."""
    manifests = folder / "manifests"
    if not manifests.is_dir():
        raise ImportProblem(f"{folder} is no Ollama store: it has no folder manifests; name the one that has")
    for path in sorted(manifests.rglob("*")):
        parts = path.relative_to(manifests).parts
        if any(part.startswith(".") for part in parts) or not path.is_file():
            continue
        if len(parts) < 3:
            problem = f"{path} lies where no manifest does: expected HOST/OWNER/MODEL/TAG"
            yield Importable(name=path.name, label="/".join(parts), problem=problem)
            continue
        name, label = _names(parts)
        try:
            yield _model(folder, path, name=name, label=label)
        except ImportProblem as problem:
            yield Importable(name=name, label=label, problem=str(problem))


def _names(parts: tuple[str, ...]) -> tuple[str, str]:
    """A model's name here, in which no colon may stand, and the one it has there."""
    _host, *places, tag = parts
    shown = places[1:] if places[0] == "library" and len(places) > 1 else places
    model = "/".join(shown[-2:])
    return (model if tag == "latest" else f"{model}-{tag}"), f"{'/'.join(shown)}:{tag}"


def _model(folder: Path, path: Path, *, name: str, label: str) -> Importable:
    manifest = _read_manifest(path)
    found = _Found(folder)
    for layer in manifest.layers or ():
        found.take(layer)
    about = _about(folder, manifest.config)
    if about.get("remote_model"):
        raise ImportProblem(f"it runs on {about.get('remote_host') or 'another host'}: no weights are here")
    if not found.files:
        raise ImportProblem("its manifest names no weights")
    return found.importable(name=name, label=label)


class _Found:
    """Gathers what the layers of one manifest come to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.files: list[SourceFile] = []
        self._adapters: list[str] = []
        self._texts: dict[str, str] = {}
        self._config: dict[str, Any] = {}
        self._parameters: dict[str, Any] = {}
        self._template = ""
        self._notes: list[str] = []

    def take(self, layer: _Layer) -> None:
        kind = layer.media_type.removeprefix(_LAYER)
        match kind:
            case "model":
                if self.files:
                    raise ImportProblem(
                        "its manifest names several files of weights, which are one model there"
                    )
                self.files.append(self._weights(layer, "model.gguf"))
            case "adapter":
                name = f"adapter-{len(self._adapters) + 1}.gguf"
                self._adapters.append(name)
                self.files.append(self._weights(layer, name))
            case "template" | "prompt":
                self._template = self._text(layer)
            case "system":
                self._config["system_prompt"] = self._text(layer)
            case "params":
                self._take_parameters(_decoded(self._text(layer), "its parameters"))
            case "license":
                count = sum(name.startswith("LICENSE") for name in self._texts)
                self._texts[f"LICENSE-{count + 1}" if count else "LICENSE"] = self._text(layer)
            case "projector":
                self._notes.append("its projector is left behind: prompts here are text, not pictures")
            case "messages":
                self._notes.append("the messages that its Modelfile puts before every chat are left behind")
            case "tensor":
                raise ImportProblem(
                    "its weights are single tensors, which only Ollama reads; a GGUF is needed"
                )
            case _:
                raise ImportProblem(f'its manifest has a layer of the unknown kind "{layer.media_type}"')

    def importable(self, *, name: str, label: str) -> Importable:
        config: dict[str, Any] = {}
        if self._adapters:
            config["lora_adapters"] = self._adapters
            self._parameters = {"model": "model.gguf", **self._parameters}
        if self._parameters:
            config["parameters"] = self._parameters
        config |= self._config
        if self._template:
            chosen = chat_template(self._template, weights=self.files[0].path)
            self._notes += chosen.notes
            if chosen.chat is not None:
                config["template"] = {"chat": chosen.chat}
        return Importable(
            name=name,
            label=label,
            files=tuple(self.files),
            texts=self._texts,
            config=config,
            notes=tuple(self._notes),
        )

    def _take_parameters(self, given: Mapping[str, Any]) -> None:
        for key, value in given.items():
            if key == "num_predict" and isinstance(value, int) and value < 1:
                continue  # no limit, as it is here
            if key in _KEYS:
                self._config[_KEYS[key]] = value
            elif key in _PARAMETERS:
                self._parameters[_PARAMETERS[key]] = value
            else:
                self._notes.append(f"its parameter {key} ({value}) is left behind: nothing here does that")

    def _weights(self, layer: _Layer, name: str) -> SourceFile:
        file = source_file(_blob(self._folder, layer), name)
        if layer.size and file.size != layer.size:
            raise ImportProblem(
                f"{file.path} has {file.size} of {layer.size} bytes: fetch it again with `ollama pull`"
            )
        with file.path.open("rb") as opened:
            if opened.read(4) != b"GGUF":
                raise ImportProblem(f"{file.path} is no GGUF file, so nothing here reads it")
        return file

    def _text(self, layer: _Layer) -> str:
        file = source_file(_blob(self._folder, layer))
        if file.size > _MOST_BYTES:
            raise ImportProblem(f"{file.path} is too large for a layer of text")
        return file.path.read_text(encoding="utf-8", errors="replace")


def _read_manifest(path: Path) -> _Manifest:
    try:
        data = path.read_bytes()
        manifest = msgspec.json.decode(data, type=_Manifest)
    except OSError as error:
        raise ImportProblem(f"{path} cannot be read: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise ImportProblem(f"{path} is no manifest: {error}") from error
    if manifest.media_type != _MANIFEST:
        raise ImportProblem(f'{path} is a manifest of the unknown kind "{manifest.media_type}"')
    return manifest


def _about(folder: Path, layer: _Layer) -> dict[str, Any]:
    try:
        return _decoded(source_file(_blob(folder, layer)).path.read_text(errors="replace"), "its description")
    except ImportProblem:
        return {}  # only who runs elsewhere says something there that matters here


def _blob(folder: Path, layer: _Layer) -> Path:
    kind, _, digest = layer.digest.partition(":")
    if kind != "sha256" or not digest.isalnum():
        raise ImportProblem(f'its manifest names a blob by "{layer.digest}", which is no SHA-256 hash')
    blobs = folder / "blobs"
    old = blobs / layer.digest
    return old if old.exists() else blobs / f"sha256-{digest}"


def _decoded(text: str, what: str) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ImportProblem(f"{what} are not readable as JSON: {error}") from error
    if isinstance(value, dict):
        return value
    raise ImportProblem(f"{what} are no JSON object")
