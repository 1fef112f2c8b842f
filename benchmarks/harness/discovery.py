"""What a server says of itself before it is measured: its models, its engine, its version."""

import json
import urllib.error
import urllib.request
from typing import Any

import msgspec

from benchmarks.client import Endpoint

TIMEOUT_S = 10.0


class DiscoveryError(Exception):
    """The server or its model cannot be measured; the message says why and what to do."""


class Found(msgspec.Struct, frozen=True):
    """An endpoint with its model's name, and what the server told about it."""

    endpoint: Endpoint
    facts: dict[str, str]


def find_model(endpoint: Endpoint) -> Found:
    """Check that the server answers, and pick its model where none is named. Raises DiscoveryError."""
    where = _url(endpoint, endpoint.prefix)
    try:
        listed = _get(endpoint, f"{endpoint.prefix}/models")
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise DiscoveryError(
                f"{where} refuses the API key ({error.code}); give one with --api-key"
            ) from error
        raise DiscoveryError(
            f"{where}/models answers {error.code}; is this an OpenAI-compatible server?"
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise DiscoveryError(f"there is no server at {where}: {reason}") from error
    data = listed.get("data") if isinstance(listed, dict) else None
    names = [str(one["id"]) for one in data or [] if isinstance(one, dict) and "id" in one]
    model = endpoint.model
    if not model:
        if len(names) != 1:
            raise DiscoveryError(
                f"{where} has {len(names)} models; name one with --model: {', '.join(names)}"
            )
        model = names[0]
    chosen = msgspec.structs.replace(endpoint, model=model)
    return Found(chosen, _facts(chosen))


def _facts(endpoint: Endpoint) -> dict[str, str]:
    """As far as the server tells; only some do."""
    facts = {}
    for path in ("/version", f"/v2/models/{endpoint.model}/config"):
        try:
            told = _get(endpoint, path)
        except (OSError, ValueError):
            continue
        if isinstance(told, dict) and "version" in told:
            facts["server"] = str(told["version"])
        parameters = told.get("parameters") if isinstance(told, dict) else None
        if isinstance(parameters, dict) and isinstance(engine := parameters.get("engine"), dict):
            facts["engine"] = str(engine.get("string_value", ""))
    return facts


def _get(endpoint: Endpoint, path: str) -> Any:
    request = urllib.request.Request(_url(endpoint, path))
    if endpoint.api_key:
        request.add_header("authorization", f"Bearer {endpoint.api_key}")
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        return json.loads(answer.read())


def _url(endpoint: Endpoint, path: str) -> str:
    return f"{'https' if endpoint.tls else 'http'}://{endpoint.host}:{endpoint.port}{path}"
