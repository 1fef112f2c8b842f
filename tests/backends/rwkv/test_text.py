"""Tokenizers: the longest token first in the World vocabulary; files of the tokenizers library beside the weights."""

from pathlib import Path

import pytest

from backends.contract import LoadError
from backends.rwkv.text import CHAT_TEMPLATE, END_TEXT, WORLD_SIZE, FileText, WorldText, find_text
from runner.wire.requests import ChatPrompt
from runner.worker.chat import ChatTemplate, TemplateError
from tests.engines.making.rwkv import byte_tokenizer

TEXTS = ("", "hello there", "naïve Ωμέγα 漢字", "🧑‍🚀 flies", "tab\tand\x00nul", f"a{END_TEXT}b")


def vocabulary_lines() -> list[str]:
    words = [b"he", b"hell", b"hello", b" th", b" there", "漢".encode(), b"\n\n"]
    data = [bytes((byte,)) for byte in range(256)] + words
    return [f"{token} {one!r} {len(one)}\n" for token, one in enumerate(data, 1)]


@pytest.fixture
def world() -> WorldText:
    return WorldText(vocabulary_lines())


def test_the_longest_token_is_taken_first(world: WorldText) -> None:
    tokens = world.tokenize("hellothere hel there", special=False)
    assert [world.token_bytes(token) for token in tokens][:2] == [b"hello", b"t"]
    assert [world.token_bytes(token) for token in tokens][-4:] == [b" ", b"he", b"l", b" there"]


@pytest.mark.parametrize("text", TEXTS)
def test_text_survives_both_kinds_of_tokenizer(world: WorldText, tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokenizer.json"
    byte_tokenizer().save(str(path))
    for tokenizer in (world, FileText(path)):
        tokens = tokenizer.tokenize(text, special=False)
        assert b"".join(map(tokenizer.token_bytes, tokens)) == text.encode()


def test_the_end_of_a_text_is_a_token_only_when_parsed(world: WorldText) -> None:
    (token,) = world.tokenize(END_TEXT, special=True)
    assert token == 0
    assert 0 not in world.tokenize(END_TEXT, special=False)
    assert (world.token_bytes(0), world.token_bytes(0, special=True)) == (b"", END_TEXT.encode())


def find(weights: Path, *, wanted: str | None = None, vocabulary: int = 320) -> object:
    lines = weights.with_name("world.txt")
    lines.write_text("".join(vocabulary_lines()), encoding="utf-8")
    return find_text(weights, wanted, vocabulary=vocabulary, world_file=lines)


@pytest.mark.parametrize("name", ["rwkv.tokenizer.json", "rwkv.pth.tokenizer.json"])
def test_a_tokenizer_beside_the_weights_is_found_by_its_name(tmp_path: Path, name: str) -> None:
    byte_tokenizer().save(str(tmp_path / name))
    assert isinstance(find(tmp_path / "rwkv.pth"), FileText)
    assert isinstance(find(tmp_path / "rwkv.pth", vocabulary=WORLD_SIZE), FileText)
    assert isinstance(find(tmp_path / "rwkv.pth", wanted="world"), WorldText)


@pytest.mark.parametrize("wanted", ["mine.json", "rwkv/mine.json", "models/rwkv/mine.json"])
def test_a_tokenizer_is_named_from_the_weights_or_from_a_folder_above(tmp_path: Path, wanted: str) -> None:
    folder = tmp_path / "models" / "rwkv"
    folder.mkdir(parents=True)
    byte_tokenizer().save(str(folder / "mine.json"))
    assert isinstance(find(folder / "rwkv.pth", wanted=wanted), FileText)


def test_models_with_the_world_vocabulary_need_no_file(tmp_path: Path) -> None:
    assert isinstance(find(tmp_path / "rwkv.pth", vocabulary=WORLD_SIZE), WorldText)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [(None, "put its tokenizer beside it as rwkv.tokenizer.json"), ("x.json", "x.json")],
)
def test_a_missing_tokenizer_is_said_in_a_sentence(tmp_path: Path, wanted: str | None, message: str) -> None:
    with pytest.raises(LoadError, match=message):
        find(tmp_path / "rwkv.pth", wanted=wanted)


def test_a_chat_is_turns_of_names() -> None:
    template = ChatTemplate(CHAT_TEMPLATE, special_tokens=())
    turns = ({"role": "system", "content": "Be brief. "}, {"role": "user", "content": "Hi"})
    (piece,) = template.render(ChatPrompt(messages=turns))
    assert piece.text == "System: Be brief.\n\nUser: Hi\n\nAssistant:"
    with pytest.raises(TemplateError, match="no turns of the role tool"):
        template.render(ChatPrompt(messages=({"role": "tool", "content": "1"},)))
