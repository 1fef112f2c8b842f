"""`/openapi.json`: the table of routes as an OpenAPI document. Bodies are described by the very types that read
them; nothing here names a route.
"""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from adapters.about import DISTRIBUTION
from adapters.asgi import Face, JsonResponse, face_of
from adapters.routes import Operation

_PARAMETER = re.compile(r"{(\w+)(?::(\w+))?}")
_REF = "#/components/schemas/{name}"
_DESCRIPTION = (
    "Paths under /v1 are served without it and under /openai/v1 too. A field acts, is refused by name, or is "
    "listed in the answer's header X-Ignored-Params."
)


class ErrorDetail(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong: a sentence for people, its kind, the field and a name for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class Error(msgspec.Struct, frozen=True, kw_only=True):
    """Every answer but 2xx."""

    error: ErrorDetail


class KServeError(msgspec.Struct, frozen=True, kw_only=True):
    """Every answer but 2xx under /v2."""

    error: str


class AnthropicErrorDetail(msgspec.Struct, frozen=True, kw_only=True):
    type: str
    message: str


class AnthropicError(msgspec.Struct, frozen=True, kw_only=True):
    """Every answer but 2xx to Anthropic's clients."""

    error: AnthropicErrorDetail
    request_id: str | None
    type: Literal["error"] = "error"


_ERRORS = MappingProxyType({Face.OPENAI: Error, Face.KSERVE: KServeError, Face.ANTHROPIC: AnthropicError})


class OpenApiEndpoint:
    """`operations` is looked at when the document is first asked for: it may grow until then."""

    def __init__(self, operations: Sequence[Operation], *, version: str) -> None:
        self._operations = operations
        self._version = version
        self._document: dict[str, Any] | None = None

    async def document(self, request: Request) -> Response:
        if self._document is None:
            self._document = document(self._operations, version=self._version)
        return JsonResponse(self._document)


def document(operations: Sequence[Operation], *, version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of `operations`."""
    types: list[Any] = [*_ERRORS.values()]
    for operation in operations:
        types += [kind for kind in (*_bodies(operation), operation.answer) if kind is not None]
    made, components = msgspec.json.schema_components(types, ref_template=_REF)
    schemas = dict(zip(types, made, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        path = _PARAMETER.sub(r"{\1}", operation.prefixes[0] + operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _describe(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": DISTRIBUTION.capitalize(), "version": version, "description": _DESCRIPTION},
        "security": [{}, {"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _describe(operation: Operation, schemas: Mapping[Any, Any]) -> dict[str, Any]:
    answer = {} if operation.answer is None else schemas[operation.answer]
    content: dict[str, Any] = {}
    if operation.media is not None:
        content[operation.media] = {"schema": answer}
    if operation.streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    error = _ERRORS[face_of(operation.path)]
    described: dict[str, Any] = {
        "summary": operation.summary,
        "responses": {
            "200": {"description": "Done", **({"content": content} if content else {})},
            "default": {
                "description": "Refused or failed",
                "content": {"application/json": {"schema": schemas[error]}},
            },
        },
    }
    parameters = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "integer", "minimum": 0}
            if kind == "digits"
            else {"type": "string", "minLength": 1},
        }
        for name, kind in _PARAMETER.findall(operation.path)
    ]
    parameters += [
        {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}
        for name, text in operation.query.items()
    ]
    if parameters:
        described["parameters"] = parameters
    bodies = [schemas[kind] for kind in _bodies(operation)]
    if bodies:
        media: dict[str, Any] = {"schema": bodies[0] if len(bodies) == 1 else {"anyOf": bodies}}
        if operation.example is not None:
            media["example"] = operation.example
        described["requestBody"] = {"required": True, "content": {"application/json": media}}
    return described


def _bodies(operation: Operation) -> tuple[Any, ...]:
    if operation.body is None:
        return ()
    return operation.body if isinstance(operation.body, tuple) else (operation.body,)
