"""`POST /chat/completions`: the request made ready for a model, and the answer as chat shapes it."""

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request

from adapters.asgi import JsonResponse
from adapters.openai.chunks import ChatChunks, Envelope, chat_finish
from adapters.openai.defaults import with_defaults
from adapters.openai.errors import invalid
from adapters.openai.generation import Generated, Sample, usage_body
from adapters.openai.logprobs import chat_logprobs, prompt_logprobs
from adapters.openai.messages import template_depends, template_kwargs, template_messages
from adapters.openai.sampling import build_request, check_prompt_logprobs, check_stream_options, idle_fields
from adapters.openai.schema import ChatRequest, chat_refusals
from adapters.openai.service import Service
from adapters.openai.stream import EventStream
from adapters.openai.tools import offered_tools, strict_fields
from runner.wire.requests import ChatPrompt, GenerateRequest


class ChatEndpoint:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._refused = chat_refusals()

    async def create(self, request: Request) -> JsonResponse | EventStream:
        service = self._service
        body, unknown = await service.read(request, ChatRequest, refused=self._refused)
        check_stream_options(body)
        check_prompt_logprobs(body)
        if body.top_logprobs is not None and not body.logprobs:
            raise invalid("top_logprobs", "`top_logprobs` is only allowed together with `logprobs: true`.")
        ignored = service.ignored(unknown, idle_fields(body), _depends(body))
        request_id, n = service.request_id(request, body), body.n or 1
        work = await service.aside(request, lambda: chat_work(body, request_id=request_id))
        model = service.resolve(request, body.model)
        shaped = with_defaults(body, service.runner.request_defaults(model))
        if shaped is not body:
            body, n = shaped, shaped.n or 1
            work = await service.aside(request, lambda: chat_work(shaped, request_id=request_id))
        envelope = service.envelope("chatcmpl", tells_tier=body.service_tier is not None)
        calls_functions = body.functions is not None
        prompt_ids = (
            await service.prompt_ids(request, model, [work.prompt]) if body.return_token_ids else None
        )
        if body.stream:
            chunks = ChatChunks(
                envelope, body.stream_options, n=n, calls_functions=calls_functions, prompt_ids=prompt_ids
            )
            return service.stream(model, [work], chunks, ignored=ignored)
        generated = await service.collect(request, model, [work], ignored=ignored)
        answer = completion(
            envelope, generated, with_logprobs=bool(body.logprobs), calls_functions=calls_functions
        )
        if prompt_ids is not None:
            answer["prompt_token_ids"] = prompt_ids[0]
            for choice, sample in zip(answer["choices"], generated.samples, strict=True):
                choice["token_ids"] = sample.token_ids
        if body.prompt_logprobs is not None:
            answer["prompt_logprobs"] = prompt_logprobs(generated.samples[0].prompt_logprobs)
        return JsonResponse(answer, headers=ignored.headers)


def completion(
    envelope: Envelope, generated: Generated, *, with_logprobs: bool, calls_functions: bool = False
) -> dict[str, Any]:
    """The `chat.completion` object. `calls_functions`: calls are told as the deprecated `functions` have them."""
    choices = []
    for index, sample in enumerate(generated.samples):
        logprobs = {"content": chat_logprobs(sample.logprobs), "refusal": None} if with_logprobs else None
        choices.append(
            {
                "index": index,
                "message": _answer_message(sample, calls_functions=calls_functions),
                "logprobs": logprobs,
                "finish_reason": chat_finish(sample.finish, calls_functions=calls_functions),
            }
        )
    fields = envelope.fields("chat.completion", generated.model, generated.service_tier)
    return fields | {"choices": choices, "usage": usage_body(generated.usage)}


def chat_work(body: ChatRequest, *, request_id: str) -> GenerateRequest:
    """What a model is asked. Raises ApiError 400."""
    return build_request(
        body,
        chat_prompt(body),
        request_id=request_id,
        n=body.n or 1,
        max_tokens=body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        prompt_logprobs=body.prompt_logprobs,
        tool_use=offered_tools(body).use,
        split_reasoning=True,
    )


def chat_prompt(body: ChatRequest) -> ChatPrompt:
    """The messages and tools as the template gets them. Raises ApiError 400 naming the message and its part."""
    continues = bool(body.continue_final_message)
    if continues and body.add_generation_prompt:
        raise invalid(
            "continue_final_message",
            "`continue_final_message` and `add_generation_prompt` exclude each other; give one of them.",
        )
    if continues and body.messages[-1].role != "assistant":
        raise invalid("continue_final_message", "There is no assistant message at the end to continue.")
    return ChatPrompt(
        messages=template_messages(body.messages),
        tools=offered_tools(body).shown,
        template_kwargs=template_kwargs(
            body.chat_template_kwargs, effort=body.reasoning_effort, verbosity=body.verbosity
        ),
        add_generation_prompt=body.add_generation_prompt is not False and not continues,
        continue_final_message=continues,
    )


def _depends(body: ChatRequest) -> dict[str, Sequence[str]]:
    """Fields that only some models have a use for."""
    asked = template_depends(
        body.chat_template_kwargs,
        effort=None if body.reasoning_effort is None else "reasoning_effort",
        verbosity=None if body.verbosity is None else "verbosity",
    )
    return asked | strict_fields(body)


def _answer_message(sample: Sample, *, calls_functions: bool) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": sample.text or (None if sample.tool_calls else ""),
        "refusal": None,
    }
    if sample.reasoning:
        message["reasoning_content"] = sample.reasoning
    functions = [{"name": call.name, "arguments": call.arguments} for call in sample.tool_calls]
    if functions and calls_functions:
        message["function_call"] = functions[0]
    elif functions:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": function}
            for call, function in zip(sample.tool_calls, functions, strict=True)
        ]
    return message
