"""What the endpoints share: the runner, reading a body, which model is meant, and the two ways to answer."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request

from adapters.asgi import closing, gathered, or_disconnect
from adapters.keys import key_of, require_model, without_others
from adapters.openai.chunks import Envelope
from adapters.openai.decode import decode, read_json
from adapters.openai.generation import Generated, collect
from adapters.openai.ignored import Ignored
from adapters.openai.models import loading_note
from adapters.openai.schema import RequestFields
from adapters.openai.stream import EventStream, Frames
from adapters.settings import AppSettings
from runner.api import RunnerApi
from runner.errors import GenerationFailed, ModelNotFound
from runner.wire.requests import Accepted, Event, Finished, GenerateRequest, Prompt

Body = TypeVar("Body", bound=msgspec.Struct)
T = TypeVar("T")

_AT_ONCE_BYTES = 1 << 17


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
    ) -> tuple[Body, list[str]]:
        """The body as `kind`, and the fields that nobody knows, for `ignored`. Raises ApiError."""
        raw = await read_json(
            request,
            limit_bytes=self._settings.body_limit_bytes,
            timeout_s=self._settings.body_timeout_s,
        )
        request.state.body_bytes = len(raw)
        return await self.aside(request, lambda: decode(raw, kind, refused=refused))

    async def aside(self, request: Request, work: Callable[[], T]) -> T:
        """The result of `work`, which takes the longer the larger the body is: for a large one on another thread, so
        that it holds up nobody else."""
        return work() if request.state.body_bytes <= _AT_ONCE_BYTES else await asyncio.to_thread(work)

    def ignored(
        self,
        unknown: Sequence[str],
        idle: Sequence[str] = (),
        depends: Mapping[str, Sequence[str]] | None = None,
    ) -> Ignored:
        """What of a body does nothing, by the server's policy. Raises ApiError 400 where that is strict."""
        return Ignored(self._settings.unknown_fields, unknown, idle, depends)

    def resolve(self, request: Request, model: str | None) -> str:
        """The model that is meant: the path's, else the body's, else what the runner makes of the bearer
        token and of the repository. Raises ModelNotFound, and ApiError 403 where the key is not for it."""
        asked = request.path_params.get("model") or model or None
        try:
            name = self.runner.resolve_name(asked, bearer=_bearer(request))
        except ModelNotFound as error:
            raise without_others(request, error) from None
        require_model(request, name, self.runner.index)
        return name

    def envelope(self, prefix: str, *, tells_tier: bool = False) -> Envelope:
        return Envelope(
            id=f"{prefix}-{secrets.token_hex(12)}",
            created=self.now(),
            fingerprint=f"fp_modelyard_{self._settings.version}",
            tells_tier=tells_tier,
        )

    def now(self) -> int:
        """Seconds since 1970."""
        return int(self._clock())

    def request_id(self, request: Request, body: RequestFields | None = None) -> str:
        """The client's id for its request with a suffix, since two requests in flight may carry the same."""
        given = body.request_id if body is not None else None
        return f"{given or request.state.request_id}-{secrets.token_hex(3)}"

    async def prompt_ids(
        self, request: Request, model: str, prompts: Sequence[Prompt]
    ) -> list[tuple[int, ...]]:
        """The tokens of each prompt."""
        work = [self.runner.tokenize(model, prompt) for prompt in prompts]
        results = await or_disconnect(request.receive, gathered(work))
        return [result.tokens for result in results]

    def stream(
        self,
        model: str,
        requests: Sequence[GenerateRequest],
        frames: Frames,
        *,
        ignored: Ignored,
        settle: Callable[[Exception | None], Awaitable[None]] | None = None,
    ) -> EventStream:
        """The answer to a request with `stream: true`; `settle` is awaited before its end is sent, with what
        failed if something did."""
        return EventStream(
            [self.runner.generate(model, request) for request in requests],
            frames,
            progress=lambda: loading_note(self.runner.index(), model),
            keepalive_s=self._settings.keepalive_s,
            ignored=ignored,
            settle=settle,
        )

    async def collect(
        self, request: Request, model: str, requests: Sequence[GenerateRequest], *, ignored: Ignored
    ) -> Generated:
        """All results at once; the work is cancelled when the client leaves."""
        work = collect(self.runner, model, requests, hear=ignored.hear)
        return await or_disconnect(request.receive, work)

    async def follow(
        self,
        request: Request,
        model: str,
        work: GenerateRequest,
        take: Callable[[Event], None],
        *,
        ignored: Ignored,
    ) -> None:
        """Hand the events of one request to `take`; the work is cancelled when the client leaves."""

        async def run() -> None:
            async with closing(self.runner.generate(model, work)) as events:
                async for event in events:
                    if isinstance(event, Accepted):
                        ignored.hear(event)
                    take(event)
                    if isinstance(event, Finished):
                        return
            raise GenerationFailed("The model's answer ended without saying that it was finished.")

        await or_disconnect(request.receive, run())


def _bearer(request: Request) -> str | None:
    if key_of(request) is not None:
        return None  # the token is a key then, never a name
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() or None if kind.lower() == "bearer" else None
