"""Which device a model runs on: `main_gpu` as OpenVINO writes devices, checked against those that are there. Pure."""

import re
from collections.abc import Sequence
from typing import Literal

from backends.contract import LoadError

CHOOSERS = ("AUTO", "MULTI", "HETERO", "BATCH")


def pick_device(
    main_gpu: int | str | None, available: Sequence[str], *, kind: Literal["auto", "cpu", "gpu"] = "auto"
) -> str:
    """The device to compile for. `kind` is what `instance_group.kind` demands.

    AUTO, with or without a list such as `AUTO:GPU,CPU` or `AUTO:-CPU`, becomes the first that is there, GPUs before
    the CPU, for continuous batching runs on one device only. Raises LoadError with what there is.
    """
    wanted = _text(main_gpu, kind)
    chooser, _, listed = wanted.partition(":")
    if chooser not in CHOOSERS:
        return _checked(wanted, available, kind)
    names = [name.strip() for name in listed.split(",") if name.strip()]
    if chooser == "AUTO":
        return _checked(_first(wanted, names, available, kind), available, kind)
    for name in names:
        _checked(re.sub(r"\(.*\)$", "", name), available, kind)
    return wanted


def _text(main_gpu: int | str | None, kind: str) -> str:
    match main_gpu:
        case None | "":
            return "AUTO:-CPU" if kind == "gpu" else "CPU"
        case int():
            return f"GPU.{main_gpu}"
    text = main_gpu.strip().upper()
    return f"GPU.{text}" if text.isdigit() else text


def _first(wanted: str, names: Sequence[str], available: Sequence[str], kind: str) -> str:
    banned = {name.removeprefix("-") for name in names if name.startswith("-")}
    listed = [name for name in names if not name.startswith("-")]
    order = listed or sorted(available, key=lambda name: (not name.startswith("GPU"), name != "CPU", name))
    allowed = [name for name in order if name not in banned and name.partition(".")[0] not in banned]
    if kind == "cpu":
        allowed = [name for name in allowed if name == "CPU"]
    for name in allowed:
        if _is_there(name, available):
            return name
    if kind == "gpu" and wanted == "AUTO:-CPU":
        raise LoadError(
            f"instance_group.kind is gpu, but OpenVINO has {_names(available)} here; set kind to auto or cpu, "
            "or install the GPU's driver"
        )
    raise LoadError(f"main_gpu {wanted} leaves no device: OpenVINO has {_names(available)} here")


def _checked(name: str, available: Sequence[str], kind: str) -> str:
    if not _is_there(name, available):
        raise LoadError(
            f"OpenVINO has no device {name} here; it has {_names(available)}; correct main_gpu in the model's "
            "config.yaml"
        )
    if kind == "gpu" and name == "CPU":
        raise LoadError("instance_group.kind is gpu, but main_gpu is CPU; remove one of the two")
    if kind == "cpu" and name != "CPU":
        raise LoadError(f"instance_group.kind is cpu, but main_gpu is {name}; remove one of the two")
    return name


def _is_there(name: str, available: Sequence[str]) -> bool:
    """One GPU alone is called GPU, and answers to GPU.0 too; of several, GPU is the first."""
    same = {"GPU": "GPU.0", "GPU.0": "GPU"}.get(name, name)
    return name in available or same in available


def _names(available: Sequence[str]) -> str:
    return ", ".join(available) or "none"
