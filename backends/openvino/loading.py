"""Finds what a load request means and opens it with OpenVINO. Weights of Hugging Face come by `conversion.py`."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import openvino as ov
import openvino_genai as genai

from backends.contract import LoadError, LoadRequest, Progress
from backends.huggingface import HuggingFaceText
from backends.openvino.conversion import MODEL, Conversion, Converter
from backends.openvino.devices import pick_device
from backends.openvino.embedding import Embedder, own_pooling
from backends.openvino.memory import Pool, Shape
from backends.openvino.options import EMBEDDING, GENERATION, Options

logger = logging.getLogger(__name__)

STATE = "MODELYARD_STATE"
TOKENIZERS = ("openvino_tokenizer.xml", "openvino_detokenizer.xml")


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be loaded. `source` is the folder that the repository has, `folder` the one in OpenVINO's format."""

    source: Path
    folder: Path
    kind: str
    device: str
    options: Options
    shape: Shape
    text: HuggingFaceText

    @property
    def has_tokenizers(self) -> bool:
        """OpenVINO's own, which its structured output needs."""
        return all((self.folder / name).is_file() for name in TOKENIZERS)

    @property
    def block_tokens(self) -> int:
        """Of the KV cache."""
        return 16 if self.device.startswith("GPU") else 32


def find_model(request: LoadRequest, progress: Progress) -> Model:
    """Convert the weights where that is needed. Raises LoadError."""
    options = Options.read(request.options)
    source = Path(request.weights)
    device = pick_device(options.main_gpu, ov.Core().available_devices, kind=request.device)
    config = _read_config(source)
    kind = options.type or _kind(config)
    _check(options, kind, source, embeds=request.embeddings)
    folder = source if (source / MODEL).is_file() else _converted(source, kind, options, progress)
    return Model(
        source=source,
        folder=folder,
        kind=kind,
        device=device,
        options=options,
        shape=Shape.read(config, weights_bytes=_weights_bytes(folder)),
        text=HuggingFaceText(source if (source / "tokenizer.json").is_file() else folder),
    )


def open_pipeline(model: Model, request: LoadRequest, pool: Pool) -> genai.ContinuousBatchingPipeline:
    """Continuous batching over a KV cache of `pool`. Raises LoadError."""
    scheduler = genai.SchedulerConfig()
    scheduler.num_kv_blocks = pool.num_blocks
    scheduler.max_num_batched_tokens = request.max_batch_tokens
    scheduler.max_num_seqs = request.running_lanes
    scheduler.dynamic_split_fuse = True
    scheduler.enable_prefix_caching = request.prefix_cache
    properties = {
        **model.options.properties(model.device, threads=request.threads),
        **model.options.cache_properties(),
        "sampler_num_threads": request.threads,
    }
    with _explained(model.folder):
        return genai.ContinuousBatchingPipeline(model.folder, scheduler, model.device, properties)


def open_embedder(model: Model, request: LoadRequest) -> Embedder:
    """Raises LoadError."""
    pooling = own_pooling(model.source)
    properties = model.options.properties(model.device, threads=request.threads)
    with _explained(model.folder):
        compiled = ov.Core().compile_model(model.folder / MODEL, model.device, properties)
        return Embedder(compiled, pooling=model.options.pooling or pooling)


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = msgspec.json.decode((folder / "config.json").read_bytes())
    except OSError as error:
        raise LoadError(
            f"{folder} has no config.json to read ({error.strerror}); openvino takes a model's whole folder"
        ) from error
    except msgspec.DecodeError as error:
        raise LoadError(
            f"{folder / 'config.json'} is not JSON: {error}; copy or download it again"
        ) from error
    return config if isinstance(config, dict) else {}


def _kind(config: dict[str, Any]) -> str:
    """What the architecture is for; one that has no head to make text with makes vectors."""
    names = [str(name) for name in config.get("architectures") or ()]
    makes_text = any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names)
    return GENERATION if makes_text or not names else EMBEDDING


def _check(options: Options, kind: str, source: Path, *, embeds: bool) -> None:
    """Raises LoadError for what contradicts itself; what has no effect is logged."""
    if embeds and kind == GENERATION:
        raise LoadError(
            f"an {GENERATION} makes text, no embeddings; remove `embeddings` from the model's config.yaml, or set "
            f"`type: {EMBEDDING}`"
        )
    if options.quantization != "none" and (source / MODEL).is_file():
        raise LoadError(
            f"`quantization` is for weights that are converted here, and {source} is in OpenVINO's format already; "
            "remove the key"
        )
    if options.gpu_layers is not None:
        logger.warning("gpu_layers: %s has no effect: OpenVINO runs a model whole", options.gpu_layers)


def _converted(source: Path, kind: str, options: Options, progress: Progress) -> Path:
    state = os.environ.get(STATE)
    if not state:
        raise LoadError(f"{STATE} is not set, so there is nowhere to keep what {source} is converted to")
    wanted = Conversion(
        source=str(source),
        type=kind,
        quantization=options.quantization,
        trust_remote_code=options.trust_remote_code,
    )
    return Converter(Path(state)).find_or_make(wanted, progress)


def _weights_bytes(folder: Path) -> int:
    try:
        return (folder / MODEL).with_suffix(".bin").stat().st_size
    except OSError as error:
        raise LoadError(f"{folder} has no openvino_model.bin; copy or download the whole folder") from error


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """OpenVINO's errors as sentences."""
    try:
        yield
    except RuntimeError as error:
        raise LoadError(f"OpenVINO cannot load {folder}: {_reason(error)}") from error


def _reason(error: RuntimeError) -> str:
    """OpenVINO's message without the places in its sources."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return (told or lines or ["it gave no reason; see the worker's log"])[0]
