"""A request inside the worker: its samples' text, and the messages that report them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from backends.contract import Engine, TokenLogprobs
from runner.errors import RunnerError
from runner.wire.messages import CallDelta, CallFailed, CallFinished, FromWorker
from runner.wire.requests import Delta, Finished, GenerateRequest, TokenText, ToolCallDelta, Usage
from runner.worker.output.markup import Markup
from runner.worker.output.message import Gain, MessageReader, merged
from runner.worker.output.parts import TextFilter
from runner.worker.text import Fed, StopMatcher, TextStream


class Read(NamedTuple):
    """What tokens gave, and the stop text that ended it, if one did."""

    gains: list[Gain]
    stop: str | None


class Sample:
    """One of a request's `n` outputs. Tokens whose text is held back wait here with their log-probabilities.
    `message` is None where the text is the message, `cleaner` where nothing is to be cut from that."""

    __slots__ = (
        "cleaner",
        "is_finished",
        "logprobs",
        "message",
        "num_text_tokens",
        "prompt_logprobs",
        "text",
        "tokens",
    )

    def __init__(
        self, text: TextStream, message: MessageReader | None, cleaner: TextFilter | None = None
    ) -> None:
        self.text = text
        self.message = message
        self.cleaner = cleaner
        self.tokens: tuple[int, ...] = ()
        self.num_text_tokens = 0
        self.logprobs: tuple[TokenText, ...] = ()
        self.prompt_logprobs: tuple[TokenText | None, ...] = ()
        self.is_finished = False

    def delta(
        self,
        index: int,
        text: str,
        *,
        finish: str | None,
        stop_reason: str | int | None,
        reasoning: str = "",
        tool_calls: tuple[ToolCallDelta, ...] = (),
        prompt_tokens: int = 0,
    ) -> Delta:
        """What is told of a gain, and of the tokens that waited for it."""
        delta = Delta(
            index,
            text,
            self.tokens,
            self.logprobs,
            self.prompt_logprobs,
            finish,
            stop_reason,
            reasoning,
            tool_calls,
            self.num_text_tokens,
            prompt_tokens,
        )
        self.tokens, self.logprobs, self.prompt_logprobs = (), (), ()
        self.num_text_tokens = 0
        return delta

    def read_text(self, tokens: Sequence[int], text: str | None, *, is_last: bool) -> Fed:
        """What `tokens` add to the text, or `text` where the engine gives that. After a stop text nothing more must
        be read."""
        fed = self.text.feed(tokens) if text is None else self.text.feed_text(text)
        if is_last and fed.stop is None:
            tail = self.text.flush()
            fed = Fed(fed.text + tail.text, tail.stop)
        if self.cleaner is None:
            return fed
        cleaned = self.cleaner.feed(fed.text)
        return Fed(cleaned + (self.cleaner.flush() if is_last or fed.stop is not None else ""), fed.stop)

    def read_message(
        self,
        message: MessageReader,
        tokens: Sequence[int],
        text: str | None,
        *,
        num_text_tokens: int,
        is_last: bool,
    ) -> Read:
        """What they add to `message`, this sample's own; once it is done nothing more must be read."""
        gains: list[Gain] = []
        # One at a time, for the end of reasoning must be found among them.
        pieces = [(self.text.feed((token,)), 1) for token in tokens] if text is None else []
        if text is not None:
            pieces.append((self.text.feed_text(text), num_text_tokens))
        if is_last:
            pieces.append((self.text.flush(), 0))
        stop = None
        for fed, num_tokens in pieces:
            gains += message.feed(fed.text, num_tokens=num_tokens)
            stop = message.stop or fed.stop
            if stop is not None or message.is_done:
                break
        has_ended = is_last or stop is not None or message.is_done
        if has_ended:
            gains += message.flush()
        if self.cleaner is not None:
            gains = list(_cleaned(gains, self.cleaner, has_ended=has_ended))
        return Read(merged(gains), message.stop or stop)


def _cleaned(gains: Iterable[Gain], cleaner: TextFilter, *, has_ended: bool) -> Iterator[Gain]:
    """The same with the content cleaned: what stands before calls, and what stands behind them, each by itself."""
    for gain in gains:
        text = cleaner.feed(gain.text)
        yield Gain(gain.reasoning, text + (cleaner.flush() if gain.tool_calls else ""), gain.tool_calls)
    if has_ended:
        yield Gain(text=cleaner.flush())


class Job:
    """What the worker knows of one call. Token counts are of all samples together. `prompt` is tokens, or for a
    text_only engine a text, of which that engine tells the `prompt_tokens`. `stops` are the model's own stop texts,
    which end all that it writes; those of the request end the answer only. `new_cleaner` makes what cuts the rest.
    An answer `begins` with a text of the configuration's."""

    def __init__(
        self,
        call: int,
        request: GenerateRequest,
        *,
        prompt: list[int] | str,
        stops: tuple[str, ...],
        engine: Engine,
        markup: Markup,
        clock: Callable[[], float],
        new_cleaner: Callable[[], TextFilter | None] = lambda: None,
        begins: str = "",
    ) -> None:
        self.call = call
        self.request = request
        self.prompt = [] if isinstance(prompt, str) else prompt
        self.prompt_text = prompt if isinstance(prompt, str) else None
        self.prompt_tokens = len(self.prompt)
        self.cached_tokens = 0
        self.queue_s = 0.0
        self._engine = engine
        self._clock = clock
        self._completion_tokens = 0
        self._began: float | None = None  # when the first token was there
        self._output_s = 0.0
        self._markup = markup
        self._new_cleaner = new_cleaner
        self._begins = begins
        self.samples = [self._sample(stops) for _ in range(request.n)]
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
        num_text_tokens: int = 0,
        stop_token_ids: frozenset[int] = frozenset(),
    ) -> list[FromWorker]:
        """The messages that report what sample `index` gained: tokens, or from a text_only engine `text` of so many.
        A stop text may finish it before the engine does: look at the sample's `is_finished` afterwards."""
        began = self._clock()
        if self._began is None:
            self._began = began
        sample = self.samples[index]
        self._completion_tokens += len(tokens) + num_text_tokens
        sample.tokens += tokens
        sample.num_text_tokens += num_text_tokens
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
        told_tokens = 0 if self.prompt_text is None else self.prompt_tokens  # else Accepted told them
        messages: list[FromWorker] = []
        message = sample.message
        if message is None:
            sent, stop = sample.read_text(visible, text, is_last=finish is not None)
            if stop is not None:
                finish, stop_reason = "stop", stop
            if sent or finish is not None:
                delta = sample.delta(
                    index, sent, finish=finish, stop_reason=stop_reason, prompt_tokens=told_tokens
                )
                messages.append(CallDelta(self.call, delta))
        else:
            gains, stop = sample.read_message(
                message, visible, text, num_text_tokens=num_text_tokens, is_last=finish is not None
            )
            if stop is not None:
                finish, stop_reason = "stop", stop
            finish = message.finish(finish)
            if finish is not None and not gains:
                gains = [Gain()]
            for number, gain in enumerate(gains, start=1):
                is_last = number == len(gains)
                delta = sample.delta(
                    index,
                    gain.text,
                    finish=finish if is_last else None,
                    stop_reason=stop_reason if is_last else None,
                    reasoning=gain.reasoning,
                    tool_calls=gain.tool_calls,
                    prompt_tokens=told_tokens,
                )
                messages.append(CallDelta(self.call, delta))
        self._output_s += self._clock() - began
        if finish is not None:
            sample.is_finished = True
            if self.is_finished:
                messages.append(self._finished())
        return messages

    def fail(self, error: RunnerError) -> FromWorker:
        """The message that ends the call with `error`."""
        return CallFailed(self.call, error.to_wire())

    def _finished(self) -> CallFinished:
        reasoning = sum(s.message.reasoning_tokens for s in self.samples if s.message is not None)
        usage = Usage(self.prompt_tokens, self._completion_tokens, self.cached_tokens, reasoning)
        decode_s = self._clock() - self._began if self._began is not None else 0.0
        output_s = min(self._output_s, decode_s)
        return CallFinished(self.call, Finished(usage, self.queue_s, decode_s, output_s))

    def _sample(self, stops: tuple[str, ...]) -> Sample:
        request = self.request
        content_stops = StopMatcher(request.stop, include=request.include_stop, begins=self._begins.lstrip())
        prompt = self.prompt if self.prompt_text is None else self.prompt_text
        message = self._markup.reader(request, prompt, content_stops, begins=self._begins)
        if message is None:
            stops = (*stops, *request.stop)
        token_bytes: Callable[[int], bytes]
        if not request.skip_special_tokens:
            token_bytes = self._special_bytes
        else:
            token_bytes = self._engine.token_bytes if message is None else self._markup.token_bytes
        matcher = StopMatcher(stops, include=request.include_stop)
        text = TextStream(token_bytes, matcher, begins=self._begins)
        return Sample(text, message, self._new_cleaner())

    def _special_bytes(self, token: int) -> bytes:
        return self._engine.token_bytes(token, special=True)

    def _token_text(self, logprobs: TokenLogprobs) -> TokenText:
        top = tuple(self._special_bytes(token) for token, _ in logprobs.top)
        return TokenText(logprobs, self._special_bytes(logprobs.token), top)
