"""Names on the wire: `name[:version][:adapter]`; and which model a request means when it names none or a wrong one."""

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec

from runner.errors import ModelNotFound

MOST_DIGITS = 18
MOST_LETTERS = 200
MOST_COMPARED = 1000
"""Names that a wrong one is compared with for a hint; comparing is slow, and anybody can ask for wrong names."""


class ModelName(msgspec.Struct, frozen=True):
    """A model and the version asked for, None for the default; and the adapter, None for the model itself."""

    model: str
    version: int | None = None
    adapter: str | None = None

    def __str__(self) -> str:
        parts = (self.model, self.version, self.adapter)
        return ":".join(str(part) for part in parts if part is not None)


def parse_name(text: str) -> ModelName:
    """`orca:2` is version 2 of orca, `orca:2:pirate` that with its adapter `pirate`. Versions are all digits, adapters
    are not; what is no such name is a model's as it stands, and there is none."""
    name, separator, rest = text.partition(":")
    version, _, adapter = rest.partition(":")
    if not _is_version(version):
        version, adapter = "", rest
    is_whole = bool(name and separator and (version or adapter)) and not text.endswith(":")
    if not is_whole or ":" in adapter or adapter.isdigit():
        return ModelName(text)
    return ModelName(name, int(version) if version else None, adapter or None)


def _is_version(text: str) -> bool:
    return 0 < len(text) <= MOST_DIGITS and text.isascii() and text.isdigit()


def choose_name(
    asked: str | None,
    bearer: str | None,
    *,
    known: Mapping[str, object],
    aliases: Mapping[str, str],
    fallback: str,
    passing: Collection[str] = (),
    may_come: Callable[[str], bool] = lambda _: False,
    hint_for: Callable[[str], str] = lambda _: "",
) -> str:
    """The served name that a request means.

    Its own `model` first; where it names none, a bearer token that is a model's name; then the one model there
    is. `fallback`: that one model also answers to a wrong name ("always"), to none only ("missing"), or the
    request must name it ("never"). `passing` are models that come and go, which do not count there; what `may_come`
    is known as soon as it is asked for. Raises ModelNotFound with close names, and what `hint_for` has to say.
    """

    def is_known(text: str | None) -> bool:
        return bool(text) and (
            parse_name(text or "").model in known or parse_name(text or "").model in aliases
        )

    asked = asked or None
    if asked is not None and is_known(asked):
        return asked
    if asked is None and bearer is not None and is_known(bearer):
        return bearer
    if asked is not None and may_come(asked):
        return asked
    staying = [name for name in known if name not in passing]
    if len(staying) == 1 and (fallback == "always" or (fallback == "missing" and asked is None)):
        return staying[0]
    if asked is None:
        raise ModelNotFound(
            f"the request names no model; there are {_list(list(known))}" if known else "there are no models",
            model=None,
        )
    raise unknown_model(asked, [*known, *aliases], more=hint_for(asked))


def unknown_model(asked: str, known: Sequence[str], *, more: str = "") -> ModelNotFound:
    """The error for a name that nothing answers to; `more` helps to get it."""
    name = parse_name(asked).model[:MOST_LETTERS]
    likely = [other for other in known if abs(len(other) - len(name)) <= max(2, len(name) // 2)]
    close = difflib.get_close_matches(name, likely[:MOST_COMPARED], n=3, cutoff=0.5)
    hint = (
        f"did you mean {' or '.join(close)}?"
        if close
        else f"there are {_list(known)}"
        if known
        else "there are none"
    )
    message = f"there is no model {asked[:MOST_LETTERS]!r}; {hint}" + (f"; {more}" if more else "")
    return ModelNotFound(message, model=asked, hint=more or None)


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(names[:10])
    return f"{shown} and {len(names) - 10} more" if len(names) > 10 else shown
