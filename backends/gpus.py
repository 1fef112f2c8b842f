"""Which GPU a configuration names, for plugins that compute on one. Knows no engine and looks at no device."""

import re

from backends.contract import LoadError


def gpu_number(value: object) -> int | None:
    """The GPU that `main_gpu` names, from 0; None for the CPU. 2, "2", "cuda:2", "cuda.2" and "gpu2" all mean the
    third; nothing, or a kind without a number, means the first. Raises LoadError where it names no device."""
    text = str(0 if value in (None, "") else value).strip().lower()
    if text == "cpu":
        return None
    match = re.fullmatch(r"(?:[a-z]+[:.]?)?(\d+)|cuda|gpu", text)
    if match is None:
        raise LoadError(
            f'main_gpu: {value!r} names no device; write its number, for example 0 or "cuda:0", or "cpu"'
        )
    return int(match[1] or 0)


def check_gpu(number: int, *, there: int, key: str = "main_gpu") -> None:
    """Raises LoadError where GPU `number`, which `key` names, is not among the `there` GPUs that can be seen."""
    if number < there:
        return
    seen = "no GPU can be seen here" if there == 0 else f"the GPUs here are numbered 0 to {there - 1}"
    if there == 1:
        seen = "the only GPU here is number 0"
    raise LoadError(f"{key}: there is no GPU {number}; {seen}")
