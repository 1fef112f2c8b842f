"""What a result is measured on: processor, memory, versions; and what servers use of it while they run."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

RAPL = Path("/sys/class/powercap")
SAMPLE_S = 0.2


def machine_facts() -> dict[str, str]:
    """What a reader needs to judge figures."""
    found = {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "gpus": _command("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "modelyard": _version("modelyard"),
        "revision": _command(
            *("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=10")
        ),
        "load before": " ".join(f"{load:.1f}" for load in os.getloadavg()),
    }
    return {name: value for name, value in found.items() if value}


class Memory:
    """The most that a process's descendants have taken so far, in bytes."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peak_bytes = 0

    def look(self) -> int:
        """Looks now as well: a short run may be over between two samples."""
        self._peak_bytes = max(self._peak_bytes, _descendants_bytes(self._pid))
        return self._peak_bytes


@contextmanager
def watch_memory(pid: int) -> Iterator[Memory]:
    """Samples the resident memory of all descendants of `pid`, together, for as long as the block runs."""
    memory, ended = Memory(pid), threading.Event()

    def sample() -> None:
        while not ended.wait(SAMPLE_S):
            memory.look()

    thread = threading.Thread(target=sample, name="memory", daemon=True)
    thread.start()
    try:
        yield memory
    finally:
        ended.set()
        thread.join()


class EnergyMeter:
    """Joules of the processor packages since it was made; None where the machine does not tell."""

    def __init__(self, root: Path = RAPL) -> None:
        self._zones = [zone for zone in sorted(root.glob("intel-rapl:*")) if zone.name.count(":") == 1]
        self._began = self._read()

    def joules(self) -> float | None:
        ended = self._read()
        if not self._began or ended.keys() != self._began.keys():
            return None
        total = 0.0
        for zone, now in ended.items():
            spent = now - self._began[zone]
            total += spent if spent >= 0 else spent + self._range(zone)  # the counter began anew
        return total / 1e6

    def _read(self) -> dict[Path, int]:
        try:
            return {zone: int((zone / "energy_uj").read_text()) for zone in self._zones}
        except (OSError, ValueError):
            return {}

    def _range(self, zone: Path) -> int:
        return int((zone / "max_energy_range_uj").read_text())


def _descendants_bytes(pid: int) -> int:
    total = 0
    try:
        for child in psutil.Process(pid).children(recursive=True):
            try:
                total += child.memory_info().rss
            except psutil.Error:
                continue
    except psutil.Error:
        pass
    return total


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _command(*words: str) -> str:
    if shutil.which(words[0]) is None:
        return ""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return "; ".join(done.stdout.split("\n")).strip("; ") if done.returncode == 0 else ""
