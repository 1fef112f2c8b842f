"""Where the layers of a model are and in which number format: from the configuration to a strategy of the rwkv package.

Says what cannot be before anything is loaded. Knows no weights but their version and number of layers.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from backends.contract import LoadError
from backends.gpus import check_gpu, gpu_number
from backends.rwkv.options import PART

BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}

ONE_THREAD_BYTES = 2**25
"""Where the weights are fewer, a step is over before other threads have woken: with 2 M parameters one of 8 lanes takes
1.9 ms with one thread and 2.2 with two, and on a busy machine 6 and 40."""


class Part(msgspec.Struct, frozen=True):
    """Some layers on one device. `count` None: those that are left; `streams`: what is too much is loaded as it is
    needed."""

    device: str
    number: str
    is_int8: bool = False
    count: int | None = None
    streams: bool = False

    def __str__(self) -> str:
        kind = self.number + ("i8" if self.is_int8 else "")
        layers = "" if self.count is None else f" *{self.count}{'+' if self.streams else ''}"
        return f"{self.device} {kind}{layers}"


class Strategy(msgspec.Struct, frozen=True):
    parts: tuple[Part, ...]

    def __str__(self) -> str:
        return " -> ".join(map(str, self.parts))

    @property
    def is_plain(self) -> bool:
        """Everything on one device, in one number format."""
        return len(self.parts) == 1 and self.parts[0] == Part(self.parts[0].device, self.parts[0].number)

    @property
    def weight_bytes(self) -> int:
        """Of one parameter, at most."""
        return max(1 if part.is_int8 else BYTES[part.number] for part in self.parts)


def choose_strategy(
    options: Mapping[str, Any],
    *,
    version: int,
    layers: int,
    device: Literal["auto", "cpu", "gpu"],
    gpus: int,
) -> Strategy:
    """What the configuration asks for, on a machine with so many `gpus`. Raises LoadError where it cannot be."""
    text = options.get("strategy")
    if text is not None:
        given = [key for key in ("f16", "main_gpu", "gpu_layers") if key in options]
        if given:
            raise LoadError(f"`strategy` says what {_listed(given)} would say; leave out one or the other")
        strategy = Strategy(tuple(map(_part, text.split("->"))))
    else:
        strategy = _by_common_keys(options, layers=layers, device=device, gpus=gpus)
    _check(strategy, version=version, device=device, gpus=gpus)
    return strategy


def _by_common_keys(
    options: Mapping[str, Any], *, layers: int, device: Literal["auto", "cpu", "gpu"], gpus: int
) -> Strategy:
    on_gpu = device == "gpu" or (device == "auto" and gpus > 0)
    number = gpu_number(options.get("main_gpu", "" if on_gpu else "cpu"))
    count = options.get("gpu_layers", -1)
    place = "cpu" if number is None or count == 0 else f"cuda:{number}"
    half = "bf16" if place == "cpu" else "fp16"
    kind = half if options.get("f16", place != "cpu") else "fp32"
    if 0 < count <= layers and place != "cpu":
        return Strategy((Part(place, kind, count=count), Part("cpu", "fp32")))
    return Strategy((Part(place, kind),))


def _part(text: str) -> Part:
    found = re.fullmatch(PART, text.strip())
    if found is None:
        raise LoadError(f'strategy: {text.strip()!r} is not of the form "cpu fp32" or "cuda:0 fp16i8 *10"')
    device, _, number, int8, layers = found.groups()
    return Part(
        device,
        number,
        int8 is not None,
        None if layers is None else int(layers.strip(" *+")),
        layers is not None and layers.endswith("+"),
    )


def _check(strategy: Strategy, *, version: int, device: str, gpus: int) -> None:
    if version == 7 and not strategy.is_plain:
        raise LoadError(
            f'strategy "{strategy}": the rwkv package computes models of version 7 on one device and in one number '
            'format, such as "cpu fp32" or "cuda fp16"; without layer counts, i8 and gpu_layers'
        )
    for part in strategy.parts:
        kind, _, number = part.device.partition(":")
        if kind == "cuda":
            check_gpu(int(number or 0), there=gpus, key=f'strategy "{strategy}"')
        if kind == "cuda" and device == "cpu":
            raise LoadError(f'strategy "{strategy}" needs a GPU, and instance_group.kind is cpu')
    if device == "gpu" and all(part.device == "cpu" for part in strategy.parts):
        raise LoadError(f'instance_group.kind is gpu, and the strategy is "{strategy}"')


def _listed(keys: list[str]) -> str:
    return " and ".join(f"`{key}`" for key in keys)


def threads_for(weights_bytes: int, *, asked: int) -> int:
    """How many threads compute a model of this size, of those that were asked for."""
    return 1 if weights_bytes < ONE_THREAD_BYTES else asked
