"""What is found in the stores of other programs, and how it is put into a repository."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from repository.document import parse_document
from repository.importing import hub_cache, lmstudio, localai, ollama, placing, triton
from repository.importing.config_text import config_text
from repository.importing.ollama_template import translated
from repository.importing.placing import place, plan
from repository.importing.values import Importable, ImportProblem, SourceFile
from repository.scan import scan
from runner.worker.sandbox import CompiledTemplate
from tests.repository.gguf_files import LLAMA, write_gguf
from tests.repository.importing.stores import COMMIT, hub_cache_model, ollama_model, triton_model

Find = Callable[[Path], Iterable[Importable]]

CHATML = (
    "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}"
    "{{ if .Prompt }}<|im_start|>user\n{{ .Prompt }}<|im_end|>\n{{ end }}"
    "<|im_start|>assistant\n{{ .Response }}<|im_end|>\n"
)
BY_MESSAGES = (
    "{{- range .Messages }}<|{{ .Role }}|>{{ .Content }}<|end|>\n{{ end }}<|assistant|>{{ .Response }}<|end|>"
)


def models(find: Find, folder: Path) -> dict[str, Importable]:
    return {model.label: model for model in find(folder)}


def names(model: Importable) -> list[str]:
    return [file.name for file in model.files]


def put(root: Path, *files: str, data: bytes = b"GGUFdata") -> None:
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def imported(model: Importable, root: Path, **given: Any) -> Path:
    planned = plan(model, root, **{"way": "auto", **given})
    place(planned, root, comments=[f"Imported from a test: {model.label}"])
    return planned.folder


def test_an_ollama_model_is_its_layers(tmp_path: Path) -> None:
    weights = write_gguf(tmp_path / "w.gguf")
    params = b'{"stop": ["END"], "num_ctx": 512, "temperature": 0.5, "num_predict": -1, "mirostat": 2}'
    layers: list[tuple[str, bytes | Path]] = [
        ("model", weights),
        ("adapter", write_gguf(tmp_path / "l.gguf", {**LLAMA, "general.type": "adapter"})),
        ("template", CHATML.encode()),
        ("system", b"Be kind."),
        ("params", params),
        ("license", b"MIT"),
        ("license", b"more"),
        ("projector", b"GGUF"),
    ]
    ollama_model(tmp_path / "store", "registry.example/library/orca/7b", layers)
    (model,) = models(ollama.find_models, tmp_path / "store").values()
    assert (model.name, model.label, model.problem) == ("orca-7b", "orca:7b", "")
    assert names(model) == ["model.gguf", "adapter-1.gguf"]
    assert model.texts == {"LICENSE": "MIT", "LICENSE-2": "more"}
    assert model.config.pop("template")["chat"].startswith("{%+ macro go_turn(System, Prompt, Response) +%}")
    assert model.config == {
        "lora_adapters": ["adapter-1.gguf"],
        "parameters": {"model": "model.gguf", "temperature": 0.5},
        "system_prompt": "Be kind.",
        "stopwords": ["END"],
        "context_size": 512,
    }
    assert [note.split(" ")[1] for note in model.notes] == ["parameter", "projector"]


def test_a_template_of_the_weights_own_goes_before_ollamas(tmp_path: Path) -> None:
    weights = write_gguf(tmp_path / "w.gguf", {**LLAMA, "tokenizer.chat_template": "{{ messages }}"})
    layers: list[tuple[str, bytes | Path]] = [("model", weights), ("template", CHATML.encode())]
    ollama_model(tmp_path / "store", "registry.example/library/orca/latest", layers)
    (model,) = models(ollama.find_models, tmp_path / "store").values()
    assert (model.name, model.config) == ("orca", {})
    assert model.notes == ("its template is left behind: the weights have one of their own",)


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("registry.example/library/llama3.2/latest", "llama3.2"),
        ("registry.example/me/llama3.2/3b", "me/llama3.2-3b"),
        ("hub.example/acme/orca-GGUF/Q4_K_M", "acme/orca-GGUF-Q4_K_M"),
    ],
)
def test_an_ollama_name_loses_its_colon(tmp_path: Path, name: str, called: str) -> None:
    ollama_model(tmp_path, name, [("model", b"GGUFx")])
    assert [model.name for model in ollama.find_models(tmp_path)] == [called]


@pytest.mark.parametrize(
    ("layers", "given", "words"),
    [
        (
            [("model", b"GGUFx"), ("application/x-odd", b"")],
            {},
            'layer of the unknown kind "application/x-odd"',
        ),
        (
            [("model", b"GGUFx")],
            {"media_type": "application/x-list"},
            'of the unknown kind "application/x-list"',
        ),
        ([("model", b"other")], {}, "is no GGUF file"),
        ([("tensor", b"x")], {}, "its weights are single tensors"),
        ([("model", b"GGUFx"), ("model", b"GGUFy")], {}, "several files of weights"),
        ([("template", b"x")], {}, "its manifest names no weights"),
        ([], {"about": {"remote_model": "big", "remote_host": "https://cloud"}}, "it runs on https://cloud"),
        ([("model", b"GGUFx"), ("params", b"[1]")], {}, "its parameters are no JSON object"),
        ([("model", b"GGUFx"), ("params", b"[" * 100_000)], {}, "its parameters are not readable as JSON"),
    ],
)
def test_a_broken_ollama_model_says_why_and_hides_no_other(
    tmp_path: Path, layers: Any, given: Any, words: str
) -> None:
    ollama_model(tmp_path, "registry.example/library/bad/latest", layers, **given)
    ollama_model(tmp_path, "registry.example/library/good/latest", [("model", b"GGUFgood")])
    found = models(ollama.find_models, tmp_path)
    assert words in found["bad:latest"].problem
    assert not found["good:latest"].problem


def test_blobs_that_are_missing_or_short_are_told(tmp_path: Path) -> None:
    ollama_model(tmp_path, "registry.example/library/gone/latest", [("model", b"GGUFgone")])
    ollama_model(tmp_path, "registry.example/library/half/latest", [("model", b"GGUFhalf")])
    for blob in (tmp_path / "blobs").iterdir():
        if blob.read_bytes() == b"GGUFgone":
            blob.unlink()
        elif blob.read_bytes() == b"GGUFhalf":
            blob.write_bytes(b"GGUF")
    found = models(ollama.find_models, tmp_path)
    assert "is missing: download it again" in found["gone:latest"].problem
    assert "has 4 of 8 bytes" in found["half:latest"].problem


@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        (
            CHATML,
            "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
            "<|im_start|>assistant\nHello<|im_end|>\n"
            "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n",
        ),
        ("[INST] {{ .System }} {{ .Prompt }} [/INST]", "[INST] Be kind. Hi [/INST]Hello[INST]  Bye [/INST]"),
        (
            BY_MESSAGES,
            "<|system|>Be kind.<|end|>\n<|user|>Hi<|end|>\n"
            "<|assistant|>Hello<|end|>\n<|user|>Bye<|end|>\n<|assistant|>",
        ),
    ],
)
def test_ollamas_template_renders_a_chat_as_ollama_does(template: str, rendered: str) -> None:
    chat = translated(template)
    assert chat.chat is not None
    roles = [("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Bye")]
    messages = [{"role": role, "content": content} for role, content in roles]
    filled = CompiledTemplate("chat", chat.chat).fill({"messages": messages, "add_generation_prompt": True})
    assert filled == rendered


def test_a_template_that_cannot_be_translated_is_told_with_its_place() -> None:
    chat = translated("a\n{{ .Prompt }}{{ .Nothing }}")
    assert chat.chat is None
    assert chat.notes[0].startswith("its template is left behind: line 2, column ")


def test_lm_studios_folders_are_models(tmp_path: Path) -> None:
    put(tmp_path, "pub/one-GGUF/one-Q4.gguf", "pub/one-GGUF/mmproj-one.gguf", "pub/one-GGUF/.DS_Store")
    put(tmp_path, "pub/big/big-00001-of-00002.gguf", "pub/big/big-00002-of-00002.gguf")
    put(tmp_path, "pub/half/half-00001-of-00002.gguf")
    put(tmp_path, "pub/mlx/config.json", "pub/mlx/model.safetensors")
    put(tmp_path, "pub/slow/slow.gguf", "pub/slow/slow.gguf.part")
    found = models(lmstudio.find_models, tmp_path)
    by_name = {model.name: model for model in found.values()}
    assert sorted(by_name) == ["big", "half", "mlx", "one-Q4", "slow"]
    assert names(by_name["one-Q4"]) == ["one-Q4.gguf"]
    assert names(by_name["big"]) == ["big-00001-of-00002.gguf", "big-00002-of-00002.gguf"]
    assert "mmproj-one.gguf left behind" in by_name["one-Q4"].notes[0]
    assert names(by_name["mlx"]) == ["config.json", "model.safetensors"]
    assert "half-00002-of-00002.gguf missing" in by_name["half"].problem
    assert "still being downloaded" in by_name["slow"].problem


def test_the_hubs_cache_gives_the_commit_of_main_and_each_quantisation(tmp_path: Path) -> None:
    hub_cache_model(
        tmp_path, "acme/orca", {"config.json": b"{}", "model.safetensors": b"main", "README.md": b""}
    )
    later = {"config.json": b"{}", "model.safetensors": b"later"}
    hub_cache_model(tmp_path, "acme/orca", later, commit="f" * 40, ref="a-branch")
    hub_cache_model(tmp_path, "acme/many-GGUF", {"m-Q4_0.gguf": b"GGUF4", "q8/m-Q8_0.gguf": b"GGUF8"})
    hub_cache_model(tmp_path, "acme/cut", {"config.json": b"{}", "model.safetensors": b"cut"}, ref=None)
    (tmp_path / "models--acme--cut" / "snapshots" / COMMIT / "model.safetensors").resolve().unlink()
    hub_cache_model(tmp_path, "acme/none", {"config.json": b"{}"})
    (tmp_path / "datasets--acme--texts").mkdir()
    found = {model.name: model for model in hub_cache.find_models(tmp_path)}
    assert sorted(found) == ["cut", "m-Q4_0", "m-Q8_0", "none", "orca"]
    assert names(found["orca"]) == ["config.json", "model.safetensors"]
    assert found["orca"].files[1].path.read_bytes() == b"main"
    assert names(found["m-Q8_0"]) == ["m-Q8_0.gguf"]
    assert "model.safetensors leads to no blob" in found["cut"].problem
    assert "no weights that an engine here reads" in found["none"].problem


def test_localais_files_come_in_their_own_words_with_weights_and_templates(tmp_path: Path) -> None:
    put(tmp_path, "orca.gguf", "bare.gguf", "lora.gguf")
    (tmp_path / "orca-chat.tmpl").write_text("{{.Input}}\nA:")
    (tmp_path / "orca.yaml").write_text(
        "name: gpt\nbackend: llama\nparameters: {model: orca.gguf, top_k: 80}\ntemplate: {chat: orca-chat}\n"
    )
    (tmp_path / "hub.yaml").write_text("backend: vllm\nparameters: {model: acme/orca}\n")
    (tmp_path / "lost.yaml").write_text("backend: llama\nparameters: {model: lost.gguf}\n")
    (tmp_path / "compose.yaml").write_text("services: {}\n")
    (tmp_path / "twice.yaml").write_text("backend: llama\nbackend: llama\n")
    found = {model.name: model for model in localai.find_models(tmp_path)}
    assert sorted(found) == ["bare", "gpt", "hub", "lora", "lost", "twice"]
    assert names(found["gpt"]) == ["orca.gguf"]
    assert found["gpt"].config == {
        "backend": "llama",
        "parameters": {"model": "orca.gguf", "top_k": 80},
        "template": {"chat": "{{.Input}}\nA:"},
    }
    assert (found["hub"].files, found["hub"].config["parameters"]) == ((), {"model": "acme/orca"})
    assert "lost.gguf, its weights, is not there" in found["lost"].problem
    assert 'the key "backend" is given twice' in found["twice"].problem


def test_tritons_models_have_their_arguments_as_keys(tmp_path: Path) -> None:
    put(tmp_path, "weights/config.json", "weights/model.safetensors")
    arguments = {
        "model": str(tmp_path / "weights"),
        "max_model_len": 512,
        "max_num_seqs": 8,
        "gpu_memory_utilization": 0.5,
        "block_size": 16,
        "disable_log_requests": True,
    }
    home = triton_model(tmp_path, "orca", arguments)
    (home / "1" / "multi_lora.json").write_text('{"sql": "/loras/sql"}')
    triton_model(tmp_path, "hub", {"model": "acme/orca", "revision": "v1"})
    triton_model(tmp_path, "lost", {"model": "/models/inside/a/container"})
    triton_model(tmp_path, "onnx", None, config='platform: "onnxruntime_onnx"')
    triton_model(tmp_path, "torn", None, config='backend: "vllm')
    triton_model(tmp_path, "empty", None)
    found = models(triton.find_models, tmp_path)
    assert names(found["orca"]) == ["config.json", "model.safetensors"]
    assert found["orca"].config == {
        "backend": "vllm",
        "context_size": 512,
        "gpu_memory_utilization": 0.5,
        "scheduler": {"max_lanes": 8},
        "engine_args": {"block_size": 16},
        "lora_modules": {"sql": "/loras/sql"},
    }
    assert "disable_log_requests has no effect" in found["orca"].notes[0]
    assert found["hub"].config["parameters"] == {"model": "acme/orca@v1"}
    assert 'there is no "/models/inside/a/container" here' in found["lost"].problem
    assert 'it names the backend "onnxruntime_onnx"' in found["onnx"].problem
    assert "config.pbtxt: it is not readable: 1:10" in found["torn"].problem
    assert "model.json: it cannot be read: No such file" in found["empty"].problem


@pytest.mark.parametrize(
    ("find", "words"),
    [
        (ollama.find_models, "is no Ollama store"),
        (lmstudio.find_models, "is no folder"),
        (hub_cache.find_models, "holds no models of the hub's cache"),
        (localai.find_models, "is no folder"),
        (triton.find_models, "is no Triton repository"),
    ],
)
def test_a_store_that_is_none_is_one_sentence(tmp_path: Path, find: Find, words: str) -> None:
    with pytest.raises(ImportProblem, match=words):
        list(find(tmp_path / "nothing"))


def large(tmp_path: Path, name: str = "m.gguf") -> SourceFile:
    """A file that is worth a link."""
    path = tmp_path / "source" / name
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        file.truncate(2 << 20)
    return SourceFile(path, name, 2 << 20)


def test_files_are_linked_and_small_ones_copied_and_the_source_stays(tmp_path: Path) -> None:
    small = tmp_path / "source" / "small.json"
    big = large(tmp_path)
    small.write_text("{}")
    model = Importable(
        name="acme/orca",
        label="x",
        files=(big, SourceFile(small, "deep/small.json", 2)),
        config={"context_size": 512},
        texts={"LICENSE": "MIT"},
    )
    folder = imported(model, tmp_path / "models")
    assert folder == tmp_path / "models" / "acme" / "orca" / "1"
    assert (folder / "m.gguf").samefile(big.path)
    assert not (folder / "deep" / "small.json").samefile(small)
    assert (folder / "LICENSE").read_text() == "MIT"
    config = (folder.parent / "config.yaml").read_text()
    assert config == "# Imported from a test: x\ncontext_size: 512\n"
    assert sorted(path.name for path in (tmp_path / "source").iterdir()) == ["m.gguf", "small.json"]
    assert not list((tmp_path / "models").rglob(".staged-*"))
    assert scan(tmp_path / "models").models["acme/orca"].all_problems == ()


def test_what_was_imported_is_not_imported_again_and_others_follow_only_if_asked(tmp_path: Path) -> None:
    root, model = tmp_path / "models", Importable(name="m", label="m", files=(large(tmp_path),))
    imported(model, root)
    assert plan(model, root, way="auto").is_there
    assert plan(model, root, way="copy").is_there
    other = Importable(name="m", label="m", files=(large(tmp_path, "other.gguf"),))
    with pytest.raises(ImportProblem, match="--as m makes this its next version"):
        plan(other, root, way="auto")
    assert imported(other, root, may_follow=True).name == "2"


@pytest.mark.parametrize("way", ["hard", "symbolic", "copy"])
def test_files_come_as_was_chosen(tmp_path: Path, way: Any) -> None:
    file = large(tmp_path)
    planned = plan(Importable(name="m", label="m", files=(file,)), tmp_path / "models", way=way)
    # One filesystem, where a hard link is the better choice than a symbolic one.
    assert planned.links == {"hard": "hard", "symbolic": "hard", "copy": "copy"}[way]
    assert planned.copied_bytes == (2 << 20 if way == "copy" else 0)


@pytest.mark.parametrize(("way", "links"), [("auto", "copy"), ("symbolic", "symbolic"), ("hard", None)])
def test_from_another_filesystem_files_are_copied_unless_something_else_was_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Any, links: str | None
) -> None:
    monkeypatch.setattr(placing, "_device", hash)
    model = Importable(name="m", label="m", files=(large(tmp_path),))
    if links is None:
        with pytest.raises(ImportProblem, match="on another filesystem"):
            plan(model, tmp_path / "models", way=way)
        return
    planned = plan(model, tmp_path / "models", way=way)
    assert (planned.links, planned.copied_bytes) == (links, 2 << 20 if links == "copy" else 0)
    place(planned, tmp_path / "models", comments=())
    made = planned.folder / "m.gguf"
    assert made.is_symlink() == (links == "symbolic")
    assert made.stat().st_size == 2 << 20


def test_a_failed_import_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    model = Importable(name="m", label="m", files=(large(tmp_path),))
    with pytest.raises(ImportProblem, match=r"cannot be linked .*; use --copy or --link symbolic"):
        imported(model, tmp_path / "models")
    assert [path for path in (tmp_path / "models").iterdir() if path.is_dir()] == []


@pytest.mark.parametrize(
    ("name", "words"),
    [("a:b", "colon"), ("taken", "holds files that are no version"), ("yaml", "is a model of that name")],
)
def test_a_name_that_cannot_be_is_refused(tmp_path: Path, name: str, words: str) -> None:
    put(tmp_path / "models", "taken/x.gguf", "yaml.yaml")
    with pytest.raises(ImportProblem, match=words):
        plan(Importable(name=name, label="m", files=(large(tmp_path),)), tmp_path / "models", way="auto")


@pytest.mark.parametrize(
    "text", ["no", "1e-5", "010", "0o10", "12:30", "a: b", "null", "x\ny\n", "{{.Input}}\n ### ", ""]
)
def test_a_configuration_is_read_as_it_was_written(text: str) -> None:
    values = {"description": text, "stopwords": [text], "n": 1e-5}
    root = parse_document(config_text(values, ["where it\ncame from"]).encode(), "x").root
    assert root is not None
    assert root.plain() == values


def test_what_a_killed_import_left_is_cleared_away(tmp_path: Path) -> None:
    put(tmp_path / "models", ".staged-left/model/1/m.gguf")
    imported(Importable(name="m", label="m", files=(large(tmp_path),)), tmp_path / "models")
    assert not list((tmp_path / "models").glob(".staged-*"))


def test_a_model_without_files_leaves_a_configuration_that_was_edited(tmp_path: Path) -> None:
    root = tmp_path / "models"
    model = Importable(name="m", label="m", config={"parameters": {"model": "acme/orca"}})
    config = imported(model, root) / "config.yaml"
    config.write_text("backend: vllm\n")
    imported(model, root)
    assert config.read_text() == "backend: vllm\n"


def test_a_model_without_files_does_not_join_versions_that_are_there(tmp_path: Path) -> None:
    put(tmp_path / "models", "m/1/m.gguf")
    model = Importable(name="m", label="m", config={"parameters": {"model": "acme/orca"}})
    with pytest.raises(ImportProblem, match="choose another name with --as"):
        plan(model, tmp_path / "models", way="auto")


def test_copies_that_the_disk_has_no_room_for_are_told_before(tmp_path: Path) -> None:
    with pytest.raises(ImportProblem, match=r"1000000000\.0 GB would be copied, and .* free"):
        placing.check_room(10**18, tmp_path / "models")


def test_an_odd_value_is_one_models_own(tmp_path: Path) -> None:
    put(tmp_path, "store/a.gguf", "triton/w/config.json", "triton/w/model.safetensors")
    triton_model(tmp_path / "triton", "bad", {"model": "w", "max_num_seqs": "256"})
    triton_model(tmp_path / "triton", "good", {"model": "w", "max_num_seqs": 256})
    found = models(triton.find_models, tmp_path / "triton")
    assert "max_num_seqs: expected a whole number, found '256'" in found["bad"].problem
    assert not found["good"].problem
    (tmp_path / "store" / "a.yaml").write_text("parameters: {model: a.gguf}\ndownload_files: 3\n")
    (odd,) = localai.find_models(tmp_path / "store")
    assert odd.config["download_files"] == 3  # which the configuration's schema refuses
    ollama_model(
        tmp_path, "registry.example/me/odd/1", [("model", b"GGUFx"), ("params", b'{"num_predict": "x"}')]
    )
    (odd,) = ollama.find_models(tmp_path)
    assert odd.config["parameters"] == {"max_tokens": "x"}


def test_a_manifest_in_no_models_place_is_told(tmp_path: Path) -> None:
    ollama_model(tmp_path, "registry.example/latest", [("model", b"GGUFx")])
    (found,) = ollama.find_models(tmp_path)
    assert "expected HOST/OWNER/MODEL/TAG" in found.problem


def test_the_second_model_of_a_name_is_refused_by_the_command(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from adapters.cli.app import build_cli

    for owner in ("acme", "other"):
        put(tmp_path / "store", f"{owner}/repo/m.gguf", data=f"GGUF{owner}".encode())
    words = ["import", "lmstudio", str(tmp_path / "store"), "--repository", str(tmp_path / "models")]
    result = CliRunner().invoke(build_cli(), words)
    assert result.exit_code == 1
    assert "acme/m.gguf has that name too; import it by itself, with --model 'other/m.gguf'" in result.stderr
    assert (tmp_path / "models" / "m" / "1" / "m.gguf").read_bytes() == b"GGUFacme"
