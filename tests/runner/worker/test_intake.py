"""What a request becomes: defaults, capabilities and limits."""

from collections.abc import Sequence

import msgspec
import pytest

from backends.echo.engine import EchoEngine
from backends.echo.stream import EchoStreamEngine
from runner.errors import InvalidRequest, UnsupportedFeature, WrongKind
from runner.wire.messages import TemplateTexts, Tokenize
from runner.wire.requests import (
    STRICT,
    ChatPrompt,
    EditPrompt,
    GenerateRequest,
    TextPrompt,
    TokenPrompt,
    ToolUse,
)
from runner.worker.admission import refusal
from runner.worker.intake import Intake
from tests.support import echo_engine, make_intake, make_start


def request(**given: object) -> GenerateRequest:
    return GenerateRequest(prompt=TextPrompt("hello"), **given)  # type: ignore[arg-type]


def engine_without(capability: str) -> EchoEngine:
    engine = echo_engine()
    left = engine.info.capabilities - {capability}
    engine.info = msgspec.structs.replace(engine.info, capabilities=left)
    return engine


@pytest.mark.parametrize(
    ("capability", "given", "param"),
    [
        ("mask", {"min_tokens": 3}, "min_tokens"),
        ("logit_bias", {"sampling": {"logit_bias": {1: 2.0}}}, "logit_bias"),
        ("logprobs", {"logprobs": 1}, "logprobs"),
    ],
)
def test_what_the_engine_lacks_is_refused_by_name(
    capability: str, given: dict[str, object], param: str
) -> None:
    with pytest.raises(UnsupportedFeature, match=param) as caught:
        make_intake(engine_without(capability)).job(1, request(**given))
    assert caught.value.param == param
    assert make_intake(echo_engine()).job(1, request(**given)).prompt


def test_a_salt_is_refused_by_an_engine_that_keeps_prefixes_and_cannot_tell_them_apart() -> None:
    engine = EchoStreamEngine()
    engine.load(make_start().load, lambda _: None)
    salted = request(cache_salt="mine")
    assert make_intake(engine).job(1, salted)
    engine.info = msgspec.structs.replace(engine.info, capabilities=engine.info.capabilities - {"cache_salt"})
    with pytest.raises(UnsupportedFeature, match="cache_salt"):
        make_intake(engine).job(1, salted)
    engine.info = msgspec.structs.replace(engine.info, prefix="none")
    assert make_intake(engine).job(1, salted)


def test_a_bias_that_the_configuration_asks_for_is_refused_too() -> None:
    intake = make_intake(engine_without("logit_bias"), make_start(defaults={"logit_bias": {1: 1.0}}))
    with pytest.raises(UnsupportedFeature, match="logit_bias"):
        intake.job(1, request())


def test_the_end_can_be_ignored_without_a_bias() -> None:
    intake = make_intake(engine_without("logit_bias"))
    (sequence,) = intake.sequences(intake.job(1, request(ignore_eos=True)))
    assert not sequence.limits.eos_ids and not sequence.sampling.logit_bias


def test_what_is_not_given_comes_from_the_configuration() -> None:
    intake = make_intake(echo_engine(), make_start(defaults={"min_tokens": 5, "ignore_eos": True}))
    (sequence,) = intake.sequences(intake.job(1, request()))
    assert sequence.limits.min_tokens == 5 and not sequence.limits.eos_ids


def test_a_request_overrides_the_configuration_with_nothing() -> None:
    intake = make_intake(echo_engine(), make_start(defaults={"min_tokens": 5, "ignore_eos": True}))
    (sequence,) = intake.sequences(intake.job(1, request(min_tokens=0, ignore_eos=False)))
    assert sequence.limits.min_tokens == 0 and sequence.limits.eos_ids


@pytest.mark.parametrize(
    ("seed", "seeds"),
    [
        (None, [None, None]),
        (-1, [None, None]),
        (7, [7, 8]),
        (-7, [2**63 - 7, 2**63 - 6]),
        (2**63 - 1, [2**63 - 1, 0]),
    ],
)
def test_every_seed_but_minus_one_is_one(seed: int | None, seeds: list[int | None]) -> None:
    asked = request(sampling={} if seed is None else {"seed": seed}, n=2)
    assert [make_intake(echo_engine()).sampling(asked, index).seed for index in (0, 1)] == seeds


TOOLS = ({"type": "function", "function": {"name": "f"}}, {"type": "function", "function": {"name": "g"}})
HERMES = TemplateTexts(tool_format="hermes", chat="{% if thinking %}{% endif %}{{ messages[0].content }}")


def chat(use: ToolUse | None = None, **wishes: object) -> GenerateRequest:
    messages = ({"role": "user", "content": "x"},)
    prompt = ChatPrompt(messages=messages, tools=TOOLS if use else None, template_kwargs=wishes)
    return GenerateRequest(prompt=prompt, tool_use=use)


def test_what_the_template_does_not_read_is_told() -> None:
    intake = make_intake(echo_engine(), make_start(template=HERMES))
    assert intake.idle(chat(thinking=True, verbosity="low", colour=1)) == ("verbosity", "colour")
    assert intake.idle(request()) == ()


def test_strict_tools_bind_the_calls_that_are_left_to_the_model() -> None:
    intake = make_intake(echo_engine(), make_start(template=HERMES))
    strict, loose = chat(ToolUse(strict=("f",))), chat(ToolUse())
    form = intake.form(intake.job(1, strict))
    assert form is not None and [one.kind for one in form.constraints] == ["lark"]
    assert intake.idle(strict) == ()
    assert intake.form(intake.job(2, loose)) is None


def test_an_engine_that_cannot_bind_them_says_so() -> None:
    engine = EchoStreamEngine()
    engine.load(make_start().load, lambda _: None)
    for made in (engine, engine_without("mask")):
        intake = make_intake(made, make_start(template=HERMES))
        asked = chat(ToolUse(strict=("f",)))
        assert intake.form(intake.job(1, asked)) is None
        assert intake.idle(asked) == (STRICT,)


def test_a_request_that_is_nested_too_deeply_is_refused_and_no_fault_of_ours() -> None:
    nested: object = "x"
    for _ in range(3000):
        nested = [nested]
    with pytest.raises(RecursionError) as caught:
        make_intake(echo_engine()).prompts.pieces(ChatPrompt(messages=({"role": "user", "content": nested},)))
    assert refusal(1, caught.value).error.kind == "InvalidRequest"


def test_a_stream_engine_is_told_the_callers_request_id() -> None:
    engine = EchoStreamEngine()
    engine.load(make_start().load, lambda _: None)
    intake = make_intake(engine)
    named = intake.engine_requests(intake.job(7, request(request_id="mine", n=2)))
    assert [one.request_id for one in named] == ["mine-0", "mine-1"]
    (unnamed,) = intake.engine_requests(intake.job(7, request()))
    assert unnamed.request_id == "7-0"


def test_a_model_that_makes_vectors_only_generates_nothing() -> None:
    engine = echo_engine(embeddings=True)
    engine.info = msgspec.structs.replace(engine.info, generates=False)
    intake = make_intake(engine)
    with pytest.raises(WrongKind, match="embeddings only") as caught:
        intake.job(1, request())
    assert caught.value.param == "model"
    assert intake.prompts.embed_batch([TextPrompt("hi")], dimensions=None) == [[104, 105]]


def test_what_is_embedded_has_its_frame_and_is_counted_with_it() -> None:
    class Framing(EchoEngine):
        def framed(self, tokens: Sequence[int]) -> list[int]:
            return [256, *tokens, 259]

    engine = Framing()
    engine.load(msgspec.structs.replace(make_start().load, embeddings=True), lambda _: None)
    assert make_intake(engine).prompts.embed_batch([TextPrompt("hi")], dimensions=None) == [
        [256, 104, 105, 259]
    ]


def test_a_model_that_was_not_loaded_for_vectors_makes_none() -> None:
    with pytest.raises(WrongKind, match="embeddings: true"):
        make_intake(echo_engine()).prompts.embed_batch([TextPrompt("hi")], dimensions=None)


def test_vectors_are_cut_only_where_the_configuration_says_that_they_may_be() -> None:
    engine = echo_engine(embeddings=True)
    with pytest.raises(UnsupportedFeature, match="matryoshka") as caught:
        make_intake(engine).prompts.embed_batch([TextPrompt("hi")], dimensions=8)
    assert caught.value.param == "dimensions"
    able = make_intake(engine, make_start(matryoshka=True))
    assert able.prompts.embed_batch([TextPrompt("hi")], dimensions=8) == [[104, 105]]
    with pytest.raises(InvalidRequest, match="dimensions is 261, but this model's vectors have 260"):
        able.prompts.embed_batch([TextPrompt("hi")], dimensions=261)


def test_an_edit_is_rendered_by_its_template_or_else_as_a_chat() -> None:
    prompt = EditPrompt(text="wat", instruction="Fix")
    chat = make_intake(echo_engine())
    edit = make_intake(
        echo_engine(), make_start(template=TemplateTexts(edit="{{ Instruction }}={{ Input }}"))
    )
    assert edit.prompts.tokens(prompt) == list(b"Fix=wat")
    assert [piece.text for piece in chat.prompts.pieces(prompt)] == [
        "<|im_start|>user\nFix\n\nwat<|im_end|>\n<|im_start|>assistant\n"
    ]


def test_an_edit_without_any_template_says_which_to_give() -> None:
    engine = echo_engine()
    engine.info = msgspec.structs.replace(engine.info, chat_template=None)
    with pytest.raises(UnsupportedFeature, match=r"template\.edit"):
        make_intake(engine).prompts.pieces(EditPrompt(text="wat", instruction="Fix"))


@pytest.mark.parametrize(
    ("prompt", "tokens", "text"),
    [
        (TextPrompt("hi"), (256, 104, 105), "hi"),
        (TokenPrompt((104, 256)), (104, 256), "h<|bos|>"),
        (ChatPrompt(messages=(), add_generation_prompt=False), (256,), "<|bos|>"),
    ],
)
def test_what_is_tokenized_comes_back_with_its_text(prompt, tokens, text) -> None:  # type: ignore[no-untyped-def]
    intake = make_intake(echo_engine(options={"add_bos": True}))
    answer = intake.prompts.tokenized(Tokenize(1, prompt))
    assert (answer.tokens, answer.text, answer.pieces) == (tokens, text, ())


def test_tokens_come_without_bos_and_with_their_bytes_where_that_is_asked_for() -> None:
    intake = make_intake(echo_engine(options={"add_bos": True}))
    answer = intake.prompts.tokenized(
        Tokenize(1, TextPrompt("é<|im_end|>"), add_special=False, with_pieces=True)
    )
    assert answer.tokens == (0xC3, 0xA9, 258)
    assert answer.pieces == (b"\xc3", b"\xa9", b"<|im_end|>")


def asking(*turns: tuple[str, str], **given: object) -> GenerateRequest:
    messages = tuple({"role": role, "content": content} for role, content in turns)
    return GenerateRequest(prompt=ChatPrompt(messages=messages, **given))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prefix", "given", "behind"),
    [
        ("tip", {}, "<|im_start|>assistant\n"),
        ("tip", {"add_generation_prompt": False}, None),
        ("tokens", {}, None),
    ],
)
def test_where_states_cannot_be_cut_it_is_told_where_a_chats_turns_end(
    prefix: str, given: dict[str, object], behind: str | None
) -> None:
    engine = echo_engine(options={"prefix": prefix})
    intake = make_intake(engine)
    (sequence,) = intake.sequences(intake.job(1, asking(("user", "hi"), **given)))
    expected = 0 if behind is None else sequence.num_prompt - len(engine.tokenize(behind, special=True))
    assert sequence.turn_tokens == expected


def test_the_texts_that_end_an_engines_own_turns_end_answers_of_chats_alone() -> None:
    engine = echo_engine()
    engine.info = msgspec.structs.replace(engine.info, chat_stops=("\n\nUser:",))
    own, other = make_intake(engine), make_intake(engine, make_start(template=TemplateTexts(chat="{{ 1 }}")))

    def end(intake: Intake, request: GenerateRequest) -> str | None:
        job = intake.job(1, request)
        job.feed(0, tuple(b"an answer\n\nUser: x"))
        return "stop" if job.is_finished else None

    assert end(own, asking(("user", "hi"))) == "stop"
    assert end(own, request()) is None
    assert end(other, asking(("user", "hi"))) is None
