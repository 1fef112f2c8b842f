"""A sequence inside exllamav2's dynamic generator, which batches, pages and computes it. Needs exllamav2."""

from typing import Any

import torch
from exllamav2.generator import ExLlamaV2DynamicJob

from backends.contract import EngineRequest, TokenChunk
from backends.exllamav2.drawing import Drawing


class DrawingJob(ExLlamaV2DynamicJob):  # type: ignore[misc]
    """A job that draws its tokens itself. See `driver.Job`."""

    def __init__(self, request: EngineRequest, *, vocabulary: int, eos_ids: tuple[int, ...]) -> None:
        self._vocabulary = vocabulary
        self._drawing = Drawing(request, vocabulary=vocabulary, eos_ids=eos_ids)
        super().__init__(
            input_ids=torch.tensor([request.prompt], dtype=torch.long),
            max_new_tokens=request.max_tokens,
            stop_conditions=self._drawing.stops,
        )

    def receive_logits(self, logits: torch.Tensor) -> tuple[Any, ...]:
        """Draw from `logits`, in main memory, of shape (1, 1, padded vocabulary). The generator calls this on one of
        its threads, and wants nothing of it but the token."""
        token = self._drawing.draw(logits[0, 0, : self._vocabulary].numpy())
        if token is None:
            # An exception here would end all sequences of the step. This ends the one.
            self.max_new_tokens = 0
            token = 0
        return torch.tensor([[token]], dtype=torch.long), None, None, None, False

    def take(self, result: dict[str, Any]) -> TokenChunk | None:
        if result["stage"] != "streaming":
            return None
        is_stopped = result["eos"] and result["eos_reason"] == "stop_token"
        return self._drawing.take(
            cached_tokens=self.cached_pages * self.generator.page_size + self.cached_tokens,
            finish="stop" if is_stopped else "length" if result["eos"] else None,
        )


class NoPieces:
    """Stands where the generator has its tokenizer. It is asked for the texts of tokens alone, to look for stop texts
    and broken characters in them; both are found elsewhere, so all tokens have the same empty text."""

    def __init__(self, vocabulary: int) -> None:
        self._pieces = [""] * vocabulary

    def get_id_to_piece_list(self, include_special_tokens: bool = False) -> list[str]:
        return self._pieces
