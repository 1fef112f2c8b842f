"""What becomes of requests, tokens and counts where the engine's tokenizer is elsewhere."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from backends.contract import (
    NO_LIMIT,
    EngineError,
    EngineInfo,
    EngineRequest,
    LoadRequest,
    Progress,
    StreamEngine,
    TokenChunk,
    UnavailableError,
    UnsupportedError,
)
from runner.errors import GenerationFailed, InvalidRequest, ModelNotReady, UnsupportedFeature, from_wire
from runner.wire.messages import CallDelta, CallFailed, CallFinished, TemplateTexts, Tokenize, WorkerStats
from runner.wire.requests import ChatPrompt, EditPrompt, GenerateRequest, TextPrompt, TokenPrompt, Usage
from runner.worker.stream_loop import StreamLoop
from tests.support import Sink, make_intake, make_start

THINKS = "{% for m in messages %}{{ m.content }}{% endfor %}<think>{# </think> #}"


class Words(StreamEngine):
    """Gives `says` word by word; a word is a token. Fails with `mood`, if there is one."""

    says = "one two three"
    mood: EngineError | None = None
    context_tokens = 0

    def load(self, request: LoadRequest, progress: Progress) -> EngineInfo:
        self.asked: list[EngineRequest] = []
        self.info = EngineInfo(
            vocabulary=0,
            context_tokens=self.context_tokens,
            kv_tokens=0,
            lanes=4,
            text_only=True,
            engine="words",
        )
        return self.info

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        raise AssertionError("there is no tokenizer")

    def token_bytes(self, token: int, *, special: bool = False) -> bytes:
        raise AssertionError("there are no tokens")

    async def generate(self, request: EngineRequest) -> AsyncIterator[TokenChunk]:
        self.asked.append(request)
        if self.mood is not None:
            raise self.mood
        words = self.says.split(" ")
        for number, word in enumerate(words, start=1):
            is_last = number == len(words)
            yield TokenChunk(
                text=word if is_last else f"{word} ",
                num_tokens=1,
                prompt_tokens=7,
                finish="stop" if is_last else None,
            )


class Yard:
    """A loop over Words and what it sent."""

    def __init__(self, engine: Words, **start: Any) -> None:
        self.engine = engine
        engine.load(make_start().load, lambda _: None)
        self.intake = make_intake(engine, make_start(**start))
        self.sink = Sink(lambda message: self.loop.stop() if isinstance(message, WorkerStats) else None)
        self.loop = StreamLoop(engine, engine.info, make_start().limits, sender=self.sink)

    def run(self, prompt: Any = "hello", **given: Any) -> None:
        """One request to its end."""
        prompt = TextPrompt(prompt) if isinstance(prompt, str) else prompt
        job = self.intake.job(1, GenerateRequest(prompt=prompt, **given))
        requests = self.intake.engine_requests(job)
        self.sink._on_message = lambda message: (
            self.loop.stop() if isinstance(message, (CallFinished, CallFailed)) else None
        )
        self.loop.submit(job, requests)
        assert self.loop.run()

    @property
    def text(self) -> str:
        return "".join(message.delta.text for message in self.sink.of(CallDelta))

    @property
    def usage(self) -> Usage:
        (message,) = self.sink.of(CallFinished)
        return message.finished.usage


MakeYard = Callable[..., Yard]


@pytest.fixture
def make_yard() -> Iterator[MakeYard]:
    made: list[Yard] = []

    def make(**start: Any) -> Yard:
        made.append(Yard(start.pop("engine", None) or Words(), **start))
        return made[-1]

    yield make
    for yard in made:
        yard.loop._loop.close()


def test_the_prompt_goes_to_the_engine_as_text(make_yard: MakeYard) -> None:
    yard = make_yard()
    yard.run("hello")
    (asked,) = yard.engine.asked
    assert (asked.text, asked.prompt) == ("hello", ())
    assert yard.text == "one two three"


def test_usage_is_what_the_engine_counts(make_yard: MakeYard) -> None:
    yard = make_yard()
    yard.run(n=2)
    assert (yard.usage.prompt_tokens, yard.usage.completion_tokens) == (7, 6)


def test_the_totals_of_the_worker_are_too(make_yard: MakeYard) -> None:
    yard = make_yard()
    yard.run()
    last = yard.sink.of(WorkerStats)[-1]
    assert (last.prompt_tokens_total, last.generated_tokens_total) == (7, 3)


def test_a_stop_text_is_found_across_pieces(make_yard: MakeYard) -> None:
    yard = make_yard()
    yard.run(stop=("o thr",))
    assert yard.text == "one tw"
    assert yard.sink.of(CallDelta)[-1].delta.stop_reason == "o thr"


def test_reasoning_that_the_prompt_opened_is_told_apart_and_counted(make_yard: MakeYard) -> None:
    engine = Words()
    engine.says = "well then </think> yes"
    yard = make_yard(engine=engine, template=TemplateTexts(chat=THINKS))
    yard.run(ChatPrompt(messages=({"role": "user", "content": "hi"},)), split_reasoning=True)
    deltas = [message.delta for message in yard.sink.of(CallDelta)]
    assert "".join(delta.reasoning for delta in deltas).strip() == "well then"
    assert yard.text.strip() == "yes"
    assert 2 <= yard.usage.reasoning_tokens <= 3


@pytest.mark.parametrize(
    ("context_tokens", "given", "defaults", "expected"),
    [
        (0, {}, {}, NO_LIMIT),
        (100, {}, {}, 100),
        (0, {}, {"max_tokens": 9}, 9),
        (100, {"max_tokens": 5}, {"max_tokens": 9}, 5),
        (0, {"max_tokens": 5000}, {}, 5000),
    ],
)
def test_the_limit_of_tokens_is_what_somebody_gave(
    make_yard: MakeYard, context_tokens: int, given: Any, defaults: Any, expected: int
) -> None:
    engine = Words()
    engine.context_tokens = context_tokens
    yard = make_yard(engine=engine, defaults=defaults)
    yard.run(**given)
    assert yard.engine.asked[0].max_tokens == expected


def test_what_was_asked_for_is_told_from_what_is_neutral(make_yard: MakeYard) -> None:
    yard = make_yard(defaults={"top_p": 0.5, "max_tokens": 9})
    yard.run(sampling={"temperature": 1.0, "seed": None})
    assert yard.engine.asked[0].given == {"temperature", "top_p"}


def test_deltas_say_how_many_tokens_their_text_was(make_yard: MakeYard) -> None:
    yard = make_yard()
    yard.run(stop=("never",))
    assert sum(message.delta.num_text_tokens for message in yard.sink.of(CallDelta)) == 3


def test_deltas_tell_the_prompts_tokens_as_soon_as_the_engine_does(make_yard: MakeYard) -> None:
    yard = make_yard()
    yard.run()
    assert {message.delta.prompt_tokens for message in yard.sink.of(CallDelta)} == {7}


def test_the_time_that_a_request_has_is_passed_on(make_yard: MakeYard) -> None:
    yard = make_yard()
    yard.run(timeout_s=3.5)
    assert yard.engine.asked[0].timeout_s == 3.5


def test_a_chat_needs_a_template(make_yard: MakeYard) -> None:
    chat = ChatPrompt(messages=({"role": "user", "content": "hi"},))
    with pytest.raises(UnsupportedFeature, match=r"template\.chat") as caught:
        make_yard().run(chat)
    assert caught.value.param == "messages"
    yard = make_yard(template=TemplateTexts(chat="<{{ messages[0].content }}>"))
    yard.run(chat)
    assert yard.engine.asked[0].text == "<hi>"


def test_an_edit_needs_a_template(make_yard: MakeYard) -> None:
    with pytest.raises(UnsupportedFeature, match=r"template\.edit"):
        make_yard().run(EditPrompt(text="a", instruction="b"))


@pytest.mark.parametrize(
    ("prompt", "given", "param"),
    [
        (TokenPrompt((1, 2)), {}, "prompt"),
        (TextPrompt("a"), {"logprobs": 1}, "logprobs"),
        (TextPrompt("a"), {"sampling": {"logit_bias": {"1": 1.0}}}, "logit_bias"),
        (TextPrompt("a"), {"min_tokens": 2}, "min_tokens"),
        (TextPrompt("a"), {"skip_special_tokens": False}, "skip_special_tokens"),
        (TextPrompt("a"), {"cache_salt": "mine"}, "cache_salt"),
    ],
)
def test_what_needs_tokens_here_is_refused_by_name(
    make_yard: MakeYard, prompt: Any, given: Any, param: str
) -> None:
    with pytest.raises(UnsupportedFeature, match="words") as caught:
        make_yard().run(prompt, **given)
    assert caught.value.param == param


def test_an_empty_prompt_is_refused(make_yard: MakeYard) -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        make_yard().run("")


def test_there_is_nothing_to_tokenise_with(make_yard: MakeYard) -> None:
    prompts = make_yard().intake.prompts
    with pytest.raises(UnsupportedFeature, match="no tokenizer here"):
        prompts.tokenized(Tokenize(1, TextPrompt("hello")))
    with pytest.raises(UnsupportedFeature, match="no tokenizer here"):
        prompts.detokenize([1])


@pytest.mark.parametrize(
    ("mood", "kind"),
    [
        (UnavailableError("gone"), ModelNotReady),
        (UnsupportedError("not that"), UnsupportedFeature),
        (EngineError("bad luck"), GenerationFailed),
    ],
)
def test_an_engines_error_says_whether_to_try_again(
    make_yard: MakeYard, mood: EngineError, kind: type[Exception]
) -> None:
    yard = make_yard()
    yard.engine.mood = mood
    yard.run()
    (failed,) = yard.sink.of(CallFailed)
    assert type(from_wire(failed.error)) is kind
