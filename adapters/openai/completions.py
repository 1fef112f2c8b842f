"""`POST /completions`: prompts as texts or token ids, several at once, with echo and `best_of`."""

from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.requests import Request

from adapters.asgi import JsonResponse, gathered, or_disconnect
from adapters.openai.chunks import CompletionChunks, Envelope
from adapters.openai.decode import refuse_nul
from adapters.openai.defaults import with_defaults
from adapters.openai.errors import invalid
from adapters.openai.generation import Generated, Sample, usage_body
from adapters.openai.logprobs import FirstToken, LegacyLogprobs, prompt_logprobs
from adapters.openai.prompts import check_choices, text_or_token_prompts
from adapters.openai.sampling import build_request, check_prompt_logprobs, check_stream_options, idle_fields
from adapters.openai.schema import CompletionRequest, completion_refusals
from adapters.openai.service import Service
from adapters.openai.stream import EventStream
from runner.wire.requests import GenerateRequest, TextPrompt, TokenPrompt

_DEFAULT_MAX_TOKENS = 16


class Echo(msgspec.Struct, frozen=True, kw_only=True):
    """The prompts as texts, and each one's first token (only when log-probabilities are wanted)."""

    texts: tuple[str, ...] = ()
    first_tokens: tuple[FirstToken, ...] = ()


class CompletionsEndpoint:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._refused = completion_refusals()

    async def create(self, request: Request) -> JsonResponse | EventStream:
        service = self._service
        body, unknown = await service.read(request, CompletionRequest, refused=self._refused)
        check_stream_options(body)
        check_prompt_logprobs(body)
        if body.echo and body.logprobs is not None and body.prompt_logprobs is not None:
            raise invalid(
                "prompt_logprobs", "Give either `prompt_logprobs` or `echo` with `logprobs`, not both."
            )
        ignored = service.ignored(unknown, idle_fields(body))
        prompts = await service.aside(request, lambda: completion_prompts(body))
        request_id = service.request_id(request, body)
        work = _work(body, prompts, request_id=request_id)
        model = service.resolve(request, body.model)
        shaped = with_defaults(body, service.runner.request_defaults(model))
        if shaped is not body:
            body, work = shaped, _work(shaped, prompts, request_id=request_id)
        n, samples = body.n or 1, work[0].n
        ranked = samples > n
        echo = Echo()
        if body.echo:
            with_first = body.logprobs is not None
            echo = await or_disconnect(request.receive, self._echo(model, prompts, with_first=with_first))
        prompt_ids = await service.prompt_ids(request, model, prompts) if body.return_token_ids else None
        envelope = service.envelope("cmpl", tells_tier=body.service_tier is not None)
        if body.stream:
            chunks = CompletionChunks(
                envelope,
                body.stream_options,
                n=n,
                prompts=len(prompts),
                echo=echo.texts,
                first_tokens=echo.first_tokens,
                prompt_ids=prompt_ids,
            )
            return service.stream(model, work, chunks, ignored=ignored)
        generated = await service.collect(request, model, work, ignored=ignored)
        picked = best_samples(generated.samples, per_prompt=samples, keep=n) if ranked else generated.samples
        answer = completion(
            envelope, generated, picked, n=n, echo=echo, with_logprobs=body.logprobs is not None
        )
        for index, (choice, sample) in enumerate(zip(answer["choices"], picked, strict=True)):
            if prompt_ids is not None:
                choice |= {"prompt_token_ids": prompt_ids[index // n], "token_ids": sample.token_ids}
            if body.prompt_logprobs is not None:
                choice["prompt_logprobs"] = prompt_logprobs(sample.prompt_logprobs)
        return JsonResponse(answer, headers=ignored.headers)

    async def _echo(
        self, model: str, prompts: Sequence[TextPrompt | TokenPrompt], *, with_first: bool
    ) -> Echo:
        runner = self._service.runner

        async def one(prompt: TextPrompt | TokenPrompt) -> tuple[str, FirstToken]:
            if isinstance(prompt, TextPrompt) and not with_first:
                return prompt.text, FirstToken()
            result = await runner.tokenize(model, prompt, with_pieces=with_first)
            return result.text, first_token(result.text, result.pieces)

        pairs = await gathered([one(prompt) for prompt in prompts])
        return Echo(
            texts=tuple(text for text, _ in pairs),
            first_tokens=tuple(first for _, first in pairs) if with_first else (),
        )


def completion_prompts(body: CompletionRequest) -> list[TextPrompt | TokenPrompt]:
    """The prompts, each with the suffix if there is one. Raises ApiError 400."""
    prompts = text_or_token_prompts(body.prompt, "prompt")
    if not body.suffix:
        return prompts
    refuse_nul(body.suffix, "suffix")
    if body.echo:
        raise invalid("suffix", "Give either `suffix` or `echo`, not both.")
    with_suffix: list[TextPrompt | TokenPrompt] = []
    for prompt in prompts:
        if isinstance(prompt, TokenPrompt):
            raise invalid("suffix", "`suffix` is possible only where `prompt` is text.")
        with_suffix.append(TextPrompt(prompt.text, body.suffix))
    return with_suffix


def first_token(text: str, pieces: Sequence[bytes]) -> FirstToken:
    """The first of the tokens that `text` was made into; a BOS that the model wanted is no part of the text."""
    if not pieces:
        return FirstToken()
    return FirstToken(pieces[0], in_text=b"".join(pieces[1:]) != text.encode())


def best_samples(samples: Sequence[Sample], *, per_prompt: int, keep: int) -> tuple[Sample, ...]:
    """Of each prompt's `per_prompt` samples the `keep` with the highest mean log-probability, best first."""

    def mean(sample: Sample) -> float:
        values = [token.logprobs.logprob for token in sample.logprobs]
        return sum(values) / len(values) if values else float("-inf")

    picked: list[Sample] = []
    for start in range(0, len(samples), per_prompt):
        picked += sorted(samples[start : start + per_prompt], key=mean, reverse=True)[:keep]
    return tuple(picked)


def completion(
    envelope: Envelope,
    generated: Generated,
    samples: Sequence[Sample],
    *,
    n: int,
    echo: Echo,
    with_logprobs: bool,
) -> dict[str, Any]:
    """The `text_completion` object of these samples, `n` for each prompt."""
    choices = []
    for index, sample in enumerate(samples):
        text, logprobs = sample.text, None
        if echo.texts:
            text = echo.texts[index // n] + text
        if with_logprobs:
            first = echo.first_tokens[index // n] if echo.first_tokens else FirstToken()
            prompt_tokens = [token or first for token in sample.prompt_logprobs] if echo.texts else []
            logprobs = LegacyLogprobs().feed([*prompt_tokens, *sample.logprobs])
        choices.append({"text": text, "index": index, "logprobs": logprobs, "finish_reason": sample.finish})
    fields = envelope.fields("text_completion", generated.model, generated.service_tier)
    return fields | {"choices": choices, "usage": usage_body(generated.usage)}


def _work(
    body: CompletionRequest, prompts: Sequence[TextPrompt | TokenPrompt], *, request_id: str
) -> list[GenerateRequest]:
    """What a model is asked, one request for each prompt. Raises ApiError 400."""
    samples = _samples(body, len(prompts))
    ranked = samples > (body.n or 1)
    of_prompt = body.logprobs if body.echo and body.logprobs is not None else body.prompt_logprobs
    return [
        build_request(
            body,
            prompt,
            request_id=f"{request_id}-{i}",
            n=samples,
            max_tokens=_DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens,
            logprobs=0 if ranked and body.logprobs is None else body.logprobs,
            prompt_logprobs=of_prompt,
        )
        for i, prompt in enumerate(prompts)
    ]


def _samples(body: CompletionRequest, prompts: int) -> int:
    """How many samples to draw for each prompt. Raises ApiError 400."""
    n = body.n or 1
    check_choices(n, prompts)
    if body.best_of is None:
        return n
    if body.best_of < n:
        raise invalid("best_of", f"`best_of` is {body.best_of}; it must be at least `n`, which is {n}.")
    if body.stream and body.best_of > n:
        raise invalid("best_of", "`best_of` above `n` is not possible together with `stream: true`.")
    return body.best_of
