"""Vectors of whole texts: one inference for a batch, pooled and normalised here."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from backends.contract import EngineError, LoadError

Pooling = Literal["mean", "cls", "last"]
STAGES = ("Transformer", "Pooling", "Normalize")
KNOWN_INPUTS = frozenset({"input_ids", "attention_mask", "token_type_ids", "position_ids"})


class Embedder:
    """A compiled model that gives a vector for every token."""

    def __init__(self, model: ov.CompiledModel, *, pooling: Pooling) -> None:
        self._inputs = {port.get_any_name() for port in model.inputs}
        unknown = self._inputs - KNOWN_INPUTS
        if unknown:
            raise LoadError(
                f"the model wants {', '.join(sorted(unknown))}, so it makes no embeddings of text; "
                "openvino serves OVModelForFeatureExtraction and OVModelForCausalLM"
            )
        self._request = model.create_infer_request()
        self._pooling = pooling
        self.length = int(model.outputs[0].get_partial_shape()[-1].get_length())

    def embed(self, batch: Sequence[Sequence[int]]) -> list[list[float]]:
        """One normalised vector of `length` floats per token list; none of them is empty."""
        if not all(batch):
            raise EngineError("an empty text has no embedding; send at least one token")
        longest = max(map(len, batch))
        ids = np.zeros((len(batch), longest), dtype=np.int64)
        mask = np.zeros((len(batch), longest), dtype=np.int64)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        inputs = {
            "input_ids": ids,
            "attention_mask": mask,
            "token_type_ids": np.zeros_like(ids),
            "position_ids": np.broadcast_to(np.arange(longest), ids.shape).copy(),
        }
        outputs = self._request.infer({name: inputs[name] for name in self._inputs})
        pooled = self._pool(np.asarray(outputs[0], dtype=np.float32), mask)
        norms = np.linalg.norm(pooled, axis=1, keepdims=True)
        vectors: list[list[float]] = (pooled / np.maximum(norms, 1e-12)).tolist()
        return vectors

    def _pool(self, hidden: NDArray[np.float32], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """From (texts, tokens, length) to (texts, length)."""
        match self._pooling:
            case "cls":
                return hidden[:, 0]
            case "last":
                last: NDArray[np.float32] = hidden[np.arange(len(hidden)), mask.sum(axis=1) - 1]
                return last
            case "mean":
                weights = mask[:, :, None].astype(np.float32)
                mean: NDArray[np.float32] = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
                return mean


def own_pooling(folder: Path) -> Pooling:
    """What the files say that sentence-transformers keeps; mean where there are none. Raises LoadError where a model
    does more to its vectors than is done here."""
    kinds = [str(one.get("type", "")).rpartition(".")[2] for one in _read(folder / "modules.json", [])]
    if other := [kind for kind in kinds if kind not in STAGES]:
        raise LoadError(
            f"the model's vectors pass through {', '.join(other)}, which the openvino backend does not do"
        )
    said = _read(folder / "1_Pooling" / "config.json", {})
    if said.get("pooling_mode_cls_token"):
        return "cls"
    return "last" if said.get("pooling_mode_lasttoken") else "mean"


def _read(path: Path, absent: Any) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return absent
