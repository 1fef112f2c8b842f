"""Sends frames to the server without ever making the step thread wait for it."""

import collections
import socket
import threading
from collections.abc import Sequence

from runner.wire.frames import encode
from runner.wire.messages import FromWorker


class FrameWriter:
    """Frames go out at once where the socket takes them; what it does not take, a thread sends later, in order."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._pending: collections.deque[bytes] = collections.deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._drain, name="frame-writer", daemon=True)
        self._thread.start()

    def send(self, messages: Sequence[FromWorker]) -> None:
        """Queue one frame. Never blocks for long, never raises; what follows a lost connection is dropped."""
        if not messages:
            return
        frame = encode(messages)
        with self._changed:
            if not self._pending and not self._is_closed:
                try:
                    sent = self._socket.send(frame, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    sent = 0
                except OSError:
                    self._is_closed = True
                    return
                if sent == len(frame):
                    return
                frame = frame[sent:]
            self._pending.append(frame)
            self._changed.notify()

    def close(self, timeout_s: float = 5.0) -> None:
        """Send what is pending, then stop."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(timeout_s)

    def _drain(self) -> None:
        while True:
            with self._changed:
                while not self._pending:
                    if self._is_closed:
                        return
                    self._changed.wait()
                frame = self._pending[0]
            try:
                self._socket.sendall(frame)
            except OSError:
                with self._changed:
                    self._is_closed = True
                    self._pending.clear()
                return
            with self._changed:
                self._pending.popleft()
