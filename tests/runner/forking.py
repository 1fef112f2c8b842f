"""A backend whose engine forks a child that ignores every polite signal, as some engines do."""

import os
import signal
import time

from backends.contract import BackendSpec, EngineInfo, LoadRequest, Progress
from backends.echo.engine import EchoEngine


class ForkingEngine(EchoEngine):
    """Echo, with a forked child that holds all of its parent's files open. Writes its pid beside the weights."""

    def load(self, request: LoadRequest, progress: Progress) -> EngineInfo:
        child = os.fork()
        if child == 0:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            time.sleep(600)
            os._exit(0)
        with open(os.path.join(request.weights, "child.pid"), "w") as file:  # noqa: PTH118, PTH123
            file.write(str(child))
        return super().load(request, progress)


SPEC = BackendSpec(
    name="forking",
    engine="tests.runner.forking:ForkingEngine",
    claims=lambda _, config: int(config["backend"] == "forking"),
)
