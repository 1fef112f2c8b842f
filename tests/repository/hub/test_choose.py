import pytest

from repository.hub.choose import choose, quantisation_of, suggested
from repository.hub.errors import HubError
from repository.hub.reference import parse_reference
from repository.hub.values import Choice, HubFile, Listing, Quantisation

GGUFS = ("m.Q2_K.gguf", "m.Q4_K_M.gguf", "m.Q8_0.gguf")
SPLIT = tuple(f"Q8_0/m-Q8_0-0000{part}-of-00003.gguf" for part in (1, 2, 3))
TOKENIZER = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "LICENSE")


def take(names: tuple[str, ...], reference: str = "o/r", **choice: object):
    files = tuple(HubFile(name, 100 + place, sha256="0" * 64) for place, name in enumerate(names))
    return choose(Listing("o/r", "0" * 40, files), parse_reference(reference), Choice(**choice))


def names_of(chosen) -> list[str]:
    return [file.name for file in chosen.files]


@pytest.mark.parametrize(
    ("names", "reference", "choice", "taken", "load"),
    [
        (("m.gguf", "README.md", "a.png"), "o/r", {}, ["m.gguf"], "m.gguf"),
        (GGUFS, "o/r", {"quant": "q4_k_m"}, ["m.Q4_K_M.gguf"], "m.Q4_K_M.gguf"),
        (GGUFS, "o/r/m.Q8_0.gguf", {}, ["m.Q8_0.gguf"], "m.Q8_0.gguf"),
        (GGUFS, "o/r", {"allow": ("*Q2*",)}, ["m.Q2_K.gguf"], "m.Q2_K.gguf"),
        (GGUFS, "o/r", {"ignore": ("*Q2*", "*Q8*")}, ["m.Q4_K_M.gguf"], "m.Q4_K_M.gguf"),
        (("m.gguf", "mmproj-m-f16.gguf", "imatrix_m.gguf"), "o/r", {}, ["m.gguf"], "m.gguf"),
        (("m.gguf", "mmproj.gguf", "README.md"), "o/r", {"allow": ("*",)},
         ["mmproj.gguf", "README.md", "m.gguf"], "m.gguf"),
        (("m.gguf", "LICENSE.txt"), "o/r", {}, ["LICENSE.txt", "m.gguf"], "m.gguf"),
        ((*GGUFS, *SPLIT), "o/r/Q8_0", {}, list(SPLIT), SPLIT[0]),
        ((*SPLIT, "m.Q4_0.gguf"), "o/r", {"quant": "Q8_0"}, list(SPLIT), SPLIT[0]),
        (SPLIT, f"o/r/{SPLIT[1]}", {}, list(SPLIT), SPLIT[0]),
        ((*TOKENIZER, "model.safetensors"), "o/r", {}, [*TOKENIZER, "model.safetensors"], ""),
        (
            ("config.json", "model.safetensors", "pytorch_model.bin", "README.md", "onnx/model.onnx"),
            "o/r",
            {},
            ["config.json", "model.safetensors"],
            "",
        ),
        (
            ("config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
             "model.safetensors.index.json", "consolidated.safetensors"),
            "o/r",
            {},
            ["config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors",
             "model-00002-of-00002.safetensors"],
            "",
        ),
        (("config.json", "pytorch_model.bin"), "o/r", {}, ["config.json", "pytorch_model.bin"], ""),
        (
            ("config.json", "openvino_model.bin", "openvino_model.xml", "openvino_tokenizer.xml"),
            "o/r",
            {},
            ["config.json", "openvino_model.bin", "openvino_model.xml", "openvino_tokenizer.xml"],
            "",
        ),
        (("README.md", "RWKV-x.pth"), "o/r", {}, ["RWKV-x.pth"], "RWKV-x.pth"),
        (("a/config.json", "a/model.safetensors", "b/config.json"), "o/r/a", {},
         ["a/config.json", "a/model.safetensors"], "a"),
        (("config.json", "model.safetensors", "m.gguf"), "o/r", {"ignore": ("*.gguf",)},
         ["config.json", "model.safetensors"], ""),
        (("config.json", "modules.json", "1_Pooling/config.json", "model.safetensors"), "o/r", {},
         ["config.json", "modules.json", "1_Pooling/config.json", "model.safetensors"], ""),
    ],
)  # fmt: skip
def test_what_an_engine_needs_is_taken_and_nothing_else(names, reference, choice, taken, load):
    chosen = take(names, reference, **choice)
    assert names_of(chosen) == taken
    assert chosen.load == load


@pytest.mark.parametrize(
    ("names", "reference", "choice", "words", "kind"),
    [
        (GGUFS, "o/r", {}, ["Q2_K (100 B)", "Q8_0 (102 B)", "--quant Q4_K_M"], "ambiguous"),
        (GGUFS, "o/r", {"quant": "Q4_K_S"}, ['did you mean "Q4_K_M"', "Q2_K (100 B)"], "missing"),
        (GGUFS, "o/r/m.Q4_K_S.gguf", {}, ['did you mean "m.Q4_K_M.gguf"'], "missing"),
        (GGUFS, "o/r/m.Q2_K.gguf", {"quant": "Q2_K"}, ["leave --quant out"], "ambiguous"),
        (GGUFS, "o/r", {"allow": ("*.bin",)}, ["no file matches *.bin", "m.Q2_K.gguf"], "missing"),
        (SPLIT[:2], "o/r", {}, ["incomplete", SPLIT[2]], "broken"),
        (SPLIT[:2], f"o/r/{SPLIT[0]}", {}, ["incomplete", SPLIT[2]], "broken"),
        (("config.json", "model-00001-of-00002.safetensors"), "o/r", {}, ["incomplete"], "broken"),
        (("config.json", "tf_model.h5"), "o/r", {}, ["no weights"], "missing"),
        (("README.md",), "o/r", {}, ["no weights", "README.md"], "missing"),
        (("a.pth", "b.pth"), "o/r", {}, ["a.pth (100 B)", "o/r/a.pth"], "ambiguous"),
        (("a/config.json", "b/config.json"), "o/r", {}, ["in folders: a, b"], "ambiguous"),
        (("config.json", "model.safetensors"), "o/r", {"quant": "Q8_0"}, ["no GGUF"], "missing"),
        (("mmproj-f16.gguf",), "o/r", {}, ["no weights", "mmproj"], "missing"),
    ],
)
def test_what_cannot_be_chosen_is_refused_with_what_there_is(names, reference, choice, words, kind):
    with pytest.raises(HubError) as caught:
        take(names, reference, **choice)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert caught.value.kind == kind


def test_a_person_is_asked_with_the_sizes_and_a_suggestion():
    asked = []

    def ask(among, suggestion):
        asked.append(([(each.label, each.size) for each in among], suggestion))
        return "Q8_0"

    assert names_of(take((*GGUFS, "mmproj.gguf"), ask=ask)) == ["m.Q8_0.gguf"]
    assert asked == [([("Q2_K", 100), ("Q4_K_M", 101), ("Q8_0", 102)], "Q4_K_M")]


def test_what_was_left_out_is_told():
    assert "mmproj.gguf left out" in take(("m.gguf", "mmproj.gguf")).notes[0]
    assert "safetensors as well" in take(("m.gguf", "config.json", "model.safetensors")).notes[0]
    assert ".bin files left out" in take(("config.json", "model.safetensors", "pytorch_model.bin")).notes[0]


@pytest.mark.parametrize(
    ("name", "quantisation"),
    [
        ("llama-3.Q4_K_M.gguf", "Q4_K_M"),
        ("Qwen3-8B-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("m-IQ2_XXS-00001-of-00002.gguf", "IQ2_XXS"),
        ("m-f16.gguf", "F16"),
        ("BF16/m-00001-of-00002.gguf", "BF16"),
        ("gpt-oss-20b-MXFP4.gguf", "MXFP4"),
        ("q5.1-chat-q8_0.gguf", "Q8_0"),
        ("model.gguf", None),
    ],
)
def test_a_quantisation_is_read_from_the_name(name: str, quantisation: str | None):
    assert quantisation_of(name) == quantisation


def test_two_models_of_one_quantisation_are_told_apart_by_name():
    with pytest.raises(HubError, match=r"a\.Q4_0 \(100 B\), b\.Q4_0 \(101 B\)"):
        take(("a.Q4_0.gguf", "b.Q4_0.gguf"))


def test_the_smallest_is_suggested_where_none_is_usual():
    files = (HubFile("m", 1),)
    assert suggested([Quantisation("IQ1_S", files), Quantisation("F32", files)]) == "IQ1_S"
