"""Which device vLLM computes on. Its build knows either CPUs or GPUs; `main_gpu` picks one of several GPUs."""

import os
from typing import Any

from backends.contract import LoadError, LoadRequest
from backends.gpus import check_gpu, gpu_number
from backends.vllm.arguments import Device, is_split

VISIBLE = "CUDA_VISIBLE_DEVICES"


def choose_device(request: LoadRequest, platform: Any, torch: Any) -> Device:
    """The kind of device that `platform`, vLLM's current one, computes on. Leaves only the GPU that `main_gpu` names
    to be seen. Raises LoadError where the configuration asks for another device."""
    named = request.options.get("main_gpu")
    number = gpu_number(named)
    if platform.is_cpu():
        if request.device == "gpu" or (named not in (None, "") and number is not None):
            asked = "instance_group.kind is gpu" if request.device == "gpu" else f"main_gpu is {named}"
            raise LoadError(
                f"{asked}, and the vLLM of this environment is the build for CPUs; make the environment on a machine "
                "with a GPU (`modelyard env create vllm`), or remove the key"
            )
        return "cpu"
    if request.device == "cpu" or number is None:
        asked = "instance_group.kind is cpu" if request.device == "cpu" else "main_gpu is cpu"
        raise LoadError(
            f"{asked}, and the vLLM of this environment is the build for GPUs; set `backend: transformers`, or remove "
            "the key"
        )
    there = torch.cuda.device_count()
    check_gpu(number, there=there)
    if named not in (None, "") and not is_split(request.options):
        visible = os.environ.get(VISIBLE)
        names = visible.split(",") if visible else [str(one) for one in range(there)]
        os.environ[VISIBLE] = names[number]
    return "gpu"
