"""`modelyard bench` as its users have it: the command, a real server, and servers that fail."""

import asyncio
import json
import os
import signal
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.harness.result import Result, load
from tests.serving import COMMAND, Served, free_port, serve

SLOW = {"backend": "echo", "delay_s": 0.01, "scheduler": {"max_lanes": 8}}


def write_models(root: Path, **models: dict[str, Any]) -> Path:
    for name, config in models.items():
        (root / name / "1").mkdir(parents=True)
        (root / name / "config.yaml").write_text(yaml.safe_dump(config))
    return root


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("bench")
    models = write_models(root / "models", echo={"backend": "echo", "embeddings": True}, slow=SLOW)
    with serve(models, root / "state") as running:
        yield running


def bench(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(
        [*COMMAND, "bench", *words], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def result_of(done: subprocess.CompletedProcess[str], cwd: Path, *, code: int = 0) -> Result:
    assert done.returncode == code, done.stdout + done.stderr
    [path] = cwd.glob("bench-*.json")
    return load(path)


@pytest.mark.parametrize("mix", ["chat", "shared-prefix", "multi-turn", "structured", "embeddings"])
def test_every_mix_is_answered_and_counted_from_usage(served: Served, tmp_path: Path, mix: str) -> None:
    words = ["--model", "echo", "--mix", mix, "--requests", "8", "--clients", "4", "--seed", "7"]
    [run] = result_of(bench("run", f"{served.url}/v1", *words, cwd=tmp_path), tmp_path).runs
    assert run.measures is not None
    assert (run.measures.requests, run.measures.failed) == (8, 0)
    assert run.measures.prompt_tokens == sum(one.prompt_tokens for one in run.records) > 0
    if mix == "embeddings":
        assert run.measures.ttft is None and run.measures.output_tokens_per_s is None
    else:
        assert run.measures.ttft is not None and run.measures.output_tokens_per_s is not None
    if mix in ("shared-prefix", "multi-turn"):
        assert run.measures.cached_tokens > 0


def test_the_same_seed_gives_the_server_the_same_tokens(served: Served, tmp_path: Path) -> None:
    counts = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        words = ["--model", "echo", "--requests", "6", "--seed", "11"]
        [run] = result_of(bench("run", f"{served.url}/v1", *words, cwd=tmp_path / name), tmp_path / name).runs
        counts.append(sorted((one.prompt_tokens, one.completion_tokens) for one in run.records))
    assert counts[0] == counts[1]


def test_an_open_loop_sends_at_its_own_times(served: Served, tmp_path: Path) -> None:
    words = ["--model", "slow", "--rate", "40", "--requests", "20", "--seed", "5", "--slo-ttft", "30"]
    done = bench("run", f"{served.url}/v1", *words, cwd=tmp_path)
    [run] = result_of(done, tmp_path).runs
    due = sorted(one.due_s for one in run.records if one.due_s is not None)
    assert len(due) == 20 and due == sorted(set(due))
    # The event loop counts in milliseconds, so a timer may be early by one.
    assert all(one.start_s > one.due_s - 0.002 for one in run.records if one.due_s is not None)
    assert run.measures is not None and run.measures.goodput_per_s is not None
    assert "40 requests/s" in done.stdout and "goodput" in done.stdout


def test_a_model_is_picked_only_where_there_is_one(served: Served, tmp_path: Path) -> None:
    done = bench("run", f"{served.url}/v1", cwd=tmp_path)
    assert done.returncode == 1
    assert "has 2 models; name one with --model: echo, slow" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "nonsense"), "'nonsense' is not a URL"),
        (("run", "http://127.0.0.1:9/v1", "--mix", "chta"), "there is no mix 'chta'"),
        (("compare", ".", "--models", "a", "--clients", "0"), "write whole numbers"),
        (("compare", "nowhere", "--models", "a"), "there is no folder"),
        (("sweep", "nowhere"), "there is no model folder nowhere"),
        (("sweep", ".", "--try", "threads"), "write a key and its values"),
        (("diff", "a.json", "b.json"), "a.json cannot be read"),
        (("report", "a.json"), "a.json cannot be read"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    (tmp_path / "weights.gguf").write_bytes(b"GGUF")
    done = bench(*words, cwd=tmp_path)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    done = bench("run", url, cwd=tmp_path)
    assert done.returncode == 1
    assert f"there is no server at {url}" in done.stderr


def test_ctrl_c_keeps_what_was_measured(served: Served, tmp_path: Path) -> None:
    before = num_requests(served)
    words = [*COMMAND, "bench", "run", f"{served.url}/v1", "--model", "slow", "--requests", "4000"]
    words += ["--output-tokens", "4", "--clients", "2", "--warm-up", "0"]
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        wait_for(lambda: num_requests(served) >= before + 4, process)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "broken off" in output
    [path] = tmp_path.glob("bench-*.json")
    [run] = load(path).runs
    assert run.is_partial and run.measures is not None
    assert 0 < run.measures.requests < 4000
    assert run.measures.failed == 0


def test_models_are_compared_on_the_same_work_and_one_that_fails_does_not_stop_the_rest(
    tmp_path: Path,
) -> None:
    models = write_models(
        tmp_path / "models", first=SLOW, second={"backend": "echo"}, broken={"backend": "echo"}
    )
    (models / "broken" / "config.yaml").write_text("backend: echo\nfail: {load: the weights are wet}\n")
    words = ["--models", "first,broken,second", "--clients", "1,4", "--requests", "8", "--output-tokens", "8"]
    done = bench("compare", str(models), *words, "--state-dir", str(tmp_path / "state"), cwd=tmp_path)
    runs = result_of(done, tmp_path, code=1).runs
    assert [(run.label, run.plan.arrival.clients) for run in runs] == [
        (label, clients) for label in ("first", "broken", "second") for clients in (1, 4)
    ]
    assert len({run.plan.seed for run in runs}) == 1
    for run in runs:
        if run.label == "broken":
            assert "the weights are wet" in run.failure and run.measures is None
        else:
            assert run.measures is not None and run.measures.failed == 0
            assert run.load_s and run.peak_memory_bytes and run.facts["engine"]
            assert run.facts["config"] == (models / run.model / "config.yaml").read_text()
    work = {(run.plan.arrival.clients, run.measures.prompt_tokens) for run in runs if run.measures}
    assert len(work) == 2
    assert "greedy answers of second: 5 of 5 as first" in done.stdout
    page = bench("report", str(next(tmp_path.glob("bench-*.json"))), "-o", "page.html", cwd=tmp_path)
    assert page.returncode == 0, page.stderr
    assert "the weights are wet" in (tmp_path / "page.html").read_text()


def test_a_result_beside_itself_is_no_regression(served: Served, tmp_path: Path) -> None:
    words = ["--model", "echo", "--requests", "12", "-o", "a.json"]
    assert bench("run", f"{served.url}/v1", *words, cwd=tmp_path).returncode == 0
    done = bench("diff", "a.json", "a.json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "within the noise" in done.stdout and "REGRESSION" not in done.stdout
    kept = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "old.json").write_text(json.dumps({**kept, "schema": 0}))
    old = bench("diff", "old.json", "a.json", cwd=tmp_path)
    assert old.returncode == 1 and "has schema 0" in old.stderr


def test_a_sweep_prints_the_quickest_as_a_fragment_of_a_configuration(tmp_path: Path) -> None:
    models = write_models(tmp_path / "models", tuned={**SLOW, "scheduler": {"max_lanes": 1}})
    (models / "tuned" / "1" / "note.txt").write_text("weights of a kind")
    words = [
        "--try",
        "scheduler.max_lanes=1,8",
        "--try",
        "delay_s=0.01,soon",
        "--requests",
        "16",
        "--clients",
        "8",
    ]
    words += ["--output-tokens", "8", "--state-dir", str(tmp_path / "state"), "--fragment", "part.yaml"]
    done = bench("sweep", str(models / "tuned"), *words, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    text, _, fragment = done.stdout.partition("# for tuned/config.yaml\n")
    assert yaml.safe_load(fragment) == {"scheduler": {"max_lanes": 8}, "delay_s": 0.01}
    assert "delay_s: soon: failed" in text
    assert yaml.safe_load((tmp_path / "part.yaml").read_text()) == yaml.safe_load(fragment)


def test_requests_that_a_server_fails_or_cuts_are_counted_and_never_averaged_in(tmp_path: Path) -> None:
    with failing_server() as port:
        words = ["--requests", "12", "--clients", "3", "--warm-up", "0", "--no-ignore-eos"]
        done = bench("run", f"http://127.0.0.1:{port}/v1", *words, cwd=tmp_path)
    [run] = result_of(done, tmp_path, code=1).runs
    assert run.measures is not None
    assert (run.measures.requests, run.measures.failed) == (12, 8)
    assert sum(run.measures.errors.values()) == 8
    assert run.measures.completion_tokens == 4 * 2
    told = " ".join(run.measures.errors)
    assert "status 500" in told and "connection closed inside a response" in told


def wait_for(claim: Any, process: subprocess.Popen[str]) -> None:
    for _ in range(600):
        if claim():
            return
        assert process.poll() is None
        threading.Event().wait(0.05)
    raise AssertionError("it did not come about")


def num_requests(served: Served) -> float:
    """How many requests the model `slow` has ended."""
    with urllib.request.urlopen(f"{served.url}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in lines
        if line.startswith("modelyard_requests_total{") and 'model="slow"' in line
    )


@contextmanager
def failing_server() -> Iterator[int]:
    """One model. Of three requests one is answered, one refused and one cut in the middle."""
    chunk = b'data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n'
    usage = (
        b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}\n\ndata: [DONE]\n\n'
    )
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n"
    count = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        asked = await reader.readuntil(b"\r\n\r\n")
        if asked.startswith(b"GET"):
            found = asked.split()[1].endswith(b"/models")
            body = b'{"data": [{"id": "only"}]}'
            writer.write(b"HTTP/1.1 200 OK\r\n" if found else b"HTTP/1.1 404 Not Found\r\n")
            writer.write(b"content-length: %d\r\nconnection: close\r\n\r\n%s" % (len(body), body))
        else:
            whole = chunk * 2 + usage
            kind, count = count % 3, count + 1
            if kind == 0:
                writer.write(head % len(whole) + whole)
            elif kind == 1:
                writer.write(b"HTTP/1.1 500 No\r\ncontent-length: 4\r\n\r\noops")
            else:
                writer.write(head % len(whole) + chunk)
        await writer.drain()
        writer.close()

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(answer, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
