"""Models that a request names as a hub has them, with real engines and a hub on loopback."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.errors import LoadFailed, ModelNotFound, ModelNotLoaded, WeightsUnavailable
from runner.runner import Runner
from tests.hub_server import ROOT, HubServer
from tests.runner.asking import ask, until
from tests.runner.conftest import MakeRunner, Yard
from tests.runner.test_lifecycle import row

DEMO = ROOT / "models/demo/1/model.gguf"
NAME = "acme/demo-GGUF"
QUANTS = {"Q2_K": 1, "Q4_K_M": 2, "Q8_0": 3}
PULLING = {"allow_pull": True, "keep_free_bytes": 1}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add_demo(NAME)
        for name, value in hub.environment(tmp_path / "hf").items():
            monkeypatch.setenv(name, value)
        yield hub


def names(runner: Runner) -> list[str]:
    return [status.name for status in runner.index()]


async def test_a_name_on_the_hub_is_served_and_forgotten_when_it_is_unloaded(
    yard: Yard, make_runner: MakeRunner, hub: HubServer
) -> None:
    yard.model()
    async with make_runner(**PULLING) as runner:
        assert runner.resolve_name(NAME) == NAME
        answer = await ask(runner, model=NAME, max_tokens=4)
        assert answer.text and answer.accepted is not None and answer.accepted.model == NAME
        assert names(runner) == [NAME, "echo"]
        await runner.unload(NAME)
        await until(lambda: names(runner) == ["echo"])
        asked = len(hub.requests)
        await ask(runner, model=NAME, max_tokens=4)
        assert len(hub.requests) == asked
    assert not list(yard.root.glob("acme*"))


async def test_without_the_flag_the_error_says_that_there_is_one(
    yard: Yard, make_runner: MakeRunner, hub: HubServer
) -> None:
    yard.model()
    async with make_runner(single_model_fallback="missing") as runner:
        with pytest.raises(ModelNotFound, match="started with --allow-pull"):
            runner.resolve_name(NAME)
        with pytest.raises(ModelNotFound, match="started with --allow-pull"):
            await ask(runner, model=NAME)
        with pytest.raises(ModelNotFound) as caught:
            runner.resolve_name("orca")
        assert "--allow-pull" not in caught.value.message
    assert not hub.requests


async def test_the_one_model_does_not_answer_to_names_on_the_hub(
    yard: Yard, make_runner: MakeRunner, hub: HubServer
) -> None:
    yard.model()
    async with make_runner(**PULLING) as runner:
        assert runner.resolve_name("wrong") == "echo"
        assert runner.resolve_name("acme/none") == "acme/none"
        with pytest.raises(ModelNotFound, match="there is no acme/none"):
            await ask(runner, model="acme/none")
        await ask(runner, model=NAME, max_tokens=1)
        assert runner.resolve_name("wrong") == "echo", "a guest is no second model"


async def test_a_guest_that_failed_is_shown_for_a_moment(
    yard: Yard, make_runner: MakeRunner, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    yard.model()
    async with make_runner(**PULLING) as runner:
        with pytest.raises(ModelNotFound):
            await ask(runner, model="acme/none")
        assert "there is no acme/none" in row(runner, "acme/none").versions[0].reason
        monkeypatch.setattr("runner.model.RETRY_AFTER_S", 0.0)
        assert names(runner) == ["echo"]


async def test_of_several_quantisations_the_usual_one_is_taken(
    yard: Yard, make_runner: MakeRunner, hub: HubServer, tmp_path: Path
) -> None:
    small = DEMO.read_bytes()
    hub.add("acme/many", {f"demo-{quant}.gguf": small + b"\0" * size for quant, size in QUANTS.items()})
    yard.model()
    async with make_runner(**PULLING) as runner:
        await ask(runner, model="acme/many", max_tokens=1)
        await ask(runner, model="acme/many/demo-Q8_0.gguf", max_tokens=1)
    records = [json.loads(path.read_text()) for path in (tmp_path / "state/fetched").glob("*.json")]
    taken = {record["what"]: Path(record["weights"]).name for record in records}
    assert taken == {"acme/many": "demo-Q4_K_M.gguf", "acme/many/demo-Q8_0.gguf": "demo-Q8_0.gguf"}


async def test_requests_leave_room_on_the_disk(yard: Yard, make_runner: MakeRunner, hub: HubServer) -> None:
    yard.model()
    yard.model("mine", backend="llamacpp", parameters={"model": f"{NAME}/model.gguf", "max_tokens": 1})
    async with make_runner(allow_pull=True, keep_free_bytes=2**60) as runner:
        with pytest.raises(WeightsUnavailable, match=r"leave .* alone"):
            await ask(runner, model=NAME)
        assert not hub.gets()
        await ask(runner, model="mine")  # its owner has asked


@pytest.mark.parametrize(
    "file", ["pytorch_model.bin", "model.pth", "model.PTH", "o.bin", "openvino_model.xml"]
)
async def test_requests_fetch_no_pickles(
    yard: Yard, make_runner: MakeRunner, hub: HubServer, file: str
) -> None:
    hub.add("acme/pickled", {file: b"cos\nsystem\n", "config.json": "{}", "modeling.py": "import os"})
    yard.model()
    async with make_runner(**PULLING) as runner:
        with pytest.raises((LoadFailed, ModelNotFound), match="no weights"):
            await ask(runner, model="acme/pickled")
    assert not hub.gets("resolve")


async def test_a_named_pickle_is_not_fetched_either(
    yard: Yard, make_runner: MakeRunner, hub: HubServer
) -> None:
    hub.add("acme/pickled", {"model.pth": b"cos\nsystem\n", "README.md": "# A pickle"})
    yard.model()
    async with make_runner(**PULLING) as runner:
        with pytest.raises(ModelNotFound, match=r"files such as model\.pth are not taken here"):
            await ask(runner, model="acme/pickled/model.pth")
    assert not hub.gets("resolve")


async def test_where_requests_load_nothing_a_load_request_fetches(
    yard: Yard, make_runner: MakeRunner, hub: HubServer
) -> None:
    yard.model()
    async with make_runner(control_mode="explicit", **PULLING) as runner:
        with pytest.raises(ModelNotFound, match="a request to load it fetches it"):
            await ask(runner, model=NAME)
        await runner.load(NAME)
        assert (await ask(runner, model=NAME, max_tokens=2)).text
        await runner.unload(NAME)
        with pytest.raises((ModelNotFound, ModelNotLoaded)):
            await ask(runner, model=NAME)


async def test_a_load_request_s_configuration_names_the_hub_only_with_the_flag(
    yard: Yard, make_runner: MakeRunner, hub: HubServer
) -> None:
    yard.model()
    config = json.dumps({"backend": "llamacpp", "parameters": {"model": NAME, "max_tokens": 1}})
    async with make_runner(control_mode="explicit") as runner:
        with pytest.raises(LoadFailed, match="--allow-pull"):
            await runner.load("echo", config=config)
        assert not hub.requests
    async with make_runner(control_mode="explicit", **PULLING) as runner:
        await runner.load("echo", config=config)
        assert (await ask(runner)).text


REFUSED = [
    ({"parameters": {"model": "http://user:secret@inside.example/w.gguf?key=1"}}, "must be a repository"),
    (
        {"download_files": [{"filename": "w.gguf", "uri": "hf://acme/demo-GGUF/model.gguf"}]},
        "must be a repository",
    ),
    (
        {"artifacts": [{"source": {"type": "hf", "repo": NAME, "token_env": "PATH"}}]},
        "only a config.yaml may choose a token",
    ),
]


@pytest.mark.parametrize(("config", "message"), REFUSED)
async def test_a_load_request_names_no_addresses_and_no_tokens(
    yard: Yard, make_runner: MakeRunner, hub: HubServer, config: dict[str, object], message: str
) -> None:
    yard.model()
    async with make_runner(**PULLING) as runner:
        with pytest.raises(LoadFailed, match=message) as caught:
            await runner.load("echo", config=json.dumps({"backend": "llamacpp", **config}))
        assert "secret" not in caught.value.message and "key=1" not in caught.value.message
    assert not hub.requests


async def test_what_a_load_request_names_comes_as_a_request_s_wish(
    yard: Yard, make_runner: MakeRunner, hub: HubServer
) -> None:
    hub.add("acme/pickled", {"model.pth": b"cos\nsystem\n", "README.md": "# A pickle"})
    yard.model()
    async with make_runner(**PULLING) as runner:
        config = {"backend": "rwkv", "parameters": {"model": "acme/pickled"}}
        with pytest.raises((LoadFailed, ModelNotFound), match="no weights"):
            await runner.load("echo", config=json.dumps(config))
    async with make_runner(allow_pull=True, keep_free_bytes=2**60) as runner:
        config = {"backend": "llamacpp", "parameters": {"model": NAME}}
        with pytest.raises(WeightsUnavailable, match=r"leave .* alone"):
            await runner.load("echo", config=json.dumps(config))
    assert not hub.gets("resolve")


async def test_requests_go_to_the_hub_without_the_owner_s_token(
    yard: Yard, make_runner: MakeRunner, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add_demo("acme/private", private=True)
    hub.add_demo("acme/gated", gated=True)
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf/token").write_text("hf_good")
    yard.model()
    for token in ("hf_good", ""):  # an empty one leaves that of the file
        monkeypatch.setenv("HF_TOKEN", token)
        async with make_runner(**PULLING) as runner:
            with pytest.raises(ModelNotFound, match="there is no acme/private"):
                await ask(runner, model="acme/private")
            with pytest.raises(LoadFailed, match="the hub is asked without a token here"):
                await ask(runner, model="acme/gated")
    assert hub.requests and not any("Authorization" in seen.headers for seen in hub.requests)
