"""The RWKV plugin: the recurrent RWKV models, versions 4 to 7, on the weights that the `rwkv` package loads.

This file introduces it and needs neither that package nor torch; `engine.py` is imported inside a worker only.
"""

from collections.abc import Mapping
from typing import Any

from backends.contract import BackendSpec, Facts
from backends.rwkv.options import OPTIONS

NAME = "rwkv"
ALIASES = ("rwkv.cpp",)


def claims(facts: Facts, config: Mapping[str, Any]) -> int:
    """A .pth whose name says RWKV is this plugin's own format; another lone .pth only where the user says so."""
    if facts.format == "rwkv":
        return 100
    is_named = config.get("backend") in (NAME, *ALIASES)
    return 60 if facts.format == "pytorch" and facts.architecture is None and is_named else 0


SPEC = BackendSpec(
    name=NAME,
    aliases=ALIASES,
    engine="backends.rwkv.engine:RwkvEngine",
    options=OPTIONS,
    claims=claims,
    overhead_bytes=350 * 2**20,
    probe="backends.rwkv.probe:probe",
    summary="RWKV models (.pth, versions 4 to 7) on PyTorch, on CPUs and GPUs.",
)
