"""What weights are, told from a GGUF header or a `config.json`: format, size, context, memory per token.

Never loads weights and imports no engine. Which backend takes them is decided elsewhere.
"""

import functools
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from repository.gguf_header import FILE_TYPES, BadGguf, GgufHeader, read_header
from repository.names import printable
from repository.pick import parts_of

Format = Literal["gguf", "safetensors", "pytorch", "rwkv", "openvino", "none"]

F16_BYTES = 2
_CACHED = 4096
_MAX_CONFIG_BYTES = 16 << 20
# The first four bytes of llama.cpp's formats before GGUF, as they stand in a file.
_OLD_MAGICS = {b"lmgg": "GGML", b"fmgg": "GGMF", b"tjgg": "GGJT", b"algg": "GGLA", b"nsgg": "GGSN"}
_LFS_POINTER = "{} is a Git LFS pointer, not the weights; run `git lfs pull` in its folder"
_ENCODERS = ("bert", "t5encoder", "gemma-embedding")
_POOLED = (1, 2, 3)  # mean, cls, last: one vector per text


class WeightsError(Exception):
    """These weights cannot be used as they are; the message says why and what to do."""


class WeightsFacts(Struct, frozen=True):
    """What is known without loading. None: the file does not say."""

    path: Path
    format: Format
    architecture: str | None = None
    quantisation: str | None = None
    size_bytes: int = 0
    context_tokens: int | None = None  # as trained
    layers: int | None = None
    embedding_length: int | None = None
    kv_bytes_per_token: int | None = None  # an F16 cache of every layer at full length
    parameters: int | None = None
    is_embedding: bool = False


def read_facts(path: Path | None) -> WeightsFacts:
    """The facts of a weights file, of the first part of a split one, or of a folder; None: no weights.

    Remembered until a file's size or time changes. WeightsError: unreadable, truncated, or in an old format.
    """
    if path is None:
        return WeightsFacts(Path(), "none")
    try:
        files = _files(path)
        stamps = tuple((str(file), stat.st_size, stat.st_mtime_ns) for file in files if (stat := file.stat()))
    except OSError as error:
        missing = printable(str(error.filename or path))
        raise WeightsError(f"{missing} cannot be read: {error.strerror}") from error
    return _read(path, stamps)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    return [path.with_name(name) for name in parts_of(path.name)]


@functools.lru_cache(maxsize=_CACHED)
def _read(path: Path, stamps: tuple[tuple[str, int, int], ...]) -> WeightsFacts:
    shown = printable(str(path))
    try:
        if path.is_dir():
            return _folder_facts(path, [(Path(name), size) for name, size, _ in stamps])
        return _file_facts(path, stamps)
    except BadGguf as error:
        raise WeightsError(f"{shown} cannot be loaded: {error}; copy or download it again") from error
    except OSError as error:
        raise WeightsError(f"{shown} cannot be read: {error.strerror}") from error


def _file_facts(path: Path, stamps: tuple[tuple[str, int, int], ...]) -> WeightsFacts:
    shown = printable(str(path))
    with path.open("rb") as file:
        head = file.read(64)
    if old := _OLD_MAGICS.get(head[:4]):
        raise WeightsError(
            f"{shown} is in the old {old} format; GGUF is needed: convert it, or fetch a GGUF of this model"
        )
    if head.startswith(b"version https://git-lfs"):
        raise WeightsError(_LFS_POINTER.format(shown))
    size = sum(each for _, each, _ in stamps)
    if head[:4] == b"GGUF" or path.suffix.lower() == ".gguf":
        return _gguf_facts(path, [read_header(Path(name)) for name, _, _ in stamps])
    match path.suffix.lower():
        case ".pth" if "rwkv" in path.name.lower():
            return WeightsFacts(path, "rwkv", "rwkv", size_bytes=size)
        case ".safetensors":
            return WeightsFacts(path, "safetensors", size_bytes=size)
        case ".pth" | ".pt" | ".bin":
            return WeightsFacts(path, "pytorch", size_bytes=size)
        case suffix:
            raise WeightsError(
                f'{shown} is in no known format (its name ends in "{suffix}"); GGUF is served best'
            )


def _gguf_facts(path: Path, headers: list[GgufHeader]) -> WeightsFacts:
    for header in headers:
        if header.promised_bytes > header.file_bytes:
            promised, there = header.promised_bytes, header.file_bytes
            raise BadGguf(f"it is truncated: its header promises {promised} bytes, the file has {there}")
    metadata = headers[0].metadata
    architecture = _text(metadata.get("general.architecture"))

    def number(key: str) -> int | None:
        return _number(metadata.get(f"{architecture}.{key}"))

    layers, width = number("block_count"), number("embedding_length")
    pooling = number("pooling_type")
    return WeightsFacts(
        path,
        "gguf",
        architecture,
        _gguf_quantisation(headers),
        sum(header.file_bytes for header in headers),
        number("context_length"),
        layers,
        width,
        _gguf_kv_bytes(metadata, architecture),
        sum(header.parameters for header in headers),
        pooling in _POOLED or (architecture or "").endswith(_ENCODERS),
    )


def _gguf_quantisation(headers: list[GgufHeader]) -> str | None:
    kind = headers[0].metadata.get("general.file_type")
    if isinstance(kind, int) and kind in FILE_TYPES:
        return FILE_TYPES[kind]
    types: dict[str, int] = {}
    for header in headers:
        for name, elements in header.types.items():
            types[name] = types.get(name, 0) + elements
    return max(types, key=lambda name: types[name], default=None)


def _gguf_kv_bytes(metadata: dict[str, Any], architecture: str | None) -> int | None:
    """Bytes of one token's keys and values: KV heads over all layers, times their lengths, in F16."""

    def read(key: str) -> Any:
        return metadata.get(f"{architecture}.{key}")

    layers, width = _number(read("block_count")), _number(read("embedding_length"))
    heads = read("attention.head_count")
    kv_heads = read("attention.head_count_kv")
    kv_heads = heads if kv_heads is None else kv_heads
    most = max(heads, default=0) if isinstance(heads, list) else _number(heads) or 0
    if not layers or not kv_heads or not most:
        return None
    total = sum(kv_heads) if isinstance(kv_heads, list) else kv_heads * layers
    usual = width // most if width else 0
    lengths = (_number(read("attention.key_length")) or usual) + (
        _number(read("attention.value_length")) or usual
    )
    return int(total * lengths * F16_BYTES) or None


def _folder_facts(path: Path, files: list[tuple[Path, int]]) -> WeightsFacts:
    names = [file.name for file, _ in files]
    weights = [(file, size) for file, size in files if file.suffix in (".safetensors", ".bin")]
    kind: Format = "openvino" if "openvino_model.xml" in names else "safetensors"
    if kind == "safetensors" and not any(file.suffix == ".safetensors" for file, _ in weights):
        kind = "pytorch"
    size = sum(size for _, size in weights)
    config_path = path / "config.json"
    if "config.json" not in names:
        if kind == "openvino":
            return WeightsFacts(path, kind, size_bytes=size)
        raise WeightsError(f"{printable(str(path))} has no config.json; copy the whole model folder")
    for file, length in weights:
        if length < 1024 and file.read_bytes().startswith(b"version https://git-lfs"):
            raise WeightsError(_LFS_POINTER.format(printable(str(file))))
    config = _read_json(config_path)
    if _is_mlx(config):
        raise WeightsError(
            f"{printable(str(path))} is quantised for MLX, which no engine here reads; fetch a GGUF of this model, or "
            "the checkpoint that it was made of"
        )
    text = config.get("text_config")
    inner: dict[str, Any] = config | text if isinstance(text, dict) else config
    architectures = config.get("architectures")
    name = architectures[0] if isinstance(architectures, list) and architectures else config.get("model_type")
    layers, width = _number(inner.get("num_hidden_layers")), _number(inner.get("hidden_size"))
    heads = _number(inner.get("num_attention_heads"))
    kv_heads = _number(inner.get("num_key_value_heads")) or heads
    head_length = _number(inner.get("head_dim")) or (width // heads if width and heads else None)
    kv_bytes = (
        2 * layers * kv_heads * head_length * F16_BYTES if layers and kv_heads and head_length else None
    )
    return WeightsFacts(
        path,
        kind,
        _text(name),
        _folder_quantisation(inner),
        size,
        _number(inner.get("max_position_embeddings")),
        layers,
        width,
        kv_bytes,
        None,
        str(name).endswith("Model") and "LMHead" not in str(name),  # no head that could make text
    )


def _is_mlx(config: dict[str, Any]) -> bool:
    """MLX has its own `quantization`, and may repeat it where others name a method."""
    own, others = config.get("quantization"), config.get("quantization_config")
    has_method = isinstance(others, dict) and "quant_method" in others
    return isinstance(own, dict) and "group_size" in own and "bits" in own and not has_method


def _folder_quantisation(config: dict[str, Any]) -> str | None:
    quantised = config.get("quantization_config")
    if isinstance(quantised, dict):
        return _text(quantised.get("quant_method"))
    kind = config.get("dtype") or config.get("torch_dtype")
    return {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}.get(str(kind))


def _read_json(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        data = file.read(_MAX_CONFIG_BYTES)
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WeightsError(f"{printable(str(path))} is not readable as JSON: {error}") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{printable(str(path))} does not hold a JSON object")
    return value


def _number(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
