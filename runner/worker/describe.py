"""`python -m runner.worker --describe NAME...`: prints, as JSON, what this Python environment has of the backends.

That the worker's half can be imported at all is a part of the answer. Plugins may print what they like meanwhile; it
goes to stderr.
"""

import importlib
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import distributions, packages_distributions, version
from typing import NoReturn

import msgspec

from backends.contract import BackendSpec, PlainClaims, Probe
from backends.registry import BackendError, Registry
from runner.wire.description import DescribedBackend, Description
from runner.wire.messages import PROTOCOL


def print_description(registry: Registry, names: Sequence[str], *, with_probes: bool) -> NoReturn:
    """Describe the built-in backends of these names and all plugins of others, and end the process."""
    answer = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    body = msgspec.json.encode(describe(registry, names, with_probes=with_probes))
    with os.fdopen(answer, "wb") as file:
        file.write(body + b"\n")
    os._exit(0)  # threads and processes that a probe left behind are nobody's business any more


def describe(registry: Registry, names: Sequence[str], *, with_probes: bool) -> Description:
    """See `print_description`. A backend that cannot be had is among the broken."""
    backends, broken = [], {}
    for name in dict.fromkeys((*names, *registry.names())):
        is_built_in = name in Registry.BUILT_IN
        if is_built_in and name not in names:
            continue
        try:
            spec = registry.get(name)
        except BackendError as error:
            broken[name] = getattr(error, "reason", str(error))
            continue
        backends.append(_described(spec, is_built_in=is_built_in, found=probe(spec) if with_probes else None))
    installed = {each.name: each.version for each in distributions()}
    return Description(
        protocol=PROTOCOL,
        python=platform.python_version(),
        backends=tuple(backends),
        broken={**registry.broken(), **broken},
        packages=dict(sorted(installed.items())),
    )


def probe(spec: BackendSpec) -> Probe:
    """Whether a backend's engine can be used here: as its own probe says, or by importing it."""
    module_name, _, function_name = (spec.probe or spec.engine).partition(":")
    try:
        found = getattr(importlib.import_module(module_name), function_name)
        result = found() if spec.probe else Probe(engine=_distribution_of(module_name))
        if not isinstance(result, Probe):
            raise TypeError(f"{spec.probe} gave a {type(result).__name__}, not a Probe")
    except (Exception, SystemExit) as error:  # a boundary: whatever an engine does at import
        first = str(error).strip().partition("\n")[0]
        return Probe(problem=f"{type(error).__name__}: {first}")
    return result


def _distribution_of(module_name: str) -> str:
    """Name and version of the package that a module came with; empty where it came with none."""
    owners = packages_distributions().get(module_name.partition(".")[0], [])
    return f"{owners[0]} {version(owners[0])}" if owners else ""


def _described(spec: BackendSpec, *, is_built_in: bool, found: Probe | None) -> DescribedBackend:
    return DescribedBackend(
        name=spec.name,
        engine=spec.engine,
        shape=spec.shape,
        aliases=spec.aliases,
        families=spec.families,
        options=spec.options,
        overhead_bytes=spec.overhead_bytes,
        probe=spec.probe,
        summary=spec.summary,
        claims=spec.claims if isinstance(spec.claims, PlainClaims) else None,
        is_built_in=is_built_in,
        found=found,
    )
