import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repository.weights import WeightsError, WeightsFacts, read_facts
from tests.repository.gguf_files import LLAMA, TENSORS, write_gguf


def hugging_face(folder: Path, **config: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(bytes(1000))
    return folder


def error_of(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        read_facts(path)
    return str(caught.value)


def test_a_gguf_tells_its_facts(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf")
    assert read_facts(path) == WeightsFacts(
        path,
        "gguf",
        architecture="llama",
        quantisation="Q8_0",
        size_bytes=path.stat().st_size,
        context_tokens=128,
        layers=2,
        embedding_length=64,
        kv_bytes_per_token=2 * 2 * (16 + 16) * 2,  # layers, KV heads, key and value of 16, two bytes
        parameters=64 * 32 + 64,
    )


def test_key_and_value_lengths_override_the_usual_ones(tmp_path: Path) -> None:
    lengths = {"llama.attention.key_length": 24, "llama.attention.value_length": 8}
    assert (
        read_facts(write_gguf(tmp_path / "m.gguf", LLAMA | lengths)).kv_bytes_per_token
        == 2 * 2 * (24 + 8) * 2
    )


def test_kv_heads_may_differ_by_layer(tmp_path: Path) -> None:
    heads = {"llama.attention.head_count_kv": [2, 0]}
    assert read_facts(write_gguf(tmp_path / "m.gguf", LLAMA | heads)).kv_bytes_per_token == 2 * 32 * 2


@pytest.mark.parametrize(
    "missing", ["llama.block_count", "llama.attention.head_count", "llama.embedding_length"]
)
def test_kv_bytes_are_unknown_without_the_shape(tmp_path: Path, missing: str) -> None:
    metadata = {key: value for key, value in LLAMA.items() if key != missing}
    assert read_facts(write_gguf(tmp_path / "m.gguf", metadata)).kv_bytes_per_token is None


def test_without_a_file_type_the_most_common_tensor_type_counts(tmp_path: Path) -> None:
    metadata = {key: value for key, value in LLAMA.items() if key != "general.file_type"}
    assert read_facts(write_gguf(tmp_path / "m.gguf", metadata)).quantisation == "Q8_0"


def test_a_vocabulary_is_stepped_over(tmp_path: Path) -> None:
    metadata = {"tokenizer.ggml.tokens": ["a", "bc"] * 1000, "tokenizer.ggml.types": [1] * 5000} | LLAMA
    assert read_facts(write_gguf(tmp_path / "m.gguf", metadata)).layers == 2


@pytest.mark.parametrize(
    "metadata",
    [
        {"general.architecture": "bert"},
        LLAMA | {"llama.pooling_type": 3},
        {"general.architecture": "nomic-bert"},
    ],
)
def test_encoders_and_pooled_models_are_embedding_models(tmp_path: Path, metadata: dict[str, Any]) -> None:
    assert read_facts(write_gguf(tmp_path / "m.gguf", metadata)).is_embedding


def test_a_file_without_any_metadata_has_few_facts(tmp_path: Path) -> None:
    facts = read_facts(write_gguf(tmp_path / "m.gguf", {}, ()))
    assert (facts.architecture, facts.layers, facts.is_embedding, facts.parameters) == (None, None, False, 0)


def test_a_truncated_file_is_told_with_both_numbers(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf")
    whole = path.read_bytes()
    path.write_bytes(whole[:-300])
    message = error_of(path)
    assert f"the file has {len(whole) - 300}" in message
    assert "promises" in message
    assert "download it again" in message


@given(st.integers(0, 600))
def test_a_file_cut_anywhere_is_an_error(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    folder = tmp_path_factory.mktemp("cut")
    whole = write_gguf(folder / "whole.gguf").read_bytes()
    (folder / "cut.gguf").write_bytes(whole[:length])
    assert "cut.gguf" in error_of(folder / "cut.gguf")


@given(st.binary(max_size=200))
def test_garbage_behind_the_magic_is_an_error_never_an_exception(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("garbage") / "m.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<I", 3) + data)
    try:
        read_facts(path)
    except WeightsError as error:
        assert str(path) in str(error)


@given(st.integers(8, 500), st.binary(min_size=1, max_size=8))
def test_a_damaged_header_is_an_error_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, place: int, damage: bytes
) -> None:
    path = write_gguf(tmp_path_factory.mktemp("damaged") / "m.gguf")
    data = bytearray(path.read_bytes())
    data[place : place + len(damage)] = damage
    path.write_bytes(data)
    try:
        read_facts(path)
    except WeightsError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"lmgg", "old GGML format; GGUF is needed"),
        (b"tjgg", "old GGJT format; GGUF is needed"),
        (b"fmgg", "old GGMF format; GGUF is needed"),
        (b"algg", "old GGLA format; GGUF is needed"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "GGUF version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "cannot fit"),
        (b"<html>", "does not begin as a GGUF file does"),
        (b"", "truncated"),
    ],
)
@pytest.mark.parametrize("name", ["model.gguf", "ggml-model.bin"])
def test_what_is_no_gguf_says_what_it_is(tmp_path: Path, head: bytes, words: str, name: str) -> None:
    (tmp_path / name).write_bytes(head)
    if name.endswith(".gguf") or head[:4] not in (b"<htm", b""):
        assert words in error_of(tmp_path / name)
    else:
        assert read_facts(tmp_path / name).format == "pytorch"


def test_a_split_model_is_one(tmp_path: Path) -> None:
    first = write_gguf(tmp_path / "m-00001-of-00002.gguf", LLAMA, TENSORS[:1])
    second = write_gguf(tmp_path / "m-00002-of-00002.gguf", {}, TENSORS[1:])
    facts = read_facts(first)
    assert facts.size_bytes == first.stat().st_size + second.stat().st_size
    assert facts.parameters == 64 * 32 + 64
    second.unlink()
    assert "m-00002-of-00002.gguf cannot be read: No such file" in error_of(first)


def test_facts_are_remembered_until_the_file_changes(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf")
    assert read_facts(path) is read_facts(path)
    write_gguf(path, LLAMA | {"llama.context_length": 256})
    os.utime(path, ns=(1, 1))
    assert read_facts(path).context_tokens == 256


def test_no_weights_are_a_fact_too() -> None:
    assert read_facts(None).format == "none"


def test_a_hugging_face_folder_tells_its_facts(tmp_path: Path) -> None:
    folder = hugging_face(
        tmp_path / "hf",
        architectures=["LlamaForCausalLM"],
        dtype="float16",
        num_hidden_layers=4,
        hidden_size=256,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
    )
    facts = read_facts(folder)
    assert (facts.format, facts.architecture, facts.quantisation) == (
        "safetensors",
        "LlamaForCausalLM",
        "F16",
    )
    assert (facts.layers, facts.embedding_length, facts.context_tokens) == (4, 256, 2048)
    assert facts.kv_bytes_per_token == 2 * 4 * 2 * 64 * 2
    assert facts.size_bytes == 1000


def test_a_hugging_face_folder_names_its_quantisation_and_inner_text_model(tmp_path: Path) -> None:
    inner = {"num_hidden_layers": 3, "hidden_size": 8, "num_attention_heads": 2, "head_dim": 16}
    facts = read_facts(
        hugging_face(tmp_path / "hf", text_config=inner, quantization_config={"quant_method": "gptq"})
    )
    assert (facts.quantisation, facts.kv_bytes_per_token) == ("gptq", 2 * 3 * 2 * 16 * 2)


@pytest.mark.parametrize(
    ("name", "is_embedding"), [("BertModel", True), ("LlamaForCausalLM", False), ("GPT2LMHeadModel", False)]
)
def test_a_model_without_a_head_is_for_embeddings(tmp_path: Path, name: str, is_embedding: bool) -> None:
    assert read_facts(hugging_face(tmp_path / "hf", architectures=[name])).is_embedding is is_embedding


@pytest.mark.parametrize("text", ["{", "[]", '"x"', "", "\x00", "[" * 100_000])
def test_a_broken_config_json_is_an_error(tmp_path: Path, text: str) -> None:
    folder = hugging_face(tmp_path / "hf")
    (folder / "config.json").write_text(text)
    assert "config.json" in error_of(folder)


def test_a_folder_of_lfs_pointers_is_told(tmp_path: Path) -> None:
    folder = hugging_face(tmp_path / "hf")
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "git lfs pull" in error_of(folder)


def test_other_formats_are_told_by_name(tmp_path: Path) -> None:
    (tmp_path / "RWKV-5.pth").write_bytes(b"PK")
    assert read_facts(tmp_path / "RWKV-5.pth").format == "rwkv"
    (tmp_path / "openvino_model.xml").write_bytes(b"<xml>")
    assert read_facts(tmp_path).format == "openvino"
    (tmp_path / "notes.txt").write_bytes(b"x")
    assert "no known format" in error_of(tmp_path / "notes.txt")
    assert "No such file" in error_of(tmp_path / "none.gguf")
