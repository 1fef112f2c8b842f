"""The OpenVINO engine: generation by openvino-genai, which batches by itself, or vectors by OpenVINO alone.

When a step is computed is `batcher.py`'s business, what is loaded and how is `loading.py`'s.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal

import openvino_genai as genai

from backends.contract import (
    EngineError,
    EngineInfo,
    EngineRequest,
    LoadRequest,
    Progress,
    StreamEngine,
    TokenChunk,
    TokenLogprobs,
)
from backends.openvino.batcher import Batcher, Output
from backends.openvino.checker import ConstraintChecker
from backends.openvino.embedding import Embedder
from backends.openvino.loading import Model, find_model, open_embedder, open_pipeline
from backends.openvino.memory import UNKNOWN_CONTEXT_TOKENS, plan_pool
from backends.openvino.options import GENERATION
from backends.openvino.probe import engine_version
from backends.openvino.requests import config_fields, constraint_fields

FINISH: dict[Any, Literal["stop", "length"]] = {
    genai.GenerationFinishReason.STOP: "stop",
    genai.GenerationFinishReason.LENGTH: "length",
}


class OpenVinoEngine(StreamEngine):
    """See StreamEngine. A model either makes text or vectors."""

    def __init__(self) -> None:
        self._batcher: Batcher | None = None
        self._embedder: Embedder | None = None
        self._checker: ConstraintChecker | None = None

    def load(self, request: LoadRequest, progress: Progress) -> EngineInfo:
        progress(0.0)
        model = find_model(request, progress)
        progress(0.5)
        self._text = model.text
        prepare = self._prepare_generation if model.kind == GENERATION else self._prepare_embeddings
        self.info = prepare(model, request)
        progress(1.0)
        return self.info

    def _prepare_generation(self, model: Model, request: LoadRequest) -> EngineInfo:
        pool = plan_pool(
            request, model.shape, precision=model.options.cache_precision, block_tokens=model.block_tokens
        )
        self._batcher = Batcher(open_pipeline(model, request, pool))
        if model.has_tokenizers:
            self._checker = ConstraintChecker(model.folder, model.text.vocabulary)
        return EngineInfo(
            **model.text.info_fields(),
            **_facts(model, request),
            context_tokens=pool.context_tokens,
            kv_tokens=pool.kv_tokens,
            kv_bytes=pool.kv_bytes,
            prefix="tokens" if request.prefix_cache else "none",
            capabilities=self._capabilities(),
        )

    def _capabilities(self) -> frozenset[str]:
        """Of masks it has what `min_tokens` needs."""
        return frozenset({"logprobs", "mask"} | ({"constraint"} if self._checker else set()))

    def _prepare_embeddings(self, model: Model, request: LoadRequest) -> EngineInfo:
        self._embedder = open_embedder(model, request)
        longest = model.shape.trained_tokens or UNKNOWN_CONTEXT_TOKENS
        context = min(request.context_tokens or longest, longest)
        return EngineInfo(
            **model.text.info_fields(),
            **_facts(model, request),
            context_tokens=context,
            kv_tokens=0,
            prefix="none",
            capabilities=frozenset({"embeddings"}),
            embedding_length=self._embedder.length,
            embedding_tokens=context - len(model.text.framed([])),
            generates=False,
        )

    def unload(self) -> None:
        """Give the memory back, and end what was started."""
        self._batcher = self._embedder = None
        if self._checker is not None:
            self._checker.close()

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        return self._text.tokenize(text, special=special)

    def token_bytes(self, token: int, *, special: bool = False) -> bytes:
        return self._text.token_bytes(token, special=special)

    def framed(self, tokens: Sequence[int]) -> list[int]:
        return self._text.framed(tokens)

    def embed(self, batch: Sequence[Sequence[int]]) -> list[list[float]]:
        if self._embedder is None:
            return super().embed(batch)
        return self._embedder.embed([self._text.framed(tokens) for tokens in batch])

    async def generate(self, request: EngineRequest) -> AsyncIterator[TokenChunk]:
        if self._batcher is None:
            raise EngineError("this model makes embeddings only; it cannot generate text")
        if not 0 < len(request.prompt) <= self.info.context_tokens:
            raise EngineError(
                f"the prompt has {len(request.prompt)} tokens; 1 to {self.info.context_tokens} fit"
            )
        config = await self._config(request)
        if request.max_tokens == 0:
            yield TokenChunk(finish="length")
            return
        outputs = self._batcher.stream(request.prompt, config)
        async with contextlib.aclosing(outputs):  # type: ignore[type-var]
            async for output in outputs:
                yield _chunk(output, has_logprobs=request.logprobs is not None)

    async def _config(self, request: EngineRequest) -> genai.GenerationConfig:
        fields = config_fields(request, eos_ids=self.info.eos_ids)
        if request.constraint is not None and self._checker is not None:
            form = constraint_fields(request.constraint)
            await self._checker.check(form, param=request.constraint.param)
            fields["structured_output_config"] = genai.StructuredOutputConfig(**form)
        return genai.GenerationConfig(**fields)


def _facts(model: Model, request: LoadRequest) -> dict[str, Any]:
    """What is said alike of both kinds."""
    return {
        "lanes": request.running_lanes,
        "engine": engine_version(),
        "description": f"{model.shape.architecture} on {model.device}",
        "weights_bytes": model.shape.weights_bytes,
        "trained_context_tokens": model.shape.trained_tokens,
    }


def _chunk(output: Output, *, has_logprobs: bool) -> TokenChunk:
    pairs = zip(output.tokens, output.logprobs, strict=True) if has_logprobs else ()
    return TokenChunk(
        tokens=output.tokens,
        logprobs=tuple(TokenLogprobs(token, logprob) for token, logprob in pairs),
        finish=FINISH.get(output.finish),
    )
