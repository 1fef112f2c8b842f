"""A repository that is somebody else's folder: what the scan makes of it."""

import os
from pathlib import Path

import pytest

from repository.scan import scan
from repository.snapshot import Snapshot
from repository.weights import WeightsError, read_facts
from tests.repository.importing.stores import hub_cache_model, ollama_model, triton_model


def put(root: Path, *files: str, text: str = "x") -> None:
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def weights(snapshot: Snapshot) -> dict[str, list[str]]:
    return {
        name: [
            os.path.relpath(version.weights_path, snapshot.root)
            for version in entry.versions
            if version.weights_path is not None
        ]
        for name, entry in snapshot.models.items()
    }


def said(snapshot: Snapshot, name: str) -> str:
    return "\n".join(map(str, snapshot.models[name].all_problems))


@pytest.mark.parametrize(
    "files",
    [
        ["model.safetensors"],
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
        ["pytorch_model.bin"],
        ["openvino_model.xml", "openvino_model.bin"],
    ],
)
def test_a_folder_that_is_a_checkpoint_is_one_model_by_its_own_name(tmp_path: Path, files: list[str]) -> None:
    clone = tmp_path / "orca-7b"
    put(clone, "config.json", "tokenizer.json", "recipe.yaml", "onnx/m.onnx", "original/x.pth", *files)
    snapshot = scan(clone)
    assert weights(snapshot) == {"orca-7b": ["."]}
    assert snapshot.ignored == ()
    assert scan(clone, snapshot) is snapshot


def test_a_checkpoint_in_the_current_folder_has_that_folders_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "orca", "config.json", "model.safetensors")
    monkeypatch.chdir(tmp_path / "orca")
    assert list(scan(".").models) == ["orca"]


def test_an_incomplete_checkpoint_says_what_is_missing(tmp_path: Path) -> None:
    put(tmp_path / "orca", "config.json", "model-00001-of-00002.safetensors")
    assert "model-00002-of-00002.safetensors missing" in said(scan(tmp_path / "orca"), "orca")


def test_a_folder_that_is_a_model_of_ours_is_that_model(tmp_path: Path) -> None:
    put(tmp_path / "orca", "1/m.gguf", "2/m.gguf")
    (tmp_path / "orca" / "config.yaml").write_text("description: mine\n")
    snapshot = scan(tmp_path / "orca")
    assert weights(snapshot) == {"orca": ["1/m.gguf", "2/m.gguf"]}


def test_each_gguf_of_a_heap_is_a_model(tmp_path: Path) -> None:
    put(tmp_path, "a.gguf", "mmproj-a.gguf", "pub/one/one.gguf", "pub/one/mmproj.gguf", "notes/x.md")
    put(tmp_path, "pub/two/b-Q4.gguf", "pub/two/b-Q8.gguf", "pub/two/mmproj-b.gguf")
    put(tmp_path, "pub/big/Q4/big-00001-of-00002.gguf", "pub/big/Q4/big-00002-of-00002.gguf")
    put(tmp_path, "pub/half/h-00001-of-00002.gguf", "pub/half/other.gguf")
    snapshot = scan(tmp_path)
    assert {name: found for name, found in weights(snapshot).items() if not said(snapshot, name)} == {
        "a": ["a.gguf"],
        "pub/one": ["pub/one/one.gguf"],
        "pub/two/b-Q4": ["pub/two/b-Q4.gguf"],
        "pub/two/b-Q8": ["pub/two/b-Q8.gguf"],
        "pub/big/Q4": ["pub/big/Q4/big-00001-of-00002.gguf"],
        "pub/half/other": ["pub/half/other.gguf"],
    }
    assert "h-00002-of-00002.gguf missing" in said(snapshot, "pub/half/h")
    assert [Path(each.path).name for each in snapshot.ignored] == ["mmproj-a.gguf"]


def test_a_configuration_keeps_several_ggufs_one_model(tmp_path: Path) -> None:
    put(tmp_path, "orca/a.gguf", "orca/b.gguf")
    (tmp_path / "orca" / "config.yaml").write_text("parameters: {model: b.gguf}\n")
    assert weights(scan(tmp_path)) == {"orca": ["orca/b.gguf"]}


def test_a_triton_repository_has_its_vllm_models(tmp_path: Path) -> None:
    put(tmp_path, "shared/config.json", "shared/model.safetensors")
    arguments = {"model": "shared", "max_model_len": 512, "trust_remote_code": True, "swap_space": 4}
    config = (
        'backend: "vllm"\nversion_policy {all {}}\ninstance_group [{count: 2 kind: KIND_GPU gpus: [0, 1]}]\n'
    )
    home = triton_model(tmp_path, "orca", arguments, config=config)
    (home / "2").mkdir()
    (home / "2" / "model.json").write_text('{"model": "acme/orca", "revision": "v2", "max_model_len": 1024}')
    snapshot = scan(tmp_path)
    entry = snapshot.models["orca"]
    assert entry.config is not None
    assert not said(snapshot, "orca")
    assert (entry.config.backend, entry.config.context_size) == ("vllm", 1024)
    group = entry.config.instance_group
    assert (group.count, group.kind, group.gpus) == (2, "gpu", (0, 1))
    assert entry.selection().versions == [1, 2]
    assert str(entry.versions[0].weights_path) == str(tmp_path / "shared")
    assert str(entry.versions[1].source) == "acme/orca@v2"
    assert "the arguments of version 2 hold for this version too" in str(entry.ignored[-1])


def test_a_triton_model_that_changes_is_read_again(tmp_path: Path) -> None:
    put(tmp_path, "w/config.json", "w/model.safetensors")
    home = triton_model(tmp_path, "orca", {"model": "w", "max_model_len": 512})
    first = scan(tmp_path)
    (home / "1" / "model.json").write_text('{"model": "w", "max_model_len": 99}')
    later = scan(tmp_path, scan(tmp_path, first))
    assert later.models["orca"].config is not None
    assert later.models["orca"].config.context_size == 99


@pytest.mark.parametrize(
    ("config", "arguments", "words"),
    [
        ('platform: "onnxruntime_onnx"', None, 'config.pbtxt: it names the backend "onnxruntime_onnx"'),
        ("max_batch_size: 0", None, "config.pbtxt: it names no backend"),
        ('backend: "vllm', None, "config.pbtxt: it is not readable: 1:10"),
        ('backend: "vllm"', {"max_model_len": 5}, 'model.json: it has no "model"'),
        ('backend: "vllm"', {"model": "/models/gone"}, 'model.json: model: no "/models/gone"'),
        ('backend: "vllm"', {"model": "w", "max_model_len": "many"}, "context_size: expected a whole number"),
    ],
)
def test_a_triton_model_that_cannot_be_served_says_why(
    tmp_path: Path, config: str, arguments: dict[str, object] | None, words: str
) -> None:
    put(tmp_path, "w/config.json", "w/model.safetensors")
    triton_model(tmp_path, "bad", arguments, config=config)
    assert words in said(scan(tmp_path), "bad")


def test_stores_of_other_programs_point_to_the_import(tmp_path: Path) -> None:
    hub_cache_model(tmp_path / "hub", "acme/orca", {"config.json": b"{}", "model.safetensors": b"x"})
    ollama_model(tmp_path / "ollama", "registry.example/library/orca/latest", [("model", b"GGUFx")])
    hub = scan(tmp_path / "hub")
    assert "`modelyard import huggingface` takes it over" in said(hub, "models--acme--orca")
    ollama = scan(tmp_path / "ollama")
    assert ollama.entries == ()
    assert ["`modelyard import ollama`" in str(each) for each in ollama.ignored] == [True]


def test_weights_for_mlx_are_told(tmp_path: Path) -> None:
    put(tmp_path, "model.safetensors")
    quantised = '{"architectures": ["X"], "quantization": {"group_size": 64, "bits": 4}}'
    (tmp_path / "config.json").write_text(quantised)
    with pytest.raises(WeightsError, match="is quantised for MLX"):
        read_facts(tmp_path)
