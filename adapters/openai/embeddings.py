"""`POST /embeddings`: vectors of texts or token ids, as numbers or as base64."""

import asyncio
import base64
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta
from starlette.requests import Request

from adapters.asgi import JsonResponse, or_disconnect
from adapters.openai.errors import invalid
from adapters.openai.prompts import text_or_token_prompts
from adapters.openai.schema import Count, TokenId
from adapters.openai.service import Service
from runner.wire.requests import TextPrompt, TokenPrompt

_TURN_VECTORS = 64
_VECTOR = {"anyOf": [{"type": "array", "items": {"type": "number"}}, {"type": "string"}]}


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True):
    input: str | list[str | TokenId | list[TokenId]]
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Count | None = None
    user: str | None = None


class EmbeddingUsage(msgspec.Struct, frozen=True, kw_only=True):
    prompt_tokens: int
    total_tokens: int


class Embedding(msgspec.Struct, frozen=True, kw_only=True):
    """`embedding`: numbers, or little-endian float32 as base64."""

    index: int
    embedding: Annotated[msgspec.Raw, Meta(extra_json_schema=_VECTOR)]
    object: Literal["embedding"] = "embedding"


class EmbeddingAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One vector per input, in order. `model` is the one that ran."""

    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
    object: Literal["list"] = "list"


class EmbeddingsEndpoint:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._refused = embedding_refusals()

    async def create(self, request: Request) -> JsonResponse:
        service = self._service
        body, unknown = await service.read(request, EmbeddingRequest, refused=self._refused)
        ignored = service.ignored(unknown)
        prompts = await service.aside(request, lambda: embedding_prompts(body))
        model = service.resolve(request, body.model)
        work = service.runner.embed(model, prompts, dimensions=body.dimensions)
        result = await or_disconnect(request.receive, work)
        data = []
        for index, vector in enumerate(result.vectors):
            if index % _TURN_VECTORS == 0:
                await asyncio.sleep(0)  # millions of numbers become text here: others get their turn
            data.append(Embedding(index=index, embedding=encoded(vector, body.encoding_format or "float")))
        tokens = result.prompt_tokens
        usage = EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens)
        answer = EmbeddingAnswer(data=data, model=result.model, usage=usage)
        return JsonResponse(answer, headers=ignored.headers)


def embedding_refusals() -> dict[str, tuple[Any, ...]]:
    """Fields of other servers that would change the vectors, with the values that change nothing."""
    return {
        "messages": (),
        "truncate_prompt_tokens": (),
        "add_special_tokens": (True,),
        "normalize": (True,),
        "embd_normalize": (2,),
    }


def embedding_prompts(body: EmbeddingRequest) -> list[TextPrompt | TokenPrompt]:
    """What to embed, in order. Raises ApiError 400."""
    prompts = text_or_token_prompts(body.input, "input")
    for i, prompt in enumerate(prompts):
        if isinstance(prompt, TextPrompt) and not prompt.text:
            param = "input" if isinstance(body.input, str) else f"input[{i}]"
            raise invalid(param, f"`{param}` is an empty text, which has no embedding.")
    return prompts


def encoded(vector: bytes, encoding_format: str) -> msgspec.Raw:
    """Little-endian float32 as JSON: an array of numbers, or a text of base64."""
    if encoding_format == "base64":
        return msgspec.Raw(b'"' + base64.b64encode(vector) + b'"')
    return msgspec.Raw(msgspec.json.encode(np.frombuffer(vector, "<f4").tolist()))
