"""Indexes read and installed, from a hub and a web server on loopback."""

import contextlib
import functools
import hashlib
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from repository.document import read_document
from repository.gallery.entry import GalleryError
from repository.gallery.index import complete, read_index
from repository.gallery.install import install
from repository.hub.errors import HubError
from repository.hub.lock import read_lock
from repository.hub.reference import parse_reference
from repository.importing.values import ImportProblem
from repository.scan import scan
from tests.hub_server import HubServer
from tests.repository.gguf_files import write_gguf


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address under which it is served."""
    folder = tmp_path / "web"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def write_index(path: Path, content: Any) -> str:
    path.write_text(yaml.safe_dump(content))
    return str(path)


def installed(place: str, name: str, tmp_path: Path, **given: Any) -> Path:
    index = read_index(place)
    root = tmp_path / "models"
    entry = complete(index.find(name), index)
    return install(entry, root, origin=place, state_dir=tmp_path / "state", **given).folder


def test_the_index_that_is_shipped_is_whole_and_says_that_nothing_was_verified() -> None:
    index = read_index()
    assert not index.problems
    assert len(index.entries) >= 12
    for entry in index.entries:
        assert entry.license and entry.backend and entry.memory_bytes and entry.description
        assert entry.model and parse_reference(entry.model)
        assert not entry.files
    shipped = Path(read_index.__code__.co_filename).with_name("index.yaml").read_text()
    assert "not verified here" in " ".join(shipped.replace("#", "").split())


def test_an_entry_with_a_hub_model_becomes_a_version_with_its_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {
        "name": "tiny",
        "license": "mit",
        "backend": "llamacpp",
        "memory": "1GiB",
        "model": "acme/many-GGUF",
        "quant": "Q8_0",
        "config": {"context_size": 128},
    }
    weights = write_gguf(tmp_path / "w.gguf").read_bytes()
    with HubServer() as hub:
        hub.patch(monkeypatch, tmp_path / "home")
        hub.add("acme/many-GGUF", {"q8/m-Q8_0.gguf": weights, "q4/m-Q4_0.gguf": b"GGUFx"})
        place = write_index(tmp_path / "index.yaml", {"format": 1, "models": [entry]})
        folder = installed(place, "tiny", tmp_path)
        again = install(
            read_index(place).find("tiny"), tmp_path / "models", origin="x", state_dir=tmp_path / "state"
        )
    assert [path.name for path in folder.iterdir()] == ["m-Q8_0.gguf"]
    text = (tmp_path / "models" / "tiny" / "config.yaml").read_text()
    assert text.startswith(f"# Installed from {place}: tiny\n# Licence: mit\n")
    model = scan(tmp_path / "models").models["tiny"]
    assert model.config is not None
    assert (model.config.backend, model.config.context_size, model.all_problems) == ("llamacpp", 128, ())
    assert (again.folder, again.is_new) == (folder, False)
    (noted,) = read_lock(tmp_path / "models")
    assert (noted.repo, noted.folder, noted.files[0].name) == ("acme/many-GGUF", "tiny/1", "m-Q8_0.gguf")


def test_files_from_the_web_are_checked_and_nothing_is_published_of_a_wrong_one(
    tmp_path: Path, web: tuple[Path, str]
) -> None:
    folder, url = web
    data = write_gguf(folder / "m.gguf").read_bytes()
    good = {"filename": "m.gguf", "uri": f"{url}/m.gguf", "sha256": hashlib.sha256(data).hexdigest()}
    models = [{"name": "good", "files": [good]}, {"name": "bad", "files": [{**good, "sha256": "0" * 64}]}]
    place = write_index(tmp_path / "index.yaml", {"format": 1, "models": models})
    assert (installed(place, "good", tmp_path) / "m.gguf").read_bytes() == data
    with pytest.raises(HubError, match="sha256"):
        installed(place, "bad", tmp_path)
    assert [path.name for path in (tmp_path / "models").iterdir() if path.name[0] != "."] == ["good"]


def test_localais_index_is_accepted_with_base_overrides_and_templates(
    tmp_path: Path, web: tuple[Path, str]
) -> None:
    folder, url = web
    write_gguf(folder / "orca.gguf")
    base = {
        "name": "base",
        "config_file": "backend: llama-cpp\ncontext_size: 4096\nparameters: {top_k: 80}\n"
        "stopwords:\n- END\ntemplate:\n  chat: orca-chat\n",
        "prompt_templates": [{"name": "orca-chat", "content": "{{.Input}}\n### Response:"}],
    }
    (folder / "base.yaml").write_text(yaml.safe_dump(base))
    text = f"""
- &orca
  name: orca
  url: "base.yaml"
  license: mit
  urls: [https://example.org/orca]
  tags: [llm, gguf]
  overrides: {{context_size: 128, parameters: {{model: orca.gguf}}}}
  files: [{{filename: orca.gguf, sha256: "", uri: "{url}/orca.gguf"}}]
- !!merge <<: *orca
  name: orca-2
- name: broken
  files: [{{filename: ../x, uri: "{url}/x"}}]
"""
    (folder / "index.yaml").write_text(text)
    index = read_index(f"{url}/index.yaml")
    assert [entry.name for entry in index.entries] == ["orca", "orca-2"]
    assert index.entries[1].license == "mit"
    assert "broken" in index.problems[0] and "relative to the repository" in index.problems[0]
    installed(f"{url}/index.yaml", "orca", tmp_path)
    written = read_document(tmp_path / "models" / "orca" / "config.yaml").root
    assert written is not None
    assert written.plain() == {
        "backend": "llama-cpp",
        "context_size": 128,
        "stopwords": ["END"],
        "template": {"chat": "{{.Input}}\n### Response:"},
        "parameters": {"top_k": 80, "model": "orca.gguf"},
    }
    assert scan(tmp_path / "models").models["orca"].all_problems == ()


def test_a_file_of_the_entry_goes_before_the_bases_of_that_name(
    tmp_path: Path, web: tuple[Path, str]
) -> None:
    folder, url = web
    write_gguf(folder / "m.gguf")
    base = {"files": [{"filename": "m.gguf", "uri": f"{url}/gone.gguf"}]}
    (folder / "base.yaml").write_text(yaml.safe_dump(base))
    entry = {
        "name": "m",
        "url": f"{url}/base.yaml",
        "files": [{"filename": "m.gguf", "uri": f"{url}/m.gguf"}],
    }
    place = write_index(tmp_path / "index.yaml", [entry])
    assert [path.name for path in installed(place, "m", tmp_path).iterdir()] == ["m.gguf"]


def test_a_base_with_an_odd_value_is_one_sentence(tmp_path: Path) -> None:
    write_index(tmp_path / "base.yaml", {"overrides": "text"})
    index = read_index(write_index(tmp_path / "index.yaml", [{"name": "m", "url": "base.yaml"}]))
    with pytest.raises(GalleryError, match="m: overrides: expected a mapping, found 'text'"):
        complete(index.find("m"), index)


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ({"config_file": [1]}, "config_file: expected a mapping, found [1]"),
        ({"overrides": "text"}, "overrides: expected a mapping"),
        ({"tags": 5}, "tags: expected a list, found 5"),
        ({"files": 5}, "files: expected a list"),
        ({"files": [{"filename": "f", "uri": "http://h/f"}] * 2}, 'the filename "f" is given twice'),
    ],
)
def test_an_odd_entry_of_localais_is_left_out_and_told(tmp_path: Path, odd: Any, words: str) -> None:
    index = read_index(write_index(tmp_path / "i.yaml", [{"name": "a", **odd}, {"name": "fine"}]))
    assert [each.name for each in index.entries] == ["fine"]
    assert words in index.problems[0]


def test_an_index_without_an_end_is_not_read_to_it(
    tmp_path: Path, web: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = 0

    def pour(handler: _Quiet) -> None:
        nonlocal sent
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):
            while sent < 64:
                handler.wfile.write(bytes(1 << 20))
                sent += 1

    monkeypatch.setattr(_Quiet, "do_GET", pour)
    with pytest.raises(GalleryError, match="is larger than 16 MiB"):
        read_index(f"{web[1]}/index.yaml")
    assert sent < 64


def test_a_base_on_github_is_an_address() -> None:
    from repository.gallery.index import _address

    base = "github:someone/models/gallery/base.yaml@master"
    assert _address(base, "index.yaml") == (
        "https://raw.githubusercontent.com/someone/models/master/gallery/base.yaml"
    )


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"name": "a", "model": "x/y", "licence": "mit"}, 'unknown key "licence" (did you mean "license"?)'),
        ({"name": "a"}, "it needs either `model`, a reference to a hub, or `files`"),
        ({"name": "a", "model": "x/y", "memory": "much"}, '"much" is no size'),
        ({"name": "a", "files": [{"filename": "f"}]}, "each of `files` needs a filename and a uri"),
        ({"name": "a", "files": [{"filename": "f", "uri": "ollama://x"}]}, "ollama:// is not fetched"),
        (
            {"name": "a", "files": [{"filename": "f", "uri": "http://h/f", "sha256": "zz"}]},
            "is no SHA-256 hash",
        ),
        ({"model": "x/y"}, "an entry needs a name"),
    ],
)
def test_a_wrong_entry_is_left_out_and_told(tmp_path: Path, entry: Any, words: str) -> None:
    models = [entry, {"name": "fine", "model": "x/y"}]
    index = read_index(write_index(tmp_path / "i.yaml", {"format": 1, "models": models}))
    assert [each.name for each in index.entries] == ["fine"]
    assert words in index.problems[0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: [", "not readable as YAML"),
        ("format: 2", "is of format 2"),
        ("text", "expected a list of models"),
    ],
)
def test_an_index_that_is_none_is_one_sentence(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "i.yaml").write_text(content)
    with pytest.raises(GalleryError, match=words):
        read_index(str(tmp_path / "i.yaml"))


def test_a_name_that_is_not_there_has_a_near_one(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match=r'no model "qwen3-4" \(did you mean "qwen3-4b"\?\)'):
        read_index().find("qwen3-4")


def test_settings_that_are_not_possible_stop_an_install_before_anything_is_fetched(tmp_path: Path) -> None:
    entry = {"name": "a", "model": "acme/none", "config": {"context_size": "much"}}
    place = write_index(tmp_path / "i.yaml", {"format": 1, "models": [entry]})
    with pytest.raises(GalleryError, match="context_size: expected a whole number"):
        installed(place, "a", tmp_path)


def test_a_name_that_is_taken_by_something_else_is_told(tmp_path: Path, web: tuple[Path, str]) -> None:
    folder, url = web
    write_gguf(folder / "m.gguf")
    files = [{"filename": "m.gguf", "uri": f"{url}/m.gguf"}]
    place = write_index(tmp_path / "i.yaml", {"format": 1, "models": [{"name": "m", "files": files}]})
    write_gguf(tmp_path / "models" / "m" / "other.gguf")
    with pytest.raises(ImportProblem, match="holds files that are no version"):
        installed(place, "m", tmp_path)


def test_the_command_lists_by_backend_and_memory(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from adapters.cli.app import build_cli

    def names(*words: str) -> list[str]:
        result = CliRunner().invoke(build_cli(), ["gallery", "list", *words])
        assert result.exit_code == 0, result.output
        return [line.partition("\t")[0] for line in result.stdout.splitlines()]

    assert set(names("--backend", "vllm")) == {"qwen2.5-7b-instruct-awq"}
    small = names("--memory", "2GiB")
    assert "qwen2.5-0.5b-instruct" in small and "qwen3-8b" not in small
    assert names() == [entry.name for entry in read_index().entries]
