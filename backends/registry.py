"""Finds backend plugins by name or alias, through the entry-point group `modelyard.backends`.

Owns when a plugin's spec is imported (once, on demand) and what becomes of one that cannot be. Modelyard's
own plugins are known without their entry points, so that a checkout works uninstalled; those of other Python
environments are handed in. Imports no engine.
"""

import difflib
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import ClassVar

import msgspec

from backends.contract import BackendSpec


class BackendError(LookupError):
    """A backend cannot be had; the message says why and what to do."""


class BackendNotFoundError(BackendError):
    """No plugin has this name or alias. `close` holds similar names, the likeliest first."""

    def __init__(self, name: str, *, close: tuple[str, ...], names: tuple[str, ...]) -> None:
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names)}"
        super().__init__(f"there is no backend {name!r}; {hint}")
        self.name = name
        self.close = close


class BackendBrokenError(BackendError):
    """The plugin of this name is installed but cannot be used, for `reason`."""

    def __init__(self, name: str, *, reason: str) -> None:
        super().__init__(f"the plugin of backend {name!r} is broken: {reason}; reinstall or remove it")
        self.name = name
        self.reason = reason


class Elsewhere(msgspec.Struct, frozen=True):
    """The plugins of another Python environment, which `place` names: their specs, and why others are broken."""

    place: str
    specs: tuple[BackendSpec, ...] = ()
    broken: dict[str, str] = {}


class Registry:
    """The plugins of one Python environment, and those `elsewhere`. A broken one breaks only itself."""

    GROUP: ClassVar[str] = "modelyard.backends"
    BUILT_IN: ClassVar[dict[str, str]] = {
        "llamacpp": "backends.llamacpp:SPEC",
        "transformers": "backends.transformers:SPEC",
        "vllm": "backends.vllm:SPEC",
        "openvino": "backends.openvino:SPEC",
        "gptq": "backends.gptq:SPEC",
        "rwkv": "backends.rwkv:SPEC",
        "exllamav2": "backends.exllamav2:SPEC",
        "triton": "backends.triton:SPEC",
        "echo": "backends.echo:SPEC",
        "echo-stream": "backends.echo:STREAM_SPEC",
    }

    def __init__(
        self, entry_points: Iterable[EntryPoint] | None = None, *, elsewhere: Iterable[Elsewhere] = ()
    ) -> None:
        """`entry_points` of third parties; None: those installed, looked up when first needed. A name that several
        have belongs to Modelyard's own plugin, then to the one here, then to the first elsewhere."""
        self._given = entry_points
        self._elsewhere = tuple(elsewhere)
        self._found: dict[str, EntryPoint] | None = None
        self._foreign: dict[str, str] = {}
        self._specs: dict[str, BackendSpec] = {}
        self._broken: dict[str, str] = {}

    def names(self) -> tuple[str, ...]:
        """All plugins' names, Modelyard's own first. Imports none of them."""
        return (*self._points(), *self._foreign)

    def get(self, name: str) -> BackendSpec:
        """The spec of a plugin by its name, which imports only that one, or by an alias, which imports all.

        Raises BackendNotFoundError or BackendBrokenError.
        """
        if name in self.names() or name in self._broken:
            spec = self._load(name)
            if spec is None:
                raise BackendBrokenError(name, reason=self._broken[name])
            return spec
        specs = self.specs()
        for spec in specs:
            if name in spec.aliases:
                return spec
        known = [*self.names(), *(alias for spec in specs for alias in spec.aliases)]
        close = difflib.get_close_matches(name, known, cutoff=0.6)
        raise BackendNotFoundError(name, close=tuple(close), names=self.names())

    def specs(self) -> tuple[BackendSpec, ...]:
        """The specs of all plugins that work, in the order of `names`."""
        return tuple(spec for name in self.names() if (spec := self._load(name)) is not None)

    def broken(self) -> dict[str, str]:
        """Why each unusable plugin is unusable, by name. Imports all plugins."""
        self.specs()
        return dict(self._broken)

    def _points(self) -> dict[str, EntryPoint]:
        if self._found is None:
            given = entry_points(group=self.GROUP) if self._given is None else self._given
            own = (EntryPoint(name, value, self.GROUP) for name, value in self.BUILT_IN.items())
            self._found = {point.name: point for point in own}
            for point in given:
                known = self._found.setdefault(point.name, point)
                if known.value != point.value:
                    self._broken[f"{point.name} ({point.value})"] = f"the name is taken by {known.value}"
            for each in self._elsewhere:
                self._take_in(each, self._found)
        return self._found

    def _take_in(self, elsewhere: Elsewhere, here: Mapping[str, EntryPoint]) -> None:
        for name, reason in elsewhere.broken.items():
            if name not in here and name not in self._foreign:
                self._broken[name] = reason
        for spec in elsewhere.specs:
            owner = here[spec.name].value if spec.name in self.BUILT_IN else self._foreign.get(spec.name)
            if owner is not None and self._specs.get(spec.name) != spec:
                self._broken[f"{spec.name} ({elsewhere.place})"] = f"the name is taken by {owner}"
            elif spec.name not in here and owner is None:
                self._specs[spec.name] = spec
                self._foreign[spec.name] = elsewhere.place
                self._broken.pop(spec.name, None)

    def _load(self, name: str) -> BackendSpec | None:
        if name not in self._specs and name not in self._broken:
            try:
                self._specs[name] = self._import(self._points()[name])
            except (Exception, SystemExit) as error:  # a boundary: whatever a plugin does at import
                self._broken[name] = f"{type(error).__name__}: {error}"
        return self._specs.get(name)

    def _import(self, point: EntryPoint) -> BackendSpec:
        spec = point.load()
        if not isinstance(spec, BackendSpec):
            raise TypeError(f"{point.value} is a {type(spec).__name__}, not a BackendSpec")
        if spec.name != point.name:
            raise ValueError(f"{point.value} calls itself {spec.name!r}, not {point.name!r}")
        properties = spec.options.get("properties", {})
        if not isinstance(properties, dict) or not all(
            isinstance(each, dict) for each in properties.values()
        ):
            raise TypeError(f"the options of {point.value} are no JSON Schema of an object")
        return spec
