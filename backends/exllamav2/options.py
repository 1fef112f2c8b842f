"""The configuration keys of the exllamav2 plugin, as one JSON Schema and as values. `loading.py` gives them effect."""

import logging
from collections.abc import Mapping
from typing import Any, Literal, get_args

import msgspec

from backends.contract import LoadError
from backends.gpus import gpu_number

logger = logging.getLogger(__name__)

CacheType = Literal["FP16", "Q8", "Q6", "Q4"]
CACHE_TYPES: tuple[CacheType, ...] = get_args(CacheType)
_SHARES = r"^\s*\d+(\.\d+)?(\s*,\s*\d+(\.\d+)?)*\s*$"

OPTIONS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "trust_remote_code": {
            "type": "boolean",
            "deprecated": True,
            "description": "No effect: exllamav2 runs no code of a model.",
        },
        "cache_type": {
            "type": "string",
            "enum": [*CACHE_TYPES, *(name.lower() for name in CACHE_TYPES)],
            "description": "Number format of the KV cache (default FP16). Q8, Q6 and Q4 hold more tokens in the same "
            "memory.",
        },
        "gpu_split": {
            "oneOf": [
                {"type": "string", "pattern": rf"{_SHARES}|^auto$"},
                {"type": "array", "items": {"type": "number", "minimum": 0}, "minItems": 1},
            ],
            "description": 'GiB of weights for each GPU, for example "20,24"; the KV cache comes on top. '
            '"auto" (default) fills one GPU after the other, cache included.',
        },
        "autosplit_reserve": {
            "oneOf": [
                {"type": "integer", "minimum": 0},
                {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1},
            ],
            "description": "MiB that the automatic split leaves free, on every GPU or on each (default 192 on the "
            "first, 64 on the others).",
        },
        "rope_scale": {
            "type": "number",
            "exclusiveMinimum": 0,
            "description": "Factor that positions are divided by, for models trained for it (default: the model's).",
        },
        "rope_alpha": {
            "type": "number",
            "exclusiveMinimum": 0,
            "description": "Factor that stretches the RoPE base, for a longer context without training (default 1).",
        },
    },
}


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a configuration asks for. None: not set. `gpu_split` is in GiB, `autosplit_reserve` in MiB, for each GPU;
    a reserve of one number is for every GPU."""

    cache_type: CacheType = "FP16"
    gpu_split: tuple[float, ...] | None = None
    autosplit_reserve: tuple[int, ...] | None = None
    rope_scale: float | None = None
    rope_alpha: float | None = None
    main_gpu: int | None = None
    gpu_layers: int | None = None

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> "Options":
        """Raises LoadError where exllamav2 cannot do what is asked."""
        if given.get("f16") is False:
            raise LoadError("exllamav2 computes in half precision only; remove `f16: false`")
        if given.get("trust_remote_code"):
            logger.info("trust_remote_code has no effect: exllamav2 runs no code of a model")
        main_gpu = _main_gpu(given.get("main_gpu"))
        split = _split(given.get("gpu_split"))
        if main_gpu is not None and split is not None:
            raise LoadError(
                "main_gpu puts the model on one GPU and gpu_split on several; remove one of the two"
            )
        reserve = given.get("autosplit_reserve")
        if reserve is not None and split is not None:
            raise LoadError("autosplit_reserve is for the automatic split; remove it or gpu_split")
        cache_type = str(given.get("cache_type", "FP16")).upper()
        return cls(
            cache_type=msgspec.convert(cache_type, CacheType),
            gpu_split=split,
            autosplit_reserve=(reserve,) if isinstance(reserve, int) else tuple(reserve) if reserve else None,
            rope_scale=given.get("rope_scale"),
            rope_alpha=given.get("rope_alpha"),
            main_gpu=main_gpu,
            gpu_layers=given.get("gpu_layers"),
        )

    def check_layers(self, layers: int) -> None:
        """Raises LoadError where `gpu_layers` leaves some of the model's out: none can be anywhere else."""
        if self.gpu_layers is not None and 0 <= self.gpu_layers < layers:
            raise LoadError(
                f"gpu_layers is {self.gpu_layers} and the model has {layers} layers: exllamav2 keeps them all on "
                "GPUs; remove gpu_layers"
            )

    def check_gpus(self, there: int) -> None:
        """Raises LoadError where shares or reserves are not for the GPUs that there are."""
        if self.gpu_split is not None and len(self.gpu_split) > there:
            raise LoadError(f"gpu_split names {len(self.gpu_split)} GPUs; {there} can be used here")
        reserve = self.autosplit_reserve
        if reserve is not None and len(reserve) not in (1, there):
            raise LoadError(
                f"autosplit_reserve names {len(reserve)} GPUs; {there} can be used here (one number is for all)"
            )


def _main_gpu(value: object) -> int | None:
    if value in (None, ""):
        return None
    number = gpu_number(value)
    if number is None:
        raise LoadError(
            "main_gpu is cpu, and exllamav2 computes on NVIDIA GPUs only; remove it or name a GPU"
        )
    return number


def _split(value: str | list[float] | None) -> tuple[float, ...] | None:
    if value is None or value == "auto":
        return None
    shares = value.split(",") if isinstance(value, str) else value
    return tuple(float(share) for share in shares)
