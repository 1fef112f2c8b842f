"""Starts the servers that are compared, each as a process group of its own, and asks them how they are.

It knows their command lines and control routes; what work they get is said elsewhere.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from benchmarks.client import Endpoint

_ROOT = Path(__file__).parents[1]


class ServerError(Exception):
    """A server did not start or answer; the message says where its log is."""


class Server:
    """A running server process; `log` has what it printed."""

    def __init__(
        self, command: Sequence[str], *, port: int, log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.port = port
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=_ROOT,
                env={**os.environ, **(environment or {})},
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def endpoint(self, model: str) -> Endpoint:
        return Endpoint(port=self.port, model=model)

    def ask(self, path: str, *, post: bool = False, timeout_s: float = 5.0) -> str | None:
        """The body of a 2xx answer, None for any other answer or none."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            method="POST" if post else "GET",
            data=b"" if post else None,
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                body: bytes = answer.read()
                return body.decode()
        except (urllib.error.URLError, OSError):
            return None

    def wait_for(self, path: str, *, timeout_s: float = 60.0) -> None:
        """Return when a GET of `path` succeeds. Raises ServerError when the server ends or takes too long."""
        deadline = time.monotonic() + timeout_s
        while self.ask(path) is None:
            if self._process.poll() is not None:
                raise ServerError(
                    f"the server ended with code {self._process.returncode}: {self._last_words()}"
                )
            if time.monotonic() > deadline:
                raise ServerError(f"no answer from {path} within {timeout_s:g} s: {self._last_words()}")
            time.sleep(0.05)

    def metric(self, name: str) -> float:
        """Sum of a metric's samples over all labels. Raises ServerError when /metrics does not have it."""
        samples = [
            float(line.rsplit(" ", 1)[1])
            for line in (self.ask("/metrics") or "").splitlines()
            if line.startswith((f"{name} ", f"{name}{{"))
        ]
        if not samples:
            raise ServerError(f"/metrics has no {name}")
        return sum(samples)

    def rss_bytes(self) -> tuple[int, int]:
        """Resident memory of the server process itself and of all its descendants."""
        process = psutil.Process(self._process.pid)
        children = process.children(recursive=True)
        return process.memory_info().rss, sum(child.memory_info().rss for child in children)

    def cpu_s(self) -> tuple[float, float]:
        """Processor seconds so far of the server process itself and of its living descendants."""
        process = psutil.Process(self._process.pid)
        own = process.cpu_times()
        others = [child.cpu_times() for child in process.children(recursive=True)]
        return own.user + own.system, sum(times.user + times.system for times in others)

    def _last_words(self) -> str:
        """The last line of the log, and where it is."""
        lines = self.log.read_text("utf-8", "replace").split("\n") if self.log.exists() else []
        said = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        log = self.log.relative_to(_ROOT) if self.log.is_relative_to(_ROOT) else self.log
        return f"{said} (see {log})"

    def stop(self) -> None:
        """Ask with SIGTERM, then end the whole process group."""
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@contextlib.contextmanager
def modelyard(
    repository: Path,
    models: Sequence[str],
    *,
    logs: Path,
    profile: Path | None = None,
    grpc_port: int | None = None,
    state_dir: Path | None = None,
    flags: Sequence[str] = (),
) -> Iterator[Server]:
    """`modelyard serve` with these models loaded. `profile`: where cProfile leaves its statistics of the server
    process when it has ended. `state_dir`: where environments are, for engines that need one. `flags`: more of the
    command's."""
    command = shutil.which("modelyard", path=Path(sys.executable).parent)
    if command is None:
        raise ServerError(f"no modelyard command beside {sys.executable}; install the project first")
    words = [command]
    if profile is not None:
        words = [sys.executable, "-m", "cProfile", "-o", str(profile), command]
    port = free_port()
    ports = ["--port", str(port), "--grpc-port", str(grpc_port or free_port())]
    arguments = ["serve", str(repository), "--host", "127.0.0.1", *ports]
    state = ["--state-dir", str(state_dir or logs / "state")]
    with _running(
        Server([*words, *arguments, *state, *flags], port=port, log=logs / "modelyard.log")
    ) as server:
        server.wait_for("/v2/health/live")
        for model in models:
            load(server, model)
        yield server


def load(server: Server, model: str, *, timeout_s: float = 120.0) -> None:
    """Load a model of a Modelyard server and wait until it is ready. Raises ServerError with the server's reason."""
    url = f"http://127.0.0.1:{server.port}/v2/repository/models/{model}/load"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="POST", data=b""), timeout=timeout_s):
            pass
    except urllib.error.HTTPError as error:
        raise ServerError(_said(error.read()) or f"loading {model}: status {error.code}") from error
    except OSError as error:
        raise ServerError(f"the server is gone: {error}") from error
    server.wait_for(f"/v2/models/{model}/ready")


def unload(server: Server, model: str) -> None:
    if server.ask(f"/v2/repository/models/{model}/unload", post=True, timeout_s=60.0) is None:
        raise ServerError(f"unloading {model} failed; see {server.log}")


@contextlib.contextmanager
def llamacpp(
    weights: Path,
    *,
    lanes: int,
    kv_tokens: int,
    threads: int,
    logs: Path,
    python: Path = Path(sys.executable),
    prompt_cache_mib: int = 0,
) -> Iterator[Server]:
    """llama.cpp's own server on one GGUF file, ready. `python` has the package `xllamacpp`. `prompt_cache_mib`: what it
    may keep outside of its KV pool."""
    port = free_port()
    options = {"port": port, "lanes": lanes, "kv-tokens": kv_tokens, "threads": threads}
    options["prompt-cache-mib"] = prompt_cache_mib
    command = [str(python), "-m", "benchmarks.peer_llamacpp", str(weights), *_options(options)]
    with _running(Server(command, port=port, log=logs / "llamacpp.log")) as server:
        server.wait_for("/health")
        yield server


@contextlib.contextmanager
def vllm(
    python: Path,
    weights: Path,
    model: str,
    *,
    lanes: int,
    kv_blocks: int,
    context_tokens: int,
    threads: int,
    logs: Path,
) -> Iterator[Server]:
    """vLLM's own server on one folder of weights, ready, with the settings of the vllm backend on a CPU."""
    port = free_port()
    options = {
        "model": weights,
        "served-model-name": model,
        "host": "127.0.0.1",
        "port": port,
        "dtype": "float32",
        "max-model-len": context_tokens,
        "max-num-seqs": lanes,
        "max-num-batched-tokens": 512,
        "num-gpu-blocks-override": kv_blocks,
        "kv-cache-memory-bytes": 2**30,
        "generation-config": "vllm",
    }
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server", *_options(options)]
    command += ["--enforce-eager", "--disable-log-stats", "--disable-uvicorn-access-log"]
    variables = {
        **_waiting(threads),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    server = Server(command, port=port, log=logs / "vllm.log", environment=variables)
    with _running(server):
        server.wait_for("/health", timeout_s=300.0)
        yield server


@contextlib.contextmanager
def llama_cpp_python(
    python: Path, weights: Path, model: str, *, context_tokens: int, threads: int, logs: Path
) -> Iterator[Server]:
    """llama-cpp-python's packaged server on one GGUF file, ready. It answers one request at a time; here others wait,
    where by default a new request breaks off the one before."""
    port = free_port()
    options = {
        "model": weights,
        "model_alias": model,
        "host": "127.0.0.1",
        "port": port,
        "n_ctx": context_tokens,
        "n_threads": threads,
        "n_threads_batch": threads,
        "logits_all": "false",
        "verbose": "false",
        "interrupt_requests": "false",
    }
    command = [str(python), "-m", "llama_cpp.server", *_options(options)]
    server = Server(command, port=port, log=logs / "llama_cpp_python.log", environment=_waiting(threads))
    with _running(server):
        server.wait_for("/v1/models", timeout_s=120.0)
        yield server


@contextlib.contextmanager
def transformers_serve(
    python: Path, folder: Path, *, kv_blocks: int, block_tokens: int, threads: int, logs: Path
) -> Iterator[Server]:
    """`transformers serve` with continuous batching on one folder of weights, ready. The model's name is the folder."""
    port = free_port()
    options = {
        "device": "cpu",
        "dtype": "float32",
        "cb-num-blocks": kv_blocks,  # on a processor it would take what memory there is
        "cb-block-size": block_tokens,
        "cb-max-batch-tokens": 512,
        "host": "127.0.0.1",
        "port": port,
    }
    command = [str(python.with_name("transformers")), "serve", str(folder), "--continuous-batching"]
    variables = {**_waiting(threads), "HF_HUB_OFFLINE": "1"}
    log = logs / "transformers_serve.log"
    server = Server([*command, *_options(options)], port=port, log=log, environment=variables)
    with _running(server):
        server.wait_for("/health", timeout_s=180.0)
        yield server


@contextlib.contextmanager
def bare_front(*, logs: Path) -> Iterator[Server]:
    """Hypercorn with an application that streams constant chunks."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.bare_front", str(port)]
    with _running(Server(command, port=port, log=logs / "bare_front.log")) as server:
        server.wait_for("/")
        yield server


@contextlib.contextmanager
def tritonserver(repository: Path, model: str, *, grpc_port: int, logs: Path) -> Iterator[Server]:
    """A real tritonserver on a repository of its own kind; needs a checkout and `make test-triton`."""
    port = free_port()
    command = [sys.executable, "-m", "tests.triton.tritonserver", str(repository)]
    command += [f"--http-port={port}", f"--grpc-port={grpc_port}", f"--metrics-port={free_port()}"]
    with tempfile.TemporaryDirectory(prefix="tritonserver-") as folder:
        command.append(f"--tree={Path(folder) / 'tree'}")
        with _running(Server(command, port=port, log=logs / "tritonserver.log")) as server:
            server.wait_for(f"/v2/models/{model}/ready")
            yield server


@contextlib.contextmanager
def busy_neighbour() -> Iterator[None]:
    """One other process that keeps one core busy."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


@contextlib.contextmanager
def _running(server: Server) -> Iterator[Server]:
    try:
        yield server
    finally:
        server.stop()


def _said(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]).rstrip("; ")
    except (ValueError, KeyError, TypeError):
        return body.decode("utf-8", "replace")


def _options(values: Mapping[str, object]) -> list[str]:
    return [part for name, value in values.items() for part in (f"--{name}", str(value))]


def _waiting(threads: int) -> dict[str, str]:
    """How the threads of a peer's engine wait for one another: as those of our workers do."""
    return {"OMP_NUM_THREADS": str(threads), "GOMP_SPINCOUNT": "1000"}


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def end_in_order(number: int, frame: object) -> None:
    """Unwind, so that the servers, which live in process groups of their own, are stopped and not left behind."""
    signal.signal(number, signal.SIG_IGN)  # a second signal must not break off the stopping
    sys.exit(128 + number)
