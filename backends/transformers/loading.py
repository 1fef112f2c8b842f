"""From a folder to a transformers model: which class, which device and number format, which quantisation."""

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from backends.contract import LoadError, LoadRequest
from backends.torch_lanes.devices import choose_device, choose_dtype
from backends.torch_lanes.engine import Loaded, check_memory
from backends.torch_lanes.folder import architecture, read_json, weights_bytes

GENERATING = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
SPARE = ("pooler.", "lm_head.", "cls.", "classifier.")
"""Parts that vectors are made without."""

SHARES = {"bnb_8bit": 1.0, "xpu_8bit": 1.0, "bnb_4bit": 0.5, "xpu_4bit": 0.5}
"""Bytes that a number takes quantised."""


def load_model(request: LoadRequest, folder: Path) -> Loaded:
    """Read the weights as the options say. Raises LoadError, and what transformers raises."""
    options = request.options
    config = read_json(folder / "config.json")
    quantization = options.get("quantization")
    device = choose_device(request, prefers=_kind(quantization))
    dtype = choose_dtype(options, device)
    _check_quantization(quantization, config, device)
    check_memory(request, device, _needed_bytes(folder, config, quantization, dtype))
    generates = _generates(config, options)
    chosen = transformers.AutoModelForCausalLM if generates else transformers.AutoModel
    if config.get("is_encoder_decoder"):
        raise LoadError(
            f"{architecture(config) or 'this model'} is an encoder-decoder model, which this backend does not serve"
        )
    arguments: dict[str, Any] = {}
    if quantization is not None:
        arguments["quantization_config"] = _bits_and_bytes(quantization, dtype)
    if quantization is not None or config.get("quantization_config") or device.type != "cpu":
        arguments["device_map"] = {"": device}
    _quieten()
    model, report = chosen.from_pretrained(
        folder,
        dtype=dtype,
        local_files_only=True,
        trust_remote_code=bool(options.get("trust_remote_code")),
        ignore_mismatched_sizes=True,  # reported, and refused in our own words
        output_loading_info=True,
        **arguments,
    )
    _check_report(folder, report, generates=generates)
    stored = config.get("quantization_config") or {}
    is_quantised = quantization is not None or bool(stored)
    numbers = quantization or stored.get("quant_method") or str(model.dtype).removeprefix("torch.")
    described = [type(model).__name__, str(numbers), str(device)]
    return Loaded(
        model=model,
        generates=generates,
        is_exact=not is_quantised and model.dtype == torch.float32,
        description=" ".join(described),
    )


def _generates(config: Mapping[str, Any], options: Mapping[str, Any]) -> bool:
    kind = options.get("type")
    if kind is not None:
        return bool(kind == "AutoModelForCausalLM")
    return architecture(config).endswith(GENERATING)


def _kind(quantization: str | None) -> str:
    return "xpu" if (quantization or "").startswith("xpu_") else "cuda"


def _check_quantization(quantization: str | None, config: Mapping[str, Any], device: Any) -> None:
    if quantization is None:
        return
    stored = config.get("quantization_config")
    if isinstance(stored, dict):
        raise LoadError(
            f"these weights are quantised already ({stored.get('quant_method', 'somehow')}); leave out `quantization`"
        )
    if quantization.startswith("xpu_") and device.type != "xpu":
        raise LoadError(
            f"quantization: {quantization} needs an Intel GPU with its driver and PyTorch's build for it, and "
            f"PyTorch {torch.__version__} sees none; use {quantization.replace('xpu', 'bnb')} elsewhere"
        )
    for name in ("bitsandbytes", "accelerate"):
        if importlib.util.find_spec(name) is None:
            raise LoadError(
                f"quantization: {quantization} needs the package {name}, which is missing; "
                "`modelyard env create transformers` makes an environment with it"
            )


def _bits_and_bytes(quantization: str, dtype: Any) -> Any:
    if quantization.endswith("8bit"):
        return transformers.BitsAndBytesConfig(load_in_8bit=True)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if dtype == "auto" else dtype,
    )


def _needed_bytes(folder: Path, config: Mapping[str, Any], quantization: str | None, dtype: Any) -> int:
    """About what the weights take once they are loaded."""
    stored = weights_bytes(folder)
    if config.get("quantization_config"):
        return stored
    named = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    stored_size = {"float16": 2.0, "bfloat16": 2.0}.get(named, 4.0)
    if quantization is not None:
        return int(stored * SHARES[quantization] / stored_size)
    size = stored_size if dtype == "auto" else float(dtype.itemsize)
    return int(stored * size / stored_size)


def _check_report(folder: Path, report: Mapping[str, Any], *, generates: bool) -> None:
    """transformers fills what the files lack with random numbers, and says so only there."""
    missing = [name for name in report.get("missing_keys", ()) if generates or not _is_spare(name)]
    mismatched = [one[0] if isinstance(one, Sequence) else one for one in report.get("mismatched_keys", ())]
    if missing or mismatched:
        what, name = ("lack", missing[0]) if missing else ("have another shape of", mismatched[0])
        count = len(missing) + len(mismatched)
        more = f" and {count - 1} more" if count > 1 else ""
        raise LoadError(
            f"the weights in {folder} {what} {name}{more} that its config.json asks for; "
            "copy the whole model folder again"
        )


def _is_spare(name: str) -> bool:
    return any(part in f"{name}." for part in SPARE)


def _quieten() -> None:
    """The libraries' own advice to programmers, which fills a server's log."""
    transformers.utils.logging.disable_progress_bar()
    for name in ("transformers", "bitsandbytes"):  # which tells of every cast that it makes
        logging.getLogger(name).setLevel(logging.ERROR)
