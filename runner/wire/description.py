"""What a Python environment says of the backends in it: the answer of `python -m runner.worker --describe`."""

from typing import Any, Literal

import msgspec

from backends.contract import OVERHEAD_BYTES, BackendSpec, PlainClaims, Probe


class DescribedBackend(msgspec.Struct, frozen=True, kw_only=True):
    """A spec as far as it can leave its process. `claims` is None where they are a function: then the plugin is
    picked by name alone. `found` is None where nobody asked for it."""

    name: str
    engine: str
    shape: Literal["step", "stream"] = "step"
    aliases: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    options: dict[str, Any] = {}
    overhead_bytes: int = OVERHEAD_BYTES
    probe: str = ""
    summary: str = ""
    claims: PlainClaims | None = None
    is_built_in: bool = False
    found: Probe | None = None

    @property
    def spec(self) -> BackendSpec:
        return BackendSpec(
            name=self.name,
            engine=self.engine,
            claims=self.claims or PlainClaims(names=(self.name, *self.aliases)),
            shape=self.shape,
            aliases=self.aliases,
            families=self.families,
            options=self.options,
            overhead_bytes=self.overhead_bytes,
            probe=self.probe,
            summary=self.summary,
        )


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """`backends`: those that were asked for, and every plugin of others; `broken` says why others cannot be used.
    `packages`: what is installed, by name."""

    protocol: int
    python: str
    backends: tuple[DescribedBackend, ...] = ()
    broken: dict[str, str] = {}
    packages: dict[str, str] = {}

    def found(self, backend: str) -> Probe | None:
        """What it has of a backend; None where it has nothing, or was not asked."""
        return next((each.found for each in self.backends if each.name == backend), None)
