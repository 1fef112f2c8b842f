"""`POST /v1/messages` and `/v1/messages/count_tokens`."""

import secrets
from typing import Any

import msgspec
from starlette.requests import Request

from adapters.anthropic.draft import Draft, MessageFrames
from adapters.anthropic.prompt import Asked, read_prompt
from adapters.anthropic.schema import CountTokensRequest, MessagesRequest, message_refusals
from adapters.asgi import JsonResponse, or_disconnect
from adapters.openai.service import Service
from adapters.openai.stream import EventStream
from runner.wire.requests import GenerateRequest

_SAMPLING = ("temperature", "top_p", "top_k")


class TokenCount(msgspec.Struct, frozen=True, kw_only=True):
    input_tokens: int


class MessagesEndpoint:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._refused = message_refusals()

    async def create(self, request: Request) -> JsonResponse | EventStream:
        service = self._service
        body, unknown = await service.read(request, MessagesRequest, refused=self._refused)
        asked = await service.aside(request, lambda: read_prompt(body, unknown))
        ignored = service.ignored(asked.unknown, asked.idle, asked.depends)
        work = _work(body, asked, request_id=service.request_id(request))
        model = service.resolve(request, body.model)
        id = f"msg_{secrets.token_hex(12)}"
        if body.stream:
            frames = MessageFrames(
                id, stops=work.stop, max_tokens=body.max_tokens, request_id=request.state.request_id
            )
            return service.stream(model, [work], frames, ignored=ignored)
        draft = Draft(id, stops=work.stop, max_tokens=body.max_tokens, emit=_unheard)
        await service.follow(request, model, work, draft.take, ignored=ignored)
        return JsonResponse(draft.message(), headers=ignored.headers)

    async def count_tokens(self, request: Request) -> JsonResponse:
        """How many tokens the prompt of a message with this body has."""
        service = self._service
        body, unknown = await service.read(request, CountTokensRequest, refused=self._refused)
        asked = await service.aside(request, lambda: read_prompt(body, unknown))
        ignored = service.ignored(asked.unknown, asked.idle)
        model = service.resolve(request, body.model)
        result = await or_disconnect(request.receive, service.runner.tokenize(model, asked.prompt))
        return JsonResponse(TokenCount(input_tokens=len(result.tokens)), headers=ignored.headers)


def _work(body: MessagesRequest, asked: Asked, *, request_id: str) -> GenerateRequest:
    return GenerateRequest(
        prompt=asked.prompt,
        sampling={name: value for name in _SAMPLING if (value := getattr(body, name)) is not None},
        max_tokens=body.max_tokens,
        stop=tuple(body.stop_sequences or ()),
        constraint=asked.constraint,
        tool_use=asked.tool_use,
        split_reasoning=True,
        affinity=body.metadata.user_id if body.metadata is not None else None,
        request_id=request_id,
    )


def _unheard(kind: str, /, **fields: Any) -> None:
    """Of an answer that is sent whole nothing is told before."""
