"""A vLLM engine whose next step fails once it was asked for BREAKING_TOKENS tokens."""

from collections.abc import AsyncIterator
from typing import Any

from backends.contract import EngineInfo, EngineRequest, LoadRequest, Progress, TokenChunk
from backends.vllm.engine import VllmEngine

BREAKING_TOKENS = 7


class BreakingEngine(VllmEngine):
    _is_told = False

    def load(self, request: LoadRequest, progress: Progress) -> EngineInfo:
        info = super().load(request, progress)
        engine = self._driver._engine  # type: ignore[union-attr]
        step = engine.step

        def breaking() -> Any:
            if self._is_told:
                raise RuntimeError("it breaks here because the test wants it")
            return step()

        engine.step = breaking
        return info

    async def generate(self, request: EngineRequest) -> AsyncIterator[TokenChunk]:
        self._is_told = request.max_tokens == BREAKING_TOKENS
        async for chunk in super().generate(request):
            yield chunk
