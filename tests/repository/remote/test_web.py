"""Plain downloads, from a server that has faults."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from repository.hub.errors import HubError
from repository.remote.web import download
from tests.hub_server import Fault, HubServer, sha256_of

CONTENT = bytes(range(256)) * 20_000
SHA = sha256_of(CONTENT)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setenv("NO_PROXY", "*")
    with HubServer() as hub:
        hub.add("acme/demo", {"model.gguf": CONTENT})
        yield hub


def uri(hub: HubServer, file: str = "model.gguf") -> str:
    return f"{hub.url}/acme/demo/resolve/main/{file}"


def test_a_file_comes_whole_and_is_told_of(hub: HubServer, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    target = tmp_path / "sub" / "model.gguf"
    download(uri(hub), target, sha256=SHA, progress=lambda done, total: told.append((done, total)))
    assert target.read_bytes() == CONTENT
    assert told[0] == (0, len(CONTENT)) and told[-1] == (len(CONTENT), len(CONTENT))
    assert sorted(path.name for path in target.parent.iterdir()) == ["model.gguf", "model.gguf.lock"]


def test_what_is_there_is_not_fetched_again(hub: HubServer, tmp_path: Path) -> None:
    download(uri(hub), tmp_path / "model.gguf")
    asked = len(hub.requests)
    download(uri(hub), tmp_path / "model.gguf")
    assert len(hub.requests) == asked


def test_a_cut_download_goes_on_where_it_was(hub: HubServer, tmp_path: Path) -> None:
    hub.faults.append(Fault(kind="cut", after=3_000_000))
    pauses: list[float] = []
    download(uri(hub), tmp_path / "model.gguf", sleep=pauses.append)
    assert (tmp_path / "model.gguf").read_bytes() == CONTENT
    assert [seen.headers.get("Range") for seen in hub.gets()] == [None, "bytes=2097152-"]


def test_an_ended_download_goes_on_in_a_later_call(hub: HubServer, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(uri(hub), tmp_path / "model.gguf", progress=stop)
    said: list[str] = []
    download(uri(hub), tmp_path / "model.gguf", sha256=SHA, say=said.append)
    assert (tmp_path / "model.gguf").read_bytes() == CONTENT
    assert "going on at" in said[0] and "Range" in hub.gets()[-1].headers


def test_a_server_that_starts_over_is_followed(hub: HubServer, tmp_path: Path) -> None:
    hub.faults += [Fault(kind="cut", after=3_000_000), Fault(kind="no_range")]
    download(uri(hub), tmp_path / "model.gguf", sha256=SHA, sleep=lambda _: None)
    assert (tmp_path / "model.gguf").read_bytes() == CONTENT


def test_the_beginning_of_another_file_is_thrown_away(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "model.gguf.part").write_bytes(b"\0" * 1_000_000)
    download(uri(hub), tmp_path / "model.gguf", sha256=SHA)
    assert (tmp_path / "model.gguf").read_bytes() == CONTENT


def test_another_hash_is_refused_and_nothing_is_left(hub: HubServer, tmp_path: Path) -> None:
    hub.faults.append(Fault(kind="flip", after=5))
    with pytest.raises(HubError, match="its sha256 is another one") as caught:
        download(uri(hub), tmp_path / "model.gguf", sha256=SHA)
    assert caught.value.kind == "broken"
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf.lock"]


def test_without_a_hash_the_one_that_came_is_told(hub: HubServer, tmp_path: Path) -> None:
    said: list[str] = []
    download(uri(hub), tmp_path / "model.gguf", say=said.append)
    assert any(SHA in text for text in said)


def test_nothing_there_is_told_at_once(hub: HubServer, tmp_path: Path) -> None:
    with pytest.raises(HubError, match="there is nothing at") as caught:
        download(uri(hub, "other.gguf"), tmp_path / "model.gguf")
    assert caught.value.kind == "missing"


def test_a_busy_server_is_asked_again_and_then_given_up(hub: HubServer, tmp_path: Path) -> None:
    hub.faults.append(Fault(kind="status", status=503, match="model.gguf", times=2))
    pauses: list[float] = []
    download(uri(hub), tmp_path / "model.gguf", sleep=pauses.append)
    assert pauses == [0.5, 1.0]
    hub.faults.append(Fault(kind="status", status=503, match="model.gguf", times=None))
    with pytest.raises(HubError, match="status 503") as caught:
        download(uri(hub), tmp_path / "again.gguf", sleep=pauses.append)
    assert caught.value.kind == "offline"


def test_a_server_that_asks_for_patience_gets_it_within_bounds(hub: HubServer, tmp_path: Path) -> None:
    hub.faults.append(
        Fault(kind="status", status=429, match="model.gguf", headers={"Retry-After": "7"}),
    )
    pauses: list[float] = []
    said: list[str] = []
    download(uri(hub), tmp_path / "model.gguf", sleep=pauses.append, say=said.append)
    assert pauses == [7.0] and "going on in 7 s" in said[0]
    hub.faults.append(
        Fault(kind="status", status=429, match="model.gguf", headers={"Retry-After": "3600"}),
    )
    with pytest.raises(HubError, match="fewer requests") as caught:
        download(uri(hub), tmp_path / "again.gguf", sleep=pauses.append)
    assert caught.value.kind == "offline" and pauses == [7.0]


def test_a_part_that_begins_elsewhere_is_not_believed(hub: HubServer, tmp_path: Path) -> None:
    hub.faults += [Fault(kind="cut", after=3_000_000), Fault(kind="shift")]
    download(uri(hub), tmp_path / "model.gguf", sleep=lambda _: None)
    assert (tmp_path / "model.gguf").read_bytes() == CONTENT
    assert "Range" not in hub.gets()[-1].headers


def test_messages_keep_the_secrets_of_an_address(hub: HubServer, tmp_path: Path) -> None:
    secret = uri(hub, "other.gguf").replace("//", "//user:password@") + "?token=secret"
    with pytest.raises(HubError, match="no access to") as caught:
        download(secret, tmp_path / "model.gguf")
    assert str(caught.value).endswith(f"{uri(hub, 'other.gguf')} (status 401)")
