"""exllamav2's dynamic generator as a stream engine: tokens in, tokens out, on a thread of its own.

Owns the order in which things are found out: what can be refused at once comes before the extension is compiled, and
that before the weights are read. Imports exllamav2 only once it is known that it can be.
"""

import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from backends.contract import (
    EngineError,
    EngineInfo,
    EngineRequest,
    LoadError,
    LoadRequest,
    Progress,
    StreamEngine,
    TokenChunk,
)
from backends.exllamav2 import machine
from backends.exllamav2.driver import EngineThread, Generator, Job
from backends.exllamav2.memory import CachePlan, Shape, plan_cache
from backends.exllamav2.options import Options
from backends.exllamav2.weights import Weights, read_weights
from backends.huggingface import HuggingFaceText

logger = logging.getLogger(__name__)

CAPABILITIES = frozenset({"logit_bias", "logprobs", "mask"})


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known before exllamav2 is imported."""

    options: Options
    weights: Weights
    shape: Shape
    gpus: tuple[machine.Gpu, ...]
    cache: CachePlan
    paging: machine.Paging
    version: str


class ExLlamaV2Engine(StreamEngine):
    """See StreamEngine. A request waits in the generator until its cache has room for all that it may write."""

    def __init__(self) -> None:
        self._thread: EngineThread | None = None
        self._loaded: Any = None

    def load(self, request: LoadRequest, progress: Progress) -> EngineInfo:
        prepared = self._prepare(request)
        if prepared.cache.warning:
            logger.warning("%s", prepared.cache.warning)

        def load() -> Generator:
            with machine.compiling():
                loading = _import_loading()
            self._loaded = loading.load(
                prepared.weights,
                prepared.options,
                prepared.cache,
                paging=prepared.paging,
                lanes=request.running_lanes,
                chunk_tokens=request.max_batch_tokens,
                threads=request.threads,
                progress=progress,
            )
            generator: Generator = self._loaded.generator
            return generator

        thread = EngineThread(load)
        thread.start()
        self._thread = thread
        if self._loaded.why_one:
            logger.warning("one sequence at a time: %s", self._loaded.why_one)
        self.info = self._describe(prepared)
        return self.info

    def unload(self) -> None:
        """End the thread; the process's exit frees the GPUs."""
        if self._thread is not None:
            self._thread.stop()
            self._thread = None

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        return self._text.tokenize(text, special=special)

    def token_bytes(self, token: int, *, special: bool = False) -> bytes:
        return self._text.token_bytes(token, special=special)

    async def generate(self, request: EngineRequest) -> AsyncIterator[TokenChunk]:
        assert self._thread is not None
        self._check(request)
        if request.max_tokens == 0:
            yield TokenChunk(cached_tokens=0, finish="length")
            return

        def make_job() -> Job:
            from backends.exllamav2.job import DrawingJob

            return DrawingJob(request, vocabulary=self.info.vocabulary, eos_ids=self.info.eos_ids)

        async with contextlib.aclosing(self._thread.stream(make_job)) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                yield chunk

    def _check(self, request: EngineRequest) -> None:
        """Raises EngineError where the generator would fail for all."""
        if request.adapter is not None:
            raise EngineError(f"exllamav2 serves no adapters here, so it cannot run {request.adapter!r}")
        if request.prompt_logprobs is not None:
            raise EngineError("exllamav2 gives no log-probabilities of prompts")
        longest = self.info.context_tokens
        if not 0 < len(request.prompt) <= longest:
            raise EngineError(f"the prompt has {len(request.prompt)} tokens; 1 to {longest} fit")
        if len(request.prompt) + request.max_tokens > self.info.kv_tokens:
            raise EngineError(
                f"{len(request.prompt)} tokens of prompt and {request.max_tokens} of output do not fit a KV cache of "
                f"{self.info.kv_tokens}"
            )

    def _prepare(self, request: LoadRequest) -> Prepared:
        """Whatever can be refused without exllamav2 is refused here. Raises LoadError."""
        options = Options.read(request.options)
        if request.embeddings:
            raise LoadError("exllamav2 makes no embeddings; remove `embeddings` from the model's config.yaml")
        if request.device == "cpu":
            raise LoadError(
                "instance_group.kind is cpu, and exllamav2 computes on NVIDIA GPUs only; remove it"
            )
        weights = read_weights(Path(request.weights))
        shape = Shape.of(weights.config)
        options.check_layers(shape.layers)
        self._text = HuggingFaceText(weights.folder)
        torch = machine.import_torch()
        version = machine.require_package()
        gpus = machine.select_gpus(torch, options.main_gpu)
        options.check_gpus(len(gpus))
        cache = plan_cache(
            shape,
            context_tokens=request.context_tokens,
            kv_tokens=request.kv_tokens,
            lanes=request.running_lanes,
            cache_type=options.cache_type,
            free_bytes=[gpu.free_bytes for gpu in gpus],
            weights_bytes=weights.size_bytes,
        )
        paging = machine.paging(machine.installed("flash-attn"), gpus)
        return Prepared(
            options=options,
            weights=weights,
            shape=shape,
            gpus=gpus,
            cache=cache,
            paging=paging,
            version=version,
        )

    def _describe(self, prepared: Prepared) -> EngineInfo:
        loaded, cache_type = self._loaded, prepared.options.cache_type
        each = prepared.shape.token_bytes(cache_type, gpus=len(prepared.gpus))
        words = [
            prepared.weights.architecture,
            prepared.weights.quantisation or "FP16",
            f"cache {cache_type}",
            ", ".join(gpu.name for gpu in prepared.gpus),
        ]
        if loaded.why_one:
            words.append(f"one sequence at a time: {loaded.why_one}")
        fields = {**self._text.info_fields(), "vocabulary": loaded.vocabulary}
        return EngineInfo(
            **fields,
            context_tokens=min(prepared.cache.context_tokens, loaded.cache_tokens),
            kv_tokens=loaded.cache_tokens,
            lanes=loaded.lanes,
            capabilities=CAPABILITIES,
            engine=f"exllamav2 {prepared.version}",
            description=", ".join(words),
            weights_bytes=prepared.weights.size_bytes,
            kv_bytes=int(each * loaded.cache_tokens),
            trained_context_tokens=prepared.shape.trained_tokens,
        )


def _import_loading() -> Any:
    """The module that imports exllamav2. Raises LoadError where its extension could not be compiled or loaded."""
    try:
        from backends.exllamav2 import loading
    except (ImportError, OSError, RuntimeError) as error:
        logger.exception("exllamav2 could not be imported")
        words = str(error).strip().partition("\n")[0] or type(error).__name__
        raise LoadError(
            f"exllamav2's extension could not be compiled or loaded: {words}; the worker's log has the whole story"
        ) from error
    return loading
