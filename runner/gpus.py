"""Which GPUs a worker sees: what `instance_group` deals out to each of a model's instances."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import msgspec

from repository.config import InstanceGroup
from runner.errors import LoadFailed

VISIBLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"


class Gpus(msgspec.Struct, frozen=True, kw_only=True):
    """Those that the server sees. `visible` is its own CUDA_VISIBLE_DEVICES; `there` is how many the machine has of
    NVIDIA's, None where other kinds answer to the same numbers; `order` is how CUDA numbers them."""

    visible: str | None = None
    there: int | None = None
    order: str = "PCI_BUS_ID"  # as nvidia-smi does, where people look the numbers up

    @classmethod
    def here(cls, environ: Mapping[str, str] = os.environ, devices: Path = Path("/dev")) -> Self:
        """As this process finds them."""
        has_others = any((devices / name).exists() for name in ("kfd", "dxg"))
        nodes = [each.name.removeprefix("nvidia") for each in devices.glob("nvidia*")]
        return cls(
            visible=environ.get(VISIBLE),
            there=None if has_others else sum(name.isdecimal() for name in nodes),
            order=environ.get(ORDER, "PCI_BUS_ID"),
        )

    def name(self, number: int) -> str:
        """What CUDA_VISIBLE_DEVICES says for the GPU that the server sees as `number`. Raises LoadFailed."""
        if self.visible is None:
            if self.there is not None and number >= self.there:
                raise _missing(number, f"this machine has {_count(self.there)} of NVIDIA's")
            return str(number)
        known = [name.strip() for name in self.visible.split(",") if name.strip()]
        if number >= len(known):
            raise _missing(number, f"{VISIBLE} shows this server {_count(len(known))}")
        return known[number]


def gpu_environment(group: InstanceGroup, index: int, gpus: Gpus) -> dict[str, str]:
    """The environment variables of the instance with that index.

    GPUs are counted as the server sees them. With no more instances than GPUs each has as many of its own; else they
    share them in turn. Raises LoadFailed where there is no such GPU.
    """
    if group.kind == "cpu":
        return {VISIBLE: ""}
    if not group.gpus:
        return {ORDER: gpus.order}
    each = len(group.gpus) // group.count
    chosen = group.gpus[index * each : (index + 1) * each] or (group.gpus[index % len(group.gpus)],)
    return {VISIBLE: ",".join(gpus.name(number) for number in chosen), ORDER: gpus.order}


def _missing(number: int, known: str) -> LoadFailed:
    return LoadFailed(f"instance_group.gpus: there is no GPU {number}; {known}, numbered from 0")


def _count(gpus: int) -> str:
    return "none" if gpus == 0 else "one" if gpus == 1 else str(gpus)
