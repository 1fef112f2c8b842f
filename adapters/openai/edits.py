"""`POST /edits`: texts and what is to be done with them, one choice per text and sample. It never streams."""

from typing import Any, Literal

import msgspec
from starlette.requests import Request

from adapters.asgi import JsonResponse
from adapters.openai.decode import refuse_nul
from adapters.openai.errors import invalid, unsupported
from adapters.openai.generation import usage_body
from adapters.openai.prompts import check_choices
from adapters.openai.sampling import build_request, idle_fields
from adapters.openai.schema import Count, GenerationFields, shared_refusals, token_refusals
from adapters.openai.service import Service
from runner.wire.requests import EditPrompt


class EditRequest(GenerationFields, frozen=True, kw_only=True):
    instruction: str
    input: str | list[str] | None = None
    max_tokens: Count | None = None


class EditChoice(msgspec.Struct, frozen=True, kw_only=True):
    text: str
    index: int
    finish_reason: str


class EditAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Choice = text * n + sample. `model` is the one that ran."""

    created: int
    model: str
    choices: list[EditChoice]
    usage: dict[str, Any]
    object: Literal["edit"] = "edit"


class EditsEndpoint:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._refused = shared_refusals() | token_refusals()

    async def create(self, request: Request) -> JsonResponse:
        service = self._service
        body, unknown = await service.read(request, EditRequest, refused=self._refused)
        ignored = service.ignored(unknown, idle_fields(body))
        if body.stream or body.stream_options is not None:
            raise unsupported(
                "stream" if body.stream else "stream_options", "Edits do not stream; leave `stream` out."
            )
        prompts = await service.aside(request, lambda: edit_prompts(body))
        n = body.n or 1
        check_choices(n, len(prompts))
        request_id = service.request_id(request, body)
        work = [
            build_request(
                body,
                prompt,
                request_id=f"{request_id}-{i}",
                n=n,
                max_tokens=body.max_tokens,
                logprobs=None,
                split_reasoning=True,  # what a model thinks before it answers is no part of the edited text
            )
            for i, prompt in enumerate(prompts)
        ]
        model = service.resolve(request, body.model)
        generated = await service.collect(request, model, work, ignored=ignored)
        answer = EditAnswer(
            created=service.envelope("edit").created,
            model=generated.model,
            choices=[
                EditChoice(text=sample.text, index=index, finish_reason=sample.finish)
                for index, sample in enumerate(generated.samples)
            ],
            usage=usage_body(generated.usage),
        )
        return JsonResponse(answer, headers=ignored.headers)


def edit_prompts(body: EditRequest) -> list[EditPrompt]:
    """One per text; without `input` an empty text is edited. Raises ApiError 400."""
    if not body.instruction.strip():
        raise invalid("instruction", "`instruction` is empty; say what is to be done with the input.")
    refuse_nul(body.instruction, "instruction")
    if isinstance(body.input, list):
        if not body.input:
            raise invalid("input", "`input` is an empty list; give at least one text.")
        for i, text in enumerate(body.input):
            refuse_nul(text, f"input[{i}]")
        return [EditPrompt(text=text, instruction=body.instruction) for text in body.input]
    refuse_nul(body.input or "", "input")
    return [EditPrompt(text=body.input or "", instruction=body.instruction)]
