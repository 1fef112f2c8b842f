"""A Hugging Face model folder before its weights are loaded, and sentences for what goes wrong while they are."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch

from backends.contract import LoadError

WEIGHTS = (".safetensors", ".bin", ".pt")


def find_folder(weights: str) -> Path:
    """The folder that holds the model. Raises LoadError where it lacks what every model has."""
    path = Path(weights)
    folder = path.parent if path.is_file() else path
    if not folder.is_dir():
        raise LoadError(f"there is no folder {folder}")
    if not (folder / "config.json").is_file():
        raise LoadError(f"{folder} has no config.json; copy the whole model folder")
    if not any(file.suffix in WEIGHTS for file in folder.iterdir()):
        raise LoadError(f"{folder} has no weights (*.safetensors or *.bin); copy them there")
    return folder


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; empty where there is no file. Raises LoadError for one that cannot be read."""
    try:
        value = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise LoadError(f"{path} cannot be read: {error}; copy or download it again") from error
    if not isinstance(value, dict):
        raise LoadError(f"{path} does not hold a JSON object; copy or download it again")
    return value


def architecture(config: Mapping[str, Any]) -> str:
    """The class that made the weights, as `config.json` names it, or nothing."""
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else ""


def weights_bytes(folder: Path) -> int:
    """Of the weight files that a load reads."""
    for suffix in WEIGHTS:
        sizes = [file.stat().st_size for file in folder.iterdir() if file.suffix == suffix]
        if sizes:
            return sum(sizes)
    return 0


@contextlib.contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turns what loading raises into a LoadError with a sentence to act on."""
    try:
        yield
    except LoadError:
        raise
    except torch.OutOfMemoryError as error:
        raise LoadError(
            "the GPU has too little memory for these weights; set f16 or a quantization, or free the GPU"
        ) from error
    except MemoryError as error:
        raise LoadError("there is not enough memory to load the weights") from error
    except ImportError as error:
        raise LoadError(f"a package that these weights need is missing: {_first_line(error)}") from error
    except Exception as error:  # a boundary: many libraries read these files
        raise LoadError(_sentence(folder, error)) from error


def _sentence(folder: Path, error: Exception) -> str:
    text = _first_line(error)
    whole = str(error)
    if "trust_remote_code" in whole:
        return (
            f"{folder} comes with code of its own, which runs only with `trust_remote_code: true` in the model's "
            "config.yaml and --allow-remote-code on the server"
        )
    if "does not recognize this architecture" in whole or "Unrecognized model" in whole:
        return f"transformers does not know this model's architecture ({text}); a newer release may"
    if "Unrecognized configuration class" in whole:
        return f"this model is no causal language model ({text}); leave out `type`, or set it to AutoModel"
    if type(error).__name__ == "SafetensorError":
        return f"the weights in {folder} are damaged or not complete ({text}); copy or download them again"
    if "DefaultCPUAllocator" in whole or "not enough memory" in whole:
        return "there is not enough memory to load the weights"
    return f"the weights in {folder} cannot be loaded: {type(error).__name__}: {text}"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
