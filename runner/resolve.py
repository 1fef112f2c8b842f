"""Which backend serves a model: joins what the weights are with what each plugin claims."""

import msgspec

from backends.contract import BackendSpec
from backends.registry import BackendError, Registry
from repository.config import ModelConfig
from repository.weights import WeightsFacts
from runner.errors import LoadFailed


class Choice(msgspec.Struct, frozen=True):
    """The backend and how every candidate scored, for `modelyard check -v`."""

    spec: BackendSpec
    scores: dict[str, int]


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
        score = named.claims(_NoWeights(), settings)
        if score <= 0:
            raise LoadFailed(no_weights or f"there are no weights, which backend {named.name} needs")
        return Choice(named, {named.name: score})
    candidates = [named] if named is not None else [*registry.specs()]
    scores = {spec.name: spec.claims(facts, settings) for spec in candidates}
    best = max(candidates, key=lambda spec: scores[spec.name], default=None)
    if best is None or scores[best.name] <= 0:
        what = f"{facts.format} weights" + (
            f" of architecture {facts.architecture}" if facts.architecture else ""
        )
        if named is not None:
            raise LoadFailed(f"backend {named.name} cannot load {what}; remove `backend` to have one chosen")
        raise LoadFailed(f"no installed backend can load {what}; `modelyard backends` lists them")
    return Choice(best, scores)


class _NoWeights:
    format = "none"
    architecture = None
    quantisation = None
