"""What tools ask beside generation: tokens of texts and chats, texts of tokens, the template's text, an empty
prefix cache. Shapes are those that clients of vLLM and llama.cpp know.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from starlette.requests import Request

from adapters.asgi import JsonResponse, or_disconnect
from adapters.openai.chat import chat_prompt
from adapters.openai.decode import refuse_nul
from adapters.openai.errors import invalid, missing
from adapters.openai.ignored import Ignored
from adapters.openai.schema import ChatRequest, Message, TokenId, Tool, chat_refusals
from adapters.openai.service import Body, Service
from runner.api import TokenizeResult
from runner.errors import RunnerError, UnsupportedFeature
from runner.wire.requests import Prompt, TextPrompt


class TokenizeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`prompt` (llama.cpp's clients say `content`) or `messages`. `add_special_tokens` (llama.cpp:
    `add_special`): BOS before it where the model wants one, as in a request to generate; off for `content` unless
    asked for."""

    model: str | None = None
    prompt: str | None = None
    content: str | None = None
    messages: Annotated[list[Message], Meta(min_length=1)] | None = None
    tools: Annotated[list[Tool], Meta(min_length=1, max_length=128)] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_special_tokens: bool | None = None
    add_special: bool | None = None
    return_token_strs: bool | None = None


class TokenizeAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`max_model_len`: the model's context in tokens. `token_strs`: what each token stands for, if asked for; parts
    of characters show as U+FFFD."""

    tokens: tuple[int, ...]
    count: int
    max_model_len: int
    token_strs: list[str] | None = None


class DetokenizeRequest(msgspec.Struct, frozen=True, kw_only=True):
    tokens: list[TokenId]
    model: str | None = None


class DetokenizeAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The text by the names that vLLM's and llama.cpp's clients look for."""

    prompt: str
    content: str


class TokenizerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A token that the model lacks is null."""

    model: str
    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    chat_template: str | None
    vocab_size: int
    model_max_length: int


class TemplateAnswer(msgspec.Struct, frozen=True, kw_only=True):
    prompt: str


class InputTokens(msgspec.Struct, frozen=True, kw_only=True):
    input_tokens: int
    object: Literal["response.input_tokens"] = "response.input_tokens"


class ResetRequest(msgspec.Struct, frozen=True, kw_only=True):
    model: str | None = None


class ResetAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The models whose idle prefixes are forgotten now."""

    models: list[str]


class HelperEndpoints:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._chat_refused = chat_refusals()

    async def tokenize(self, request: Request) -> JsonResponse:
        body, ignored = await self._read(request, TokenizeRequest, refused=tokenize_refusals())
        result = await self._tokenize(
            request,
            body.model,
            lambda: tokenize_prompt(body),
            add_special_tokens=_adds_special(body),
            with_pieces=bool(body.return_token_strs),
        )
        answer = TokenizeAnswer(
            tokens=result.tokens,
            count=len(result.tokens),
            max_model_len=result.context_tokens,
            token_strs=[piece.decode(errors="replace") for piece in result.pieces]
            if body.return_token_strs
            else None,
        )
        return JsonResponse(answer, headers=ignored.headers)

    async def detokenize(self, request: Request) -> JsonResponse:
        body, ignored = await self._read(request, DetokenizeRequest, refused={})
        model = self._service.resolve(request, body.model)
        work = self._service.runner.detokenize(model, body.tokens)
        text = await or_disconnect(request.receive, work)
        return JsonResponse(DetokenizeAnswer(prompt=text, content=text), headers=ignored.headers)

    async def tokenizer_info(self, request: Request) -> JsonResponse:
        """Loads the model: what its tokenizer is, is known from then on."""
        model = self._service.resolve(request, request.query_params.get("model"))
        metadata = await or_disconnect(request.receive, self._service.runner.metadata(model))
        if not metadata.vocabulary:
            raise UnsupportedFeature(
                f"this model's engine ({metadata.engine}) takes text and gives text: there is no tokenizer here",
                param="model",
            )
        return JsonResponse(
            TokenizerInfo(
                model=metadata.name,
                bos_token=metadata.bos_token or None,
                eos_token=metadata.eos_token or None,
                pad_token=metadata.pad_token or None,
                chat_template=metadata.chat_template,
                vocab_size=metadata.vocabulary,
                model_max_length=metadata.context_tokens,
            )
        )

    async def apply_template(self, request: Request) -> JsonResponse:
        """The prompt that a chat with this body would have."""
        body, ignored = await self._read(request, ChatRequest, refused=self._chat_refused)
        result = await self._tokenize(request, body.model, lambda: chat_prompt(body))
        return JsonResponse(TemplateAnswer(prompt=result.text), headers=ignored.headers)

    async def input_tokens(self, request: Request) -> JsonResponse:
        """How many tokens the prompt of a chat with this body has."""
        body, ignored = await self._read(request, ChatRequest, refused=self._chat_refused)
        result = await self._tokenize(request, body.model, lambda: chat_prompt(body))
        return JsonResponse(InputTokens(input_tokens=len(result.tokens)), headers=ignored.headers)

    async def reset_prefix_cache(self, request: Request) -> JsonResponse:
        """Forget what idle lanes hold, of the model in the query or of all that are loaded; nothing is loaded."""
        runner = self._service.runner
        named = request.query_params.get("model") or await self._named_in_body(request)
        if named is not None:
            model = self._service.resolve(request, named)
            await or_disconnect(request.receive, runner.reset_cache(model))
            return JsonResponse(ResetAnswer(models=[model]))
        reset = []
        for status in runner.index():
            if any(version.state == "READY" for version in status.versions):
                try:
                    await or_disconnect(request.receive, runner.reset_cache(status.name))
                except RunnerError:
                    continue  # unloaded or crashed meanwhile: it holds nothing, and is not in the list
                reset.append(status.name)
        return JsonResponse(ResetAnswer(models=reset))

    async def _named_in_body(self, request: Request) -> str | None:
        """A body may be left out, but is not passed over."""
        if request.headers.get("content-length", "0") == "0" and "transfer-encoding" not in request.headers:
            return None
        body, _ = await self._read(request, ResetRequest, refused={})
        return body.model

    async def _read(
        self, request: Request, kind: type[Body], *, refused: Mapping[str, tuple[Any, ...]]
    ) -> tuple[Body, Ignored]:
        body, unknown = await self._service.read(request, kind, refused=refused)
        return body, self._service.ignored(unknown)

    async def _tokenize(
        self, request: Request, model: str | None, make: Callable[[], Prompt], **given: bool
    ) -> TokenizeResult:
        name = self._service.resolve(request, model)
        prompt = await self._service.aside(request, make)
        return await or_disconnect(request.receive, self._service.runner.tokenize(name, prompt, **given))


def tokenize_refusals() -> dict[str, tuple[Any, ...]]:
    return {
        "chat_template": (),
        "media_io_kwargs": (),
        "mm_processor_kwargs": (),
        "parse_special": (True,),
        "with_pieces": (False,),
    }


def tokenize_prompt(body: TokenizeRequest) -> Prompt:
    """The one thing that is to be tokenised. Raises ApiError 400."""
    given = [name for name in ("prompt", "content", "messages") if getattr(body, name) is not None]
    if not given:
        raise missing("prompt", "Give a `prompt` or `messages` to tokenize.")
    if len(given) > 1:
        raise invalid(given[1], f"Give either `{given[0]}` or `{given[1]}`, not both.")
    if body.messages is not None:
        return chat_prompt(
            ChatRequest(
                messages=body.messages,
                tools=body.tools,
                add_generation_prompt=body.add_generation_prompt,
                continue_final_message=body.continue_final_message,
                chat_template_kwargs=body.chat_template_kwargs,
            )
        )
    text = body.prompt if body.prompt is not None else body.content or ""
    refuse_nul(text, given[0])
    return TextPrompt(text)


def _adds_special(body: TokenizeRequest) -> bool:
    asked = body.add_special_tokens if body.add_special_tokens is not None else body.add_special
    return body.content is None if asked is None else asked
