"""Composes a server by constructors and runs it: socket, runner, application, Hypercorn, signals, drain.

The order of an ending: the socket stops accepting, the runner lets running requests finish or fails them
after the drain time, Hypercorn closes the connections, exit 0. A second signal quits at once.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import uvloop
from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.config import Config

from adapters.app import build_app
from adapters.logs import configure_logging
from adapters.settings import ServeSettings
from backends.registry import Registry
from repository.scan import RepositoryError
from runner.api import ModelStatus
from runner.errors import RunnerError
from runner.runner import Runner

_BACKLOG = 1024
_GRACE_S = 10.0  # what Hypercorn waits beyond the drain, so that it is never the one to cut a stream
_KEEP_ALIVE_S = 75.0

logger = logging.getLogger(__name__)


def run(settings: ServeSettings) -> int:
    """Serve until a signal. Returns the exit status; what prevents a start is told in one line on stderr."""
    configure_logging(settings.log_format)
    try:
        sock = listen(settings.host, settings.port)
    except OSError as error:
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else error.strerror  # a name that is not found is negative
        _complain(f"cannot listen on {settings.host}:{settings.port}: {reason}")
        return 1
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
            loop.run(_serve(settings, sock))
    except ExceptionGroup as group:
        known, others = group.split((RepositoryError, RunnerError))
        if known is None or others is not None:
            raise
        _complain("; ".join(str(error) for error in known.exceptions))
        return 1
    return 0


def listen(host: str, port: int) -> socket.socket:
    """A socket that accepts connections from now on. Raises OSError, such as when the port is in use."""
    family, _, _, _, address = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    return socket.create_server(address[:2], family=family, backlog=_BACKLOG)


def server_config(sock: socket.socket, *, drain_s: float) -> Config:
    """Hypercorn's configuration to serve on `sock`, which it owns from here on."""
    config = Config()
    config.bind = [f"fd://{sock.detach()}"]
    config.backlog = _BACKLOG
    config.graceful_timeout = drain_s + _GRACE_S
    config.keep_alive_timeout = _KEEP_ALIVE_S
    config.keep_alive_max_requests = sys.maxsize
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    # No read_timeout: it would cut every stream whose client is silent, which all of them are.
    return config


class Signals:
    """SIGTERM and SIGINT: the first sets `stop`, a second one ends the process."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self._starting: asyncio.Timeout | None = None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)

    async def during_start(self, work: Awaitable[object]) -> bool:
        """Await `work`, in this task. False if a signal came before its end, which then was cancelled."""
        try:
            async with asyncio.timeout(None) as self._starting:
                await work
        except TimeoutError:
            if not self.stop.is_set():
                raise
            return False
        finally:
            self._starting = None
        return not self.stop.is_set()

    def _on_signal(self, number: int) -> None:
        if self.stop.is_set():
            _complain("stopped at once")
            os._exit(128 + number)  # workers notice by themselves that their server is gone
        self.stop.set()
        if self._starting is not None:
            self._starting.reschedule(0)


async def _serve(settings: ServeSettings, sock: socket.socket) -> None:
    signals = Signals()
    runner = Runner(settings.runner, Registry())
    app = build_app(runner, settings.app)
    url = _url(settings.host, sock)
    # The runner is left before the task group: it drains while Hypercorn still serves the open streams.
    async with asyncio.TaskGroup() as tasks, AsyncExitStack() as stack:
        if await signals.during_start(stack.enter_async_context(runner)):
            config = server_config(sock, drain_s=settings.runner.drain_s)
            tasks.create_task(hypercorn_serve(app, config, shutdown_trigger=signals.stop.wait))
            _announce(url, settings, runner.index())
            await signals.stop.wait()
            logger.info("stopping; running requests have %g s to finish", settings.runner.drain_s)


def _announce(url: str, settings: ServeSettings, models: tuple[ModelStatus, ...]) -> None:
    names = [model.name for model in models]
    if settings.log_format == "json":
        fields = {"url": url, "repository": str(settings.runner.repository), "models": names}
        logger.info("serving", extra={"fields": fields})
        return
    bad = sum(1 for model in models if not model.ready and model.reason and not model.disabled)
    listed = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    found = f"{len(names)} model{'' if len(names) == 1 else 's'}: {listed}" if names else "no models yet"
    if bad:
        found += f" ({bad} with problems: see `modelyard check {settings.runner.repository}`)"
    lines = [f"Modelyard {settings.app.version} serves {settings.runner.repository} at {url} - {found}"]
    usable = next((model.name for model in models if model.ready), None)
    if usable is not None:
        asked = {"model": usable, "messages": [{"role": "user", "content": "Hello"}]}
        question = msgspec.json.encode(asked).decode()
        lines.append(
            f"Try: curl {url}/v1/chat/completions -H 'Content-Type: application/json' -d '{question}'"
        )
    _print(sys.stdout.write, *lines)


def _url(host: str, sock: socket.socket) -> str:
    port = sock.getsockname()[1]
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


def _complain(message: str) -> None:
    _print(sys.stderr.write, f"modelyard: {message}")


def _print(write: Callable[[str], Any], *lines: str) -> None:
    write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()
    sys.stderr.flush()
