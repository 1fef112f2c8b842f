"""What the endpoints share: the runner, reading a body, which model is meant, and the two ways to answer."""

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from starlette.requests import Request

from adapters.asgi import or_disconnect
from adapters.openai.chunks import Envelope
from adapters.openai.decode import decode, ignored_header, read_json
from adapters.openai.generation import Generated, collect
from adapters.openai.models import loading_note
from adapters.openai.schema import GenerationFields
from adapters.openai.stream import EventStream, Frames
from adapters.settings import AppSettings
from runner.api import RunnerApi
from runner.wire.requests import GenerateRequest

Body = TypeVar("Body", bound=GenerationFields)


class Service:
    """The runner as the OpenAI endpoints use it. `clock` gives seconds since 1970."""

    def __init__(
        self, runner: RunnerApi, settings: AppSettings, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.runner = runner
        self._settings = settings
        self._clock = clock

    async def read(
        self, request: Request, kind: type[Body], *, refused: Mapping[str, tuple[Any, ...]]
    ) -> tuple[Body, dict[str, str]]:
        """The body as `kind`, and the headers that tell what of it was ignored. Raises ApiError."""
        raw = await read_json(
            request,
            limit_bytes=self._settings.body_limit_bytes,
            timeout_s=self._settings.body_timeout_s,
        )
        body, unknown = decode(raw, kind, refused=refused)
        return body, ignored_header(unknown)

    def resolve(self, request: Request, model: str | None) -> str:
        """The model that is meant: the path's, else the body's, else what the runner makes of the bearer
        token and of the repository. Raises ModelNotFound."""
        return self.runner.resolve_name(
            request.path_params.get("model") or model or None, bearer=self._bearer(request)
        )

    def envelope(self, prefix: str) -> Envelope:
        return Envelope(
            id=f"{prefix}-{secrets.token_hex(12)}",
            created=int(self._clock()),
            fingerprint=f"fp_modelyard_{self._settings.version}",
        )

    def request_id(self, request: Request, body: GenerationFields) -> str:
        """The client's id for its request with a suffix, since two requests in flight may carry the same."""
        return f"{body.request_id or request.state.request_id}-{secrets.token_hex(3)}"

    def stream(
        self,
        model: str,
        requests: Sequence[GenerateRequest],
        frames: Frames,
        *,
        headers: Mapping[str, str],
    ) -> EventStream:
        """The answer to a request with `stream: true`."""
        return EventStream(
            [self.runner.generate(model, request) for request in requests],
            frames,
            progress=lambda: loading_note(self.runner.index(), model),
            keepalive_s=self._settings.keepalive_s,
            send_timeout_s=self._settings.send_timeout_s,
            headers=headers,
        )

    async def collect(self, request: Request, model: str, requests: Sequence[GenerateRequest]) -> Generated:
        """All results at once; the work is cancelled when the client leaves."""
        return await or_disconnect(request.receive, collect(self.runner, model, requests))

    def _bearer(self, request: Request) -> str | None:
        if self._settings.api_keys:
            return None  # the token is a key then, never a name
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        return token.strip() or None if kind.lower() == "bearer" else None
