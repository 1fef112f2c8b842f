"""Tokenizers of Hugging Face folders, of the kinds that there are, beside the library's own decoding."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from backends.contract import LoadError
from backends.huggingface import HuggingFaceText

DEMO = Path(__file__).parents[2] / "examples" / "demo_model" / "hf"
TEXTS = (
    "",
    "words",
    " leading and trailing \n",
    "naïve Ωμέγα 漢字",
    "🧑‍🚀 flies 🚀🚀",
    "tab\tand\x00nul",
    "▁ Ġ Ċ ##x",
)
CORPUS = ["the yard opens in the morning", "words and more words", "leading and trailing words"] * 3


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def byte_fallback() -> Tokenizer:
    """As SentencePiece models are written: spaces as ▁, bytes as <0xNN>, the first space cut off a whole text."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    pieces += [letter for letter in "abcdefghijklmnopqrstuvwxyzäï漢" if letter not in pieces]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={p: i for i, p in enumerate(pieces)}, merges=[], unk_token="<unk>", byte_fallback=True
        )
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def word_piece() -> Tokenizer:
    vocabulary = {w: i for i, w in enumerate(["[UNK]", "[CLS]", "[SEP]", "the", "yard", "##s", "open"])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(["[UNK]", "[CLS]", "[SEP]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return tokenizer


def folder(root: Path, tokenizer: Tokenizer | None, **files: Any) -> Path:
    if tokenizer is not None:
        tokenizer.save(str(root / "tokenizer.json"))
    for name, value in {"config": {}, **files}.items():
        (root / f"{name}.json").write_text(json.dumps(value))
    return root


def text_of(made: HuggingFaceText, tokens: list[int], *, special: bool = False) -> bytes:
    return b"".join(made.token_bytes(token, special=special) for token in tokens)


@pytest.mark.parametrize("text", TEXTS)
def test_byte_level_text_comes_back_byte_for_byte(tmp_path: Path, text: str) -> None:
    made = HuggingFaceText(folder(tmp_path, byte_level()))
    assert text_of(made, made.tokenize(text, special=False)) == text.encode()


@pytest.mark.parametrize("text", ["words", "two words", "naïve 漢字", "🚀", "a\tb"])
def test_text_with_byte_fallback_comes_back_after_the_space_that_is_put_before_it(
    tmp_path: Path, text: str
) -> None:
    made = HuggingFaceText(folder(tmp_path, byte_fallback()))
    assert text_of(made, made.tokenize(text, special=False)) == f" {text}".encode()


def test_word_pieces_are_words_and_ends_of_words(tmp_path: Path) -> None:
    made = HuggingFaceText(folder(tmp_path, word_piece()))
    assert text_of(made, made.tokenize("the yards open", special=False)) == b" the yards open"


@pytest.mark.parametrize("text", TEXTS)
def test_the_demo_models_text_comes_back_and_its_tokens_are_the_librarys(text: str) -> None:
    made = HuggingFaceText(DEMO)
    tokens = made.tokenize(text, special=True)
    assert tokens == Tokenizer.from_file(str(DEMO / "tokenizer.json")).encode(text).ids
    assert text_of(made, tokens) == text.encode()


def test_special_text_is_a_token_only_when_parsed(tmp_path: Path) -> None:
    tokenizer = byte_level()
    tokenizer.add_tokens([AddedToken("<tool>", special=False)])
    made = HuggingFaceText(folder(tmp_path, tokenizer))
    assert made.info_fields()["special_tokens"] == ("<s>", "</s>")
    plain, parsed = (made.tokenize("a</s>", special=special) for special in (False, True))
    assert len(parsed) == 2 and parsed[1] not in plain
    assert text_of(made, plain) == b"a</s>"
    assert (text_of(made, parsed), text_of(made, parsed, special=True)) == (b"a", b"a</s>")
    for special in (False, True):
        [literal] = made.tokenize("<tool>", special=special)
        assert made.token_bytes(literal) == b"<tool>"


def test_a_token_that_does_not_exist_has_no_bytes_and_a_lone_surrogate_is_replaced(tmp_path: Path) -> None:
    made = HuggingFaceText(folder(tmp_path, byte_level()))
    assert made.token_bytes(100_000) == made.token_bytes(-1) == b""
    assert text_of(made, made.tokenize("a\ud800b", special=False)) == b"a?b"


def test_a_whole_text_is_framed_as_the_tokenizer_frames_it(tmp_path: Path) -> None:
    made = HuggingFaceText(folder(tmp_path, word_piece()))
    assert made.framed([3, 4]) == made.framed([1, 3, 4, 2]) == [1, 3, 4, 2]
    assert made.framed([]) == [1, 2]
    assert not made.info_fields()["adds_bos"]


def test_bos_is_added_where_the_tokenizer_adds_it(tmp_path: Path) -> None:
    settings = {"bos_token": "<s>", "eos_token": {"content": "</s>"}}
    made = HuggingFaceText(folder(tmp_path, byte_fallback(), tokenizer_config=settings))
    fields = made.info_fields()
    assert (fields["adds_bos"], fields["bos_id"], fields["eos_ids"]) == (True, 1, (2,))
    assert (fields["bos_token"], fields["eos_token"], fields["pad_token"]) == ("<s>", "</s>", "")


def test_every_token_that_ends_a_generation_counts_each_once(tmp_path: Path) -> None:
    made = HuggingFaceText(
        folder(
            tmp_path,
            byte_level(),
            config={"eos_token_id": 7, "vocab_size": 512},
            generation_config={
                "eos_token_id": [9, 7],
                "temperature": 0.6,
                "repetition_penalty": 1.1,
                "top_k": None,
            },
            tokenizer_config={"eos_token": "</s>"},
        )
    )
    fields = made.info_fields()
    assert fields["eos_ids"] == (9, 7, 1)
    assert fields["vocabulary"] == 512
    assert fields["generation_defaults"] == {"temperature": 0.6, "repeat_penalty": 1.1}


def test_the_vocabulary_of_a_model_with_other_senses_is_that_of_its_text(tmp_path: Path) -> None:
    made = HuggingFaceText(folder(tmp_path, byte_level(), config={"text_config": {"vocab_size": 640}}))
    assert made.vocabulary == 640


def test_the_template_is_the_folders_file_or_the_default_of_the_named_ones(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    made = HuggingFaceText(folder(tmp_path, byte_level(), tokenizer_config={"chat_template": named}))
    assert made.chat_template == "D"
    (tmp_path / "chat_template.jinja").write_text("F")
    assert made.chat_template == "F"


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "has no tokenizer.json; copy"), ("{", "cannot be read"), ("[]", "cannot be read")],
)
def test_a_folder_without_a_tokenizer_that_can_be_read_is_refused(
    tmp_path: Path, content: str | None, words: str
) -> None:
    folder(tmp_path, None)
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(LoadError, match=words):
        HuggingFaceText(tmp_path)


def test_settings_that_are_no_object_are_refused_by_name(tmp_path: Path) -> None:
    folder(tmp_path, byte_level(), generation_config=[1])
    with pytest.raises(LoadError, match=r"generation_config\.json does not hold a JSON object"):
        HuggingFaceText(tmp_path)
