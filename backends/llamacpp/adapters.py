"""LoRA adapters: those that a configuration applies to every request, and those that a request may ask for by name.

llama.cpp applies adapters to a whole computation, not to single sequences.
"""

import ctypes
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from llama_cpp import llama_cpp as ll

from backends.contract import EngineError, LoadError
from backends.llamacpp.logs import last_errors, log_bridge

Options = Mapping[str, Any]


class Listed(msgspec.Struct, frozen=True):
    """An adapter of the configuration; `name` None: it is applied to every request."""

    name: str | None
    path: Path
    scale: float = 1.0


def listed_adapters(options: Options, folder: Path) -> tuple[Listed, ...]:
    """Those that `lora_modules` names, and those of `lora_adapter` and `lora_adapters`; paths are relative to the
    weights' `folder`. Raises LoadError."""
    found = [*_always(options, folder), *_by_name(options, folder)]
    names = [each.name for each in found if each.name is not None]
    for name in names:
        if not name or name.isdigit() or ":" in name:
            raise LoadError(f"lora_modules: an adapter cannot be called {name!r}; give it another name")
        if names.count(name) > 1:
            raise LoadError(f"lora_modules: two adapters are called {name!r}; give one another name")
    for each in found:
        if not each.path.is_file():
            raise LoadError(f"there is no LoRA adapter {each.path}; it should be a GGUF file")
    return tuple(found)


def _always(options: Options, folder: Path) -> Iterator[Listed]:
    if "lora_scale" in options and "lora_adapter" not in options:
        raise LoadError(
            "lora_scale is for lora_adapter, which is not given; lora_scales are for lora_adapters"
        )
    if "lora_adapter" in options:
        yield Listed(None, folder / options["lora_adapter"], options.get("lora_scale", 1.0))
    paths, scales = options.get("lora_adapters", ()), options.get("lora_scales", ())
    if len(scales) > len(paths):
        raise LoadError(
            f"there are {len(scales)} LoRA scales for {len(paths)} adapters; take out what is too much"
        )
    for path, scale in zip(paths, itertools.chain(scales, itertools.repeat(1.0)), strict=False):
        yield Listed(None, folder / path, scale)


def _by_name(options: Options, folder: Path) -> Iterator[Listed]:
    modules = options.get("lora_modules") or {}
    for module in modules.items() if isinstance(modules, dict) else modules:
        match module:
            case (str(name), str(path)) | {"name": str(name), "path": str(path)}:
                scale = module.get("scale", 1.0) if isinstance(module, dict) else 1.0
                yield Listed(name, folder / path, float(scale))
            case str() if "=" in module:
                name, _, path = module.partition("=")
                yield Listed(name, folder / path)
            case _:
                raise LoadError(
                    f"lora_modules: expected `name=file` or a mapping with name and path, found {module!r}"
                )


class Adapters:
    """The adapters of one model, loaded. They belong to the model and are freed with it."""

    def __init__(self, model: Any, listed: Sequence[Listed]) -> None:
        """Raises LoadError."""
        self.names = tuple(sorted(each.name for each in listed if each.name is not None))
        loaded = [(each, _load(model, each.path)) for each in listed]
        self._always = [(adapter, each.scale) for each, adapter in loaded if each.name is None]
        self._by_name = {
            each.name: (adapter, each.scale) for each, adapter in loaded if each.name is not None
        }

    def apply(self, context: Any, name: str | None) -> None:
        """Compute in `context` with the adapter `name` from now on, besides those that are always applied."""
        wanted = [*self._always, *([] if name is None else [self._by_name[name]])]
        pointers = (ll.llama_adapter_lora_p_ctypes * len(wanted))(*[adapter for adapter, _ in wanted])
        scales = (ctypes.c_float * len(wanted))(*[scale for _, scale in wanted])
        if ll.llama_set_adapters_lora(context, pointers, len(wanted), scales):
            raise EngineError(f"llama.cpp cannot apply the LoRA adapter {name!r}")


def _load(model: Any, path: Path) -> Any:
    with log_bridge().record() as lines:
        adapter = ll.llama_adapter_lora_init(model, os.fsencode(path))
    if not adapter:
        why = last_errors(lines) or "it gave no reason; see the worker's log"
        raise LoadError(f"llama.cpp cannot load the LoRA adapter {path}: {why}")
    if ll.llama_adapter_get_alora_n_invocation_tokens(adapter):
        raise LoadError(f"{path} acts from certain tokens on (aLoRA), which llamacpp does not serve")
    return adapter
