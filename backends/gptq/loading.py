"""From a GPTQ checkpoint to a transformers model whose linear layers are GPT-QModel's.

Checkpoints that AutoGPTQ wrote name their weights as they like and say in `quantize_config.json` how they were made:
they are read through a folder of links in the form of today.
"""

import contextlib
import importlib.util
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import transformers

from backends.contract import LoadError, LoadRequest
from backends.torch_lanes.devices import choose_device, choose_dtype
from backends.torch_lanes.engine import Loaded, check_memory
from backends.torch_lanes.folder import read_json

SETTINGS = "quantize_config.json"
SUFFIXES = (".safetensors", ".bin", ".pt")


def load_model(request: LoadRequest, folder: Path) -> Loaded:
    """Read the checkpoint as the options say. Raises LoadError, and what transformers raises."""
    options = {**request.options, **request.options.get("autogptq", {})}
    named = {"main_gpu": options["device"].replace(":", ".")} if "device" in options else {}
    device = choose_device(msgspec.structs.replace(request, options={**named, **options}))
    if device.type not in ("cpu", "cuda"):
        raise LoadError(f"GPTQ models run on CPUs and CUDA GPUs, not on {device}")
    wants_triton = bool(options.get("triton") or options.get("use_triton"))
    if wants_triton and device.type != "cuda":
        raise LoadError("use_triton needs a CUDA GPU, and this model runs on the CPU; leave it out")
    weights = _weights(folder, options.get("model_base_name"))
    check_memory(request, device, sum(file.stat().st_size for file in weights))
    _check_packages()
    stored = _settings(folder)
    _be_modest()
    with _as_written_today(folder, weights, stored) as source:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            source,
            dtype=choose_dtype(options, device),
            device_map={"": device},
            local_files_only=True,
            trust_remote_code=bool(options.get("trust_remote_code")),
            quantization_config=transformers.GPTQConfig(
                bits=int(stored.get("bits", 4)), backend="triton" if wants_triton else "auto"
            ),
        )
    layers = {type(module).__name__ for module in model.modules() if hasattr(module, "qweight")}
    described = f"{type(model).__name__} {stored.get('bits', 4)} bit, {', '.join(sorted(layers))} {device}"
    return Loaded(model=model, is_exact=False, description=described)


def _weights(folder: Path, base_name: str | None) -> list[Path]:
    """The files to read: those of `model_base_name`, or what transformers would find, or the only ones."""
    if base_name is not None:
        found = [folder / f"{base_name}{suffix}" for suffix in SUFFIXES]
        found = [path for path in found if path.is_file()] or sorted(folder.glob(f"{base_name}-*-of-*"))
        if not found:
            there = ", ".join(path.stem for path in _all_weights(folder)) or "none"
            raise LoadError(f"model_base_name: {folder} has no {base_name}.safetensors; there are {there}")
        return found[:1] if found[0].stem == base_name else found
    files = _all_weights(folder)
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if (folder / "model.safetensors.index.json").is_file() or len(files) == 1:
        return files
    names = ", ".join(path.stem for path in files)
    raise LoadError(f"{folder} has several weight files ({names}); set model_base_name to the one to load")


def _all_weights(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)


def _settings(folder: Path) -> dict[str, Any]:
    """How the weights were quantised. Raises LoadError where nothing says it, or it was not by GPTQ."""
    inner = read_json(folder / "config.json").get("quantization_config")
    stored = inner if isinstance(inner, dict) else read_json(folder / SETTINGS)
    if not stored:
        raise LoadError(
            f"{folder} is not quantised: neither config.json nor {SETTINGS} says how; use `backend: transformers`"
        )
    method = stored.get("quant_method", "gptq")
    if method != "gptq":
        raise LoadError(f"{folder} is quantised by {method}, not by GPTQ")
    if stored.get("bits", 4) not in (2, 3, 4, 8):
        raise LoadError(f"{folder} has {stored.get('bits')} bits; GPTQ has 2, 3, 4 or 8")
    return stored


@contextlib.contextmanager
def _as_written_today(folder: Path, weights: list[Path], stored: Mapping[str, Any]) -> Iterator[Path]:
    """`folder`, or while it is needed one of links to it with the names and settings that transformers wants."""
    config = read_json(folder / "config.json")
    is_single = len(weights) == 1
    if "quantization_config" in config and (not is_single or weights[0].stem == "model"):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="modelyard-gptq-") as name:
        view = Path(name)
        for file in folder.iterdir():
            if file.suffix not in (*SUFFIXES, ".json") or file.name.startswith("generation"):
                (view / file.name).symlink_to(file.resolve())
        for file in weights:
            plain = "model" if file.suffix == ".safetensors" else "pytorch_model"
            target = f"{plain}{'.safetensors' if plain == 'model' else '.bin'}" if is_single else file.name
            (view / target).symlink_to(file.resolve())
        for file in folder.glob("*.index.json"):
            if not is_single:
                (view / file.name).symlink_to(file.resolve())
        settings = {"quant_method": "gptq", **stored}
        (view / "config.json").write_bytes(msgspec.json.encode({**config, "quantization_config": settings}))
        yield view


def _check_packages() -> None:
    for name in ("gptqmodel", "optimum"):
        if importlib.util.find_spec(name) is None:
            raise LoadError(
                f"GPTQ models need the package {name}, which is missing; `modelyard env create gptq` makes an "
                "environment with it"
            )


def _be_modest() -> None:
    """GPT-QModel wants more workers for loading than a machine of two cores has, unless it is told a number."""
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", str(max(2, os.cpu_count() or 1)))
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
