"""Which backend serves a model: joins what the weights are with what each plugin claims. And which options a
configuration that names a backend may have, as another of its family may be the one that serves it.
"""

import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from backends.contract import BackendSpec, Facts
from backends.registry import BackendError, Registry
from repository.config import ModelConfig
from repository.weights import WeightsFacts
from runner.errors import LoadFailed

logger = logging.getLogger(__name__)


class Choice(msgspec.Struct, frozen=True):
    """The backend and how every candidate scored, for `modelyard check -v`."""

    spec: BackendSpec
    scores: dict[str, int]

    @property
    def runners_up(self) -> list[str]:
        """The other backends that could do it, the best first."""
        able = [name for name, score in self.scores.items() if score > 0 and name != self.spec.name]
        return sorted(able, key=lambda name: -self.scores[name])


def choose_backend(
    facts: WeightsFacts | None, config: ModelConfig, registry: Registry, *, no_weights: str = ""
) -> Choice:
    """The backend that the configuration names, or the one that claims the weights most.

    `facts` is None where there are no weights, for which `no_weights` are the words. Raises LoadFailed where no
    backend fits.
    """
    named = None
    if config.backend is not None:
        try:
            named = registry.get(config.backend)
        except BackendError as error:
            raise LoadFailed(str(error)) from error
    settings = {**msgspec.to_builtins(config), **config.options}
    if facts is None:
        if named is None:
            raise LoadFailed(no_weights or "there are no weights, and the configuration names no backend")
        score = _score(named, _NoWeights(), settings, named=named)
        if score <= 0:
            raise LoadFailed(no_weights or f"there are no weights, which backend {named.name} needs")
        return Choice(named, {named.name: score})
    candidates = [
        spec for spec in registry.specs() if named is None or spec is named or named.name in spec.families
    ]
    scores = {spec.name: _score(spec, facts, settings, named=named) for spec in candidates}
    best = max(candidates, key=lambda spec: scores[spec.name], default=None)
    if best is None or scores[best.name] <= 0:
        what = f"{facts.format} weights" + (
            f" of architecture {facts.architecture}" if facts.architecture else ""
        )
        if named is not None:
            raise LoadFailed(f"backend {named.name} cannot load {what}; remove `backend` to have one chosen")
        raise LoadFailed(f"no installed backend can load {what}; `modelyard backends` lists them")
    return Choice(best, scores)


def option_schemas(registry: Registry) -> dict[str, dict[str, Any]]:
    """By name and alias: a backend's own options, and those of the others in its family. Whether they are those of the
    one that is chosen can be told only with the weights."""
    specs = registry.specs()
    schemas: dict[str, dict[str, Any]] = {}
    for spec in specs:
        others = [other.options for other in specs if spec.name in other.families]
        schemas |= dict.fromkeys((spec.name, *spec.aliases), _joined(spec.options, others))
    return schemas


def _joined(own: dict[str, Any], others: list[dict[str, Any]]) -> dict[str, Any]:
    properties = dict(own.get("properties", {}))
    for other in others:
        for key, schema in other.get("properties", {}).items():
            properties[key] = _either(properties[key], schema) if key in properties else schema
    return {**own, "properties": properties} if others else own


def _either(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """What either of two schemas allows; values of one list, as far as both list them, for the errors to name them."""
    if "enum" in one and "enum" in other:
        return {**one, "enum": list(dict.fromkeys([*one["enum"], *other["enum"]]))}
    return one if one == other else {"anyOf": [*one.get("anyOf", [one]), other]}


def _score(spec: BackendSpec, facts: Facts, settings: Mapping[str, Any], *, named: BackendSpec | None) -> int:
    """What a plugin claims. One that fails at it claims nothing, and only those who name it hear why."""
    try:
        return int(spec.claims(facts, settings))
    except Exception as error:  # a boundary: claims are other people's code
        logger.exception("backend %s failed to say whether it suits some weights", spec.name)
        if spec is named:
            reason = f"{type(error).__name__}: {error}"
            raise LoadFailed(
                f"the plugin of backend {spec.name} is broken: its claims fail with {reason}"
            ) from error
        return 0


class _NoWeights:
    format = "none"
    architecture = None
    quantisation = None
