"""The GPUs that this build of llama.cpp computes on. llama-cpp-python has no names for these functions of ggml."""

import ctypes
from typing import Any

from llama_cpp import llama_cpp as ll

from backends.gpus import check_gpu, gpu_number

_GPU, _INTEGRATED = 1, 2


def count_gpus() -> int:
    """How many there are; integrated ones count where there is no other, as llama.cpp has it."""
    library: Any = ll._lib
    library.ggml_backend_dev_count.restype = ctypes.c_size_t
    library.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    library.ggml_backend_dev_get.restype = ctypes.c_void_p
    library.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    devices = [library.ggml_backend_dev_get(at) for at in range(library.ggml_backend_dev_count())]
    kinds = [library.ggml_backend_dev_type(device) for device in devices]
    return kinds.count(_GPU) or kinds.count(_INTEGRATED)


def check_main_gpu(value: object, *, there: int) -> None:
    """Raises LoadError where `main_gpu` names a GPU that is none of the `there` ones. A plain 0 is what llama.cpp means
    by default, so it asks for nothing."""
    if value in (None, "", 0, "0"):
        return
    number = gpu_number(value)
    if number is not None:
        check_gpu(number, there=there)
