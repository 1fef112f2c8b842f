"""`POST /responses` and `/responses/input_tokens`. What is kept is asked for in `stored.py`."""

import secrets
from typing import Any

import msgspec
from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import Response

from adapters.asgi import ApiError, ClientGoneError, JsonResponse, or_disconnect
from adapters.openai.errors import invalid, unsupported
from adapters.openai.helpers import InputTokens
from adapters.openai.responses.draft import Draft, ResponseFrames, outline
from adapters.openai.responses.items import Item
from adapters.openai.responses.prompt import idle_fields, read_prompt, wanted_logprobs
from adapters.openai.responses.schema import InputTokensRequest, ResponseRequest, response_refusals
from adapters.openai.responses.store import ResponseStore
from adapters.openai.responses.stored import NO_STORE, owner_of
from adapters.openai.sampling import build_request
from adapters.openai.sampling import idle_fields as old_names
from adapters.openai.service import Service
from adapters.openai.stream import EventStream


class ResponsesEndpoint:
    """`store` None: no response is kept."""

    def __init__(self, service: Service, store: ResponseStore | None) -> None:
        self._service = service
        self._store = store
        self._refused = response_refusals()

    async def create(self, request: Request) -> Response | EventStream:
        service = self._service
        body, unknown = await service.read(request, ResponseRequest, refused=self._refused)
        self._check(body)
        logprobs = wanted_logprobs(body)
        owner = owner_of(request)
        stored = await self._conversation(body, owner)
        asked = await service.aside(request, lambda: read_prompt(body, stored, unknown))
        ignored = service.ignored(asked.unknown, [*old_names(body), *idle_fields(body)], asked.depends)
        work = build_request(
            body,
            asked.prompt,
            request_id=service.request_id(request, body),
            n=1,
            max_tokens=body.max_output_tokens,
            logprobs=logprobs,
            tool_use=asked.tool_use,
            split_reasoning=True,
        )
        work = replace(work, constraint=asked.constraint)
        model = service.resolve(request, body.model)
        id = f"resp_{secrets.token_hex(24)}"
        is_stored = self._store is not None and body.store is not False
        outlined = outline(body, id=id, created_at=service.now(), is_stored=is_stored)

        async def keep(draft: Draft) -> bytes:
            response = msgspec.json.encode(draft.response())
            if is_stored and self._store is not None:
                await self._store.put(
                    id, owner=owner, previous=body.previous_response_id, response=response, given=asked.given
                )
            return response

        if body.stream:
            frames = ResponseFrames(outlined)

            async def settle(failure: Exception | None) -> None:
                if isinstance(failure, ClientGoneError):
                    frames.draft.cancel()
                if failure is None or frames.draft.has_begun:
                    await keep(frames.draft)

            return service.stream(model, [work], frames, ignored=ignored, settle=settle)
        draft = Draft(outlined, _unheard)
        await service.follow(request, model, work, draft.take, ignored=ignored)
        return Response(await keep(draft), media_type="application/json", headers=ignored.headers)

    async def input_tokens(self, request: Request) -> JsonResponse:
        """How many tokens the prompt of a response with this body has."""
        service = self._service
        body, unknown = await service.read(request, InputTokensRequest, refused=self._refused)
        stored = await self._conversation(body, owner_of(request))
        asked = await service.aside(request, lambda: read_prompt(body, stored, unknown))
        ignored = service.ignored(asked.unknown, idle_fields(body))
        model = service.resolve(request, body.model)
        result = await or_disconnect(request.receive, service.runner.tokenize(model, asked.prompt))
        return JsonResponse(InputTokens(input_tokens=len(result.tokens)), headers=ignored.headers)

    def _check(self, body: ResponseRequest) -> None:
        if body.stream_options is not None and not body.stream:
            raise invalid("stream_options", "`stream_options` is only allowed together with `stream: true`.")
        if body.store and self._store is None:
            raise unsupported("store", f"`store`: {NO_STORE}, or leave `store` out.")

    async def _conversation(self, body: InputTokensRequest, owner: str) -> list[Item]:
        """What was said up to the response that the body goes on with. Raises ApiError 400."""
        previous = body.previous_response_id
        if previous is None:
            return []
        if self._store is None:
            raise unsupported(
                "previous_response_id",
                f"`previous_response_id`: {NO_STORE}, or send the whole conversation as `input`.",
            )
        items = await self._store.conversation(previous, owner=owner)
        if items is None:
            raise ApiError(
                400,
                f'`previous_response_id`: there is no response "{previous[:80]}", or it is kept no longer.',
                code="previous_response_not_found",
                param="previous_response_id",
            )
        return items


def _unheard(kind: str, /, **fields: Any) -> None:
    """Of an answer that is sent whole nothing is told before."""
