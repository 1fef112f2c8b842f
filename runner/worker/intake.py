"""From a request to sequences: renders, tokenises, checks against the model's limits, fills in defaults.

Runs on a thread of its own, so that a long prompt never holds up a step.
"""

import itertools
import math
from collections.abc import Callable
from collections.abc import Sequence as List
from typing import Any, TypeVar

import msgspec

from backends.contract import Engine, EngineInfo, EngineRequest, Sampling
from runner.errors import ContextLengthExceeded, InvalidRequest, UnsupportedFeature
from runner.wire.messages import Start
from runner.wire.requests import ChatPrompt, GenerateRequest, Prompt, TextPrompt, TokenPrompt
from runner.worker.chat import ChatTemplate, Piece, TemplateError
from runner.worker.jobs import Job
from runner.worker.sequence import Sequence, SequenceLimits

Value = TypeVar("Value")

SAMPLING_FIELDS = frozenset(Sampling.__struct_fields__)


class Intake:
    """Knows the model's template, limits and defaults."""

    def __init__(self, engine: Engine, info: EngineInfo, start: Start, *, clock: Callable[[], float]) -> None:
        self._engine = engine
        self._info = info
        self._clock = clock
        self._stop = start.stop
        self._queue_timeout_s = start.limits.queue_timeout_s
        self._defaults = {**info.generation_defaults, **start.defaults}
        self._ids = itertools.count(1)
        source = start.template.chat or info.chat_template
        self._template = (
            ChatTemplate(
                source,
                special_tokens=info.special_tokens,
                bos_token=info.bos_token,
                eos_token=info.eos_token,
            )
            if source
            else None
        )

    def pieces(self, prompt: TextPrompt | ChatPrompt) -> list[Piece]:
        """The prompt as text. Raises InvalidRequest where the template refuses it."""
        if isinstance(prompt, TextPrompt):
            return [Piece(prompt.text, special=True)] if prompt.text else []
        if self._template is None:
            raise UnsupportedFeature(
                "this model has no chat template; give it one as template.chat in its config.yaml, "
                "or use the completions endpoint",
                param="messages",
            )
        try:
            return self._template.render(prompt)
        except TemplateError as error:
            raise InvalidRequest(str(error), param="messages") from error

    def tokens(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt, with BOS where the model wants one and none is there yet."""
        if isinstance(prompt, TokenPrompt):
            for token in prompt.tokens:
                if not 0 <= token < self._info.vocabulary:
                    raise InvalidRequest(
                        f"token id {token} is not in the vocabulary (0 to {self._info.vocabulary - 1})",
                        param="prompt",
                    )
            return list(prompt.tokens)
        tokens: list[int] = []
        for piece in self.pieces(prompt):
            tokens += self._engine.tokenize(piece.text, special=piece.special)
        bos = self._info.bos_id
        if self._info.adds_bos and bos is not None and tokens[:1] != [bos]:
            tokens.insert(0, bos)
        return tokens

    def job(self, call: int, request: GenerateRequest) -> Job:
        """The call, its prompt tokenised and checked. Raises InvalidRequest and its kinds."""
        request = self._with_defaults(request)
        self._check_capabilities(request)
        prompt = self.tokens(request.prompt)
        context = self._info.context_tokens
        if not prompt:
            raise InvalidRequest("the prompt is empty", param="prompt")
        if len(prompt) + (request.max_tokens != 0) > context:
            raise ContextLengthExceeded(
                f"the prompt has {len(prompt)} tokens and the model's context is {context} tokens, of which the "
                "answer needs at least one; shorten the prompt or raise context_size in the model's config.yaml",
                param="prompt",
                prompt_tokens=len(prompt),
                context_tokens=context,
            )
        return Job(call, request, prompt=prompt, stops=(*self._stop, *request.stop), engine=self._engine)

    def embed_tokens(self, prompt: Prompt) -> list[int]:
        """Token ids of a text to embed, checked against the context."""
        tokens = self.tokens(prompt)
        if not tokens:
            raise InvalidRequest("the input is empty", param="input")
        if len(tokens) > self._info.context_tokens:
            raise ContextLengthExceeded(
                f"the input has {len(tokens)} tokens and the model's context is {self._info.context_tokens} tokens",
                param="input",
                prompt_tokens=len(tokens),
                context_tokens=self._info.context_tokens,
            )
        return tokens

    def detokenize(self, tokens: List[int]) -> str:
        """The text of tokens, control tokens included."""
        checked = self.tokens(TokenPrompt(tuple(tokens)))
        return b"".join(self._engine.token_bytes(token, special=True) for token in checked).decode(
            errors="replace"
        )

    def sequences(self, job: Job) -> list[Sequence]:
        """One sequence per sample, for the step scheduler."""
        request, now = job.request, self._clock()
        limits = SequenceLimits(
            max_tokens=self._max_tokens(job),
            min_tokens=request.min_tokens or 0,
            stop_token_ids=frozenset(request.stop_token_ids),
            eos_ids=frozenset() if request.ignore_eos else frozenset(self._info.eos_ids),
            queue_deadline=now + self._queue_timeout_s if self._queue_timeout_s is not None else None,
        )
        return [
            Sequence(
                (number := next(self._ids)),
                job.prompt,
                sampling=self.sampling(request, index),
                limits=limits,
                arrival=number,
                priority=request.priority,
                adapter=request.adapter,
                cache_salt=request.cache_salt,
                logprobs=request.logprobs,
                prompt_logprobs=request.prompt_logprobs,
                submitted_at=now,
            )
            for index in range(request.n)
        ]

    def engine_requests(self, job: Job) -> list[EngineRequest]:
        """One request per sample, for an engine with batching of its own."""
        request = job.request
        return [
            EngineRequest(
                request_id=f"{request.request_id or job.call}-{index}",
                prompt=tuple(job.prompt),
                sampling=self.sampling(request, index),
                max_tokens=self._max_tokens(job),
                min_tokens=request.min_tokens or 0,
                stop_token_ids=request.stop_token_ids,
                ignore_eos=bool(request.ignore_eos),
                logprobs=request.logprobs,
                prompt_logprobs=request.prompt_logprobs,
                adapter=request.adapter,
                priority=request.priority,
            )
            for index in range(request.n)
        ]

    def sampling(self, request: GenerateRequest, index: int) -> Sampling:
        """Request, then the model's configuration, then its generation defaults, then neutral values."""
        fields: dict[str, Any] = {
            name: value
            for name, value in {**self._defaults, **request.sampling}.items()
            if name in SAMPLING_FIELDS and value is not None
        }
        if fields.get("seed") is not None:
            fields["seed"] = fields["seed"] + index if fields["seed"] >= 0 else None
        bias = {int(token): float(value) for token, value in fields.get("logit_bias", {}).items()}
        for token in bias:
            if not 0 <= token < self._info.vocabulary:
                raise InvalidRequest(
                    f"logit_bias: token id {token} is not in the vocabulary (0 to {self._info.vocabulary - 1})",
                    param="logit_bias",
                )
        if request.ignore_eos and "logit_bias" in self._info.capabilities:
            bias.update(dict.fromkeys(self._info.eos_ids, -math.inf))
        fields["logit_bias"] = bias
        try:
            return msgspec.convert(fields, Sampling)
        except msgspec.ValidationError as error:
            raise InvalidRequest(f"sampling parameters: {error}") from error

    def _with_defaults(self, request: GenerateRequest) -> GenerateRequest:
        """The configuration's defaults for what is not sampling."""
        defaults = self._defaults
        return msgspec.structs.replace(
            request,
            min_tokens=_first(request.min_tokens, defaults.get("min_tokens")),
            ignore_eos=_first(request.ignore_eos, defaults.get("ignore_eos")),
            stop_token_ids=(*request.stop_token_ids, *defaults.get("stop_token_ids", ())),
        )

    def _max_tokens(self, job: Job) -> int:
        wanted = _first(job.request.max_tokens, self._defaults.get("max_tokens"))
        room = self._info.context_tokens - len(job.prompt)
        return room if wanted is None else min(wanted, room)

    def _check_capabilities(self, request: GenerateRequest) -> None:
        bias = _first(request.sampling.get("logit_bias"), self._defaults.get("logit_bias"))
        wanted: List[tuple[bool, str, str, str]] = (
            (request.logprobs is not None, "logprobs", "logprobs", "logprobs"),
            (request.prompt_logprobs is not None, "prompt_logprobs", "prompt_logprobs", "echo with logprobs"),
            (request.adapter is not None, "adapters", "adapters", "adapters"),
            (bool(request.min_tokens), "mask", "min_tokens", "min_tokens"),
            (bool(bias), "logit_bias", "logit_bias", "logit_bias"),
        )
        for is_wanted, capability, param, words in wanted:
            if is_wanted and capability not in self._info.capabilities:
                raise UnsupportedFeature(
                    f"this model's engine ({self._info.engine}) cannot do {words}", param=param
                )


def _first(given: Value | None, default: Value | None) -> Value | None:
    """What the request gave, else what the configuration says."""
    return default if given is None else given
