"""What this Python environment has of the GPTQ plugin."""

import importlib.metadata
import importlib.util

from backends.contract import Probe

NEEDED = ("torch", "transformers", "tokenizers", "optimum", "gptqmodel")


def probe() -> Probe:
    """Versions and devices; the problem is the first package that is missing."""
    for name in NEEDED:
        if importlib.util.find_spec(name) is None:
            return Probe(problem=f"the package {name} is missing; `modelyard env create gptq` installs it")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("gptqmodel", "torch"))
    try:
        from backends.torch_lanes.devices import devices
    except (ImportError, OSError) as error:
        return Probe(engine=versions, problem=f"PyTorch cannot be imported: {error}")
    return Probe(engine=versions, devices=devices())
