"""exllamav2's own code on a processor. Its model, cache, pages and generator are the real ones; its kernels are those
of `instead/`, and PyTorch says that it has a GPU, whose memory is main memory. For half-precision weights only.

Importing this changes the process for good.
"""

import contextlib
import sys
from pathlib import Path
from typing import Any

import torch

GIB = 2**30


class _Torch:
    """PyTorch, but for devices: there is one."""

    def __getattr__(self, name: str) -> Any:
        return (lambda *_: "cpu") if name == "device" else getattr(torch, name)


def _pretend() -> None:
    sys.path.insert(0, str(Path(__file__).with_name("instead")))
    cuda: Any = torch.cuda
    for name in ("synchronize", "set_stream", "set_device", "empty_cache", "Stream"):
        setattr(cuda, name, lambda *_: None)
    for name in ("stream", "device"):
        setattr(cuda, name, lambda *_: contextlib.nullcontext())
    cuda.device_count = lambda: 1
    cuda.is_available = lambda: True
    cuda.memory_allocated = lambda *_: 0
    cuda.mem_get_info = lambda *_: (4 * GIB, 4 * GIB)
    cuda.get_device_name = lambda *_: "no GPU at all"
    cuda.get_device_capability = lambda *_: (9, 0)
    cuda.get_device_properties = lambda *_: type("Properties", (), {"major": 9})
    torch.version.cuda = "13.0"
    import exllamav2.device

    exllamav2.device.torch = _Torch()
    for module in [each for name, each in sys.modules.items() if name.startswith("exllamav2.")]:
        if hasattr(module, "_torch_device"):
            module._torch_device = lambda _: "cpu"
        if hasattr(module, "safe_move_tensor"):
            module.safe_move_tensor = lambda tensor, *_, **__: tensor


_pretend()

from backends.contract import EngineInfo, LoadRequest, Progress  # noqa: E402
from backends.exllamav2 import machine  # noqa: E402
from backends.exllamav2.engine import ExLlamaV2Engine  # noqa: E402

_installed = machine.installed


class Paged(ExLlamaV2Engine):
    """With flash-attn."""

    flash_attn: str | None = "2.8.3"

    def load(self, request: LoadRequest, progress: Progress) -> EngineInfo:
        own = {"flash-attn": self.flash_attn}
        machine.installed = lambda name: own[name] if name in own else _installed(name)
        return super().load(request, progress)


class Unpaged(Paged):
    """Without it."""

    flash_attn = None
