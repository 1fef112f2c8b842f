"""The GPTQ step engine: `backends.torch_lanes` over a model with quantised layers that `loading.py` reads."""

import importlib.metadata
from pathlib import Path

from backends.contract import LoadRequest
from backends.gptq.loading import load_model
from backends.torch_lanes.engine import Loaded, TorchEngine


class GptqEngine(TorchEngine):
    """See TorchEngine."""

    def load_model(self, request: LoadRequest, folder: Path) -> Loaded:
        return load_model(request, folder)

    def version(self) -> str:
        names = ("gptqmodel", "transformers", "torch")
        return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
