"""The transformers step engine: `backends.torch_lanes` over a model that `loading.py` reads."""

import importlib.metadata
from pathlib import Path

from backends.contract import LoadRequest
from backends.torch_lanes.engine import Loaded, TorchEngine
from backends.transformers.loading import load_model


class TransformersEngine(TorchEngine):
    """See TorchEngine."""

    def load_model(self, request: LoadRequest, folder: Path) -> Loaded:
        return load_model(request, folder)

    def version(self) -> str:
        names = ("transformers", "torch")
        return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
