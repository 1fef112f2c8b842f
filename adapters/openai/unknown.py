"""Which fields inside a body nobody knows, told from the types that read it. The outermost are `decode.py`'s."""

from collections.abc import Iterator
from functools import cache
from types import MappingProxyType, UnionType
from typing import Annotated, Any, TypeGuard, Union, get_args, get_origin, get_type_hints

import msgspec


@cache
def nesting_fields(kind: type[msgspec.Struct]) -> frozenset[str]:
    """The fields of `kind` in which there are Structs, and thus may be fields that nobody knows."""
    return frozenset(name for name, hint in _fields(kind).items() if _nests(hint))


def unknown_inside(value: dict[str, Any], kind: type[msgspec.Struct]) -> Iterator[str]:
    """The paths of fields that the Structs inside `kind` do not have; `value` was read as `kind` already."""
    fields = _fields(kind)
    for name, item in value.items():
        if name in fields:
            yield from _unknown(item, fields[name], name)


def _unknown(value: Any, hint: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        struct = _struct_of(value, hint)
        if struct is None:
            return  # an open map: every name is the caller's own
        fields, tag = _fields(struct), struct.__struct_config__.tag_field
        for name, item in value.items():
            if name in fields:
                yield from _unknown(item, fields[name], f"{path}.{name}")
            elif name != tag and item is not None:
                yield f"{path}.{name}"
    elif isinstance(value, list):
        inner = next((get_args(one)[0] for one in _members(hint) if get_origin(one) is list), None)
        for i, item in enumerate(value if inner is not None else ()):
            yield from _unknown(item, inner, f"{path}[{i}]")


@cache
def _fields(kind: type[msgspec.Struct]) -> MappingProxyType[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    names = zip(kind.__struct_encode_fields__, kind.__struct_fields__, strict=True)
    return MappingProxyType({encoded: hints[name] for encoded, name in names})


def _nests(hint: Any) -> bool:
    return any(
        _nests(get_args(one)[0]) if get_origin(one) is list else _is_struct(one) for one in _members(hint)
    )


def _is_struct(hint: Any) -> TypeGuard[type[msgspec.Struct]]:
    return isinstance(hint, type) and issubclass(hint, msgspec.Struct)


def _struct_of(value: dict[str, Any], hint: Any) -> type[msgspec.Struct] | None:
    """Which Struct of `hint` the map was read as."""
    structs = [one for one in _members(hint) if _is_struct(one)]
    if len(structs) < 2:
        return structs[0] if structs else None
    return next((one for one in structs if _has_tag(value, one)), None)


def _has_tag(value: dict[str, Any], kind: type[msgspec.Struct]) -> bool:
    config = kind.__struct_config__
    return value.get(config.tag_field or "") == config.tag


def _members(hint: Any) -> Iterator[Any]:
    """The types that a value of this one may have."""
    if get_origin(hint) in (Union, UnionType):
        for one in get_args(hint):
            yield from _members(one)
    elif get_origin(hint) is Annotated:
        yield from _members(get_args(hint)[0])
    else:
        yield hint
