"""Folders of other programs' making, served as they are, and imported and served: each answers a question."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.repository.importing.stores import hub_cache_model, ollama_model, triton_model
from tests.serving import COMMAND, DEMO, ROOT, Served, serve

CLONE = ROOT / "examples" / "demo_model" / "hf"
TEMPLATE = (
    "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}"
    "{{ if .Prompt }}<|im_start|>user\n{{ .Prompt }}<|im_end|>\n{{ end }}"
    "<|im_start|>assistant\n{{ .Response }}<|im_end|>\n"
)
needs_transformers = pytest.mark.filterwarnings("default")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    return folder


def command(*words: object, code: int = 0, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"} | ({"HOME": str(home)} if home else {})
    done = subprocess.run(
        [*COMMAND, *map(str, words)], capture_output=True, text=True, check=False, env=environment, cwd=ROOT
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def ask(served: Served, model: str) -> str:
    answer = served.client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "What is a version?"}],
        max_tokens=24,
        temperature=0,
    )
    assert answer.model.partition(":")[0] == model
    return answer.choices[0].message.content or ""


def table(served: Served) -> dict[str, str]:
    """What the start said of each model: the rest of its line."""
    assert served.process.stdout is not None
    lines = {}
    for line in served.process.stdout:
        if line.startswith("Try: "):
            lines["Try"] = json.loads(line.partition("-d '")[2].rstrip("\n'"))["model"]
            return lines
        name, _, rest = line.rstrip("\n").partition("\t")
        lines[Path(rest.partition(":")[0]).name if name == "passed over" else name] = rest
    raise AssertionError("the start did not say what to try")


def test_a_heap_of_ggufs_is_served_and_the_rest_told(store: Path, tmp_path: Path) -> None:
    for place in (
        "a.gguf",
        "pub/repo/b.Q4.gguf",
        "pub/repo/b.Q8.gguf",
        "pub/one/one.gguf",
        "x/y/z/deep.gguf",
    ):
        (store / place).parent.mkdir(parents=True, exist_ok=True)
        os.link(DEMO, store / place)
    (store / "page.gguf").write_text("<html>")
    (store / "mmproj-a.gguf").write_bytes(b"GGUF")
    (store / "old.bin").write_bytes(b"x")
    (store / "notes").mkdir()
    (store / "notes" / "README.md").write_text("x")
    (store / "desktop.ini").write_text("x")
    with serve(store, tmp_path / "state") as served:
        lines = table(served)
        good = {"a", "pub/repo/b.Q4", "pub/repo/b.Q8", "pub/one", "x/y/z"}
        assert {name for name, line in lines.items() if "llamacpp" in line} == good
        assert lines.pop("Try") in good
        assert "does not begin as a GGUF file does" in lines["page"]
        assert lines["notes"] == "not served: no weights; found README.md"
        assert "a projector" in lines["mmproj-a.gguf"]
        assert "only .gguf files can stand alone" in lines["old.bin"]
        assert ask(served, "pub/repo/b.Q8")
    listed = command("list", store).stdout.splitlines()
    assert {line.partition("\t")[0] for line in listed} == {*good, "page", "notes"}
    checked = command("check", store, code=1)
    assert "7 models, 2 with problems" in checked.stderr


@needs_transformers
def test_a_clone_is_the_model_itself(store: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    clone = store / "acme-demo"
    shutil.copytree(CLONE, clone)
    (clone / "onnx").mkdir()
    (clone / "onnx" / "model.onnx").write_bytes(b"x")
    (clone / "recipe.yaml").write_text("backend: none\n")
    with serve(clone, tmp_path / "state") as served:
        lines = table(served)
        assert lines.pop("Try") == "acme-demo"
        assert list(lines) == ["acme-demo"]
        assert "transformers" in lines["acme-demo"]
        assert ask(served, "acme-demo")


def test_a_localai_folder_is_served_as_it_stands(store: Path, tmp_path: Path) -> None:
    os.link(DEMO, store / "orca.gguf")
    (store / "orca.yaml").write_text(
        "name: gpt-4\nbackend: llama\ncontext_size: 512\nparameters:\n  model: orca.gguf\n  temperature: 0\n"
    )
    (store / "image.yaml").write_text("name: paint\nbackend: diffusers\nparameters: {model: x/y}\n")
    with serve(store, tmp_path / "state") as served:
        lines = table(served)
        assert "llamacpp" in lines["gpt-4"]
        assert lines["paint"].startswith("not served: ")
        assert ask(served, "gpt-4")


def test_a_triton_repository_is_understood_and_what_cannot_run_here_is_told(
    store: Path, tmp_path: Path
) -> None:
    triton_model(store, "orca", {"model": str(CLONE), "gpu_memory_utilization": 0.5})
    triton_model(store, "vision", None, config='platform: "onnxruntime_onnx"')
    os.link(DEMO, store / "demo.gguf")
    with serve(store, tmp_path / "state") as served:
        lines = table(served)
        assert lines["orca"].endswith("backend vllm is not installed here; run `modelyard env create vllm`")
        assert 'it names the backend "onnxruntime_onnx"' in lines["vision"]
        assert lines["Try"] == "demo"
        assert ask(served, "demo")


def test_an_ollama_model_is_imported_and_answers_by_its_own_template(store: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.gguf"
    bare.write_bytes(without_template(DEMO.read_bytes()))
    ollama_model(
        store, "registry.example/library/demo/8m", [("model", bare), ("template", TEMPLATE.encode())]
    )
    ollama_model(
        store, "registry.example/library/odd/latest", [("model", b"GGUFx"), ("application/odd", b"")]
    )
    done = command("import", "ollama", store, "--repository", tmp_path / "models", code=1)
    assert "odd: odd:latest is not imported: its manifest has a layer of the unknown kind" in done.stderr
    assert "demo-8m: demo:8m, 16.9 MB linked, into" in done.stdout
    os.link(DEMO, tmp_path / "models" / "plain.gguf")
    with serve(tmp_path / "models", tmp_path / "state") as served:
        assert ask(served, "demo-8m") == ask(served, "plain")


def test_a_hub_cache_is_imported_and_answers(store: Path, tmp_path: Path) -> None:
    hub_cache_model(store, "acme/demo-GGUF", {"demo-Q8_0.gguf": DEMO})
    command("import", "huggingface", store, "--repository", tmp_path / "models", "--as", "demo")
    with serve(tmp_path / "models", tmp_path / "state") as served:
        assert ask(served, "demo")


def test_an_lm_studio_folder_is_imported_and_answers(store: Path, tmp_path: Path) -> None:
    home = tmp_path / "home" / ".lmstudio" / "models" / "acme" / "demo-GGUF"
    home.mkdir(parents=True)
    os.link(DEMO, home / "demo-Q8_0.gguf")
    command("import", "lmstudio", "--repository", tmp_path / "models", home=tmp_path / "home")
    with serve(tmp_path / "models", tmp_path / "state") as served:
        assert ask(served, "demo-Q8_0")


def test_a_localai_folder_is_imported_and_answers(store: Path, tmp_path: Path) -> None:
    os.link(DEMO, store / "orca.gguf")
    chat = "{{.Input}}\n<|im_start|>assistant\n"
    message = "<|im_start|>{{.RoleName}}\n{{.Content}}<|im_end|>"
    (store / "chat.tmpl").write_text(chat)
    document: Mapping[str, Any] = {
        "name": "gpt-4",
        "backend": "llama",
        "parameters": {"model": "orca.gguf"},
        "template": {"chat": "chat", "chat_message": message},
    }
    (store / "orca.yaml").write_text(json.dumps(document))
    command("import", "localai", store, "--repository", tmp_path / "models")
    assert not (tmp_path / "models" / "chat.tmpl").exists()
    os.link(DEMO, tmp_path / "models" / "plain.gguf")
    with serve(tmp_path / "models", tmp_path / "state") as served:
        assert ask(served, "gpt-4") == ask(served, "plain")


@needs_transformers
def test_a_triton_model_is_imported_onto_another_backend_and_answers(store: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    triton_model(store, "orca", {"model": str(CLONE), "max_num_seqs": 4, "gpu_memory_utilization": 0.5})
    words = ("import", "triton", store, "--repository", tmp_path / "models", "--backend", "transformers")
    assert "left behind, as they are vLLM's: gpu_memory_utilization" in command(*words).stdout
    with serve(tmp_path / "models", tmp_path / "state") as served:
        assert ask(served, "orca")


def test_a_dry_run_says_all_and_does_nothing(store: Path, tmp_path: Path) -> None:
    hub_cache_model(store, "acme/demo-GGUF", {"demo-Q8_0.gguf": DEMO})
    words = ("import", "huggingface", store, "--repository", tmp_path / "models")
    done = command(*words, "--dry-run")
    assert "demo-GGUF: acme/demo-GGUF@01234567, 16.9 MB linked, into" in done.stdout
    assert not (tmp_path / "models").exists()
    assert "16.9 MB copied" in command(*words, "--dry-run", "--copy").stdout
    assert "is called so; it has demo-GGUF" in command(*words, "--model", "x*", code=1).stderr
    assert "--copy and --link exclude" in command(*words, "--copy", "--link", "hard", code=1).stderr


def without_template(gguf: bytes) -> bytes:
    """The file with another name for its chat template, which nothing then finds."""
    assert gguf.count(b"tokenizer.chat_template") == 1
    return gguf.replace(b"tokenizer.chat_template", b"tokenizer.chat_templatX")
