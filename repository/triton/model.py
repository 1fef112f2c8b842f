"""One folder of a Triton repository as a model: `config.pbtxt` and each version's `model.json` put together.

Finds no weights: what `model` names is said as text.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from repository.problem import Problem
from repository.triton.engine_args import Args, read_engine_args
from repository.triton.pbtxt import NAME, PbtxtError, read_pbtxt

MODEL_JSON = "model.json"
LORAS = "multi_lora.json"

_MOST_BYTES = 1 << 20


class TritonModel(Struct, frozen=True):
    """`values` are keys of a `config.yaml`. `weights`: what each version's `model.json` names, with `@revision`.

    With `problems` the model cannot be served; `ignored` lists what was left out, and why.
    """

    values: dict[str, Any]
    weights: dict[int, str] = {}
    problems: tuple[Problem, ...] = ()
    ignored: tuple[Problem, ...] = ()


def read_triton_model(folder: Path, versions: Sequence[int]) -> TritonModel:
    """The model in `folder`, whose version folders have these numbers. The newest version's arguments are the
    model's."""
    try:
        config = read_pbtxt(folder / NAME)
    except PbtxtError as error:
        return TritonModel({}, problems=(Problem(str(folder / NAME), 0, 0, str(error)),))
    problems: list[Problem] = []
    ignored = [Problem(str(folder / NAME), 0, 0, message) for message in config.ignored]
    read: dict[int, Args] = {}
    for number in sorted(versions):
        path = folder / str(number) / MODEL_JSON
        try:
            read[number] = read_engine_args(_read_object(path))
        except ValueError as error:
            problems.append(Problem(str(path), 0, 0, str(error)))
    if not versions:
        problems.append(Problem(str(folder), 0, 0, f"no version: expected a folder 1 with a {MODEL_JSON}"))
    if problems:
        return TritonModel({}, problems=tuple(problems), ignored=tuple(ignored))
    newest = max(read)
    ignored += [Problem(_shown(folder, newest), 0, 0, message) for message in read[newest].ignored]
    ignored += [
        Problem(_shown(folder, number), 0, 0, f"the arguments of version {newest} hold for this version too")
        for number, args in read.items()
        if args.values != read[newest].values
    ]
    values = {**config.values, **read[newest].values}
    try:
        loras = folder / str(newest) / LORAS
        if loras.exists():
            values["lora_modules"] = _read_object(loras)
    except ValueError as error:
        return TritonModel({}, problems=(Problem(str(loras), 0, 0, str(error)),))
    return TritonModel(
        values, {number: _named(args) for number, args in read.items()}, ignored=tuple(ignored)
    )


def _named(args: Args) -> str:
    return f"{args.model}@{args.revision}" if args.revision else args.model


def _shown(folder: Path, number: int) -> str:
    return str(folder / str(number) / MODEL_JSON)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            value = msgspec.json.decode(file.read(_MOST_BYTES))
    except OSError as error:
        raise ValueError(f"it cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"it is not readable as JSON: {error}") from error
    if isinstance(value, dict):
        return value
    raise ValueError("it does not hold a JSON object")
