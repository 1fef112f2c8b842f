"""Which of a folder's files are the weights, told from names alone. Pure."""

import re
from collections.abc import Sequence

from msgspec import Struct

_PART = re.compile(r"(?P<stem>.+)-(?P<part>[0-9]{5})-of-(?P<total>[0-9]{5})\.(?P<suffix>gguf|safetensors)\Z")
_SINGLE = (".pth", ".pt", ".bin", ".ggml", ".safetensors")
_OPENVINO = "openvino_model.xml"
_UNFINISHED = (".incomplete", ".part", ".tmp")


class Pick(Struct, frozen=True):
    """`name` is the file to load ("" for the folder as a whole), or None; then `message` says why."""

    name: str | None
    message: str = ""


def pick_weights(names: Sequence[str]) -> Pick:
    """The one thing in a folder that is its weights: a GGUF, its first part, or a Hugging Face folder."""
    ggufs = [name for name in names if name.lower().endswith(".gguf")]
    heads = first_parts(ggufs)
    if len(heads) > 1:  # a multimodal projector lies beside the model that it belongs to
        heads = [name for name in heads if not is_projector(name)] or heads
    if len(heads) > 1:
        return Pick(None, f"several GGUF files ({_listed(heads)}); name one in parameters.model")
    tensors = [name for name in names if name.endswith(".safetensors")]
    if missing := missing_parts(heads or tensors, names):
        return Pick(None, f"incomplete: {_listed(missing)} missing")
    if heads:
        return Pick(heads[0])
    if _OPENVINO in names or ("config.json" in names and is_checkpoint(names)):
        return Pick("")
    singles = [name for name in names if name.lower().endswith(_SINGLE)]
    if len(singles) == 1:
        return Pick(singles[0])
    if singles:
        return Pick(
            None,
            f"several weight files ({_listed(singles)}) and no config.json; name one in parameters.model",
        )
    return Pick(None, f"no weights; found {_listed(names)}" if names else "no weights; the folder is empty")


def is_checkpoint(names: Sequence[str]) -> bool:
    """True where tensors lie as in a Hugging Face folder: loaded together, with the files beside them."""
    return any(
        name.endswith(".safetensors")
        or (name.startswith("pytorch_model") and name.endswith(".bin"))
        or name == _OPENVINO
        for name in names
    )


def holds_weights(names: Sequence[str]) -> bool:
    """True when something in the folder is, or looks like, weights."""
    return any(name.lower().endswith((".gguf", *_SINGLE)) or name == _OPENVINO for name in names)


def is_projector(name: str) -> bool:
    """True for the part of a multimodal model that reads pictures."""
    return "mmproj" in name.lower()


def first_parts(names: Sequence[str]) -> list[str]:
    """The names, each split file standing once, as its first part."""
    heads: dict[str, None] = {}
    for name in names:
        part = _PART.match(name)
        heads[f"{part['stem']}-00001-of-{part['total']}.{part['suffix']}" if part else name] = None
    return list(heads)


def missing_parts(some: Sequence[str], names: Sequence[str]) -> list[str]:
    """Parts that the split files among `some` promise and that are not among `names`."""
    promised: dict[str, None] = {}
    for name in some:
        if part := _PART.match(name):
            for number in range(1, min(int(part["total"]), 999) + 1):
                promised[f"{part['stem']}-{number:05}-of-{part['total']}.{part['suffix']}"] = None
    return [name for name in promised if name not in names]


def parts_of(name: str) -> list[str]:
    """All files of a model whose first or only file is `name`."""
    return [name, *(each for each in missing_parts([name], [name]))]


def stem(name: str) -> str:
    """A weight file's name as a model's name: without suffix and part number."""
    part = _PART.match(name)
    return part["stem"] if part else name.rpartition(".")[0]


def unfinished(names: Sequence[str]) -> str | None:
    """A file that tells that a copy or download is still going on."""
    return next((name for name in names if name.endswith(_UNFINISHED)), None)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
