"""`POST /chat/completions`: messages made ready for a template, and the answer as chat shapes it."""

from typing import Any

import msgspec
from starlette.requests import Request

from adapters.asgi import JsonResponse
from adapters.openai.chunks import ChatChunks, Envelope
from adapters.openai.decode import refuse_nul
from adapters.openai.errors import invalid, missing, unsupported
from adapters.openai.generation import Generated, usage_body
from adapters.openai.logprobs import chat_logprobs
from adapters.openai.sampling import build_request, check_stream_options
from adapters.openai.schema import ChatRequest, ContentPart, Message, ToolCall, chat_refusals
from adapters.openai.service import Service
from adapters.openai.stream import EventStream
from runner.wire.requests import ChatPrompt

_TEMPLATE_OWN = ("messages", "tools", "add_generation_prompt")
_ROLES = ("developer", "system", "user", "assistant", "tool", "function")


class ChatEndpoint:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._refused = chat_refusals()

    async def create(self, request: Request) -> JsonResponse | EventStream:
        service = self._service
        body, headers = await service.read(request, ChatRequest, refused=self._refused)
        check_stream_options(body)
        if body.top_logprobs is not None and not body.logprobs:
            raise invalid("top_logprobs", "`top_logprobs` is only allowed together with `logprobs: true`.")
        n = body.n or 1
        work = build_request(
            body,
            chat_prompt(body),
            request_id=service.request_id(request, body),
            n=n,
            max_tokens=body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens,
            logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        )
        model = service.resolve(request, body.model)
        envelope = service.envelope("chatcmpl")
        if body.stream:
            chunks = ChatChunks(envelope, body.stream_options, n=n)
            return service.stream(model, [work], chunks, headers=headers)
        generated = await service.collect(request, model, [work])
        return JsonResponse(
            completion(envelope, generated, with_logprobs=bool(body.logprobs)), headers=headers
        )


def completion(envelope: Envelope, generated: Generated, *, with_logprobs: bool) -> dict[str, Any]:
    """The `chat.completion` object."""
    choices = []
    for index, sample in enumerate(generated.samples):
        logprobs = {"content": chat_logprobs(sample.logprobs), "refusal": None} if with_logprobs else None
        choices.append(
            {
                "index": index,
                "message": {"role": "assistant", "content": sample.text, "refusal": None},
                "logprobs": logprobs,
                "finish_reason": sample.finish,
            }
        )
    return {
        "id": envelope.id,
        "object": "chat.completion",
        "created": envelope.created,
        "model": generated.model,
        "choices": choices,
        "usage": usage_body(generated.usage),
        "system_fingerprint": envelope.fingerprint,
    }


def chat_prompt(body: ChatRequest) -> ChatPrompt:
    """The messages as the template gets them. Raises ApiError 400 naming the message and its part."""
    for name in _TEMPLATE_OWN:
        if name in (body.chat_template_kwargs or {}):
            raise invalid(
                "chat_template_kwargs",
                f"`chat_template_kwargs` must not hold `{name}`; it has a field of its own.",
            )
    continues = bool(body.continue_final_message)
    if continues and body.add_generation_prompt:
        raise invalid(
            "continue_final_message",
            "`continue_final_message` and `add_generation_prompt` exclude each other; give one of them.",
        )
    if continues and body.messages[-1].role != "assistant":
        raise invalid("continue_final_message", "There is no assistant message at the end to continue.")
    return ChatPrompt(
        messages=tuple(_template_message(i, message) for i, message in enumerate(body.messages)),
        template_kwargs=body.chat_template_kwargs or {},
        add_generation_prompt=body.add_generation_prompt is not False and not continues,
        continue_final_message=continues,
    )


def _template_message(i: int, message: Message) -> dict[str, Any]:
    path = f"messages[{i}]"
    role = message.role
    if role not in _ROLES:
        raise invalid(f"{path}.role", f'`{path}.role`: "{role[:40]}" is none of {", ".join(_ROLES)}.')
    if message.content is None:
        text = message.refusal or ""
        if role != "assistant" or (message.refusal is None and not message.tool_calls):
            raise missing(f"{path}.content")
    else:
        text = _text(message.content, path)
    refuse_nul(text, f"{path}.content")
    made: dict[str, Any] = {"role": "system" if role == "developer" else role, "content": text}
    if role == "tool":
        if message.tool_call_id is None:
            raise missing(f"{path}.tool_call_id")
        made["tool_call_id"] = message.tool_call_id
    if role == "function" and message.name is None:
        raise missing(f"{path}.name")
    if message.name is not None:
        made["name"] = message.name
    if message.tool_calls:
        made["tool_calls"] = [_template_call(call) for call in message.tool_calls]
    reasoning = message.reasoning_content if message.reasoning_content is not None else message.reasoning
    if reasoning is not None:
        made["reasoning_content"] = reasoning
    return made


def _text(content: str | list[ContentPart], path: str) -> str:
    if isinstance(content, str):
        return content
    texts = []
    for j, part in enumerate(content):
        where = f"{path}.content[{j}]"
        if part.type not in ("text", "refusal"):
            raise unsupported(where, f'`{where}`: this model takes text only, not "{part.type[:40]}" parts.')
        text = part.text if part.type == "text" else part.refusal
        if text is None:
            raise missing(f"{where}.{part.type}")
        texts.append(text)
    return "\n".join(texts)


def _template_call(call: ToolCall) -> dict[str, Any]:
    # Templates print arguments as JSON themselves, so they get the object behind the API's string.
    try:
        arguments: Any = msgspec.json.decode(call.function.arguments)
    except (msgspec.DecodeError, RecursionError):
        arguments = call.function.arguments
    made: dict[str, Any] = {
        "type": "function",
        "function": {"name": call.function.name, "arguments": arguments},
    }
    return made if call.id is None else made | {"id": call.id}
