"""API keys: who may ask, for which models and with which rights. Reads the key file and follows its changes.

A key is kept as its SHA-256 digest only: it cannot be logged, and how long a comparison takes tells nothing of it.
Which model a request means is said elsewhere; endpoints ask here whether its key may use that one.
"""

import hashlib
import hmac
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, cast

import msgspec
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from adapters.asgi import ApiError, error_response
from runner.api import ModelStatus
from runner.errors import ModelNotFound
from runner.names import parse_name

LOOK_AGAIN_S = 1.0
"""The key file is looked at no more often than this, and only when a request comes."""

_OPEN_PATHS = frozenset({"/", "/health", "/v2/health/live", "/v2/health/ready"})
_ROLES = ("user", "admin")
_OPTIONS = ("name", "models", "role")
_STATE = "api_key"

Role = Literal["user", "admin"]
Stamp = tuple[int, int, int]

logger = logging.getLogger(__name__)


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """One key. `models`: the names, aliases or `name:version` that it may use, all where empty. `name` is what
    logs call it by."""

    digest: bytes
    name: str
    role: Role = "user"
    models: frozenset[str] = frozenset()
    is_named: bool = False

    @property
    def owner(self) -> str:
        """Whose it is: keys of one given name are one owner's, a key without any is its own."""
        return f"name {self.name}" if self.is_named else f"key {self.digest.hex()}"

    def may_use(self, model: str, index: Callable[[], Iterable[ModelStatus]]) -> bool:
        """Whether it may use `model`, a name that is served; `index` is asked only where that is an alias."""
        asked = parse_name(model)
        base, version = asked.model, "" if asked.version is None else f":{asked.version}"
        if not self.models or not self.models.isdisjoint((model, base, base + version)):
            return True
        found = next((each for each in index() if base in (each.name, *each.aliases)), None)
        names = (found.name, *found.aliases) if found is not None else ()
        return any(name in self.models or name + version in self.models for name in names)

    def may_see(self, model: ModelStatus) -> bool:
        """Whether lists show it `model`: it may use that, or a version of it."""
        if not self.models:
            return True
        return not {parse_name(name).model for name in self.models}.isdisjoint((model.name, *model.aliases))


class KeyFileError(Exception):
    """A key file cannot be used; the message says where and why, and never holds a key."""


def read_key_file(path: Path) -> tuple[ApiKey, ...]:
    """The keys in a file: one a line, `key name=alice models=orca,tiny role=user`, comments from `#` on.

    Raises KeyFileError of the form FILE:LINE: what is wrong.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise KeyFileError(f"{path}: is not UTF-8 text") from None
    keys: dict[bytes, ApiKey] = {}
    for number, line in enumerate(lines, 1):
        words = _words(line)
        if not words:
            continue
        try:
            key = _parse(words, name=f"line {number}")
        except ValueError as error:
            raise KeyFileError(f"{path}:{number}: {error}") from None
        if key.digest in keys:
            raise KeyFileError(f"{path}:{number}: this key stands in the file already; remove one of the two")
        keys[key.digest] = key
    if not keys:
        raise KeyFileError(f"{path}: holds no API key; write one a line")
    return tuple(keys.values())


class KeyRing:
    """All keys of a server: `given` ones, which are for everything, and those of `file`, read anew when it changes.

    A file that is wrong or gone later is told in the log, and the keys read before stay in force. Raises
    KeyFileError where it is wrong from the start.
    """

    def __init__(
        self,
        given: Sequence[str] = (),
        file: Path | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._given = tuple(
            ApiKey(digest=_digest(key), name=f"--api-key {number}", role="admin")
            for number, key in enumerate(given, 1)
        )
        self._file = file
        self._clock = clock
        self._stamp = _stamp(file)
        self._looked_at = clock()
        self._read = read_key_file(file) if file is not None else ()

    @property
    def is_empty(self) -> bool:
        """Nobody needs a key."""
        return not self._given and self._file is None

    def find(self, shown: Iterable[bytes]) -> ApiKey | None:
        """The key that one of the `shown` texts is."""
        self._follow()
        digests = [hashlib.sha256(text).digest() for text in shown]
        # Every key is looked at, whichever matches.
        matches = [
            key
            for key in (*self._given, *self._read)
            if any(hmac.compare_digest(key.digest, digest) for digest in digests)
        ]
        return matches[0] if matches else None

    def _follow(self) -> None:
        now = self._clock()
        if self._file is None or now - self._looked_at < LOOK_AGAIN_S:
            return
        self._looked_at = now
        stamp = _stamp(self._file)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._read = read_key_file(self._file)
        except KeyFileError as error:
            logger.error("%s; the keys read before stay in force", error)
        else:
            logger.info("%s has changed: %d keys", self._file, len(self._read))


class KeyCheck:
    """Lets in who shows a key as a bearer token or as `x-api-key`, and notes which one it was."""

    def __init__(self, app: ASGIApp, *, keys: KeyRing) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        key = self._keys.find(shown_keys(scope["headers"]))
        if key is None:
            error = ApiError(
                401,
                'This server asks for an API key; send it as the header "Authorization: Bearer <key>".',
                type="authentication_error",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )
            await error_response(scope, error)(scope, receive, send)
            return
        scope.setdefault("state", {})[_STATE] = key
        await self._app(scope, receive, send)


def key_of(request: Request) -> ApiKey | None:
    """The key that the request showed; None where the server has no keys."""
    return cast(ApiKey | None, request.scope["state"].get(_STATE))


def require_admin(request: Request) -> None:
    """Raises ApiError 403 where the server has keys and the one shown is not an admin's."""
    key = key_of(request)
    if key is not None and key.role != "admin":
        raise ApiError(
            403,
            f"{request.method} {request.url.path} is for admins; ask with a key whose role is admin.",
            type="permission_error",
            code="admin_required",
        )


def require_model(request: Request, model: str, index: Callable[[], Iterable[ModelStatus]]) -> None:
    """Raises ApiError 403 where the request's key is for other models than `model`."""
    key = key_of(request)
    if key is not None and not key.may_use(model, index):
        raise ApiError(
            403,
            f'Your API key is not for the model "{model}", but for {", ".join(sorted(key.models))}.',
            type="permission_error",
            code="model_not_allowed",
            param="model",
        )


def without_others(request: Request, error: ModelNotFound) -> ModelNotFound:
    """`error` for the request's key: its hints name no model that the key is not for."""
    key = key_of(request)
    if key is None or not key.models:
        return error
    names = ", ".join(sorted(key.models))
    return ModelNotFound(f"there is no such model; your API key is for {names}", model=error.model)


def visible_models(request: Request, index: Iterable[ModelStatus]) -> list[ModelStatus]:
    """Those models that the request's key is for."""
    key = key_of(request)
    return [model for model in index if key is None or key.may_see(model)]


def check_key(text: str) -> str:
    """`text`, if it can be sent as a key. Raises ValueError."""
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("a key is made of ASCII letters, digits and signs without spaces")
    return text


def _words(line: str) -> list[str]:
    """The words of a line up to one that begins with `#`, for a key may hold that sign."""
    words = line.split()
    ends = next((i for i, word in enumerate(words) if word.startswith("#")), len(words))
    return words[:ends]


def _parse(words: Sequence[str], *, name: str) -> ApiKey:
    """A line's words as a key. Raises ValueError."""
    secret, *options = words
    if secret.partition("=")[0] in _OPTIONS:
        raise ValueError("a line begins with the key itself")
    given: dict[str, str] = {}
    for word in options:
        option, _, value = word.partition("=")
        if option not in _OPTIONS:
            raise ValueError("after the key only name=, models= and role= may stand")
        if option in given:
            raise ValueError(f"{option}= stands here twice")
        if not value:
            raise ValueError(f"{option}= has no value")
        given[option] = value
    if given.get("role", "user") not in _ROLES:
        raise ValueError(f"role={given['role']} is none of {', '.join(_ROLES)}")
    models = given["models"].split(",") if "models" in given else []
    if not all(models):
        raise ValueError("models= lists names with commas between them, and nothing else")
    if models and given.get("role") == "admin":
        raise ValueError("an admin key is for all models; leave models= out, or make it role=user")
    return ApiKey(
        digest=_digest(check_key(secret)),
        name=given.get("name", name),
        is_named="name" in given,
        role=cast(Role, given.get("role", "user")),
        models=frozenset(models),
    )


def shown_keys(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    shown = []
    for name, value in headers:
        if name == b"x-api-key":
            shown.append(value.strip())
        elif name == b"authorization" and value[:7].lower() == b"bearer ":
            shown.append(value[7:].strip())
    return shown


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _stamp(file: Path | None) -> Stamp | None:
    """What changes when the file does; None where it is not there."""
    try:
        stat = file.stat() if file is not None else None
    except OSError:
        return None
    return None if stat is None else (stat.st_mtime_ns, stat.st_size, stat.st_ino)
