"""Where a model computes and in which number format, from the options that users know from LocalAI."""

import logging
from collections.abc import Mapping
from typing import Any

import torch

from backends.contract import LoadError, LoadRequest
from backends.gpus import check_gpu, gpu_number

logger = logging.getLogger(__name__)


def choose_device(request: LoadRequest, *, prefers: str = "cuda") -> Any:
    """The torch.device for `main_gpu`, `cuda` and `instance_group.kind`; unset, a GPU where there is one (of the kind
    that `prefers` names: cuda or xpu). Raises LoadError for a device that is not there."""
    value = request.options.get("main_gpu")
    named = "" if value is None else str(value).strip().lower()
    if "gpu_layers" in request.options:
        logger.warning("gpu_layers has no effect: all layers are on one device, which main_gpu names")
    if named in ("", "auto"):
        if request.device == "cpu":
            return torch.device("cpu")
        if request.device != "gpu" and not request.options.get("cuda"):
            return torch.device(prefers, 0) if _count(prefers) else torch.device("cpu")
        named = prefers
    if named == "cpu":
        if request.device == "gpu" or request.options.get("cuda"):
            raise LoadError(
                "main_gpu is cpu, and instance_group.kind or cuda asks for a GPU; set one of them"
            )
        return torch.device("cpu")
    if request.device == "cpu":
        raise LoadError(f"main_gpu is {named}, and instance_group.kind is cpu; set one of them")
    kind = "xpu" if named.startswith("xpu") else "cuda"
    number = gpu_number("gpu" if named == "xpu" else named) or 0
    if not _count(kind):
        raise LoadError(_missing(named, kind))
    check_gpu(number, there=_count(kind))
    return torch.device(kind, number)


def devices() -> tuple[str, ...]:
    """Every device that PyTorch can compute on here, as `main_gpu` names it."""
    gpus = [f"{kind}.{number}" for kind in ("cuda", "xpu") for number in range(_count(kind))]
    return ("cpu", *gpus)


def choose_dtype(options: Mapping[str, Any], device: Any) -> Any:
    """The torch.dtype of weights and states, or "auto" for that of the file. `f16` takes half the memory, as bfloat16
    where the device can; main memory is float32 without it, as half precision is no quicker there."""
    if options.get("f16"):
        has_brain_floats = device.type != "cuda" or torch.cuda.is_bf16_supported()
        return torch.bfloat16 if has_brain_floats else torch.float16
    if options.get("f16") is False or device.type == "cpu":
        return torch.float32
    return "auto"


def free_bytes(device: Any) -> int | None:
    """What a GPU has left, less a part that computing needs; None for main memory, which the server counts."""
    if device.type == "cpu":
        return None
    free, total = torch.get_device_module(device).mem_get_info(device)
    return max(0, int(free) - int(total) // 20)


def _count(kind: str) -> int:
    module = torch.cuda if kind == "cuda" else torch.xpu
    return int(module.device_count()) if module.is_available() else 0


def _missing(named: str, kind: str) -> str:
    if kind == "xpu":
        return (
            f"{named} is an Intel GPU, which needs its driver and PyTorch's build for it; PyTorch "
            f"{torch.__version__} sees none"
        )
    if torch.version.cuda is None:
        return (
            f"a GPU ({named}) is asked for, and PyTorch {torch.__version__} is not built for any; make the backend's "
            "environment anew on the machine with the GPU, or set main_gpu: cpu"
        )
    return f"a GPU ({named}) is asked for, and PyTorch sees none; set main_gpu: cpu, or leave it out"
