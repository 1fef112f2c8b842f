"""One file for each example of LocalAI's page on text generation: taken as it stands, by the backend that its users
expect, with what does nothing told. The llama.cpp ones are served in tests/test_localai_files.py.
"""

import json
import shutil
from pathlib import Path

import pytest

from adapters.cli.inspection import ModelView, scan_repository, view_models
from backends.registry import Registry
from runner.environments.folder import Environments
from tests.repository.gguf_files import LLAMA, TENSORS, write_gguf

EXAMPLES = Path(__file__).parent / "examples"

LLAMA_HF = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
FOLDERS = {
    "facebook/opt-125m": ({"architectures": ["OPTForCausalLM"], "model_type": "opt"}, ["model.safetensors"]),
    "some/bert": ({"architectures": ["BertModel"], "model_type": "bert"}, ["model.safetensors"]),
    "WizardLM-7B-uncensored-GPTQ": (
        {**LLAMA_HF, "quantization_config": {"quant_method": "gptq", "bits": 4}},
        ["model.safetensors"],
    ),
    "fakezeta/Starling-LM-7B-beta-openvino-int8": (LLAMA_HF, ["openvino_model.xml", "openvino_model.bin"]),
}

EXPECTED: dict[str, tuple[str, set[str]]] = {
    "orca": ("llamacpp", set()),
    "llama": ("llamacpp", set()),
    "rwkv": ("rwkv", set()),
    "exllama": ("exllamav2", set()),
    "vllm": ("vllm", {"swap_space"}),
    "transformers": ("transformers", set()),
    "embeddings": ("transformers", set()),
    "starling-openvino": ("openvino", {"prompt_cache_path", "prompt_cache_all"}),
}


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelView]:
    root = tmp_path_factory.mktemp("models")
    for name, (config, files) in FOLDERS.items():
        (root / name).mkdir(parents=True)
        (root / name / "config.json").write_text(json.dumps(config))
        for file in files:
            (root / name / file).write_bytes(bytes(2048))
    (root / "rwkv").mkdir()
    (root / "rwkv" / "rwkv-4-raven.pth").write_bytes(bytes(2048))
    (root / "rwkv" / "rwkv-4-raven.pth.tokenizer.json").write_text("{}")
    for name in ("orca-mini-3b.gguf", "file.gguf.bin"):
        write_gguf(root / name, LLAMA, TENSORS)
    for path in EXAMPLES.iterdir():
        shutil.copy(path, root)
    registry = Registry(())
    snapshot = scan_repository(root, registry)
    assert snapshot.ignored == ()
    environments = Environments(root.with_name("state"))
    found = view_models(snapshot, registry, environments, asks_engines=False)
    return {view.entry.name: view for view in found}


def test_the_examples_are_all_that_is_listed(views: dict[str, ModelView]) -> None:
    assert set(views) == set(EXPECTED) == {path.stem for path in EXAMPLES.iterdir()}


@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_is_taken_as_it_stands(views: dict[str, ModelView], name: str) -> None:
    view, (backend, idle) = views[name], EXPECTED[name]
    assert (view.problems, [version.backend for version in view.versions]) == ((), [backend])
    told = [*view.entry.ignored, *(each for version in view.versions for each in version.idle)]
    assert {each.message.partition(":")[0] for each in told} == idle
    assert all(each.line for each in told)
