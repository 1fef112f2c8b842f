"""What a fetch checks while it runs, from a hub on loopback."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from repository.hub.errors import HubError
from repository.hub.reference import HubReference
from repository.remote import bring
from repository.remote.wanted import Remote
from tests.hub_server import HubServer

SIZE = 8 << 20
Usage = namedtuple("Usage", "total used free")


def test_room_is_kept_also_when_others_fill_the_disk_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    def usage(_: object) -> Usage:
        nonlocal asked
        asked += 1
        return Usage(0, 0, 2 * SIZE if asked < 5 else SIZE // 4)

    with HubServer() as hub:
        hub.patch(monkeypatch, tmp_path / "hf")
        monkeypatch.setenv("NO_PROXY", "*")
        hub.add("acme/tiny", {"tiny.gguf": bytes(SIZE)})
        monkeypatch.setattr(shutil, "disk_usage", usage)
        remote = Remote(hub=HubReference("acme/tiny"), by_request=True)
        with pytest.raises(HubError, match=r"leave .* alone") as caught:
            bring.bring(remote, state_dir=tmp_path / "state", keep_free_bytes=SIZE // 4)
    assert caught.value.kind == "disk" and str(tmp_path) not in str(caught.value)
    [part] = (tmp_path / "hf").glob("**/*.incomplete")
    assert 0 < part.stat().st_size < SIZE


def test_a_request_gets_nothing_from_the_owners_cache_while_the_hub_cannot_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = HubReference("acme/tiny")
    with HubServer() as hub:
        hub.patch(monkeypatch, tmp_path / "hf")
        monkeypatch.setenv("NO_PROXY", "*")
        hub.add("acme/tiny", {"tiny.gguf": b"x" * 100})
        bring.bring(Remote(hub=reference), state_dir=tmp_path / "owner")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(HubError, match="cannot be asked") as caught:
            bring.bring(Remote(hub=reference, by_request=True), state_dir=tmp_path / "state")
        assert caught.value.kind == "offline"
        assert bring.bring(Remote(hub=reference), state_dir=tmp_path / "other").weights
