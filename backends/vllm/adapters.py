"""The LoRA adapters that a model's configuration lists: their names, folders and ranks. Imports no vLLM."""

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from backends.contract import LoadError, UnsupportedError

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM's `max_lora_rank` may be."""

FROM_WIDTH = tuple(f"{kind}_proj.lora_A.weight" for kind in ("q", "k", "v", "gate", "up"))
"""Ends of the names of matrices whose rows are as long as the model is wide."""


class Adapter(msgspec.Struct, frozen=True):
    """One adapter; `number` is what vLLM knows it by."""

    name: str
    folder: Path
    rank: int
    number: int


class Adapters:
    """The adapters of one model, by name."""

    def __init__(self, adapters: Mapping[str, Adapter]) -> None:
        self._adapters = dict(adapters)

    @classmethod
    def read(cls, options: Mapping[str, Any], weights: Path) -> "Adapters":
        """Those that `lora_modules`, `lora_adapters` and `lora_adapter` name; folders are relative to the weights.
        Raises LoadError."""
        found: dict[str, Adapter] = {}
        for name, given in _listed(options):
            folder = weights / given
            if name in found:
                raise LoadError(f"two LoRA adapters are called {name!r}; name them in lora_modules")
            if not name or name.isdigit() or ":" in name:
                raise LoadError(
                    f"a LoRA adapter cannot be called {name!r}; give it another name in lora_modules"
                )
            found[name] = Adapter(name, folder, _rank(folder), len(found) + 1)
            _check_width(found[name], weights)
        return cls(found)

    def __len__(self) -> int:
        return len(self._adapters)

    def __iter__(self) -> Iterator[Adapter]:
        return iter(self._adapters.values())

    @property
    def rank(self) -> int:
        """The smallest `max_lora_rank` that has room for all."""
        most = max((adapter.rank for adapter in self._adapters.values()), default=1)
        if most > RANKS[-1]:
            raise LoadError(f"vLLM takes LoRA adapters of rank {RANKS[-1]} at most, and one has {most}")
        return next(rank for rank in RANKS if rank >= most)

    def get(self, name: str) -> Adapter:
        """The adapter of that name. Raises UnsupportedError."""
        adapter = self._adapters.get(name)
        if adapter is not None:
            return adapter
        close = difflib.get_close_matches(name, self._adapters, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(self._adapters) or 'none'}"
        raise UnsupportedError(f"the model has no adapter {name!r}; {hint}")


def _listed(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    modules = options.get("lora_modules") or {}
    if isinstance(modules, dict):
        for name, folder in modules.items():
            yield str(name), str(folder)
    else:
        for module in modules:
            yield _module(module)
    one = options.get("lora_adapter")
    for folder in (*options.get("lora_adapters", ()), *(() if one is None else (one,))):
        yield Path(folder).name, folder


def _module(given: Any) -> tuple[str, str]:
    """An entry of a list, as vLLM's command line has it: `name=folder`, or a mapping with `name` and `path`."""
    match given:
        case {"name": str(name), "path": str(folder)}:
            return name, folder
        case str() if "=" in given:
            name, _, folder = given.partition("=")
            return name, folder
    raise LoadError(f"lora_modules: expected `name=folder` or a mapping with name and path, found {given!r}")


def _rank(folder: Path) -> int:
    path = folder / "adapter_config.json"
    try:
        rank = msgspec.json.decode(path.read_bytes())["r"]
    except FileNotFoundError as error:
        raise LoadError(f"{folder} holds no LoRA adapter: it has no adapter_config.json") from error
    except (OSError, msgspec.DecodeError, KeyError, TypeError) as error:
        raise LoadError(f"{path} cannot be read: {error}") from error
    if not isinstance(rank, int) or rank < 1:
        raise LoadError(f"{path}: `r` must be a whole number of at least 1, found {rank!r}")
    return rank


def _check_width(adapter: Adapter, weights: Path) -> None:
    """vLLM itself takes matrices of another model in silence, where they are smaller."""
    try:
        config = msgspec.json.decode((weights / "config.json").read_bytes())
        with (adapter.folder / "adapter_model.safetensors").open("rb") as file:
            header = msgspec.json.decode(file.read(int.from_bytes(file.read(8), "little")))
    except (OSError, msgspec.DecodeError):
        return  # in another format, or not there: vLLM says so
    width = {**config, **(config.get("text_config") or {})}.get("hidden_size")
    for name, entry in header.items():
        if name.endswith(FROM_WIDTH) and width is not None and entry["shape"][-1] != width:
            raise LoadError(
                f"the adapter {adapter.name!r} in {adapter.folder} is for another model: it is {entry['shape'][-1]} "
                f"wide, and this model {width}"
            )
