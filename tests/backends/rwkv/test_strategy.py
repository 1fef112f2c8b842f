"""Where the layers go: what the configuration says, what follows from it, and what cannot be."""

import re
from typing import Any

import pytest

from backends.contract import LoadError
from backends.rwkv.options import OPTIONS
from backends.rwkv.strategy import choose_strategy, threads_for


def chosen(options: dict[str, Any], **given: Any) -> str:
    place = {"version": 6, "layers": 12, "device": "auto", "gpus": 0, **given}
    return str(choose_strategy(options, **place))


@pytest.mark.parametrize(
    ("options", "gpus", "strategy"),
    [
        ({}, 0, "cpu fp32"),
        ({}, 1, "cuda:0 fp16"),
        ({"f16": True}, 0, "cpu bf16"),
        ({"f16": False}, 1, "cuda:0 fp32"),
        ({"main_gpu": 1}, 2, "cuda:1 fp16"),
        ({"main_gpu": "cuda.1"}, 2, "cuda:1 fp16"),
        ({"main_gpu": "cpu"}, 2, "cpu fp32"),
        ({"gpu_layers": 0}, 1, "cpu fp32"),
        ({"gpu_layers": 5}, 1, "cuda:0 fp16 *5 -> cpu fp32"),
        ({"gpu_layers": 99}, 1, "cuda:0 fp16"),
        ({"strategy": "cuda:0  fp16i8 *10+ -> cpu fp32"}, 1, "cuda:0 fp16i8 *10+ -> cpu fp32"),
    ],
)
def test_the_strategy_follows_from_the_configuration(
    options: dict[str, Any], gpus: int, strategy: str
) -> None:
    assert chosen(options, gpus=gpus) == strategy


@pytest.mark.parametrize(
    ("options", "given", "message"),
    [
        ({"strategy": "cuda fp16"}, {}, "there is no GPU 0; no GPU can be seen here"),
        ({"strategy": "cuda:1 fp16"}, {"gpus": 1}, "there is no GPU 1; the only GPU here is number 0"),
        (
            {"strategy": "cpu fp32"},
            {"device": "gpu", "gpus": 1},
            'kind is gpu, and the strategy is "cpu fp32"',
        ),
        ({"strategy": "cuda fp16"}, {"device": "cpu", "gpus": 1}, "kind is cpu"),
        ({"strategy": "cpu fp32i8"}, {"version": 7}, "on one device and in one number format"),
        ({"gpu_layers": 5}, {"version": 7, "gpus": 1}, "gpu_layers"),
        ({"strategy": "cpu fp32", "f16": True}, {}, "leave out one or the other"),
        ({"main_gpu": "tpu"}, {}, "names no device"),
        ({}, {"device": "gpu"}, "no GPU can be seen here"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_loaded(
    options: dict[str, Any], given: dict[str, Any], message: str
) -> None:
    with pytest.raises(LoadError, match=re.escape(message)):
        chosen(options, **given)


@pytest.mark.parametrize(
    ("strategy", "fits"),
    [
        ("cpu fp32", True),
        ("cuda fp16 *6 -> cpu fp32", True),
        ("cuda:0 fp16i8 *10+ -> cuda:1 fp16", True),
        ("cpu", False),
        ("cpu int4", False),
        ("cuda fp16 -> ", False),
        ("tpu bf16", False),
    ],
)
def test_the_schema_knows_the_form_of_a_strategy(strategy: str, fits: bool) -> None:
    pattern = OPTIONS["properties"]["strategy"]["pattern"]
    assert bool(re.search(pattern, strategy)) == fits


def test_a_small_model_is_computed_by_one_thread() -> None:
    assert threads_for(8 * 2**20, asked=4) == 1
    assert threads_for(360 * 2**20, asked=4) == 4
