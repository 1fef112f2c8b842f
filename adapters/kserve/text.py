"""Text models: what the tensors of a request ask for, and the events of its generation as tensors.

Without `stream` there is one answer with everything, and the prompt stands before the text unless that is excluded;
with it there is one for every piece, and the prompt never comes back.
"""

from typing import Any

import msgspec

from adapters.kserve.contract import RETURNS
from adapters.kserve.errors import invalid
from adapters.kserve.messages import InferRequest, InferResponse
from adapters.kserve.parameters import read_parameters, read_sampling_tensor
from adapters.kserve.tensors import Tensor, number_tensor, text_tensor, texts_of
from runner.wire.requests import Accepted, Delta, Event, Finished, GenerateRequest, TokenText

UNFINISHED = "None"
_DETAILED = {"length": "length", "stop": "eos_token"}


class TextWork(msgspec.Struct, frozen=True, kw_only=True):
    """`given`: what stands before the text of an answer. `returns`: the optional outputs that are wanted.
    `details`: so are the Open Inference Protocol's."""

    request: GenerateRequest
    id: str
    stream: bool
    given: str
    returns: frozenset[str]
    with_logprobs: bool
    details: bool


def text_work(asked: InferRequest, *, request_id: str, default_max_tokens: int | None) -> TextWork:
    """What a request that keeps to the contract asks for. Raises KServeError."""
    prompt = _text(asked, "text_input") or ""
    sampling = _text(asked, "sampling_parameters")
    given = dict(asked.parameters)
    if sampling is not None:
        given |= read_sampling_tensor(sampling.encode())
    parameters = read_parameters(given)
    stream = flag(asked, "stream") or False
    excludes = flag(asked, "exclude_input_in_output")
    if stream and excludes is False:
        raise invalid("When streaming, `exclude_input_in_output` = False is not allowed.")
    returns = frozenset(name.removeprefix("return_") for name in RETURNS if flag(asked, name))
    return TextWork(
        request=parameters.request(
            prompt,
            request_id=request_id,
            default_max_tokens=default_max_tokens,
            with_scores="cumulative_logprob" in returns,
        ),
        id=asked.id,
        stream=stream,
        given="" if stream or excludes else prompt,
        returns=returns,
        with_logprobs=parameters.logprobs is not None,
        details=parameters.details,
    )


class TextResponses:
    """Turns the events of one generation into its answers."""

    def __init__(self, work: TextWork) -> None:
        self._work = work
        self._samples = [_Sample() for _ in range(work.request.n)]
        self._model = ""
        self._version = 0
        self._prompt_tokens = 0

    def feed(self, event: Event) -> InferResponse | None:
        """The answer that `event` completes, if it does."""
        match event:
            case Accepted():
                self._model, self._version = event.model, event.version
                self._prompt_tokens = event.prompt_tokens
            case Delta():
                self._prompt_tokens = event.prompt_tokens or self._prompt_tokens
                self._samples[event.index].add(event)
                if self._work.stream:
                    return self._response(is_final=all(sample.finish is not None for sample in self._samples))
            case Finished(usage) if not self._work.stream:
                self._prompt_tokens = usage.prompt_tokens  # which some engines tell at the end only
                return self._response(is_final=True)
        return None

    @property
    def empty(self) -> InferResponse:
        """An answer that only says that no other follows."""
        return InferResponse(model=self._model, version=self._version, id=self._work.id, is_empty=True)

    def _response(self, *, is_final: bool) -> InferResponse:
        """Everything that has come since the last one."""
        work, samples = self._work, self._samples
        outputs = [text_tensor("text_output", [work.given + sample.take_text() for sample in samples])]
        if "finish_reason" in work.returns:
            outputs.append(text_tensor("finish_reason", [sample.finish or UNFINISHED for sample in samples]))
        if "cumulative_logprob" in work.returns:
            outputs.append(
                number_tensor("cumulative_logprob", "FP32", [sample.logprob for sample in samples])
            )
        details = self._details() if work.details and is_final else None
        tokens = [sample.take_tokens() for sample in samples]
        if "logprobs" in work.returns:
            texts = [_logprobs_text(each) if work.with_logprobs else "null" for each in tokens]
            outputs.append(text_tensor("logprobs", texts))
        if "num_input_tokens" in work.returns:
            outputs.append(number_tensor("num_input_tokens", "UINT32", [self._prompt_tokens]))
        counts = [sample.take_count() for sample in samples]
        if "num_output_tokens" in work.returns:
            outputs.append(number_tensor("num_output_tokens", "UINT32", counts))
        return InferResponse(
            model=self._model,
            version=self._version,
            id=work.id,
            outputs=tuple(outputs),
            is_final=is_final,
            details=details,
        )

    def _details(self) -> Any:
        """How each sample finished and, where asked for, its tokens; one sample's not in a list."""
        all_of_them = [sample.details(with_logprobs=self._work.with_logprobs) for sample in self._samples]
        return all_of_them[0] if len(all_of_them) == 1 else all_of_them


class _Sample:
    """What one sample gave since it was last taken, and how it stands."""

    def __init__(self) -> None:
        self.finish: str | None = None
        self.logprob = 0.0
        self._stop_reason: str | int | None = None
        self._texts: list[str] = []
        self._tokens: list[TokenText] = []
        self._taken = 0
        self._count = 0

    def add(self, delta: Delta) -> None:
        self._texts.append(delta.text)
        self._tokens += delta.logprobs
        self._count += len(delta.token_ids) + delta.num_text_tokens
        self.logprob += sum(token.logprobs.logprob for token in delta.logprobs)
        if delta.finish is not None:
            self.finish, self._stop_reason = delta.finish, delta.stop_reason

    def take_text(self) -> str:
        text = "".join(self._texts)
        self._texts.clear()
        return text

    def take_tokens(self) -> list[TokenText]:
        tokens = self._tokens[self._taken :]
        self._taken = len(self._tokens)
        return tokens

    def take_count(self) -> int:
        count, self._count = self._count, 0
        return count

    def details(self, *, with_logprobs: bool) -> dict[str, Any]:
        reason = (
            "stop_sequence" if isinstance(self._stop_reason, str) else _DETAILED.get(self.finish or "", "")
        )
        details: dict[str, Any] = {"finish_reason": reason or "eos_token"}
        if with_logprobs:
            details["logprobs"] = [
                {
                    "id": token.logprobs.token,
                    "text": token.data.decode(errors="replace"),
                    "logprob": token.logprobs.logprob,
                    "special": not token.data,
                }
                for token in self._tokens
            ]
        return details


def _logprobs_text(tokens: list[TokenText]) -> str:
    """One object for each token: by token id, the drawn one first, the log-probability, its rank and its text.

    The rank of a drawn token that is none of the likeliest is not known.
    """
    return msgspec.json.encode([_alternatives(token) for token in tokens]).decode()


def _alternatives(token: TokenText) -> dict[str, Any]:
    drawn, top = token.logprobs.token, token.logprobs.top
    ranks = {number: rank for rank, (number, _) in enumerate(top, 1)}
    found = {str(drawn): _alternative(token.logprobs.logprob, ranks.get(drawn), token.data)}
    for (number, logprob), data in zip(top, token.top_data, strict=False):
        found.setdefault(str(number), _alternative(logprob, ranks[number], data))
    return found


def _alternative(logprob: float, rank: int | None, data: bytes) -> dict[str, Any]:
    return {"logprob": logprob, "rank": rank, "decoded_token": data.decode(errors="replace")}


def _text(asked: InferRequest, name: str) -> str | None:
    """The one text of an input. Raises KServeError where it is none."""
    tensor = asked.find(name)
    if tensor is None:
        return None
    return one_text(tensor)


def one_text(tensor: Tensor) -> str:
    """The text of a BYTES tensor of one element. Raises KServeError."""
    (data,) = texts_of(tensor)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise invalid(
            f"input '{tensor.name}' is not valid UTF-8: {error.reason} (byte {error.start})"
        ) from None
    if "\0" in text:
        raise invalid(f"input '{tensor.name}' holds a NUL character; remove it")
    return text


def flag(asked: InferRequest, name: str) -> bool | None:
    """A BOOL input of one element; None where it is not given."""
    tensor = asked.find(name)
    return None if tensor is None else tensor.data != b"\0"
