"""What the engine refuses before anything is imported, compiled or loaded."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from backends.contract import LoadError
from backends.registry import Registry
from tests.backends.support import load_request, make_engine

DEMO = Path(__file__).parents[3] / "examples" / "demo_model" / "hf"


def refusal(weights: Path = DEMO, **given: Any) -> str:
    engine = make_engine("exllama2")
    with pytest.raises(LoadError) as error:
        engine.load(load_request(str(weights), **given), lambda _: None)
    return str(error.value)


@pytest.mark.parametrize("alias", ["exllama", "exllama2"])
def test_it_answers_to_its_older_names(alias: str) -> None:
    assert Registry(()).get(alias).name == "exllamav2"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"embeddings": True}, "makes no embeddings"),
        ({"device": "cpu"}, "instance_group.kind is cpu"),
        ({"options": {"main_gpu": "cpu"}}, "main_gpu is cpu"),
        ({"options": {"gpu_layers": 2}}, "gpu_layers is 2 and the model has 4 layers"),
        ({}, "NVIDIA GPUs only"),
    ],
)
def test_it_refuses_by_name_what_cannot_be(given: dict[str, Any], words: str) -> None:
    assert words in refusal(**given)


def test_a_model_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(DEMO / name, tmp_path)
    assert "no tokenizer.json" in refusal(tmp_path)


def test_a_tokenizer_without_weights_is_refused(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(DEMO / name, tmp_path)
    assert "no .safetensors file" in refusal(tmp_path)
