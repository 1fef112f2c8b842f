"""Functions of the sprig library on numbers. Each raises GoError for what it cannot take."""

import math
from typing import Any

from runner.worker.go_functions.values import GoError, integer, to_float, to_int, wrapped

MOST_ITEMS = 100_000


def atoi(value: str) -> int:
    try:
        return int(value) if value.strip() == value and "_" not in value else 0
    except ValueError:
        return 0


def add(*values: Any) -> int:
    return wrapped(sum(map(to_int, values)))


def multiply(*values: Any) -> int:
    if not values:
        raise GoError("mul: a number is missing")
    product = 1
    for value in values:
        product = wrapped(product * to_int(value))
    return product


def subtract(first: Any, second: Any) -> int:
    return wrapped(to_int(first) - to_int(second))


def divide(first: Any, second: Any) -> int:
    return wrapped(_quotient(to_int(first), to_int(second)))


def modulo(first: Any, second: Any) -> int:
    one, other = to_int(first), to_int(second)
    return one - other * _quotient(one, other)


def until(count: Any) -> list[int]:
    return until_step(0, count, -1 if integer("until", count) < 0 else 1)


def until_step(start: Any, stop: Any, step: Any) -> list[int]:
    start, stop, step = (integer("untilStep", value) for value in (start, stop, step))
    if step == 0 or (stop < start) != (step < 0):
        return []
    numbers = range(start, stop, step)
    if len(numbers) > MOST_ITEMS:
        raise GoError(f"until: at most {MOST_ITEMS} numbers")
    return list(numbers)


def floor(value: Any) -> float:
    return float(math.floor(to_float(value)))


def ceil(value: Any) -> float:
    return float(math.ceil(to_float(value)))


def _quotient(one: int, other: int) -> int:
    if other == 0:
        raise GoError("a number is divided by zero")
    whole = abs(one) // abs(other)
    return whole if (one < 0) == (other < 0) else -whole
