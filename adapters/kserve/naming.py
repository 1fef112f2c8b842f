"""Which model a request names, and the words in which this protocol says that there is none."""

import re
from collections.abc import Iterable

from adapters.kserve.errors import Code, KServeError, invalid
from runner.api import NOT_LOADED, ModelStatus
from runner.errors import ModelNotFound, ModelNotLoaded, ModelNotReady
from runner.names import ModelName, parse_name

_MOST = 2**63


def version_number(text: str) -> int | None:
    """A version as gRPC has it; None for an empty text. Raises KServeError."""
    if not text:
        return None
    if not re.fullmatch(r"-?[0-9]+", text) or not -_MOST <= int(text[:64]) < _MOST:
        raise invalid(
            f"failed to get model version from specified version string '{text}' (details: stol), version should "
            "be an integral value > 0"
        )
    if int(text) < 0:
        raise invalid(f"invalid model version specified '{text}' , version should be an integral value > 0")
    return int(text)


def name_of(model: str, version: int | None) -> str:
    """The runner's name for a model and the version that stands beside it."""
    return str(ModelName(model, version))


def find(index: Iterable[ModelStatus], name: str) -> ModelStatus | None:
    """The model that a name of it, or an alias, with or without a version, stands for."""
    base = parse_name(name).model
    return next((model for model in index if base in (model.name, *model.aliases)), None)


def not_there(model: str, hint: str | None = None) -> KServeError:
    more = f"; {hint}" if hint else ""
    return KServeError(Code.NOT_FOUND, f"Request for unknown model: '{model}' is not found{more}")


def explain(error: ModelNotFound | ModelNotReady, name: str, index: Iterable[ModelStatus]) -> KServeError:
    """`error` about the model `name` in the words that clients know. What may be ready soon is UNAVAILABLE."""
    found, asked = find(index, name), parse_name(name)
    hint = error.hint if isinstance(error, ModelNotFound) else None
    if found is None or hint is not None:
        return not_there(asked.model, hint)
    shown, numbers = asked.model, {version.version for version in found.versions}
    if asked.version is not None and asked.version not in numbers:
        return KServeError(
            Code.NOT_FOUND, f"Request for unknown model: '{shown}' version {asked.version} is not found"
        )
    if isinstance(error, ModelNotReady) and not isinstance(error, ModelNotLoaded):
        return KServeError(Code.UNAVAILABLE, error.message)
    if asked.version is not None:
        return KServeError(
            Code.UNAVAILABLE,
            f"Request for unknown model: '{shown}' version {asked.version} is not at ready state",
        )
    if all(version.reason == NOT_LOADED for version in found.versions) and not found.reason:
        return not_there(shown)
    return KServeError(Code.NOT_FOUND, f"Request for unknown model: '{shown}' has no available versions")
