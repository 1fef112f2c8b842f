"""`modelyard serve` as a process of its own, with an echo model and so with a real worker."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from adapters.listener import listen
from adapters.logs import JsonFormatter

COMMAND = [sys.executable, "-c", "from adapters.cli import main; main()"]


@pytest.fixture
def yard(tmp_path: Path) -> Path:
    (tmp_path / "models" / "parrot" / "1").mkdir(parents=True)
    (tmp_path / "models" / "parrot" / "config.yaml").write_text("backend: echo\ndelay_s: 0.02\n")
    return tmp_path


@contextmanager
def served(yard: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running server and its URL; it is killed at the end if it is still there."""
    words = [
        *COMMAND,
        "serve",
        str(yard / "models"),
        "--port",
        "0",
        "--state-dir",
        str(yard / "state"),
        *flags,
    ]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            assert " at http://" in first, first
            yield process, first.split(" at ")[1].split()[0]
        finally:
            if process.poll() is None:
                process.kill()


def ask(url: str, **fields: object):
    body = {"messages": [{"role": "user", "content": "abc " * 20}], **fields}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", msgspec.json.encode(body), {"Content-Type": "application/json"}
    )
    return urllib.request.urlopen(request, timeout=60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_a_stream_finish_and_exits_0(yard: Path, number: signal.Signals):
    with served(yard) as (process, url):
        with ask(url, stream=True, max_tokens=30) as answer:
            answer.readline()
            process.send_signal(number)
            rest = answer.read()
        assert b'"finish_reason":"length"' in rest
        assert rest.endswith(b"data: [DONE]\n\n")
        assert process.wait(timeout=30) == 0


def test_a_stream_longer_than_the_drain_time_ends_with_an_error_event(yard: Path):
    with served(yard, "--drain-timeout", "0.2") as (process, url):
        with ask(url, stream=True, max_tokens=3000, ignore_eos=True) as answer:
            answer.readline()
            process.terminate()
            rest = answer.read()
        assert b'data: {"error":' in rest
        assert process.wait(timeout=30) == 0


def test_a_second_signal_quits_at_once(yard: Path):
    with served(yard) as (process, url), ask(url, stream=True, max_tokens=3000, ignore_eos=True) as answer:
        answer.readline()
        process.terminate()
        assert process.stderr is not None
        while "stopping" not in process.stderr.readline():
            pass
        process.terminate()
        assert process.wait(timeout=30) == 128 + signal.SIGTERM


def test_a_port_in_use_is_one_line_and_exit_1(yard: Path):
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        words = [*COMMAND, "serve", str(yard / "models"), "--port", str(port)]
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 1
    assert done.stderr == f"modelyard: cannot listen on 127.0.0.1:{port}: Address already in use\n"


def test_the_first_lines_say_where_what_and_how(yard: Path):
    with served(yard) as (process, url):
        assert process.stdout is not None
        table, curl = process.stdout.readline(), process.stdout.readline()
        with urllib.request.urlopen(f"{url}/v1/models", timeout=60) as answer:
            assert json.load(answer)["data"][0]["id"] == "parrot"
        process.terminate()
        assert process.wait(timeout=30) == 0
    assert table == "parrot\t1\techo\n"
    assert curl.startswith(f"Try: curl {url}/v1/chat/completions")
    assert '"model":"parrot"' in curl


def test_a_socket_that_listens_accepts_before_anything_is_loaded():
    with listen("127.0.0.1", 0) as sock, socket.create_connection(sock.getsockname()):
        pass


def test_log_lines_can_be_json(caplog: pytest.LogCaptureFixture):
    import logging

    logger = logging.getLogger("test")
    with caplog.at_level("INFO"):
        logger.info("loaded %s", "orca", extra={"fields": {"model": "orca"}})
        try:
            raise ValueError("bad")
        except ValueError:
            logger.exception("failed")
    first, second = (msgspec.json.decode(JsonFormatter().format(record)) for record in caplog.records)
    assert (first["level"], first["message"], first["model"]) == ("info", "loaded orca", "orca")
    assert "ValueError: bad" in second["exception"]
