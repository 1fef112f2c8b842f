"""How text is to be generated: the parameters of the vLLM backend by their names to a GenerateRequest.

Values may be texts. A name that nobody knows is an error, and so is one that is known and not served.
"""

import difflib
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from adapters.fields import choice_constraint, given_sampling, grammar_constraint, schema_constraint
from adapters.kserve.errors import invalid
from runner.wire.requests import Constraint, GenerateRequest, TextPrompt

INT32 = 2**31 - 1
DEFAULT_MAX_TOKENS = 16

Count = Annotated[int, Meta(ge=1, le=INT32)]
Index = Annotated[int, Meta(ge=0, le=INT32)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Factor = Annotated[float, Meta(ge=0.01, le=10)]
StopText = Annotated[str, Meta(min_length=1)]
Texts = list[StopText]

_LISTS = ("stop", "stop_token_ids", "bad_words", "allowed_token_ids", "logits_processors")
_OBJECTS = ("logit_bias", "structured_outputs", "guided_decoding", "extra_args")
NESTED = frozenset(_LISTS + _OBJECTS)
"""The parameters whose values are lists or objects."""

_REFUSED: dict[str, tuple[Any, ...]] = {
    "bad_words": ([],),
    "allowed_token_ids": (),
    "detokenize": (True,),
    "spaces_between_special_tokens": (True,),
    "truncate_prompt_tokens": (),
    "prompt_logprobs": (),
    "use_beam_search": (False,),
    "length_penalty": (1.0,),
    "early_stopping": (False,),
    "logits_processors": ([],),
    "output_kind": (),
    "extra_args": ({},),
    "lora_name": (),
    "sequence_id": (0, ""),
    "sequence_start": (False,),
    "sequence_end": (False,),
}
"""Parameters that are known and not served, with the values beside null that change nothing."""


class StructuredOutputs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the output must match; one of them."""

    json: dict[str, Any] | str | None = None
    regex: str | None = None
    choice: Texts | None = None
    grammar: str | None = None
    json_object: bool | None = None

    def constraint(self, param: str) -> Constraint | None:
        """Raises KServeError where more than one is given."""
        given = [name for name in self.__struct_fields__ if getattr(self, name)]
        if len(given) > 1:
            raise invalid(f"parameter '{param}' can have one of {', '.join(given)} only")
        if self.json is not None:
            return schema_constraint(self.json, param)
        if self.regex is not None:
            return Constraint("regex", self.regex, param)
        if self.choice is not None:
            return choice_constraint(self.choice, param)
        if self.grammar is not None:
            return grammar_constraint(self.grammar, param)
        return Constraint("json_object", param=param) if self.json_object else None


class TextParameters(msgspec.Struct, frozen=True, kw_only=True):
    """All that acts. `timeout`: microseconds that the request may wait in the queue, 0 for no limit of its own."""

    n: Annotated[int, Meta(ge=1, le=128)] = 1
    best_of: Count | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Fraction | None = None
    top_k: Annotated[int, Meta(ge=-1, le=INT32)] | None = None
    min_p: Fraction | None = None
    typical_p: Fraction | None = None
    repetition_penalty: Factor | None = None
    repeat_penalty: Factor | None = None
    repeat_last_n: Annotated[int, Meta(ge=-1, le=INT32)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: dict[Index, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: StopText | Texts | None = None
    stop_token_ids: list[Index] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool | None = None
    prompt_lookup: bool | None = None
    max_tokens: Count | None = None
    min_tokens: Index | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    skip_special_tokens: bool = True
    cache_salt: Annotated[str, Meta(min_length=1, max_length=512)] | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_decoding: StructuredOutputs | None = None
    priority: Annotated[int, Meta(ge=0, le=INT32)] = 0
    timeout: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    details: bool = False

    def request(
        self, text: str, *, request_id: str, default_max_tokens: int | None, with_scores: bool
    ) -> GenerateRequest:
        """`default_max_tokens`: where the parameters give no limit. `with_scores`: log-probabilities are wanted
        even if the parameters ask for no alternatives."""
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return GenerateRequest(
            prompt=TextPrompt(text),
            sampling=self._sampling(),
            n=self.n,
            max_tokens=default_max_tokens if self.max_tokens is None else self.max_tokens,
            min_tokens=self.min_tokens,
            stop=stop,
            stop_token_ids=tuple(self.stop_token_ids or ()),
            include_stop=self.include_stop_str_in_output,
            ignore_eos=self.ignore_eos,
            prompt_lookup=self.prompt_lookup,
            skip_special_tokens=self.skip_special_tokens,
            logprobs=0 if self.logprobs is None and with_scores else self.logprobs,
            priority=self.priority,
            constraint=self._constraint(),
            cache_salt=self.cache_salt,
            queue_timeout_s=self.timeout / 1e6 if self.timeout else None,
            request_id=request_id,
        )

    def _sampling(self) -> dict[str, Any]:
        sampling = given_sampling(self)
        if self.logit_bias:
            sampling["logit_bias"] = self.logit_bias
        return sampling

    def _constraint(self) -> Constraint | None:
        if self.structured_outputs is not None:
            return self.structured_outputs.constraint("structured_outputs")
        if self.guided_decoding is not None:
            return self.guided_decoding.constraint("guided_decoding")
        return None


def read_parameters(given: Mapping[str, Any]) -> TextParameters:
    """Parameters by name, as the request or its tensor gave them. Raises KServeError."""
    values: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            continue
        value = _unpacked(name, value)
        if name in _REFUSED:
            if not any(type(value) is type(one) and value == one for one in _REFUSED[name]):
                raise invalid(
                    f"parameter '{name}' is not supported by this version of Modelyard; leave it out"
                )
        elif name not in TextParameters.__struct_fields__:
            raise invalid(f"unknown parameter '{name}'{_hint(name)}")
        else:
            values[name] = value
    parameters = TextParameters(**{name: _convert(name, value) for name, value in values.items()})
    if parameters.best_of not in (None, parameters.n):
        raise invalid(
            f"parameter 'best_of' is {parameters.best_of}; it must be the same as 'n', {parameters.n}"
        )
    if parameters.max_tokens is not None and (parameters.min_tokens or 0) > parameters.max_tokens:
        raise invalid(
            f"parameter 'min_tokens' is {parameters.min_tokens}, over the limit of {parameters.max_tokens} tokens"
        )
    return parameters


def read_dimensions(given: Mapping[str, Any]) -> int | None:
    """How many numbers of a vector are wanted; None for all. Raises KServeError where anything else is given."""
    for name, value in given.items():
        if name != "dimensions" and (name not in ("priority", "timeout") or value != 0):
            raise invalid(f"parameter '{name}' is nothing that a model of vectors knows; leave it out")
    if given.get("dimensions") is None:
        return None
    try:
        return msgspec.convert(given["dimensions"], Count, strict=False)
    except msgspec.ValidationError as error:
        raise invalid(f"parameter 'dimensions': {error}") from None


def read_sampling_tensor(data: bytes) -> dict[str, Any]:
    """The JSON object in a `sampling_parameters` tensor. Raises KServeError."""
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid(f"'sampling_parameters' is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise invalid("'sampling_parameters' must hold a JSON object")
    return value


def _unpacked(name: str, value: Any) -> Any:
    """A list or object that came as a text; `stop` may be a text as it is."""
    if name not in NESTED or name == "stop" or not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        raise invalid(f"parameter '{name}' is a text, but not one of JSON") from None


def _convert(name: str, value: Any) -> Any:
    try:
        return msgspec.convert(value, _TYPES[name], strict=False)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at `$")
        where = f"{name}{place.rstrip('`')}" if place else name
        raise invalid(f"parameter '{where}': {what[:1].lower()}{what[1:].replace(' | null', '')}") from None


_TYPES = {field.name: field.type for field in msgspec.structs.fields(TextParameters)}


def _hint(name: str) -> str:
    close = difflib.get_close_matches(name[:64], TextParameters.__struct_fields__, n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""
