"""`modelyard bench sweep`: tries settings of one model, one key after another, and keeps the quickest.

Each setting is a model of a temporary repository, with the version's files linked and the key changed; all get the
same work. The best of a key is taken before the next is tried, so the order of keys matters a little.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml
from rich.console import Console

from benchmarks.harness.compare import compare
from benchmarks.harness.result import Run
from benchmarks.harness.run import Work

CACHE_TYPES = ("f16", "q8_0")
QUANTISED = "weights"
"""The key that stands for the choice among several GGUF files of a version."""


class SweepError(Exception):
    """There is nothing to try; the message says why."""


class Choice(msgspec.Struct, frozen=True):
    """A value of a key, and how quick it was: output tokens a second, None where it failed."""

    key: str
    value: Any
    tokens_per_s: float | None
    failure: str = ""


class Model(msgspec.Struct, frozen=True):
    """A model folder: its configuration, and the files of the version that is tried."""

    name: str
    config: dict[str, Any]
    files: tuple[Path, ...]

    @property
    def quantisations(self) -> tuple[str, ...]:
        return tuple(sorted(file.name for file in self.files if file.suffix == ".gguf"))


def read_model(folder: Path) -> Model:
    """The model in `folder`, its newest version. Raises SweepError."""
    if folder.suffix == ".gguf" and folder.is_file():
        return Model(folder.stem, {}, (folder.resolve(),))
    if not folder.is_dir():
        raise SweepError(f"there is no model folder {folder}")
    config_path = folder / "config.yaml"
    config = yaml.safe_load(config_path.read_text("utf-8")) if config_path.exists() else {}
    numbers = sorted(int(one.name) for one in folder.iterdir() if one.is_dir() and one.name.isdigit())
    version = folder / str(numbers[-1]) if numbers else folder
    files = tuple(file.resolve() for file in sorted(version.iterdir()) if file.name != "config.yaml")
    if not files:
        raise SweepError(f"{version} is empty")
    return Model(folder.resolve().name, config or {}, files)


def usual_settings(model: Model, *, cores: int) -> dict[str, list[Any]]:
    """What is worth trying where nobody says: keys with dots lie in a mapping."""
    threads = sorted({1, max(1, cores // 2), cores})
    found: dict[str, list[Any]] = {
        "threads": list(threads),
        "wait_policy": ["active", "passive"],
        "scheduler.max_batch_tokens": [256, 512, 1024],
        "scheduler.max_lanes": [4, 8, 16, 32],
    }
    if len(model.quantisations) > 1:
        found = {QUANTISED: list(model.quantisations), **found}
    if model.quantisations:
        found["cache_type_k"] = list(CACHE_TYPES)
    return found


def parse_settings(texts: Sequence[str]) -> dict[str, list[Any]]:
    """`key=a,b,c` of the command line, the values as YAML. Raises SweepError."""
    found: dict[str, list[Any]] = {}
    for text in texts:
        key, separator, values = text.partition("=")
        if not separator or not key or not values:
            raise SweepError(f"--try {text!r}: write a key and its values, such as threads=1,2,4")
        found[key] = [yaml.safe_load(value) for value in values.split(",")]
    return found


def sweep(
    model: Model,
    settings: Mapping[str, Sequence[Any]],
    work: Work,
    *,
    console: Console,
    state_dir: Path | None,
    on_run: Callable[[Run], None],
) -> Iterator[Choice]:
    """Every value of every key in turn. `on_run` gets each run."""
    best: dict[str, Any] = {}
    for key, values in settings.items():
        tried = list(
            _try_key(model, best, key, values, work, console=console, state_dir=state_dir, on_run=on_run)
        )
        yield from tried
        worked = [one for one in tried if one.tokens_per_s is not None]
        if worked:
            best[key] = max(worked, key=lambda one: one.tokens_per_s or 0.0).value


def best_of(choices: Sequence[Choice]) -> dict[str, Any]:
    """The quickest value of each key."""
    best: dict[str, Choice] = {}
    for one in choices:
        if one.tokens_per_s is not None and one.tokens_per_s > (
            best[one.key].tokens_per_s or 0 if one.key in best else 0
        ):
            best[one.key] = one
    return {key: one.value for key, one in best.items()}


def fragment(best: Mapping[str, Any]) -> str:
    """The settings as they stand in a `config.yaml`."""
    return yaml.safe_dump(_merged({}, best), sort_keys=False)


def _try_key(
    model: Model,
    best: Mapping[str, Any],
    key: str,
    values: Sequence[Any],
    work: Work,
    *,
    console: Console,
    state_dir: Path | None,
    on_run: Callable[[Run], None],
) -> Iterator[Choice]:
    with tempfile.TemporaryDirectory(prefix="modelyard-sweep-") as folder:
        root = Path(folder)
        names = {f"{key}={value}".replace("/", "-"): value for value in values}
        for name, value in names.items():
            _write(root / name, model, {**best, key: value})
        for run in compare(root, list(names), [work], console=console, state_dir=state_dir, checked=0):
            value = names[run.model]
            on_run(msgspec.structs.replace(run, settings={**best, key: value}))
            found = run.measures.output_tokens_per_s if run.measures is not None else None
            failed = run.failure or (next(iter(run.measures.errors), "") if run.measures else "")
            yield Choice(key, value, found.value if found is not None and not failed else None, failed)


def _write(folder: Path, model: Model, settings: Mapping[str, Any]) -> None:
    version = folder / "1"
    version.mkdir(parents=True)
    chosen = settings.get(QUANTISED)
    for file in model.files:
        if chosen is None or file.suffix != ".gguf" or file.name == chosen:
            (version / file.name).symlink_to(file)
    config = {key: value for key, value in model.config.items() if key not in ("name", "aliases", "preload")}
    (folder / "config.yaml").write_text(yaml.safe_dump(_merged(config, settings)))


def _merged(config: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` put into a copy of `config`; the choice of a file is `parameters.model`."""
    merged: dict[str, Any] = msgspec.to_builtins(config)
    for key, value in settings.items():
        *outer, last = ("parameters", "model") if key == QUANTISED else key.split(".")
        place = merged
        for name in outer:
            place = place.setdefault(name, {})
        place[last] = value
    return merged
