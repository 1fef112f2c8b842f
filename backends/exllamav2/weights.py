"""What a model folder holds, read before anything is loaded: whether exllamav2 can take it, and what its config.json
says that exllamav2 0.3.2 does not read. Imports no exllamav2.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from backends.contract import LoadError
from backends.exllamav2 import ARCHITECTURES

QUANTISATIONS = ("exl2", "gptq")
OLD_SETTINGS = "quantize_config.json"
"""Where AutoGPTQ said how it had quantised the weights."""

_YARN = {"beta_fast": 32, "beta_slow": 1, "attention_factor": None, "mscale": None, "mscale_all_dim": None}
"""What exllamav2 takes for granted."""


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """`size_bytes` is that of the safetensors files; `quantisation` is empty where they are plain floats."""

    folder: Path
    config: dict[str, Any]
    architecture: str
    quantisation: str
    size_bytes: int


def read_weights(path: Path) -> Weights:
    """Look at the model folder at `path`. Raises LoadError where exllamav2 cannot load it."""
    if path.is_file():
        raise LoadError(
            f"{path} is one file, and exllamav2 loads a folder with config.json; name the folder in parameters.model"
        )
    config = _read_json(path / "config.json")
    files = [file for file in path.glob("*.safetensors") if file.is_file()]
    if not files:
        raise LoadError(
            f"{path} holds no .safetensors file, which is what exllamav2 reads; convert the weights"
        )
    architectures = config.get("architectures") or [None]
    architecture = str(architectures[0])
    if architecture not in ARCHITECTURES:
        raise LoadError(
            f"exllamav2 does not know {architecture}, the architecture in {path}; use another backend"
        )
    return Weights(
        folder=path,
        config=config,
        architecture=architecture,
        quantisation=_quantisation(path, config),
        size_bytes=sum(file.stat().st_size for file in files),
    )


def rope_attributes(config: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of ExLlamaV2Config that `rope_parameters` decides, as transformers writes it since version 5;
    exllamav2 knows its older form only. Raises LoadError, in either form, for a RoPE that it would compute wrongly.
    """
    config = with_text_config(config)
    parameters = config.get("rope_parameters")
    given = parameters if isinstance(parameters, Mapping) else config.get("rope_scaling")
    if not isinstance(given, Mapping):
        return {}
    if any(isinstance(value, Mapping) for value in given.values()):
        raise LoadError("exllamav2 cannot compute this model: its RoPE differs from layer to layer")
    attributes = {
        theirs: float(given[ours])
        for ours, theirs in (
            ("rope_theta", "rotary_embedding_base"),
            ("partial_rotary_factor", "partial_rotary_factor"),
        )
        if given.get(ours) is not None
    }
    kind = given.get("rope_type", given.get("type", "default"))
    try:
        return attributes | _scaling(kind, given, config)
    except KeyError as error:
        raise LoadError(f"config.json's RoPE of type {kind} lacks {error}; download it again") from error


def with_text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A `config.json` with what it says of the language model, where that is one of several, at its top."""
    nested = config.get("text_config")
    return {**config, **nested} if isinstance(nested, Mapping) else config


def _scaling(kind: object, given: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    def original() -> Any:
        key = "original_max_position_embeddings"
        return given[key] if key in given else config[key]

    match kind:
        case "default" | "mrope" | None:
            return {}
        case "linear":
            return {"scale_pos_emb": float(given["factor"])}
        case "llama3":
            return {
                "alt_rope_method": "llama3",
                "l3_rope_factor": given["factor"],
                "l3_rope_low_freq_factor": given["low_freq_factor"],
                "l3_rope_high_freq_factor": given["high_freq_factor"],
                "l3_rope_original_max_position_embeddings": original(),
            }
        case "yarn":
            for key, usual in _YARN.items():
                if given.get(key, usual) not in (usual, None):
                    raise LoadError(f"exllamav2 cannot compute this model: its YaRN has a {key} of its own")
            return {
                "alt_rope_method": "yarn",
                "yarn_rope_factor": given["factor"],
                "yarn_rope_original_max_position_embeddings": original(),
            }
        case "longrope" | "su":
            return {
                "alt_rope_method": "su",
                "scale_long_factor": given["long_factor"],
                "scale_short_factor": given["short_factor"],
                "original_max_seq_len": original(),
            }
    raise LoadError(f"exllamav2 cannot compute this model: its RoPE is of type {kind!r}; use another backend")


def _quantisation(path: Path, config: Mapping[str, Any]) -> str:
    given = config.get("quantization_config")
    if not isinstance(given, Mapping):
        if not (path / OLD_SETTINGS).is_file():
            return ""
        given = {"quant_method": "gptq", **_read_json(path / OLD_SETTINGS)}
    method = str(given.get("quant_method") or "").lower()
    if method not in QUANTISATIONS:
        raise LoadError(
            f"{path} is quantised by {method or 'a method it does not name'}, and exllamav2 reads EXL2, GPTQ and "
            "plain floats; use another backend"
        )
    bits = given.get("bits")
    if method == "gptq" and bits not in (4, None):
        raise LoadError(f"{path} is GPTQ with {bits} bits, and exllamav2 reads GPTQ with 4; use backend gptq")
    return method


def _read_json(file: Path) -> dict[str, Any]:
    try:
        config = msgspec.json.decode(file.read_bytes())
    except OSError as error:
        raise LoadError(f"{file} cannot be read: {error.strerror}; copy the whole model folder") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LoadError(f"{file} is not readable as JSON: {error}; download it again") from error
    if not isinstance(config, dict):
        raise LoadError(f"{file} does not hold a JSON object; download it again")
    return config
