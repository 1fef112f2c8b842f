"""What configurations and requests have from the network, and what they cannot have."""

from pathlib import Path

import pytest
import yaml

from repository.hub.reference import HubReference
from repository.remote.wanted import NOT_FOR_STRANGERS, Remote, RemoteFile, request_remote
from repository.scan import scan
from repository.snapshot import ModelEntry, VersionEntry
from tests.repository.gguf_files import write_gguf

SHA = "ab" * 32
DEMO = HubReference("acme/demo")


def written(root: Path, **config: object) -> ModelEntry:
    folder = root / "orca"
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return scan(root).entries[0]


def version_of(root: Path, **config: object) -> VersionEntry:
    entry = written(root, **config)
    assert not entry.all_problems, entry.all_problems
    return entry.versions[0]


@pytest.mark.parametrize(
    ("model", "hub"),
    [
        ("acme/demo", DEMO),
        ("acme/demo@v2", HubReference("acme/demo", None, "v2")),
        ("acme/demo/q4/model.gguf", HubReference("acme/demo", "q4/model.gguf")),
        ("huggingface://acme/demo/model.gguf@main", HubReference("acme/demo", "model.gguf", "main")),
        ("hf://acme/demo.gguf", HubReference("acme/demo.gguf")),
    ],
)
def test_a_model_that_is_no_path_is_on_the_hub(tmp_path: Path, model: str, hub: HubReference) -> None:
    version = version_of(tmp_path, parameters={"model": model})
    assert version.source == Remote(hub=hub)
    assert version.weights_path is None


@pytest.mark.parametrize("place", ["orca/acme/demo/model.gguf", "acme/demo/model.gguf"])
def test_a_path_that_is_there_is_not_on_the_hub(tmp_path: Path, place: str) -> None:
    write_gguf(tmp_path / place)
    written(tmp_path, parameters={"model": "acme/demo/model.gguf"})
    version = scan(tmp_path).models["orca"].versions[0]
    assert version.source is None
    assert version.weights_path == tmp_path / place


def test_a_path_that_appears_later_is_taken_then(tmp_path: Path) -> None:
    written(tmp_path, parameters={"model": "acme/demo/model.gguf"})
    before = scan(tmp_path)
    write_gguf(tmp_path / "orca/acme/demo/model.gguf")
    after = scan(tmp_path, scan(tmp_path, before))
    assert after.models["orca"].versions[0].source is None


def test_a_weight_file_in_a_folder_is_a_path_not_a_repository(tmp_path: Path) -> None:
    [problem] = written(tmp_path, parameters={"model": "models/orca.gguf"}).all_problems
    assert 'no "models/orca.gguf"' in problem.message and "owner/repo/file" in problem.message


def test_an_address_is_fetched_under_its_file_s_name(tmp_path: Path) -> None:
    uri = "https://models.example/tiny%20one.gguf?download=true"
    source = version_of(tmp_path, parameters={"model": uri}).source
    assert source == Remote(files=(RemoteFile("tiny one.gguf", uri),), weights="tiny one.gguf")


def test_a_listed_file_gives_an_address_its_name_and_its_checksum(tmp_path: Path) -> None:
    uri = "https://models.example/a.gguf"
    files = [{"filename": "sub/tiny.gguf", "uri": uri, "sha256": SHA.upper()}]
    source = version_of(tmp_path, parameters={"model": uri}, download_files=files).source
    assert source == Remote(files=(RemoteFile("sub/tiny.gguf", uri, SHA),), weights="sub/tiny.gguf")


def test_a_listed_file_is_found_by_its_name_and_left_where_it_is_on_disk(tmp_path: Path) -> None:
    uri = "huggingface://acme/demo/model.gguf"
    listed = {"parameters": {"model": "tiny.gguf"}, "download_files": [{"filename": "tiny.gguf", "uri": uri}]}
    source = version_of(tmp_path, **listed).source
    assert source == Remote(files=(RemoteFile("tiny.gguf", uri),), weights="tiny.gguf")
    write_gguf(tmp_path / "tiny.gguf")
    version = scan(tmp_path).models["orca"].versions[0]
    assert version.source is None and version.weights_path == tmp_path / "tiny.gguf"


def test_weights_may_be_a_folder_of_listed_files(tmp_path: Path) -> None:
    files = [
        {"filename": f"tiny/{name}", "uri": f"hf://acme/demo/{name}"}
        for name in ("config.json", "model.safetensors")
    ]
    source = version_of(tmp_path, parameters={"model": "tiny"}, download_files=files).source
    assert source is not None and source.weights == "tiny" and len(source.files) == 2


def test_listed_weights_need_not_be_named_again(tmp_path: Path) -> None:
    files = [{"filename": "tiny.gguf", "uri": "hf://acme/demo/model.gguf"}]
    source = version_of(tmp_path, download_files=files).source
    assert source is not None and source.weights == "tiny.gguf"


def test_an_artifact_narrows_its_repository_and_keeps_its_commit(tmp_path: Path) -> None:
    commit = "0123456abc" * 4
    artifact = {
        "name": "model",
        "target": "model",
        "source": {
            "type": "huggingface",
            "repo": "acme/demo",
            "revision": "main",
            "token_env": "DEMO_TOKEN",
            "allow_patterns": ["*.safetensors", "*.json"],
            "ignore_patterns": "*.bin",
        },
        "resolved": {"endpoint": "https://hub.example", "revision": commit},
    }
    entry = written(tmp_path, parameters={"model": "acme/demo"}, artifacts=[artifact])
    assert [problem.message.split(":")[0] for problem in entry.ignored] == ["artifacts.resolved.endpoint"]
    assert not entry.all_problems and entry.versions[0].source == Remote(
        hub=HubReference("acme/demo", None, commit),
        allow=("*.safetensors", "*.json"),
        ignore=("*.bin",),
        token_env="DEMO_TOKEN",
    )


SOURCE = {"type": "hf", "repo": "acme/demo"}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"parameters": {"model": "oci://acme/demo"}}, "oci:// is not fetched"),
        ({"parameters": {"model": "https://hub.example/acme/demo"}}, "no weight file"),
        ({"parameters": {"model": "huggingface://acme"}}, "names no model on a hub"),
        ({"download_files": [{"filename": "../x", "uri": "hf://a/b/c"}]}, "relative to the repository"),
        ({"download_files": [{"filename": "/etc/x", "uri": "hf://a/b/c"}]}, "relative to the repository"),
        ({"download_files": [{"filename": "x", "uri": "hf://a/b"}]}, "names no file"),
        ({"download_files": [{"filename": "x", "uri": "ollama://b"}]}, "ollama:// is not fetched"),
        ({"download_files": [{"filename": "x", "uri": "hf://a/b/c", "sha256": "12"}]}, "sha256: expected"),
        ({"artifacts": [{"source": SOURCE}, {"source": SOURCE}]}, "one artifact is the model"),
        ({"artifacts": [{"source": SOURCE, "target": "tokenizer"}]}, 'target "tokenizer"'),
        ({"artifacts": [{"source": SOURCE | {"type": "s3"}}]}, 'source.type "s3"'),
        ({"artifacts": [{"source": SOURCE | {"repo": "demo"}}]}, "names no model on a hub"),
    ],
)
def test_what_cannot_be_had_is_refused_with_its_place(
    tmp_path: Path, config: dict[str, object], message: str
) -> None:
    problems = [problem for problem in written(tmp_path, **config).all_problems if problem.line]
    assert any(message in problem.message for problem in problems), problems


@pytest.mark.parametrize("name", ["acme/demo", "acme/demo/model.gguf", "acme/demo@v2"])
def test_a_request_s_wish_comes_without_pickles_and_code(name: str) -> None:
    remote = request_remote(name)
    assert remote is not None and remote.by_request and remote.ignore == NOT_FOR_STRANGERS


@pytest.mark.parametrize(
    "name", ["demo", "hf://acme/demo", "a/b.gguf", "../x", "acme/", "acme/a b", "/acme/b"]
)
def test_other_names_are_no_wish_for_the_hub(name: str) -> None:
    assert request_remote(name) is None


def test_the_same_wish_has_the_same_key() -> None:
    assert Remote(hub=DEMO).key == Remote(hub=HubReference("acme/demo")).key
    assert Remote(hub=DEMO).key != Remote(hub=DEMO, by_request=True).key


def test_addresses_are_shown_without_their_secrets() -> None:
    file = RemoteFile("w.gguf", "https://user:password@models.example:8443/w.gguf?token=secret#part")
    remote = Remote(files=(file,), weights="w.gguf")
    assert str(remote) == "https://models.example:8443/w.gguf"
    assert remote.origin == "models.example:8443"
    assert str(Remote(files=(RemoteFile("w", "hf://acme/demo/w@v2"),))) == "hf://acme/demo/w@v2"


@pytest.mark.parametrize(
    "config",
    [
        {"parameters": {"model": "https://user:password@models.example/demo?token=password"}},
        {"download_files": [{"filename": "x", "uri": "ftp://user:password@models.example/x"}]},
    ],
)
def test_problems_keep_the_secrets_of_an_address(tmp_path: Path, config: dict[str, object]) -> None:
    problems = written(tmp_path, **config).all_problems
    assert problems and not any("password" in problem.message for problem in problems), problems
