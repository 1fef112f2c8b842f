"""What a load becomes for vLLM, as data."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from backends.contract import LoadError, LoadRequest
from backends.vllm.adapters import Adapters
from backends.vllm.arguments import Device, engine_arguments, environment, is_split
from tests.backends.support import load_request

KNOWN = {"block_size", "max_num_batched_tokens", "pipeline_parallel_size", "dtype"}


def arguments(
    options: dict[str, Any] | None = None,
    *,
    device: Device = "cpu",
    adapters: Adapters | None = None,
    **limits: Any,
) -> dict[str, Any]:
    request = load_request("/weights", options=options or {}, **limits)
    return engine_arguments(request, adapters or Adapters({}), device=device, known=KNOWN)


def test_a_plain_load_on_a_cpu_computes_in_float32_without_compiling() -> None:
    found = arguments()
    assert (
        found.items()
        >= {
            "model": "/weights",
            "dtype": "float32",
            "enforce_eager": True,
            "max_model_len": 512,
            "max_num_seqs": 8,
            "max_num_batched_tokens": 512,
            "distributed_executor_backend": "uni",
            "logprobs_mode": "raw_logprobs",
            "scheduling_policy": "priority",
            "enable_prefix_caching": True,
        }.items()
    )
    assert "enable_lora" not in found


def test_a_plain_load_on_a_gpu_leaves_the_rest_to_vllm() -> None:
    found = arguments(device="gpu")
    assert (found["dtype"], found["enforce_eager"]) == ("auto", False)
    assert "max_num_batched_tokens" not in found
    assert arguments(device="gpu", max_batch_tokens=2048)["max_num_batched_tokens"] == 2048


@pytest.mark.parametrize(
    ("options", "device", "dtype"),
    [
        ({"f16": True}, "cpu", "bfloat16"),
        ({"f16": False}, "gpu", "float32"),
        ({"f16": True}, "gpu", "auto"),
        ({"dtype": "half", "f16": False}, "cpu", "half"),
    ],
)
def test_the_number_format_follows_from_f16_and_dtype(
    options: dict[str, Any], device: Device, dtype: str
) -> None:
    assert arguments(options, device=device)["dtype"] == dtype


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("quantization", "awq"),
        ("load_format", "safetensors"),
        ("gpu_memory_utilization", 0.5),
        ("enforce_eager", False),
        ("max_model_len", 99),
        ("tensor_parallel_size", 2),
        ("pipeline_parallel_size", 2),
        ("disable_log_stats", False),
        ("limit_mm_per_prompt", {"image": 0}),
        ("trust_remote_code", True),
    ],
)
def test_a_key_of_the_configuration_reaches_the_engine(key: str, value: Any) -> None:
    assert arguments({key: value})[key] == value


def test_engine_args_win_over_what_modelyard_would_set() -> None:
    assert arguments({"engine_args": {"dtype": "bfloat16"}, "f16": False})["dtype"] == "bfloat16"


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"blok_size": 1}, r"engine_args\.blok_size .* did you mean 'block_size'"),
        ({"model": "x"}, "engine_args.model cannot be set: the version's folder"),
        ({"logprobs_mode": "x"}, "engine_args.logprobs_mode cannot be set"),
        ({"swap_space": 4}, "engine_args.swap_space is unknown: vLLM no longer swaps"),
    ],
)
def test_an_argument_that_cannot_be_set_is_refused(own: dict[str, Any], words: str) -> None:
    with pytest.raises(LoadError, match=words):
        arguments({"engine_args": own})


@pytest.mark.parametrize("key", ["swap_space", "gpu_layers"])
def test_a_key_without_effect_is_taken_and_logged(key: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert key not in arguments({key: 4})
    assert f"{key} has no effect" in caplog.text


@pytest.mark.parametrize(
    ("options", "split"),
    [
        ({}, False),
        ({"tensor_parallel_size": 1}, False),
        ({"tensor_parallel_size": 2}, True),
        ({"engine_args": {"pipeline_parallel_size": 2}}, True),
    ],
)
def test_more_than_one_device_means_more_than_one_process(options: dict[str, Any], split: bool) -> None:
    request = LoadRequest(model="m", weights="w", options=options, threads=3)
    assert is_split(options) == split
    assert environment(request)["VLLM_ENABLE_V1_MULTIPROCESSING"] == str(int(split))
    assert environment(request)["OMP_NUM_THREADS"] == "3"
    assert ("distributed_executor_backend" in arguments(options)) != split


def write_adapter(folder: Path, rank: object = 4) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank}))
    return folder


@pytest.mark.parametrize(
    "options",
    [
        {"lora_modules": {"sql": "adapters/sql"}},
        {"lora_modules": ["sql=adapters/sql"]},
        {"lora_modules": [{"name": "sql", "path": "adapters/sql"}]},
        {"lora_adapters": ["adapters/sql"]},
        {"lora_adapter": "adapters/sql"},
    ],
)
def test_an_adapter_can_be_listed_in_each_known_way(tmp_path: Path, options: dict[str, Any]) -> None:
    folder = write_adapter(tmp_path / "adapters" / "sql", rank=20)
    adapters = Adapters.read(options, tmp_path)
    assert [(one.name, one.folder, one.number) for one in adapters] == [("sql", folder, 1)]
    assert adapters.rank == 32
    # On a CPU one slot stays empty, for rows without an adapter.
    assert arguments(adapters=adapters)["max_loras"] == 2
    assert arguments(adapters=adapters, device="gpu")["max_loras"] == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lora_modules": {"7": "sql"}}, "cannot be called '7'"),
        ({"lora_modules": {"a:b": "sql"}}, "cannot be called 'a:b'"),
        ({"lora_modules": ["sql"]}, "expected `name=folder`"),
        ({"lora_adapters": ["sql", "sql"]}, "two LoRA adapters are called 'sql'"),
        ({"lora_adapters": ["nothing"]}, "nothing holds no LoRA adapter"),
        ({"lora_adapters": ["odd"]}, "`r` must be a whole number"),
        ({"lora_adapters": ["wide"]}, "of rank 512 at most"),
    ],
)
def test_an_adapter_that_cannot_be_used_is_refused(
    tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    for name, rank in (("sql", 4), ("odd", "x"), ("wide", 1024)):
        write_adapter(tmp_path / name, rank)
    with pytest.raises(LoadError, match=words):
        _ = Adapters.read(options, tmp_path).rank
