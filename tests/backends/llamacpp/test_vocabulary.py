"""Text and tokens: what the contract suite cannot know about the two kinds of vocabulary."""

from collections.abc import Callable
from pathlib import Path

import pytest

from backends.llamacpp.engine import LlamaCppEngine

Load = Callable[..., LlamaCppEngine]
Write = Callable[..., Path]


def rendered(engine: LlamaCppEngine, tokens: list[int], *, special: bool = False) -> bytes:
    return b"".join(engine.token_bytes(token, special=special) for token in tokens)


@pytest.fixture(scope="module")
def spm(write_gguf: Write) -> Path:
    return write_gguf(vocabulary="spm")


def test_user_defined_tokens_are_text_of_their_own(engine: LlamaCppEngine) -> None:
    for special in (False, True):
        tokens = engine.tokenize("a<tool_call>b", special=special)
        assert len(tokens) == 3
        assert rendered(engine, tokens) == b"a<tool_call>b"


def test_text_with_nul_and_without_utf8_is_taken(engine: LlamaCppEngine) -> None:
    assert rendered(engine, engine.tokenize("a\0b", special=False)) == b"a\0b"
    assert rendered(engine, engine.tokenize("a\ud800b", special=False)) == b"a?b"
    assert engine.tokenize("", special=True) == []


def test_characters_may_be_cut_between_tokens(engine: LlamaCppEngine) -> None:
    tokens = engine.tokenize("é", special=False)
    assert [engine.token_bytes(token) for token in tokens] == [b"\xc3", b"\xa9"]


def test_a_token_that_is_none_adds_nothing(engine: LlamaCppEngine) -> None:
    assert engine.token_bytes(-1) == engine.token_bytes(10**6) == b""


def test_a_long_token_is_whole(load: Load, write_gguf: Write) -> None:
    engine = load(weights=write_gguf(tokenizer__ggml__tokens=[*(f"{n:03}" * 100 for n in range(269))]))
    assert engine.token_bytes(7) == b"007" * 100


def test_sentencepiece_puts_a_space_before_a_text(load: Load, spm: Path) -> None:
    engine = load(weights=spm)
    assert rendered(engine, engine.tokenize("hello", special=False)) == b" hello"
    assert engine.info.adds_bos
    assert engine.info.bos_token == "<s>"


def test_sentencepiece_control_texts_are_tokens_only_when_parsed(load: Load, spm: Path) -> None:
    engine = load(weights=spm)
    assert engine.info.special_tokens == ("<unk>", "<s>", "</s>")
    assert engine.tokenize("</s>", special=True) == [2]
    assert 2 not in engine.tokenize("</s>", special=False)
    assert (engine.token_bytes(2), engine.token_bytes(2, special=True)) == (b"", b"</s>")


def test_bytes_without_a_piece_are_byte_tokens(load: Load, spm: Path) -> None:
    engine = load(weights=spm)
    tokens = engine.tokenize("é", special=False)
    assert rendered(engine, tokens) == " é".encode()
    assert tokens[-2:] == [3 + 0xC3, 3 + 0xA9]


def test_an_embedded_text_gets_its_marks_once(load: Load, spm: Path) -> None:
    engine = load(weights=spm, embeddings=True)
    bare, framed = engine.embed([[265, 266], [1, 265, 266]])
    assert bare == pytest.approx(framed, abs=1e-6)


def test_suppressed_tokens_are_never_drawn(load: Load, write_gguf: Write) -> None:
    from tests.backends.support import run_greedy

    favourite = run_greedy(load(), [[1, 2, 3]], 1)[0][0]
    engine = load(weights=write_gguf(tokenizer__ggml__suppress_tokens=[favourite]))
    assert run_greedy(engine, [[1, 2, 3]], 1)[0][0] != favourite
