"""`python -m repository.remote`: fetches what a line on stdin says, and tells of it on stdout.

A process of its own can be ended at any moment, whatever the network does; it ends by itself when stdin does.
"""

import os
import sys
import threading
from pathlib import Path
from typing import Self

import msgspec

from repository.hub.errors import HubError
from repository.remote.messages import Done, Failed, Job, Moved, Said, Told

TELL_S = 0.2
OWNERS_TOKEN = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    token_env = job.remote.token_env
    if token_env is not None:
        if not os.environ.get(token_env):
            _tell(
                Failed(
                    f"{job.remote}: the variable {token_env} that is to hold its token is not set", "gated"
                )
            )
            return
        os.environ["HF_TOKEN"] = os.environ[token_env]
    if job.remote.by_request:  # what the owner's token opens is not for whoever asks
        for name in OWNERS_TOKEN:
            os.environ.pop(name, None)
        os.environ["HF_HUB_DISABLE_IMPLICIT_TOKEN"] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    from repository.remote.bring import bring  # its libraries read the environment

    try:
        with _Gauge() as gauge:
            record = bring(
                job.remote,
                state_dir=Path(job.state_dir),
                keep_free_bytes=job.keep_free_bytes,
                progress=gauge.move,
                say=lambda text: _tell(Said(text)),
            )
    except HubError as error:
        _tell(Failed(str(error), error.kind))
    else:
        _tell(Done(record.weights))


class _Gauge:
    """Tells how far it is, a few times a second and only where it has moved."""

    def __init__(self) -> None:
        self._at = Moved(0, 0)
        self._is_over = threading.Event()
        self._teller = threading.Thread(target=self._run, daemon=True)

    def move(self, done: int, total: int) -> None:
        self._at = Moved(done, total)

    def __enter__(self) -> Self:
        self._teller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._teller.join()

    def _run(self) -> None:
        told = self._at
        while not self._is_over.wait(TELL_S):
            if self._at != told:
                told = self._at
                _tell(told)


def _tell(told: Told) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(told) + b"\n")  # one call, whole also beside the gauge's
    sys.stdout.buffer.flush()


def _end_with_parent() -> None:
    while os.read(0, 4096):  # past the buffer, whose lock would be held when the interpreter ends
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
