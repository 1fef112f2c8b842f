"""What an RWKV checkpoint says of itself: version and sizes, from its tensors' names and shapes.

The file is mapped, not read, so that a look costs nothing.
"""

import pickle
from pathlib import Path
from typing import Any

import msgspec
import torch

from backends.contract import LoadError

SUFFIX = ".pth"
GGML_ERA = (b"lmgg", b"fmgg", b"tjgg", b"GGUF")


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """`version` counts the generations as the rwkv package does: 4, 5, 5.1, 5.2, 6 and 7. `quantised`: the package
    has converted it for one strategy."""

    path: Path
    version: float
    layers: int
    width: int
    vocabulary: int
    parameters: int
    quantised: bool = False

    @property
    def generation(self) -> int:
        return int(self.version)


def find_file(weights: str) -> Path:
    """The .pth to load: `weights` itself, or the only one in that folder. Raises LoadError."""
    path = Path(weights)
    if path.is_dir():
        found = sorted(path.glob(f"*{SUFFIX}"))
        if len(found) != 1:
            names = ", ".join(each.name for each in found) or "none"
            raise LoadError(
                f"{path} should hold one {SUFFIX} model, found: {names}; name one in parameters.model"
            )
        path = found[0]
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise LoadError(f"cannot read {path}: {error.strerror}") from error
    if magic in GGML_ERA:
        raise LoadError(
            f"{path} is a file for rwkv.cpp or llama.cpp, and the rwkv package reads {SUFFIX}; get the model as "
            f"{SUFFIX}, or as GGUF with `backend: llamacpp`"
        )
    if magic == b"vers":
        raise LoadError(f"{path} is a Git LFS pointer, not the weights; run `git lfs pull` in its folder")
    if path.suffix != SUFFIX:
        raise LoadError(f"{path} is no {SUFFIX} file, and the rwkv package reads nothing else")
    return path


def read_checkpoint(path: Path) -> Checkpoint:
    """Raises LoadError where `path` is not an RWKV model."""
    tensors = _mapped(path)
    shapes = {name: tuple(one.shape) for name, one in tensors.items() if isinstance(one, torch.Tensor)}
    if not {"emb.weight", "head.weight", "blocks.0.ln1.weight"} <= shapes.keys():
        some = ", ".join(list(map(str, tensors))[:3]) or "nothing"
        raise LoadError(f"{path} is not an RWKV model; it has no emb.weight and blocks.0, but {some}")
    if any(".s_emb" in name for name in shapes):
        raise LoadError(f"{path} is a DeepEmbed variant of RWKV-7, which is not served")
    layers = 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("blocks."))
    return Checkpoint(
        path=path,
        version=_version(shapes),
        layers=layers,
        width=shapes["emb.weight"][1],
        vocabulary=shapes["emb.weight"][0],
        parameters=sum(one.numel() for one in tensors.values() if isinstance(one, torch.Tensor)),
        quantised="_strategy" in tensors,
    )


def _mapped(path: Path) -> dict[str, Any]:
    try:
        found = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise LoadError(f"{path} is not a PyTorch checkpoint, or is damaged: {reason}") from error
    except OSError as error:
        raise LoadError(f"cannot read {path}: {error.strerror}") from error
    if not isinstance(found, dict):
        raise LoadError(f"{path} is not an RWKV model; it holds a {type(found).__name__}, not named tensors")
    return found


def _version(shapes: dict[str, tuple[int, ...]]) -> float:
    att = "blocks.0.att."
    if f"{att}r_k" in shapes:
        return 7.0
    if any("time_maa" in name for name in shapes):
        return 6.0
    if f"{att}ln_x.weight" not in shapes:
        return 4.0
    decay = shapes.get(f"{att}time_decay", ())
    if len(decay) > 1 and decay[1] > 1:
        return 5.2
    return 5.1 if f"{att}gate.weight" in shapes else 5.0
