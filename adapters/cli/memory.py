"""How much memory there is, and sizes as people write them."""

import re
from pathlib import Path

import psutil

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(%|[kmgt]?(?:i?b)?)\s*", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def total_memory_bytes() -> int:
    """What this process may use: the machine's memory, or its control group's limit if that is lower."""
    total = psutil.virtual_memory().total
    try:
        limit = _CGROUP_LIMIT.read_text(encoding="ascii").strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total


def parse_size(text: str, *, total_bytes: int) -> int:
    """Bytes of "80%" (of `total_bytes`), "12GiB", "12GB", "12G" (as GiB) or "1000000". Raises ValueError."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f'"{text}" is not a size; write it like 80%, 12GiB, 900MB or 1000000')
    number, unit = float(match[1]), match[2].lower()
    if unit == "%":
        if not 0 < number <= 100:
            raise ValueError(f'"{text}" must be over 0 % and at most 100 %')
        return int(total_bytes * number / 100)
    if not number:
        raise ValueError(f'"{text}" must be over 0')
    base = 1000 if len(unit) == 2 and unit != "ib" else 1024
    return int(number * base ** _POWERS[unit.rstrip("b").rstrip("i")])


def show_size(size_bytes: float) -> str:
    """A size in the largest unit that keeps it at 1 or more: "12.0 GiB"."""
    units = ["B", "KiB", "MiB", "GiB"]
    while size_bytes >= 1024 and len(units) > 1:
        size_bytes /= 1024
        units.pop(0)
    return f"{size_bytes:.1f} {units[0]}" if units[0] != "B" else f"{size_bytes:.0f} B"
