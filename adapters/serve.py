"""Composes a server by constructors and runs it: socket, runner, application, listener, signals, drain.

The order of an ending: the socket stops accepting, the runner lets running requests finish or fails them
after the drain time, the listener closes the connections, exit 0. A second signal quits at once.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from typing import TYPE_CHECKING, Any

import msgspec
import uvloop

from adapters.app import build_app, outward
from adapters.kserve.face import KServe
from adapters.listener import listen, serve_app
from adapters.logs import LevelSwitch, configure_logging
from adapters.openai.responses.store import ResponseStore, StoreError
from adapters.settings import ResponseStoreSettings, ServeSettings
from backends.registry import Registry
from repository.scan import RepositoryError
from runner.api import ModelStatus
from runner.environments.folder import Environments
from runner.errors import RunnerError
from runner.runner import Runner

if TYPE_CHECKING:
    from adapters.kserve.over_grpc.server import GrpcServer

_GRACE_S = 10.0  # what connections have beyond the drain, so that it is never theirs to cut a stream

logger = logging.getLogger(__name__)


class PortError(Exception):
    """A port cannot be listened on; the message says which and why."""


def run(settings: ServeSettings) -> int:
    """Serve until a signal. Returns the exit status; what prevents a start is told in one line on stderr."""
    levels = configure_logging(settings.log_format)
    try:
        sock = listen(settings.host, settings.port)
    except OSError as error:
        _complain(_cannot_listen(settings.host, settings.port, error))
        return 1
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
            loop.run(_serve(settings, sock, levels))
    except (StoreError, PortError) as error:
        _complain(str(error))
        return 1
    except ExceptionGroup as group:
        known, others = group.split((RepositoryError, RunnerError))
        if known is None or others is not None:
            raise
        _complain("; ".join(str(error) for error in known.exceptions))
        return 1
    return 0


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


async def _serve(settings: ServeSettings, sock: socket.socket, levels: LevelSwitch) -> None:
    signals = Signals()
    registry = Registry(elsewhere=Environments(settings.runner.state_dir).plugins())
    runner = Runner(settings.runner, registry)
    version = settings.app.version
    kserve = KServe(outward(runner, settings.app), server_version=version, levels=levels)
    grpc_server = _grpc_server(settings, kserve)
    # The runner is left before the task group: it drains while the listener still serves the open streams. The store
    # is left last, for a response is kept when its stream ends.
    async with (
        _response_store(settings.responses) as store,
        asyncio.TaskGroup() as tasks,
        AsyncExitStack() as stack,
    ):
        app = build_app(runner, settings.app, store=store, kserve=kserve)
        if await signals.during_start(stack.enter_async_context(runner)):
            urls = [_url(settings.host, sock.getsockname()[1])]
            grace_s = settings.runner.drain_s + _GRACE_S
            tasks.create_task(
                serve_app(
                    app,
                    sock,
                    stop=signals.stop,
                    grace_s=grace_s,
                    send_timeout_s=settings.app.send_timeout_s,
                )
            )
            if grpc_server is not None:
                urls.append(_url(settings.host, grpc_server.port, scheme="grpc"))
                tasks.create_task(grpc_server.serve(stop=signals.stop, grace_s=grace_s))
            _announce(urls, settings, runner.index())
            if settings.log_format != "json":
                await asyncio.to_thread(_show_models, urls[0], settings, runner.index())
            await signals.stop.wait()
            logger.info("stopping; running requests have %g s to finish", settings.runner.drain_s)


def _grpc_server(settings: ServeSettings, kserve: KServe) -> "GrpcServer | None":
    """Its port is taken already. None where gRPC is not wanted, or not possible and not required. Raises PortError."""
    if settings.grpc is None:
        return None
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # its handlers break when a worker is started
    from adapters.kserve.over_grpc.server import GrpcServer

    try:
        return GrpcServer(kserve, settings.app, host=settings.host, port=settings.grpc.port)
    except OSError as error:
        message = _cannot_listen(settings.host, settings.grpc.port, error)
        if settings.grpc.required:
            raise PortError(f"{message}; choose another port with --grpc-port") from None
        logger.warning("gRPC is not served: %s; choose another port with --grpc-port, or 0", message)
        return None


def _response_store(
    settings: ResponseStoreSettings | None,
) -> AbstractAsyncContextManager[ResponseStore | None]:
    if settings is None:
        return nullcontext()
    return ResponseStore(settings.path, max_age_s=settings.max_age_s, max_count=settings.max_count)


def _announce(urls: Sequence[str], settings: ServeSettings, models: tuple[ModelStatus, ...]) -> None:
    names = [model.name for model in models]
    if settings.log_format == "json":
        fields = {
            "url": urls[0],
            "urls": urls,
            "repository": str(settings.runner.repository),
            "models": names,
        }
        logger.info("serving", extra={"fields": fields})
        return
    bad = sum(1 for model in models if not model.ready and model.reason and not model.disabled)
    listed = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    found = f"{len(names)} model{'' if len(names) == 1 else 's'}: {listed}" if names else "no models yet"
    if bad:
        found += f" ({bad} with problems: see `modelyard check {settings.runner.repository}`)"
    lines = [
        f"Modelyard {settings.app.version} serves {settings.runner.repository} at {' and '.join(urls)} - {found}"
    ]
    _print(sys.stdout.write, *lines)


def _show_models(url: str, settings: ServeSettings, models: tuple[ModelStatus, ...]) -> None:
    """The table of what is served and what is not, and a command to try."""
    from adapters.cli import overview

    usable = next((model.name for model in models if model.ready), None)
    if 0 < len(models) <= overview.MOST_VIEWED:
        try:
            served = overview.print_start(settings.runner.repository, settings.runner.state_dir)
        except Exception:  # a boundary: the server serves, whatever is wrong with a table
            logger.exception("the models cannot be shown")
        else:
            usable = next((model.name for model in models if model.ready and model.name in served), None)
    if usable is not None:
        asked = {"model": usable, "messages": [{"role": "user", "content": "Hello"}]}
        question = msgspec.json.encode(asked).decode()
        _print(
            sys.stdout.write,
            f"Try: curl {url}/v1/chat/completions -H 'Content-Type: application/json' -d '{question}'",
        )


def _cannot_listen(host: str, port: int, error: OSError) -> str:
    number = error.errno or 0
    reason = os.strerror(number) if number > 0 else error.strerror  # a name that is not found is negative
    return f"cannot listen on {host}:{port}: {reason or error}"


def _url(host: str, port: int, *, scheme: str = "http") -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"{scheme}://[{shown}]:{port}" if ":" in shown else f"{scheme}://{shown}:{port}"


def _complain(message: str) -> None:
    _print(sys.stderr.write, f"modelyard: {message}")


def _print(write: Callable[[str], Any], *lines: str) -> None:
    write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()
    sys.stderr.flush()
