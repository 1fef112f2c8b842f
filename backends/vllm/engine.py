"""The vLLM stream engine: tokens in, tokens out. Scheduling, batching and the prefix cache are vLLM's own.

Texts are not: vLLM is given tokens and turns none into text. It has its tokenizer for structured output alone.
"""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from backends.contract import (
    EngineError,
    EngineInfo,
    EngineRequest,
    LoadError,
    LoadRequest,
    Progress,
    StreamEngine,
    TokenChunk,
    UnsupportedError,
)
from backends.huggingface import HuggingFaceText
from backends.vllm.adapters import Adapters
from backends.vllm.chunks import chunk_of
from backends.vllm.failures import refusal
from backends.vllm.loading import engine_version, load_engine, lora_request
from backends.vllm.sampling import constraint_arguments, sampling_arguments

CAPABILITIES = frozenset({"cache_salt", "constraint", "logit_bias", "logprobs", "mask", "prompt_logprobs"})


class VllmEngine(StreamEngine):
    """One model on vLLM: in this process or, split over several devices, in processes of its own."""

    def load(self, request: LoadRequest, progress: Progress) -> EngineInfo:
        progress(0.0)
        if request.embeddings:
            raise LoadError("the vllm backend makes no embeddings; set `backend: transformers` for them")
        folder = Path(request.weights)
        self._text = HuggingFaceText(folder, tokenizer=None if _is_plain(folder) else _converted(folder))
        self._adapters = Adapters.read(request.options, folder)
        loaded = load_engine(request, self._adapters, progress)
        self._driver = loaded.driver
        self.info = EngineInfo(
            **self._text.info_fields(),
            context_tokens=loaded.context_tokens,
            kv_tokens=loaded.kv_tokens,
            lanes=request.running_lanes,
            prefix="tokens",
            mixed_adapters=True,
            adapters=tuple([adapter.name for adapter in self._adapters]),
            capabilities=CAPABILITIES | ({"adapters"} if self._adapters else set()),
            engine=engine_version(),
            description=loaded.description,
            weights_bytes=loaded.weights_bytes,
            kv_bytes=loaded.kv_bytes,
            trained_context_tokens=loaded.trained_tokens,
        )
        progress(1.0)
        return self.info

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        return self._text.tokenize(text, special=special)

    def token_bytes(self, token: int, *, special: bool = False) -> bytes:
        return self._text.token_bytes(token, special=special)

    async def generate(self, request: EngineRequest) -> AsyncIterator[TokenChunk]:
        room = self.info.context_tokens - len(request.prompt)
        if not request.prompt or room < min(1, request.max_tokens):
            raise EngineError(
                f"the prompt has {len(request.prompt)} tokens; 1 to {self.info.context_tokens} fit"
            )
        try:
            async with contextlib.aclosing(self._stream(request)) as outputs:  # type: ignore[type-var]
                async for output in outputs:
                    yield chunk_of(output, request)
        except UnsupportedError as error:
            if request.constraint is None:
                raise
            raise UnsupportedError(f"`{request.constraint.param}` cannot be used: {error}") from error

    async def reset_cache(self) -> None:
        await self._driver.reset_cache()

    def unload(self) -> None:
        self._driver.close()

    def _stream(self, request: EngineRequest) -> AsyncIterator[Any]:
        from vllm.inputs import tokens_input

        adapter = None if request.adapter is None else lora_request(self._adapters.get(request.adapter))
        return self._driver.stream(
            tokens_input(list(request.prompt), cache_salt=request.cache_salt),
            self._params(request),
            lora=adapter,
            priority=request.priority,
        )

    def _params(self, request: EngineRequest) -> Any:
        from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

        arguments = sampling_arguments(request, eos_ids=self.info.eos_ids)
        constraint = request.constraint
        try:
            if constraint is not None:
                arguments["structured_outputs"] = StructuredOutputsParams(**constraint_arguments(constraint))
            return SamplingParams(output_kind=RequestOutputKind.DELTA, skip_clone=True, **arguments)
        except Exception as error:
            raise refusal(error) or error from None


def _is_plain(folder: Path) -> bool:
    """The tokenizer is one that the `tokenizers` library reads, or there is none."""
    return (folder / "tokenizer.json").exists() or not (folder / "tokenizer.model").exists()


def _converted(folder: Path) -> Any:
    """A sentencepiece model as a tokenizer of the `tokenizers` library."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
    except Exception as error:  # whatever transformers raises for a file that it cannot convert
        raise LoadError(f"the tokenizer in {folder} cannot be read: {error}") from error
