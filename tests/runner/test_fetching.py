"""Models whose weights come from a hub when they are loaded, with real processes and a hub that has faults."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psutil
import pytest

from repository.hub.reference import HubReference
from repository.remote.wanted import Remote
from repository.snapshot import VersionEntry
from runner import model, retry
from runner.errors import LoadFailed, ModelNotReady, RunnerError, WeightsUnavailable
from runner.fetching import AT_ONCE, Fetcher, Transfer
from runner.runner import Runner
from tests.hub_server import Fault, HubServer, sha256_of
from tests.repository.gguf_files import write_gguf
from tests.runner.asking import ask, until
from tests.runner.conftest import MakeRunner, Yard
from tests.runner.test_lifecycle import row, states

SIZE = 4 << 20
STALL_BYTES = 1 << 20


@pytest.fixture
def weights(tmp_path: Path) -> bytes:
    """A GGUF header, and so much behind it that a download of it can be watched."""
    header = write_gguf(tmp_path / "tiny.gguf").read_bytes()
    return header + bytes(SIZE - len(header))


@pytest.fixture
def hub(weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add("acme/tiny", {"tiny.gguf": weights})
        for name, value in hub.environment(tmp_path / "hf").items():
            monkeypatch.setenv(name, value)
        yield hub


def fetching() -> list[psutil.Process]:
    """The processes of ours that fetch something."""
    mine = psutil.Process().children()
    return [child for child in mine if "repository.remote" in child.cmdline()]


def reason(runner: Runner, name: str = "echo") -> str:
    versions = row(runner, name).versions
    return versions[0].reason if versions else ""


@contextlib.asynccontextmanager
async def stalled(runner: Runner, hub: HubServer, name: str = "echo") -> AsyncIterator[asyncio.Task]:
    """A request that waits for a download that has stopped after a quarter."""
    hub.faults.append(Fault(kind="stall", after=STALL_BYTES))
    task = asyncio.create_task(ask(runner, model=name))
    try:
        await until(lambda: "25 %" in reason(runner, name))
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, RunnerError):
            await task


async def test_a_model_on_the_hub_comes_at_its_first_request(
    yard: Yard, make_runner: MakeRunner, hub: HubServer
) -> None:
    folder = yard.model(parameters={"model": "acme/tiny"})
    before = sorted(folder.rglob("*"))
    async with make_runner() as runner:
        assert row(runner).ready and not hub.requests
        assert (await ask(runner)).text == "hello there"
        assert states(runner) == {1: "READY"}
    assert sorted(folder.rglob("*")) == before


async def test_a_restart_loads_the_same_weights_and_asks_nobody(
    yard: Yard, make_runner: MakeRunner, hub: HubServer, weights: bytes, tmp_path: Path
) -> None:
    yard.model(parameters={"model": "acme/tiny"})
    async with make_runner() as runner:
        await ask(runner)
    hub.add("acme/tiny", {"tiny.gguf": weights + b"newer"})
    asked = len(hub.requests)
    async with make_runner() as runner:
        await ask(runner)
    assert len(hub.requests) == asked
    [record] = (tmp_path / "state" / "fetched").glob("*.json")
    kept = json.loads(record.read_text())
    assert Path(kept["weights"]).stat().st_size == SIZE


async def test_weights_that_were_removed_come_again_at_the_commit_they_had(
    yard: Yard, make_runner: MakeRunner, hub: HubServer, weights: bytes, tmp_path: Path
) -> None:
    yard.model(parameters={"model": "acme/tiny"})
    async with make_runner() as runner:
        await ask(runner)
    hub.add("acme/tiny", {"tiny.gguf": weights + b"newer"})
    [blob] = (tmp_path / "hf").glob(f"**/blobs/{sha256_of(weights)}")
    blob.unlink()
    async with make_runner() as runner:
        await ask(runner)
    assert blob.stat().st_size == SIZE


async def test_progress_is_shown_while_weights_come(
    yard: Yard, make_runner: MakeRunner, hub: HubServer
) -> None:
    yard.model(parameters={"model": "acme/tiny"})
    async with make_runner() as runner, stalled(runner, hub):
        [version] = row(runner).versions
        assert (version.state, version.reason) == ("LOADING", "downloading 25 % (1.0 of 4.2 MB)")
        assert version.progress == pytest.approx(0.25)


async def test_the_only_request_that_leaves_ends_the_download_and_the_next_goes_on(
    yard: Yard, make_runner: MakeRunner, hub: HubServer
) -> None:
    yard.model(parameters={"model": "acme/tiny"})
    async with make_runner() as runner:
        async with stalled(runner, hub):
            assert len(fetching()) == 1
        await until(lambda: states(runner) == {1: "UNAVAILABLE"} and not fetching())
        assert (await ask(runner)).text == "hello there"
    assert hub.gets()[-1].headers["Range"].startswith(f"bytes={STALL_BYTES}-")


async def test_a_download_goes_on_while_somebody_waits(
    yard: Yard, make_runner: MakeRunner, hub: HubServer
) -> None:
    yard.model(parameters={"model": "acme/tiny"})
    async with make_runner() as runner:
        async with stalled(runner, hub):
            other = asyncio.create_task(ask(runner, "second"))
            await asyncio.sleep(0)
        assert states(runner) == {1: "LOADING"}
        hub.closing.set()  # which ends the stall
        assert (await other).text == "second"


async def test_requests_that_come_together_fetch_once(
    yard: Yard, make_runner: MakeRunner, hub: HubServer
) -> None:
    yard.model(parameters={"model": "acme/tiny"})
    yard.model("other", parameters={"model": "acme/tiny"})
    async with make_runner() as runner:
        await asyncio.gather(*(ask(runner, model=name) for name in ("echo", "other", "echo")))
    assert len(hub.gets()) == 1


async def test_a_request_whose_time_is_over_is_told_and_the_download_goes_on(
    yard: Yard, make_runner: MakeRunner, hub: HubServer
) -> None:
    yard.model(parameters={"model": "acme/tiny"})
    hub.faults.append(Fault(kind="stall", after=STALL_BYTES))
    async with make_runner() as runner:
        with pytest.raises(ModelNotReady, match="still downloading"):
            await ask(runner, timeout_s=0.2)
        assert states(runner) == {1: "LOADING"}
        await until(hub.stalled.is_set)
        hub.closing.set()
        await until(lambda: states(runner) == {1: "READY"})


async def test_the_end_of_the_server_ends_the_download(
    yard: Yard, make_runner: MakeRunner, hub: HubServer
) -> None:
    yard.model(parameters={"model": "acme/tiny"}, preload=True)
    hub.faults.append(Fault(kind="stall", after=STALL_BYTES))
    async with make_runner():
        await until(hub.stalled.is_set)
        assert fetching()
    assert not fetching()


async def test_an_unload_ends_the_download(yard: Yard, make_runner: MakeRunner, hub: HubServer) -> None:
    yard.model(parameters={"model": "acme/tiny"})
    async with make_runner() as runner, stalled(runner, hub) as waiting:
        await runner.unload("echo")
        with pytest.raises(ModelNotReady, match="given up"):
            await waiting
        assert states(runner) == {1: "UNAVAILABLE"} and not fetching()


async def test_a_corrected_name_replaces_a_download_under_way(
    yard: Yard, make_runner: MakeRunner, hub: HubServer, weights: bytes
) -> None:
    hub.add("acme/right", {"right.gguf": weights + b"right"})
    yard.model(parameters={"model": "acme/tiny"})
    async with make_runner() as runner, stalled(runner, hub) as waiting:
        yard.model(parameters={"model": "acme/right"})
        assert (await waiting).text == "hello there"
    fetched = [seen.path.rpartition("/")[2] for seen in hub.gets()]
    assert fetched == [sha256_of(weights), sha256_of(weights + b"right")]


FAILURES = [
    ("acme/none", "there is no acme/none"),
    ("acme/tiny@v9", 'has no branch, tag or commit "v9"'),
    ("acme/tiny/other.gguf", 'has no file "other.gguf"'),
    ("acme/gated", "is gated; accept its conditions"),
]


@pytest.mark.parametrize(("name", "message"), FAILURES)
async def test_a_failure_is_one_sentence(
    yard: Yard, make_runner: MakeRunner, hub: HubServer, name: str, message: str
) -> None:
    hub.add("acme/gated", {"tiny.gguf": b"secret"}, gated=True)
    yard.model(parameters={"model": name})
    async with make_runner() as runner:
        with pytest.raises(LoadFailed, match=re.escape(message)) as caught:
            await ask(runner)
        assert type(caught.value) is LoadFailed, "nothing to try again"
        assert row(runner).versions[0].state == "UNAVAILABLE" and message in reason(runner)


async def test_what_is_not_there_cannot_be_had_offline(
    yard: Yard, make_runner: MakeRunner, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    yard.model(parameters={"model": "acme/tiny"})
    async with make_runner() as runner:
        with pytest.raises(WeightsUnavailable, match="HF_HUB_OFFLINE is set"):
            await ask(runner)
    assert not hub.requests


async def test_a_download_that_failed_for_now_is_tried_again(
    yard: Yard, make_runner: MakeRunner, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(model, "RETRY_AFTER_S", 0.0)
    monkeypatch.setattr("runner.slots.RETRY_AFTER_S", 0.0)
    hub.faults.append(Fault(kind="flip", after=5))
    yard.model(parameters={"model": "acme/tiny"}, preload=True)
    async with make_runner() as runner:
        await until(lambda: states(runner) == {1: "READY"})
    assert len(hub.gets()) == 2


async def test_a_token_may_have_a_variable_of_its_own(
    yard: Yard, make_runner: MakeRunner, hub: HubServer, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("acme/mine", {"tiny.gguf": weights}, private=True)
    source = {"type": "huggingface", "repo": "acme/mine", "token_env": "MY_TOKEN"}
    yard.model(artifacts=[{"source": source}])
    async with make_runner() as runner:
        with pytest.raises(LoadFailed, match="MY_TOKEN that is to hold its token is not set"):
            await ask(runner)
        monkeypatch.setenv("MY_TOKEN", "hf_good")
        await runner.load("echo")
    assert hub.gets("resolve")[0].headers["Authorization"] == "Bearer hf_good"


async def test_listed_files_are_laid_out_under_their_names(
    yard: Yard, make_runner: MakeRunner, hub: HubServer, weights: bytes, tmp_path: Path
) -> None:
    hub.add("acme/more", {"notes.txt": "some words"})
    files = [
        {
            "filename": "sub/w.gguf",
            "uri": "huggingface://acme/tiny/tiny.gguf",
            "sha256": sha256_of(weights),
        },
        {"filename": "sub/notes.txt", "uri": f"{hub.url}/acme/more/resolve/main/notes.txt"},
    ]
    yard.model(parameters={"model": "sub/w.gguf"}, download_files=files)
    async with make_runner() as runner:
        await ask(runner)
    [tree] = (tmp_path / "state" / "downloads").glob("tree-*")
    assert (tree / "sub/w.gguf").stat().st_size == SIZE
    assert (tree / "sub/notes.txt").read_text() == "some words"


async def test_a_listed_file_with_another_checksum_is_refused(
    yard: Yard, make_runner: MakeRunner, hub: HubServer
) -> None:
    uri = "huggingface://acme/tiny/tiny.gguf"
    files = [{"filename": "w.gguf", "uri": uri, "sha256": "0" * 63 + "f"}]
    yard.model(parameters={"model": "w.gguf"}, download_files=files)
    async with make_runner() as runner:
        with pytest.raises(WeightsUnavailable, match="not the file that was meant"):
            await ask(runner)


async def test_weights_come_from_an_address(yard: Yard, make_runner: MakeRunner, hub: HubServer) -> None:
    yard.model(parameters={"model": f"{hub.url}/acme/tiny/resolve/main/tiny.gguf"})
    async with make_runner() as runner:
        assert (await ask(runner)).text == "hello there"


async def test_a_request_that_comes_as_a_download_is_given_up_begins_it_anew(
    yard: Yard, make_runner: MakeRunner, hub: HubServer
) -> None:
    yard.model(parameters={"model": "acme/tiny"})
    async with make_runner() as runner, stalled(runner, hub) as first:
        first.cancel()
        while (
            states(runner) == {1: "LOADING"}
            and not runner._catalog.models["echo"].slots.get(1).flight.is_given_up
        ):
            await asyncio.sleep(0)
        assert (await ask(runner)).text == "hello there"


class Watched(Fetcher):
    """Notes what it would fetch; each download ends when `go_on` is set."""

    def __init__(self, state_dir: Path) -> None:
        super().__init__(state_dir)
        self.running: list[str] = []
        self.go_on = asyncio.Event()

    async def _fetch(self, remote: Remote, on_move: Callable[[Transfer], None]) -> str | None:
        self.running.append(str(remote))
        await self.go_on.wait()
        return None


async def test_downloads_that_requests_ask_for_leave_a_place_to_the_owner_s(tmp_path: Path) -> None:
    fetcher = Watched(tmp_path)

    def begin(name: str, *, by_request: bool) -> asyncio.Task[VersionEntry]:
        remote = Remote(hub=HubReference(name), by_request=by_request)
        version = VersionEntry(1, tmp_path, None, remote.key, source=remote)
        return asyncio.create_task(fetcher.bring(version, lambda _: None))

    tasks = [begin(f"acme/guest-{number}", by_request=True) for number in range(AT_ONCE)]
    await until(lambda: len(fetcher.running) == AT_ONCE - 1)
    tasks.append(begin("acme/owned", by_request=False))
    await until(lambda: "acme/owned" in fetcher.running)
    assert len(fetcher.running) == AT_ONCE
    fetcher.go_on.set()
    await asyncio.gather(*tasks)


async def test_one_wish_is_fetched_once_at_a_time_also_while_its_turn_is_handed_on(tmp_path: Path) -> None:
    fetcher, remote = Fetcher(tmp_path), Remote(hub=HubReference("acme/tiny"))
    inside, most = 0, 0

    async def take_turns() -> None:
        nonlocal inside, most
        for _ in range(3):
            async with fetcher._alone(remote):
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0)
                inside -= 1

    await asyncio.gather(take_turns(), take_turns())
    assert most == 1
