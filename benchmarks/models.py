"""Prepares the repository that the benchmarks serve: the random 350 M model twice, the demo model, and the copying one.

All of them get the same scheduler settings, which the peers get too. It is made once and kept.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import yaml

from benchmarks import random_model

RANDOM, TWIN, DEMO = "random-350m", "random-350m-twin", "demo"
COPYING, COPYING_350M = "copying", "copying-350m"
_ROOT = Path(__file__).parents[1]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What every system is started with; sizes in tokens."""

    threads: int
    lanes: int = 16
    kv_tokens: int = 16_384
    context_tokens: int = 4096


class BenchModels(msgspec.Struct, frozen=True):
    """A repository on disk and the weight file of each model in it; the demo model may be missing."""

    repository: Path
    weights: dict[str, Path]


def prepare(settings: Settings, *, repository: Path = _ROOT / "benchmarks" / "models") -> BenchModels:
    """Write what is missing (a minute at most) and all `config.yaml` files anew."""
    weights = {name: repository / name / "1" / "model.gguf" for name in (RANDOM, TWIN)}
    if not _is_newer_than(weights[RANDOM], Path(random_model.__file__)):
        print(f"writing {weights[RANDOM]}", flush=True)
        random_model.write(weights[RANDOM], random_model.SHAPES["350m"])
        weights[TWIN].unlink(missing_ok=True)
    if not weights[TWIN].exists():
        weights[TWIN].parent.mkdir(parents=True, exist_ok=True)
        weights[TWIN].hardlink_to(weights[RANDOM])
    for name in (RANDOM, TWIN):
        _write_config(repository / name, {"context_size": settings.context_tokens}, settings)
    if demo := _copy_demo(repository / DEMO, settings):
        weights[DEMO] = demo
    return BenchModels(repository, weights)


def prepare_copying(settings: Settings, *, repository: Path = _ROOT / "benchmarks" / "models") -> None:
    """Train the copying model if it is not there (a minute or two), and write its `config.yaml` files anew. Raises
    CalledProcessError where training fails; its output says why."""
    made = {COPYING: "small.gguf", COPYING_350M: "large.gguf"}
    weights = {name: repository / name / "1" / "model.gguf" for name in made}
    if not all(path.exists() for path in weights.values()):
        print("training the copying model", flush=True)
        with tempfile.TemporaryDirectory(dir=repository, suffix=".part") as folder:
            subprocess.run([sys.executable, "-m", "benchmarks.copying_model", folder], cwd=_ROOT, check=True)
            for name, path in weights.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                (Path(folder) / made[name]).replace(path)
    for name in made:
        _write_config(repository / name, {"context_size": settings.context_tokens // 2}, settings)


def _is_newer_than(made: Path, script: Path) -> bool:
    return made.exists() and made.stat().st_mtime > script.stat().st_mtime


def _copy_demo(target: Path, settings: Settings) -> Path | None:
    source = _ROOT / "models" / DEMO
    found = sorted((source / "1").rglob("*.gguf"))
    if not found:
        return None
    weights = target / found[0].relative_to(source)
    weights.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(found[0], weights)
    config = source / "config.yaml"
    _write_config(target, yaml.safe_load(config.read_text()) or {} if config.exists() else {}, settings)
    return weights


def configure(model: Path, settings: Settings) -> None:
    """Give a model that is prepared other settings."""
    _write_config(model, yaml.safe_load((model / "config.yaml").read_text()), settings)


def _write_config(model: Path, base: dict[str, object], settings: Settings) -> None:
    scheduler = {"max_lanes": settings.lanes, "kv_tokens": settings.kv_tokens}
    config = base | {"threads": settings.threads, "scheduler": scheduler}
    (model / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
