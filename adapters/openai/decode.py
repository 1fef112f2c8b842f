"""Bytes to request Structs, with errors that name the field, what is allowed in it and what to do.

A known field that is not served yet is refused by name unless its value is neutral; those that nobody knows
are found here and listed by `ignored.py`, so that nothing is dropped in silence.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec
from starlette.requests import Request

from adapters.asgi import ApiError, read_body
from adapters.openai.errors import invalid, missing, unsupported
from adapters.openai.schema import ChatRequest, ContentPart, Message
from adapters.openai.unknown import nesting_fields, unknown_inside

Body = TypeVar("Body", bound=msgspec.Struct)

_AT = re.compile(r" - at (?:`key` in )?`\$\.?(.*)`$")
_MISSING = re.compile(r"Object missing required field `(.+)`")
_BYTE = re.compile(r"\(byte (\d+)\)")
_MESSAGE_REFUSALS = ("audio",)


async def read_json(request: Request, *, limit_bytes: int, timeout_s: float) -> bytes:
    """The body of a request that says it is JSON. Raises ApiError 400 for another content type, 413, 408."""
    content_type = request.headers.get("content-type", "application/json")
    media = content_type.partition(";")[0].strip().lower()
    if media != "application/json" and not media.endswith("+json"):
        raise ApiError(
            400,
            f'The body must be JSON, but its content type is "{content_type}"; '
            'send the header "Content-Type: application/json".',
            code="invalid_content_type",
        )
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise ApiError(
            400,
            f'The body is packed as "{encoding[:40]}", which is not unpacked here; send it as it is.',
            code="invalid_content_encoding",
        )
    return await read_body(request, limit_bytes=limit_bytes, timeout_s=timeout_s)


def decode(
    body: bytes, kind: type[Body], *, refused: Mapping[str, tuple[Any, ...]]
) -> tuple[Body, list[str]]:
    """The request, and the names of the fields that nobody knows.

    `refused`: fields to refuse by name, with the values beside null that are let through.
    Raises ApiError 400.
    """
    try:
        given = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        unknown = []
        for name in given.keys() - set(kind.__struct_fields__):
            if _is_neutral(given[name], refused.get(name, ())):
                continue
            if name in refused:
                raise unsupported(name)
            unknown.append(name)
        request = msgspec.json.decode(body, type=kind)
        if issubclass(kind, ChatRequest):
            unknown += _unknown_in_messages(given["messages"])
            rest = {name: msgspec.json.decode(raw) for name, raw in given.items() if name != "messages"}
            unknown += unknown_inside(rest, kind)
        else:
            nested = {name: msgspec.json.decode(given[name]) for name in given.keys() & nesting_fields(kind)}
            unknown += unknown_inside(nested, kind)
    except msgspec.ValidationError as error:
        raise _explain(str(error), kind) from None
    except msgspec.DecodeError as error:
        raise _malformed(str(error), body) from None
    except UnicodeDecodeError as error:
        raise ApiError(
            400, f"The body is not valid UTF-8: {error.reason} (byte {error.start}).", code="invalid_json"
        ) from None
    except RecursionError:
        raise ApiError(400, "The body is nested too deeply.", code="invalid_json") from None
    return request, sorted(unknown)


def convert(value: Any, kind: type[Body], path: str) -> Body:
    """A part of a body as `kind`; `path` is where it stands. Raises ApiError 400."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _explain(str(error), kind, inside=path) from None


def refuse_nul(text: str, param: str) -> None:
    """NUL ends a string for much of the code under a tokenizer. Raises ApiError 400."""
    if "\0" in text:
        raise invalid(param, f"`{param}` holds a NUL character; remove it.")


def _is_neutral(raw: msgspec.Raw, neutral: tuple[Any, ...]) -> bool:
    if bytes(raw) == b"null":
        return True
    value = msgspec.json.decode(raw) if neutral else None
    return any(type(value) is type(one) and value == one for one in neutral)


def _unknown_in_messages(raw: msgspec.Raw) -> list[str]:
    unknown = []
    for i, message in enumerate(msgspec.json.decode(raw, type=list[dict[str, msgspec.Raw]])):
        for name in message.keys() - set(Message.__struct_fields__):
            path = f"messages[{i}].{name}"
            if bytes(message[name]) == b"null":
                continue
            if name in _MESSAGE_REFUSALS:
                raise unsupported(path)
            unknown.append(path)
        content = message.get("content")
        if content is not None and bytes(content)[:1] == b"[":
            for j, part in enumerate(msgspec.json.decode(content, type=list[dict[str, msgspec.Raw]])):
                kind = msgspec.json.decode(part["type"], type=str)  # its data has the type's own name
                strange = part.keys() - {*ContentPart.__struct_fields__, kind}
                unknown += [f"messages[{i}].content[{j}].{name}" for name in strange]
    return unknown


def _explain(message: str, kind: type[Body], *, inside: str = "") -> ApiError:
    """msgspec's message with the field first and its whole range last. `inside`: the path of what was read."""
    at = _AT.search(message)
    path = at[1].replace("[...]", "") if at else ""
    what = message[: at.start()] if at else message
    full = ".".join(part for part in (inside, path) if part)
    if lacking := _MISSING.match(what):
        return missing(f"{full}.{lacking[1]}" if full else lacking[1])
    if not full:
        return ApiError(
            400, f"The body must be a JSON object: {_lower(what)}.", code="invalid_type", param=None
        )
    code = "invalid_type" if ", got `" in what else "invalid_value"
    allowed = " or ".join(dict.fromkeys(_ranges(kind, path)))
    text = f"`{full}`: {_lower(what.replace(' | null', ''))}" + (f"; allowed: {allowed}." if allowed else ".")
    return ApiError(400, text, code=code, param=full)


def _ranges(kind: type[Body], path: str) -> Iterator[str]:
    field = re.split(r"[.\[]", path, maxsplit=1)[0]
    pending = [get_type_hints(kind, include_extras=True).get(field)]
    while pending:
        hint = pending.pop(0)
        if isinstance(hint, msgspec.Meta):
            low, high = hint.ge if hint.ge is not None else hint.gt, hint.le
            if low is not None and high is not None:
                yield f"{'over ' if hint.gt is not None else ''}{low} to {high}"
            if hint.max_length is not None:
                yield f"up to {hint.max_length} long"
        elif (origin := getattr(hint, "__metadata__", None)) is not None:
            pending += [*origin, *get_args(hint)[:1]]
        else:
            pending += get_args(hint)


def _malformed(message: str, body: bytes) -> ApiError:
    if not body.strip():
        return ApiError(400, "The body is empty; send a JSON object.", code="invalid_json")
    if at := _BYTE.search(message):
        message = message[: at.start()].removeprefix("JSON is malformed: ").strip()
        before = body[: min(int(at[1]), len(body) - 1)]
        line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
        return ApiError(
            400,
            f"The body is not valid JSON at line {line}, column {column}: {message}.",
            code="invalid_json",
        )
    if b"\\ud" in body.lower():
        message += ", or a string holds half of a surrogate pair"
    return ApiError(400, f"The body is not valid JSON: {message}.", code="invalid_json")


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
