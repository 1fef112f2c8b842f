"""A request inside the worker: its samples' text, and the messages that report them."""

from collections.abc import Callable

from backends.contract import Engine, TokenLogprobs
from runner.errors import RunnerError
from runner.wire.messages import CallDelta, CallFailed, CallFinished, FromWorker
from runner.wire.requests import Delta, Finished, GenerateRequest, TokenText, Usage
from runner.worker.text import StopMatcher, TextStream


class Sample:
    """One of a request's `n` outputs. Tokens whose text is held back wait here with their log-probabilities."""

    __slots__ = ("is_finished", "logprobs", "prompt_logprobs", "text", "tokens")

    def __init__(self, text: TextStream) -> None:
        self.text = text
        self.tokens: tuple[int, ...] = ()
        self.logprobs: tuple[TokenText, ...] = ()
        self.prompt_logprobs: tuple[TokenText | None, ...] = ()
        self.is_finished = False


class Job:
    """What the worker knows of one call. Token counts are of all samples together."""

    def __init__(
        self,
        call: int,
        request: GenerateRequest,
        *,
        prompt: list[int],
        stops: tuple[str, ...],
        engine: Engine,
    ) -> None:
        self.call = call
        self.request = request
        self.prompt = prompt
        self.cached_tokens = 0
        self.queue_s = 0.0
        self._engine = engine
        self._completion_tokens = 0
        token_bytes = self._visible_bytes()
        self.samples = [
            Sample(TextStream(token_bytes, StopMatcher(stops, include=request.include_stop)))
            for _ in range(request.n)
        ]
        if request.prompt_logprobs is not None:
            for sample in self.samples:
                sample.prompt_logprobs = (None,)  # the first token has no probability

    @property
    def is_finished(self) -> bool:
        return all(sample.is_finished for sample in self.samples)

    def feed(
        self,
        index: int,
        tokens: tuple[int, ...] = (),
        *,
        logprobs: tuple[TokenLogprobs, ...] = (),
        prompt_logprobs: tuple[TokenLogprobs, ...] = (),
        finish: str | None = None,
        text: str | None = None,
        stop_token_ids: frozenset[int] = frozenset(),
    ) -> list[FromWorker]:
        """The messages that report what sample `index` gained. A stop text may finish it before the engine does:
        look at the sample's `is_finished` afterwards."""
        sample = self.samples[index]
        self._completion_tokens += len(tokens)
        sample.tokens += tokens
        if logprobs:
            sample.logprobs += tuple(map(self._token_text, logprobs))
        if prompt_logprobs:
            sample.prompt_logprobs += tuple(map(self._token_text, prompt_logprobs))
        stop_reason: str | int | None = None
        visible = tokens
        if finish == "stop" and tokens:
            if tokens[-1] in stop_token_ids:
                stop_reason = tokens[-1]
            if not self.request.include_stop:
                visible = tokens[:-1]
        fed = sample.text.feed(visible) if text is None else sample.text.feed_text(text)
        sent = fed.text
        if fed.stop is None and finish is not None:
            fed = sample.text.flush()
            sent += fed.text
        if fed.stop is not None:
            finish, stop_reason = "stop", fed.stop
        if not sent and finish is None:
            return []
        delta = Delta(
            index=index,
            text=sent,
            token_ids=sample.tokens,
            logprobs=sample.logprobs,
            prompt_logprobs=sample.prompt_logprobs,
            finish=finish,
            stop_reason=stop_reason,
        )
        sample.tokens, sample.logprobs, sample.prompt_logprobs = (), (), ()
        messages: list[FromWorker] = [CallDelta(self.call, delta)]
        if finish is not None:
            sample.is_finished = True
            if self.is_finished:
                messages.append(self._finished())
        return messages

    def fail(self, error: RunnerError) -> FromWorker:
        """The message that ends the call with `error`."""
        return CallFailed(self.call, error.to_wire())

    def _finished(self) -> CallFinished:
        usage = Usage(len(self.prompt), self._completion_tokens, self.cached_tokens)
        return CallFinished(self.call, Finished(usage, self.queue_s))

    def _visible_bytes(self) -> Callable[[int], bytes]:
        if self.request.skip_special_tokens:
            return self._engine.token_bytes
        return lambda token: self._engine.token_bytes(token, special=True)

    def _token_text(self, logprobs: TokenLogprobs) -> TokenText:
        def data(token: int) -> bytes:
            return self._engine.token_bytes(token, special=True)

        return TokenText(logprobs, data(logprobs.token), tuple(data(token) for token, _ in logprobs.top))
