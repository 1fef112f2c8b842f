"""Measuring a peer, with real servers: Modelyard's echo stands for the peer."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec
import psutil
import pytest
import yaml
from rich.console import Console

from benchmarks import servers
from benchmarks.child import ChildError
from benchmarks.harness.result import Result
from benchmarks.peers import environments
from benchmarks.peers.__main__ import ROOT, kept, measure, write_pages
from benchmarks.peers.catalog import MODEL, PEERS, Peer, Place, Weights
from benchmarks.peers.environments import HERE, install
from benchmarks.peers.figures import rows
from benchmarks.peers.measuring import OURS, PeersBench, Size, make_work
from benchmarks.peers.publish import BEGIN, END, Measured
from benchmarks.servers import Server, ServerError

SIZE = Size(repeats=3, rounds=1, prompt_words=4, output_tokens=3)
NAME = "llamacpp"  # there is a set of that name


@contextmanager
def echo(place: Place) -> Iterator[Server]:
    root = place.logs / "peer"
    (root / MODEL / "1").mkdir(parents=True)
    (root / MODEL / "config.yaml").write_text(yaml.safe_dump({"backend": "echo"}))
    with servers.modelyard(root, [MODEL], logs=root) as server:
        yield server


@contextmanager
def broken(place: Place) -> Iterator[Server]:
    command = [sys.executable, "-c", "print('no such model'); raise SystemExit(3)"]
    server = Server(command, port=servers.free_port(), log=place.logs / "peer.log")
    try:
        server.wait_for("/health")
        yield server
    finally:
        server.stop()


def make_empty(state: Path) -> Path:
    folder = state / "weights"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def peer(start: Callable[[Place], AbstractContextManager[Server]] = echo, **fields: object) -> Peer:
    made = Peer(
        name=NAME,
        label="the other",
        about="echo",
        distribution="modelyard",
        weights=Weights("echo", 2048, make_empty),
        config={"backend": "echo"},
        start=start,
        clients=(1, 2),
    )
    return msgspec.structs.replace(made, **fields)


@pytest.fixture
def bench(tmp_path: Path) -> PeersBench:
    """With this interpreter as the peer's environment."""
    folder = tmp_path / "peers" / NAME
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    (folder / "requirements.txt").write_text(environments.set_text(HERE / f"{NAME}.txt"))
    return PeersBench(
        state=tmp_path, logs=tmp_path / "logs", threads=1, size=SIZE, console=Console(quiet=True)
    )


def test_both_get_the_same_work_in_turns(bench: PeersBench) -> None:
    result = measure(peer(), bench)
    assert [run.failure for run in result.runs if run.failure] == []
    labels = [run.label for run in result.runs]
    assert labels == [OURS, "the other", "the other", OURS, OURS, "the other"] * 2
    made = rows("the other", result)
    assert [row.clients for row in made] == [1, 2]
    assert all(
        row.tokens_per_s and row.tokens_per_s.is_sure and row.ttft_s and not row.failed for row in made
    )
    sent = {(run.plan.arrival.clients, run.settings["repeat"]): run.measures for run in result.runs}
    assert all(one and one.completion_tokens == 2 * 3 for one in sent.values())
    assert len({run.plan.seed for run in result.runs}) == 6
    assert [run.outputs for run in result.runs[:2]] == [result.runs[0].outputs] * 2
    assert len(result.runs[0].outputs) == 5 and all(result.runs[0].outputs)
    assert not psutil.Process().children(recursive=True)


def test_a_peer_that_does_not_start_is_told_with_its_last_words(bench: PeersBench) -> None:
    (run,) = measure(peer(broken), bench).runs
    assert run.failure.startswith("the server ended with code 3: no such model (see ")
    assert run.label == "the other"
    assert not psutil.Process().children(recursive=True)


def test_a_peer_that_cannot_be_installed_is_told(bench: PeersBench) -> None:
    (run,) = measure(peer(name="nobody"), bench).runs
    assert "nobody.txt" in run.failure


def test_modelyard_that_cannot_load_is_told_with_its_reason(bench: PeersBench) -> None:
    (run,) = measure(peer(config={"backend": "llamacpp"}), bench).runs
    assert MODEL in run.failure and "weights" in run.failure


def test_a_peer_that_counts_other_tokens_is_not_compared(bench: PeersBench, tiny_model: Path) -> None:
    @contextmanager
    def by_words(place: Place) -> Iterator[Server]:
        version = place.logs / "peer" / MODEL / "1"
        version.mkdir(parents=True)
        (version / "model.gguf").symlink_to(tiny_model)
        with servers.modelyard(version.parents[1], [MODEL], logs=place.logs / "peer") as server:
            yield server

    (run,) = measure(peer(by_words), bench).runs  # where the echo counts bytes
    assert run.failure.startswith("not the same work: ")


def test_a_request_of_both_has_the_peer_s_fields() -> None:
    work = make_work(peer(body={"repeat_penalty": 1.0}, without=("ignore_eos",)), SIZE, clients=2, repeat=0)
    (call,) = work.sessions[0].calls
    assert call.body["repeat_penalty"] == 1.0
    assert "ignore_eos" not in call.body
    assert not work.plan.ignore_eos
    assert call.tokens == call.body["max_tokens"]


def test_only_the_first_repeat_is_warmed_up_and_each_has_prompts_of_its_own() -> None:
    works = [make_work(peer(), SIZE, clients=clients, repeat=n) for clients in (1, 2) for n in range(3)]
    assert [len(work.warm_up) for work in works] == [1, 0, 0, 2, 0, 0]
    prompts = [one.calls[0].body["prompt"] for work in works for one in (*work.warm_up, *work.sessions)]
    assert len(set(prompts)) == len(prompts)


def test_every_peer_has_a_set_or_needs_none() -> None:
    for one in PEERS:
        if isinstance(one, Peer):
            assert "==" in environments.set_text(HERE / f"{one.name}.txt")


def test_an_environment_is_made_again_when_its_set_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "HERE", tmp_path)
    (tmp_path / "tiny.txt").write_text("# nothing\n")
    python = install("tiny", root=tmp_path / "made", find_links=[str(tmp_path)])
    mark = python.parent / "mark"
    mark.touch()
    assert install("tiny", root=tmp_path / "made", find_links=[str(tmp_path)]) == python
    assert mark.exists()
    (tmp_path / "tiny.txt").write_text("./nowhere\n")
    with pytest.raises(ChildError, match="nowhere"):
        install("tiny", root=tmp_path / "made", find_links=[str(tmp_path)])
    assert not mark.exists()
    (tmp_path / "tiny.txt").write_text("# nothing again\n")
    assert install("tiny", root=tmp_path / "made", find_links=[str(tmp_path)]).exists()


def test_results_that_cannot_be_read_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / f"{NAME}.json").write_text('{"schema": 0}')
    assert kept(tmp_path) == []
    assert "has schema 0" in capsys.readouterr().err


def test_the_pages_of_this_project_have_a_place_for_the_table(tmp_path: Path, bench: PeersBench) -> None:
    (tmp_path / "docs").mkdir()
    for page in ("README.md", "docs/benchmarks.md"):
        (tmp_path / page).write_text((ROOT / page).read_text())
    result: Result = measure(peer(name="nobody"), bench)
    write_pages(tmp_path, [Measured(PEERS[0], result)])
    for page in ("README.md", "docs/benchmarks.md"):
        between = (tmp_path / page).read_text().split(BEGIN)[1].split(END)[0]
        assert "not measured: " in between
        assert "peers.svg" not in between  # there is nothing to draw
    measured = measure(peer(), bench)
    write_pages(tmp_path, [Measured(PEERS[0], measured)])
    assert "](docs/peers.svg)" in (tmp_path / "README.md").read_text()
    assert "](peers.svg)" in (tmp_path / "docs" / "benchmarks.md").read_text()
    assert (tmp_path / "docs" / "peers.svg").read_text().startswith("<svg ")


def test_a_refused_load_is_a_server_error(tmp_path: Path) -> None:
    (tmp_path / "models" / "m" / "1").mkdir(parents=True)
    with (
        pytest.raises(ServerError, match="m"),
        servers.modelyard(tmp_path / "models", ["m"], logs=tmp_path / "logs"),
    ):
        pass
