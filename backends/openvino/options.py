"""The configuration keys of the openvino plugin: their JSON Schema, and their values as the engine reads them."""

from typing import Any, Literal

import msgspec

from backends.contract import LoadError

GENERATION = "OVModelForCausalLM"
EMBEDDING = "OVModelForFeatureExtraction"
PRECISIONS = ("auto", "f32", "f16", "bf16")
CACHE_PRECISIONS = (*PRECISIONS, "u8", "u4")

_PREFIXES = (
    "No effect: what was computed of a prompt is kept in memory and used again without being asked for."
)

OPTIONS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "type": {
            "enum": [GENERATION, EMBEDDING],
            "description": "What the model does; when absent, its config.json tells.",
        },
        "quantization": {
            "enum": ["none", "int8", "int4"],
            "description": "Number format of the weights when they are converted (default: as they are).",
        },
        "precision": {
            "enum": [*PRECISIONS],
            "description": "What is computed in; auto (default) is what the device does quickest. `f16: false` is f32.",
        },
        "kv_cache_precision": {
            "enum": [*CACHE_PRECISIONS],
            "description": "Number format of the KV cache; auto (default) is the device's, or f32 with precision f32.",
        },
        "pooling": {
            "enum": ["mean", "cls", "last"],
            "description": "How token vectors become one embedding (default: the model's own, else mean).",
        },
        "prompt_cache_path": {"type": "string", "deprecated": True, "description": _PREFIXES},
        "prompt_cache_all": {"type": "boolean", "deprecated": True, "description": _PREFIXES},
        "ov_config": {
            "type": "object",
            "additionalProperties": {"type": ["string", "number", "boolean"]},
            "description": "More properties for the device, by OpenVINO's names, such as PERFORMANCE_HINT.",
        },
    },
}


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The plugin's keys, and the common ones that an engine is told. None: not set."""

    type: Literal["OVModelForCausalLM", "OVModelForFeatureExtraction"] | None = None
    quantization: Literal["none", "int8", "int4"] = "none"
    precision: Literal["auto", "f32", "f16", "bf16"] | None = None
    kv_cache_precision: Literal["auto", "f32", "f16", "bf16", "u8", "u4"] = "auto"
    pooling: Literal["mean", "cls", "last"] | None = None
    prompt_cache_path: str = ""
    prompt_cache_all: bool = False
    ov_config: dict[str, str | int | float | bool] = {}
    f16: bool | None = None
    main_gpu: int | str | None = None
    gpu_layers: int | None = None
    trust_remote_code: bool = False

    @classmethod
    def read(cls, options: dict[str, Any]) -> "Options":
        """LoadError where `options` do not fit."""
        try:
            return msgspec.convert(options, cls)
        except msgspec.ValidationError as error:
            raise LoadError(
                f"the options of the openvino backend are wrong: {error}; correct the model's config.yaml"
            ) from error

    @property
    def compute_precision(self) -> str:
        """What is computed in; an explicit `f16: false` means f32."""
        return self.precision or ("f32" if self.f16 is False else "auto")

    @property
    def cache_precision(self) -> str:
        """That of the KV cache; with f32 asked for, the cache is not to spoil it."""
        if self.kv_cache_precision == "auto" and self.compute_precision == "f32":
            return "f32"
        return self.kv_cache_precision

    def properties(self, device: str, *, threads: int) -> dict[str, Any]:
        """OpenVINO's properties for any model on `device`."""
        own: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads} if device == "CPU" else {}
        if self.compute_precision != "auto":
            own["INFERENCE_PRECISION_HINT"] = self.compute_precision
        return {**own, **self.ov_config}

    def cache_properties(self) -> dict[str, Any]:
        """Those of the KV cache."""
        cache = self.cache_precision
        return {} if cache == "auto" else {"KV_CACHE_PRECISION": cache}
