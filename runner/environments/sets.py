"""The pinned requirement sets of engines: `backends/NAME/env/{cpu,cuda}.txt`, with `overrides.txt` for all of them.

A folder in `env` is a set of its own for a helper that cannot live beside the engine: `backends/openvino/env/export`
is called `openvino-export`.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from runner.environments.values import Device, EnvironmentProblem

DEVICES: tuple[Device, ...] = ("cpu", "cuda")
HOME = Path(__file__).resolve().parents[2]
"""Where `runner` and `backends` are."""


class RequirementSet(msgspec.Struct, frozen=True):
    """One set: a file for each kind of device it is there for."""

    name: str
    folder: Path

    @property
    def devices(self) -> tuple[Device, ...]:
        return tuple(device for device in DEVICES if self.file(device).is_file())

    @property
    def overrides(self) -> Path | None:
        path = self.folder / "overrides.txt"
        return path if path.is_file() else None

    def file(self, device: Device) -> Path:
        return self.folder / f"{device}.txt"


def requirement_sets(home: Path = HOME) -> dict[str, RequirementSet]:
    """All there are, by name."""
    found = {}
    for folder in sorted((home / "backends").glob("*/env")):
        backend = folder.parent.name
        found[backend] = RequirementSet(backend, folder)
        for part in sorted(each for each in folder.iterdir() if each.is_dir()):
            found[f"{backend}-{part.name}"] = RequirementSet(f"{backend}-{part.name}", part)
    return {name: each for name, each in found.items() if each.devices}


def find_sets(names: Sequence[str], *, home: Path = HOME) -> tuple[RequirementSet, ...]:
    """The sets of these names. Raises EnvironmentProblem with the nearest name."""
    known = requirement_sets(home)
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
            raise EnvironmentProblem(f"there is no requirement set for a backend {name!r}; {hint}")
    return tuple(known[name] for name in dict.fromkeys(names))


def choose_device(sets: Sequence[RequirementSet], asked: str, *, has_gpu: bool) -> Device:
    """The kind of device to install for: as `asked`, or with "auto" a GPU where there is one and a set for it.

    Raises EnvironmentProblem where some set is not there for it.
    """
    possible = [device for device in DEVICES if all(device in each.devices for each in sets)]
    if asked != "auto":
        for device in DEVICES:
            if device == asked and device in possible:
                return device
        lacking = ", ".join(each.name for each in sets if asked not in each.devices)
        raise EnvironmentProblem(f"there is no requirement set of {lacking} for {asked}")
    if has_gpu and "cuda" in possible:
        return "cuda"
    if "cpu" in possible:
        return "cpu"
    if possible:
        only = ", ".join(each.name for each in sets if "cpu" not in each.devices)
        raise EnvironmentProblem(
            f"{only} needs an NVIDIA GPU, and there is none here; --device cuda makes the environment all the same"
        )
    raise EnvironmentProblem(f"no kind of device suits all of {', '.join(each.name for each in sets)}")


def has_nvidia_gpu(devices: Path = Path("/dev")) -> bool:
    """NVIDIA's driver is loaded."""
    return (devices / "nvidiactl").exists() or (devices / "dxg").exists()
