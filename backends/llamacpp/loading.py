"""Opening a GGUF: which file it is, whether it can be one, what its header says, and why it did not load."""

import ctypes
import os
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from llama_cpp import llama_cpp as ll

from backends.contract import LoadError, Progress
from backends.llamacpp.devices import check_main_gpu, count_gpus
from backends.llamacpp.embedding import Pooling
from backends.llamacpp.logs import last_errors, log_bridge
from backends.llamacpp.memory import ModelShape
from backends.llamacpp.parameters import model_params

PART = re.compile(r"(?P<stem>.+)-[0-9]{5}-of-(?P<total>[0-9]{5})\.gguf")

# First four bytes of the formats before GGUF, as they lie on disk.
GGML_ERA = {b"lmgg": "ggml", b"fmgg": "ggmf", b"tjgg": "ggjt", b"algg": "ggla"}


def find_file(weights: str) -> Path:
    """The GGUF to load: `weights` itself, or the only model in that folder. Raises LoadError."""
    path = Path(weights)
    if path.is_dir():
        found = sorted(p for p in path.glob("*.gguf") if not p.name.startswith("mmproj"))
        # llama.cpp finds the other parts of a split model from the first.
        firsts = [p for p in found if "-of-" not in p.name or "-00001-of-" in p.name]
        if len(firsts) != 1:
            names = ", ".join(p.name for p in firsts) or "none"
            raise LoadError(
                f"{path} should hold one .gguf model, found: {names}; name one in parameters.model"
            )
        path = firsts[0]
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise LoadError(f"cannot read {path}: {error.strerror}") from error
    _check_magic(path, magic)
    return path


def all_parts(path: Path) -> list[Path]:
    """The file itself, or all that it was split into. Raises LoadError where one is missing."""
    split = PART.fullmatch(path.name)
    if split is None:
        return [path]
    total = int(split["total"])
    parts = [path.with_name(f"{split['stem']}-{n:05}-of-{total:05}.gguf") for n in range(1, total + 1)]
    if missing := [part.name for part in parts if not part.is_file()]:
        raise LoadError(f"{path} is one of {total} parts, and missing are: {', '.join(missing[:5])}")
    return parts


def _check_magic(path: Path, magic: bytes) -> None:
    if magic == b"GGUF":
        return
    if magic in GGML_ERA:
        raise LoadError(
            f"{path} is a {GGML_ERA[magic]} file from before GGUF, which llama.cpp no longer reads; "
            "get the model as GGUF, or convert it with convert_llama_ggml_to_gguf.py from llama.cpp's sources"
        )
    if magic == b"vers":
        raise LoadError(f"{path} is a Git LFS pointer, not the weights; run `git lfs pull` in its folder")
    if not magic:
        raise LoadError(f"{path} is empty; copy or download it again")
    raise LoadError(f"{path} is not a GGUF file (it starts with {magic!r}); llamacpp serves GGUF only")


def load_model(path: Path, options: Mapping[str, Any], progress: Progress, *, device: str = "auto") -> Any:
    """A `llama_model` pointer, to be freed by the caller. Raises LoadError, or what `progress` raised."""
    params = model_params(options, device=device)
    check_main_gpu(options.get("main_gpu"), there=0 if device == "cpu" else count_gpus())
    raised: list[BaseException] = []

    def report(share: float, _user_data: object) -> bool:
        # An exception cannot cross C: it stops the load and goes on from here.
        try:
            progress(min(max(share, 0.0), 1.0))
        except BaseException as error:
            raised.append(error)
        return not raised

    # Kept in a local for as long as llama.cpp may call it.
    callback = ll.llama_progress_callback(report)
    params.progress_callback = callback
    with log_bridge().record() as lines:
        model = ll.llama_model_load_from_file(os.fsencode(path), params)
    if raised:
        raise raised[0]
    if not model:
        raise LoadError(f"llama.cpp cannot load {path}: {_explain(last_errors(lines))}")
    return model


def _explain(reason: str) -> str:
    if "unknown model architecture" in reason:
        version = ll.llama_version().decode()
        return f"{reason}; llama.cpp {version} does not know it, a newer llama-cpp-python may"
    if any(word in reason for word in ("corrupt", "incomplete", "bounds", "failed to read", "unexpectedly")):
        return f"{reason}; the file is damaged or not complete, copy or download it again"
    return reason or "it gave no reason; see the worker's log"


def new_context(model: Any, params: Any, *, purpose: str) -> tuple[Any, int]:
    """A `llama_context` pointer, and the bytes of its KV cache as llama.cpp reports them (0 if it does not).

    Raises LoadError.
    """
    with log_bridge().record() as lines:
        context = ll.llama_init_from_model(model, params)
    if not context:
        why = last_errors(lines) or "out of memory, by the look of it"
        raise LoadError(
            f"llama.cpp cannot make a context of {params.n_ctx} tokens for {purpose}: {why}; "
            "check context_size, scheduler.kv_tokens, cache_type_k, cache_type_v and flash_attention"
        )
    return context, reported_cache_bytes(lines)


def reported_cache_bytes(lines: list[tuple[int, str]]) -> int:
    """The sum of the cache buffers in llama.cpp's log; 0 where it wrote none."""
    sizes = [
        line.partition("buffer size =")[2].split()
        for _, line in lines
        if " KV buffer" in line or " RS buffer" in line
    ]
    return sum(int(float(words[0]) * 2**20) for words in sizes if words)


def engine_version() -> str:
    """Both versions that a bug report needs."""
    return f"llama-cpp-python {version('llama-cpp-python')} (llama.cpp {ll.llama_version().decode()})"


class Header:
    """The scalar metadata of a loaded model, and the shape that sizes its context."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.architecture = self.get("general.architecture") or ""

    def get(self, key: str) -> str | None:
        """The value of `key` as text; None where it is absent or an array."""
        room = 256
        while True:
            buffer = ctypes.create_string_buffer(room)
            length = ll.llama_model_meta_val_str(self._model, key.encode(), buffer, room)
            if length < 0:
                return None
            if length < room:
                return buffer.value.decode("utf-8", "replace")
            room = length + 1

    def own(self, key: str) -> str | None:
        """The value of a key under the architecture's name."""
        return self.get(f"{self.architecture}.{key}")

    @property
    def is_causal(self) -> bool:
        return self.own("attention.causal") != "false"

    @property
    def pooling(self) -> Pooling:
        """The model's own pooling; mean where it names none or one that makes no vector."""
        kinds: dict[str | None, Pooling] = {
            str(ll.LLAMA_POOLING_TYPE_CLS): "cls",
            str(ll.LLAMA_POOLING_TYPE_LAST): "last",
        }
        return kinds.get(self.own("pooling_type"), "mean")

    def shape(self) -> ModelShape:
        model = self._model
        heads = ll.llama_model_n_head(model)
        width = ll.llama_model_n_embd(model) // heads if heads else 0
        kv_heads = ll.llama_model_n_head_kv(model)
        return ModelShape(
            trained_tokens=ll.llama_model_n_ctx_train(model),
            layers=ll.llama_model_n_layer(model),
            key_width=kv_heads * int(self.own("attention.key_length") or width),
            value_width=kv_heads * int(self.own("attention.value_length") or width),
            vocabulary=ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(model)),
            weights_bytes=ll.llama_model_size(model),
        )

    def description(self) -> str:
        buffer = ctypes.create_string_buffer(128)
        ll.llama_model_desc(self._model, buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace")

    def generation_defaults(self) -> dict[str, float | int]:
        """What the model's makers recommend, under the request's names."""
        wanted = {
            "temp": ("temperature", float),
            "top_k": ("top_k", int),
            "top_p": ("top_p", float),
            "min_p": ("min_p", float),
            "penalty_repeat": ("repeat_penalty", float),
            "penalty_last_n": ("repeat_last_n", int),
        }
        found = {name: (kind, self.get(f"general.sampling.{key}")) for key, (name, kind) in wanted.items()}
        return {name: kind(text) for name, (kind, text) in found.items() if text is not None}
