"""What exllamav2 needs of its machine: NVIDIA GPUs, PyTorch built for them, and, to compile its extension once, a CUDA
toolkit. Found out before exllamav2 is imported, which would start compiling. Knows no model.
"""

import contextlib
import fcntl
import importlib.util
import logging
import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

from backends.contract import LoadError
from backends.gpus import check_gpu

logger = logging.getLogger(__name__)

CREATE = "modelyard env create exllamav2 --device cuda"
VISIBLE = "CUDA_VISIBLE_DEVICES"
PAGED_FLASH_ATTN = (2, 5, 7)
AMPERE = (8, 0)
_EXTENSION = "exllamav2_ext"


class Gpu(msgspec.Struct, frozen=True):
    """One that this process sees. `capability` is its compute capability."""

    name: str
    capability: tuple[int, int]
    free_bytes: int


class Paging(msgspec.Struct, frozen=True):
    """Whether the generator can run several sequences at once; `why_not` in words for the log."""

    is_there: bool
    why_not: str = ""


def installed(distribution: str) -> str | None:
    """The version of a distribution in this environment."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def require_package() -> str:
    """exllamav2's version. Raises LoadError where it is not installed."""
    found = installed("exllamav2")
    if found is None:
        raise LoadError(f"exllamav2 is not installed in {sys.prefix}; run `{CREATE}`")
    return found


def import_torch() -> Any:
    """The torch module, built for CUDA. Raises LoadError."""
    try:
        import torch
    except (ImportError, OSError) as error:
        raise LoadError(
            f"exllamav2 needs PyTorch built for CUDA, and there is none in {sys.prefix}; run `{CREATE}`"
        ) from error
    if torch.version.cuda is None:
        raise LoadError(
            f"exllamav2 computes on NVIDIA GPUs only, and PyTorch {torch.__version__} here is not built for them; "
            f"on a machine with one run `{CREATE}`"
        )
    return torch


def select_gpus(torch: Any, main_gpu: int | None) -> tuple[Gpu, ...]:
    """The GPUs that this process is to use, all that it sees unless `main_gpu` names one. Raises LoadError where there
    is none, or not that one."""
    there = torch.cuda.device_count()  # told by the driver: CUDA itself has not looked at its environment yet
    if there and main_gpu is not None:
        check_gpu(main_gpu, there=there)
        os.environ[VISIBLE] = only_gpu(main_gpu, visible=os.environ.get(VISIBLE))
    if not there or not torch.cuda.is_available():
        raise LoadError(
            "exllamav2 computes on NVIDIA GPUs only, and none can be used here; `nvidia-smi` should list one, "
            f"and {VISIBLE} must not hide it"
        )
    return tuple(_gpu(torch, number) for number in range(torch.cuda.device_count()))


def only_gpu(number: int, *, visible: str | None) -> str:
    """CUDA_VISIBLE_DEVICES that leaves one GPU, by its number among those that `visible`, the value so far, shows."""
    return str(number) if visible is None else visible.split(",")[number].strip()


def paging(flash_attn: str | None, gpus: tuple[Gpu, ...]) -> Paging:
    """`flash_attn` is the version of the package of that name, None where it is not installed."""
    if flash_attn is None:
        return Paging(False, "flash-attn 2.5.7 or newer is not installed")
    numbers = tuple(int(part) for part in flash_attn.split("+")[0].split(".")[:3] if part.isdigit())
    if numbers < PAGED_FLASH_ATTN:
        return Paging(False, f"flash-attn {flash_attn} is older than 2.5.7")
    old = next((gpu for gpu in gpus if gpu.capability < AMPERE), None)
    return Paging(True) if old is None else Paging(False, f"flash-attn does not run on {old.name}")


def build_environment(known: Mapping[str, str], *, prefix: Path, packages: Path) -> dict[str, str]:
    """The variables under which the extension is compiled and found again; what `known` has is left alone.

    The compiled extension is kept in the Python environment at `prefix`, so that it is compiled once and goes with it.
    Headers that a CUDA toolkit may lack come from NVIDIA's wheels under `packages`.
    """
    added: dict[str, str] = {}
    if "TORCH_EXTENSIONS_DIR" not in known:
        added["TORCH_EXTENSIONS_DIR"] = str(prefix / "torch_extensions")
    programs = str(prefix / "bin")  # ninja is there
    paths = known.get("PATH", os.defpath).split(os.pathsep)
    if programs not in paths:
        added["PATH"] = os.pathsep.join([programs, *paths])
    headers = [str(path) for path in sorted(packages.glob("nvidia/cu1*/include"))]
    if headers:
        before = [known["CPATH"]] if known.get("CPATH") else []
        added["CPATH"] = os.pathsep.join([*before, *headers])
    return added


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Hold this while exllamav2 is imported. One process compiles and the others wait for it; what one that was killed
    has left half done is gone on with. Raises LoadError where there is nothing to compile with."""
    if is_ready_made():
        yield  # installed ready-made
        return
    packages = Path(sysconfig.get_path("purelib"))
    os.environ.update(build_environment(os.environ, prefix=Path(sys.prefix), packages=packages))
    require_extension()
    folder = Path(os.environ["TORCH_EXTENSIONS_DIR"]) / _EXTENSION
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder.parent / f"{_EXTENSION}.lock").open("w")
    except OSError as error:
        raise LoadError(
            f"exllamav2 keeps its compiled extension in {folder}, which cannot be written: {error.strerror}; "
            "set TORCH_EXTENSIONS_DIR to a folder that can"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # given back by the system however this process ends
        if not (folder / f"{_EXTENSION}.so").exists():
            logger.info("compiling exllamav2's extension into %s; this takes minutes, once", folder)
        # PyTorch would wait for ever for the lock of a dead process.
        (folder / "lock").unlink(missing_ok=True)
        yield


def is_ready_made() -> bool:
    """Whether the extension is installed as a package of its own."""
    return importlib.util.find_spec(_EXTENSION) is not None


def require_extension() -> None:
    """Raises LoadError where the extension is not installed ready-made and cannot be compiled. PyTorch asks for the
    tools even where it has compiled it before."""
    if is_ready_made():
        return
    from torch.utils import cpp_extension

    if cpp_extension.CUDA_HOME is None:
        raise LoadError(
            "exllamav2 compiles an extension when it is first loaded, and there is no CUDA toolkit to do it with; "
            "install the one that fits PyTorch (it brings nvcc), and set CUDA_HOME to its folder"
        )
    if shutil.which((os.environ.get("CXX") or "c++").split()[0]) is None:
        raise LoadError(
            "exllamav2 compiles an extension when it is first loaded, which needs a C++ compiler; install g++"
        )


def _gpu(torch: Any, number: int) -> Gpu:
    free, _ = torch.cuda.mem_get_info(number)
    return Gpu(torch.cuda.get_device_name(number), tuple(torch.cuda.get_device_capability(number)), free)
