"""vLLM's engine in processes of its own: the shape for a model that is split over several devices or machines."""

import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any

from backends.vllm.failures import refusal

CLOSE_S = 1.0


class EngineProcesses:
    """Asks one `AsyncLLM`, on the event loop that runs when `stream` is first called."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._ids = itertools.count(1)

    async def stream(self, prompt: Any, params: Any, *, lora: Any, priority: int) -> AsyncIterator[Any]:
        """vLLM's outputs for one request until it has finished; closing the iterator aborts it."""
        outputs = self._engine.generate(
            prompt, params, str(next(self._ids)), lora_request=lora, priority=priority
        )
        async with contextlib.aclosing(outputs):
            try:
                async for output in outputs:
                    yield output
            except Exception as error:
                raise refusal(error) or error from None

    async def reset_cache(self) -> None:
        """Forget the prefixes of earlier prompts, unless a request is running."""
        await self._engine.reset_prefix_cache()

    def close(self) -> None:
        """End the processes, which do not end by themselves."""
        self._engine.shutdown(timeout=CLOSE_S)
        self._engine = None
