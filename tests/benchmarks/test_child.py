"""Commands that are run as children."""

import os
import signal
import sys
import threading
from pathlib import Path

import psutil
import pytest

from benchmarks.child import ChildError, run_command


def test_a_command_that_fails_is_told_with_its_last_words() -> None:
    script = "print('first'); print('the disk is full'); raise SystemExit(4)"
    with pytest.raises(ChildError, match="ended with code 4: first the disk is full"):
        run_command([sys.executable, "-c", script])


def test_what_a_command_says_is_returned() -> None:
    assert run_command([sys.executable, "-c", "print('said')"]) == "said\n"


def test_a_wait_that_is_broken_off_leaves_no_grandchild(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    grandchild = f"import os, time; open({str(ready)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
    found: list[int] = []

    def interrupt() -> None:
        found.append(int(ready.read_text()))
        os.kill(os.getpid(), signal.SIGINT)

    watcher = threading.Thread(target=interrupt)
    watcher.start()
    with pytest.raises(KeyboardInterrupt):
        run_command([sys.executable, "-c", script])
    watcher.join()
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in found if psutil.pid_exists(pid)], timeout=10)
    assert not alive
