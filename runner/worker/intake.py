"""From a request to sequences: checks against the model's limits, fills in defaults. `prompts.py` reads the prompt.

Runs on a thread of its own, so that a long prompt never holds up a step.
"""

import itertools
import math
from collections.abc import Callable
from collections.abc import Sequence as List
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from backends.contract import (
    NO_LIMIT,
    Constraint,
    Engine,
    EngineError,
    EngineInfo,
    EngineRequest,
    Sampling,
    StepEngine,
)
from runner.errors import ContextLengthExceeded, InvalidRequest, UnsupportedFeature, WrongKind
from runner.wire.messages import CleanUp, Start
from runner.wire.requests import STRICT, ChatPrompt, GenerateRequest, Prompt
from runner.worker.grammar.forms import OutputForm, Reasoning
from runner.worker.jobs import Job
from runner.worker.output.markup import Markup
from runner.worker.output.parts import TextFilter
from runner.worker.prompt_lookup import Chances
from runner.worker.prompts import PromptReader, param_of
from runner.worker.sequence import Sequence, SequenceLimits

if TYPE_CHECKING:
    from runner.worker.grammar.matcher import Grammar

Value = TypeVar("Value")

SEEDS = 2**63

GRAMMAR = "grammar"
"""The configuration's key, as a request's field."""

SAMPLING_FIELDS = frozenset(Sampling.__struct_fields__)


class Intake:
    """Knows the model's limits and defaults."""

    def __init__(self, engine: Engine, info: EngineInfo, start: Start, *, clock: Callable[[], float]) -> None:
        self._engine = engine
        self._info = info
        self._clock = clock
        self._stop = start.stop
        self._reply_prefix = start.template.reply_prefix
        self._new_cleaner = _cleaners(start.clean_up)
        self._limits = start.limits
        self._grammar = start.grammar
        self._defaults = {**info.generation_defaults, **start.defaults}
        self._lookup_chances = Chances()
        self._ids = itertools.count(1)
        self.prompts = PromptReader(engine, info, start)
        self._markup = Markup(engine, self.prompts.chats.source, start.template)

    def job(self, call: int, request: GenerateRequest) -> Job:
        """The call, its prompt tokenised and checked. Raises InvalidRequest and its kinds."""
        if not self._info.generates:
            raise WrongKind("this model makes embeddings only; it cannot generate text", param="model")
        request = self._with_defaults(request)
        self._check_capabilities(request)
        read = self.prompts.text if self._info.text_only else self.prompts.tokens
        prompt = read(request.prompt)
        context = self._info.context_tokens
        if not prompt:
            raise InvalidRequest("the prompt is empty", param=param_of(request.prompt))
        if not self._info.text_only and len(prompt) + (request.max_tokens != 0) > context:
            raise ContextLengthExceeded(
                f"the prompt has {len(prompt)} tokens and the model's context is {context} tokens, of which the "
                "answer needs at least one; shorten the prompt or raise context_size in the model's config.yaml",
                param=param_of(request.prompt),
                prompt_tokens=len(prompt),
                context_tokens=context,
            )
        return Job(
            call,
            request,
            prompt=prompt,
            stops=self._stops(request.prompt),
            engine=self._engine,
            markup=self._markup,
            clock=self._clock,
            begins="" if request.constraint is not None or _must_call(request) else self._reply_prefix,
            new_cleaner=lambda: self._cleaner(request),
        )

    def _cleaner(self, request: GenerateRequest) -> TextFilter | None:
        """What the configuration has cut from answers; an answer of a given form stays as it is."""
        form = request.constraint
        return None if form is not None and form.source != self._grammar else self._new_cleaner()

    def _stops(self, prompt: Prompt) -> tuple[str, ...]:
        """What ends an answer: the configuration's texts, and those of the engine's own turns in a chat."""
        is_own = isinstance(prompt, ChatPrompt) and self.prompts.chats.is_own
        return (*self._stop, *(self._info.chat_stops if is_own else ()))

    def idle(self, request: GenerateRequest) -> tuple[str, ...]:
        """What of the request this model has no use for, in the words of Accepted."""
        unread = self.prompts.unread(request.prompt)
        use = request.tool_use
        if use is None or not use.strict or _must_call(request):
            return unread
        return unread if self._can_mask else (*unread, STRICT)

    def form(self, job: Job) -> OutputForm | None:
        """What the output of `job` is bound to by our own grammars; None where it is free."""
        if not isinstance(self._engine, StepEngine):
            return None
        asked = self._markup.constraints(job.request)
        if not asked and self._can_mask:
            asked = self._markup.strict_calls(job.request)
        if not asked:
            return None
        constraints = tuple(msgspec.structs.replace(constraint, param="") for constraint in asked)
        tags = self._markup.reasoning if job.request.split_reasoning else None
        if tags is None:
            return OutputForm(constraints)
        is_open = self._markup.is_reasoning(job.prompt)
        return OutputForm(constraints, Reasoning(tags.open, tags.close, is_open))

    def sequences(self, job: Job, grammar: "Grammar | None" = None) -> list[Sequence]:
        """One sequence per sample, for the step scheduler, each with its own place in `grammar`."""
        request, now = job.request, self._clock()
        queue = self._limits.queue(request.priority)
        timeout_s = queue.timeout_for(request.queue_timeout_s)
        limits = SequenceLimits(
            max_tokens=self._max_tokens(job),
            min_tokens=request.min_tokens or 0,
            stop_token_ids=frozenset(request.stop_token_ids),
            eos_ids=frozenset() if request.ignore_eos else frozenset(self._info.eos_ids),
            queue_deadline=None if timeout_s is None else now + timeout_s,
            is_delayable=queue.timeout_action == "delay",
        )
        turn_tokens = self.prompts.turn_tokens(request.prompt, job.prompt)
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
                turn_tokens=turn_tokens,
                logprobs=request.logprobs,
                prompt_logprobs=request.prompt_logprobs,
                matcher=grammar.matcher(param=bound_by(request)) if grammar is not None else None,
                lookup_chances=self._lookup_chances if self._looks_up(request) else None,
                submitted_at=now,
            )
            for index in range(request.n)
        ]

    def engine_requests(self, job: Job) -> list[EngineRequest]:
        """One request per sample, for an engine with batching of its own."""
        request = job.request
        constraint = self._single_constraint(request)
        return [
            EngineRequest(
                request_id=f"{request.request_id or job.call}-{index}",
                prompt=tuple(job.prompt),
                text=job.prompt_text,
                sampling=self.sampling(request, index),
                given=frozenset(self._given(request)),
                max_tokens=self._max_tokens(job),
                min_tokens=request.min_tokens or 0,
                stop_token_ids=request.stop_token_ids,
                ignore_eos=bool(request.ignore_eos),
                logprobs=request.logprobs,
                prompt_logprobs=request.prompt_logprobs,
                constraint=constraint,
                adapter=request.adapter,
                cache_salt=request.cache_salt,
                priority=request.priority,
                timeout_s=request.timeout_s or self._limits.request_timeout_s,
            )
            for index in range(request.n)
        ]

    def _looks_up(self, request: GenerateRequest) -> bool:
        """Where the configuration asks for it, an engine that cannot verify guesses does without."""
        return self._info.draftable and _first(request.prompt_lookup, self._limits.prompt_lookup) is True

    @property
    def _can_mask(self) -> bool:
        """Our own grammars can bind what the engine writes."""
        return isinstance(self._engine, StepEngine) and "mask" in self._info.capabilities

    @property
    def _keeps_prefixes(self) -> bool:
        """The engine does so itself, or may: a salt would have to be its business."""
        is_stream = not isinstance(self._engine, StepEngine)
        return self._info.text_only or (is_stream and self._info.prefix != "none")

    def _single_constraint(self, request: GenerateRequest) -> Constraint | None:
        """What such an engine is told, which knows no alternatives. Raises UnsupportedFeature where there are some."""
        constraints = self._markup.constraints(request)
        if len(constraints) > 1:
            raise UnsupportedFeature(
                f"this model's engine ({self._info.engine}) cannot be left the choice between calls of tools and an "
                f"answer of a given form; leave out `tools` or `{bound_by(request)}`",
                param="tools",
            )
        return constraints[0] if constraints else None

    def sampling(self, request: GenerateRequest, index: int) -> Sampling:
        """Request, then the model's configuration, then its generation defaults, then neutral values."""
        fields = self._given(request)
        if fields.get("seed") is not None:
            # -1 is another way to say "none"; engines take no others below zero.
            fields["seed"] = None if fields["seed"] == -1 else (fields["seed"] + index) % SEEDS
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

    def _given(self, request: GenerateRequest) -> dict[str, Any]:
        """The fields of Sampling that somebody asked for."""
        given = {**self._defaults, **request.sampling}
        return {name: value for name, value in given.items() if name in SAMPLING_FIELDS and value is not None}

    def _with_defaults(self, request: GenerateRequest) -> GenerateRequest:
        """The configuration's defaults for what is not sampling."""
        defaults = self._defaults
        return msgspec.structs.replace(
            request,
            min_tokens=_first(request.min_tokens, defaults.get("min_tokens")),
            ignore_eos=_first(request.ignore_eos, defaults.get("ignore_eos")),
            stop_token_ids=(*request.stop_token_ids, *defaults.get("stop_token_ids", ())),
            constraint=self._default_form(request),
        )

    def _default_form(self, request: GenerateRequest) -> Constraint | None:
        """What binds the answer: the request's word, or the configuration's grammar where no calls are offered."""
        if request.constraint is not None or request.tool_use is not None or self._grammar is None:
            return request.constraint
        return Constraint("gbnf", self._grammar, param=GRAMMAR)

    def _max_tokens(self, job: Job) -> int:
        wanted = _first(job.request.max_tokens, self._defaults.get("max_tokens"))
        if self._info.text_only:
            return wanted if wanted is not None else self._info.context_tokens or NO_LIMIT
        room = self._info.context_tokens - len(job.prompt)
        return room if wanted is None else min(wanted, room)

    def _check_capabilities(self, request: GenerateRequest) -> None:
        bias = _first(request.sampling.get("logit_bias"), self._defaults.get("logit_bias"))
        # Masks are all that our own grammars need; an engine that batches by itself needs its own.
        grammars = "mask" if isinstance(self._engine, StepEngine) else "constraint"
        text_only, special = self._info.text_only, not request.skip_special_tokens
        salt = request.cache_salt
        wanted: List[tuple[bool, str, str, str]] = (
            (request.logprobs is not None, "logprobs", "logprobs", "logprobs"),
            (request.prompt_logprobs is not None, "prompt_logprobs", "prompt_logprobs", "echo with logprobs"),
            (request.adapter is not None, "adapters", "adapters", "adapters"),
            (bool(request.min_tokens), "min_tokens" if text_only else "mask", "min_tokens", "min_tokens"),
            (bool(bias), "logit_bias", "logit_bias", "logit_bias"),
            (_must_call(request), grammars, "tool_choice", "calls that must be made"),
            (request.constraint is not None, grammars, bound_by(request), "structured output"),
            (text_only and special, "special_tokens", "skip_special_tokens", "special tokens in its output"),
            (self._keeps_prefixes and salt is not None, "cache_salt", "cache_salt", "a cache_salt"),
        )
        if request.prompt_lookup and not self._info.draftable:
            raise UnsupportedFeature(
                f"this model's engine ({self._info.engine}) cannot verify guesses, which prompt_lookup makes",
                param="prompt_lookup",
            )
        for is_wanted, capability, param, words in wanted:
            if is_wanted and capability not in self._info.capabilities:
                raise UnsupportedFeature(
                    f"this model's engine ({self._info.engine}) cannot do {words}", param=param
                )


def _cleaners(clean_up: CleanUp | None) -> Callable[[], TextFilter | None]:
    """Raises EngineError."""
    if clean_up is None:
        return lambda: None
    try:
        from runner.worker.output.cleaning import Cleaner
    except ImportError as error:
        raise EngineError(
            "cutstrings, extract_regex, trimspace and trimsuffix need the package regex, which is not installed in the "
            "environment of this model's engine; make it anew"
        ) from error
    return lambda: Cleaner(clean_up)


def bound_by(request: GenerateRequest) -> str:
    """The request's field that binds its output to a form, for errors."""
    return request.constraint.param if request.constraint is not None and not _must_call(request) else "tools"


def _must_call(request: GenerateRequest) -> bool:
    return request.tool_use is not None and request.tool_use.choice != "auto"


def _first(given: Value | None, default: Value | None) -> Value | None:
    """What the request gave, else what the configuration says."""
    return default if given is None else given
