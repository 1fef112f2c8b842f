"""A step engine over any transformers model: loads it by way of the plugin, picks how its lanes are kept, and turns
plans into forwards and logits into tokens. What to compute when is the scheduler's business."""

import abc
import gc
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from tokenizers import Tokenizer

from backends.contract import (
    EngineError,
    EngineInfo,
    LoadError,
    LoadRequest,
    PlanRow,
    Progress,
    ResultRow,
    Sampling,
    StepEngine,
    StepPlan,
    StepResult,
)
from backends.huggingface import HuggingFaceText
from backends.torch_lanes.check import Verdict, try_packed
from backends.torch_lanes.devices import free_bytes
from backends.torch_lanes.drawing import Samplers, to_numpy
from backends.torch_lanes.embedding import Embedder, PaddedForward, read_pooling
from backends.torch_lanes.folder import explained, find_folder
from backends.torch_lanes.layout import place
from backends.torch_lanes.packed import PackedLanes
from backends.torch_lanes.singly import SingleLanes
from backends.torch_lanes.sizes import plan_sizes

logger = logging.getLogger(__name__)

TOKENIZERS = (
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
    "tekken.json",
)
"""Files of older tokenizers, which transformers converts."""

ROBERTAS = ("roberta", "xlm-roberta", "camembert")

GENERATES = frozenset({"logit_bias", "logprobs", "mask", "prompt_logprobs"})


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """What a plugin made of the weights. `generates`: the model gives logits, not only vectors. `is_exact`: it
    computes in float32 with the weights as they are."""

    model: Any
    generates: bool = True
    is_exact: bool = True
    description: str = ""


class TorchEngine(StepEngine):
    """See StepEngine. Plugins say how weights become a model."""

    def __init__(self) -> None:
        self._model: Any = None
        self._lanes: PackedLanes | SingleLanes | None = None
        self._embedder: Embedder | None = None

    @abc.abstractmethod
    def load_model(self, request: LoadRequest, folder: Path) -> Loaded:
        """The model in `folder`, ready to compute. What it raises becomes a LoadError."""

    @abc.abstractmethod
    def version(self) -> str:
        """The libraries that compute, and their versions."""

    def load_tokenizer(self, folder: Path) -> Tokenizer | None:
        """A tokenizer that only the engine's own library can read; None where the folder has a tokenizer.json."""
        names = {path.name for path in folder.iterdir()}
        if "tokenizer.json" in names or not names & set(TOKENIZERS):
            return None
        from transformers import AutoTokenizer

        return getattr(
            AutoTokenizer.from_pretrained(folder, local_files_only=True), "backend_tokenizer", None
        )

    # Loading

    def load(self, request: LoadRequest, progress: Progress) -> EngineInfo:
        torch.set_num_threads(max(1, request.threads))
        folder = find_folder(request.weights)
        progress(0.0)
        try:
            with explained(folder), torch.inference_mode():
                self._text = _text(folder, self.load_tokenizer(folder))
                loaded = self.load_model(request, folder)
                self._model = loaded.model.eval().requires_grad_(False)
                progress(0.9)
                self.info = self._prepare(request, folder, loaded)
        except BaseException:
            self.unload()
            raise
        progress(1.0)
        return self.info

    def _prepare(self, request: LoadRequest, folder: Path, loaded: Loaded) -> EngineInfo:
        config = self._model.config.get_text_config()
        trained = int(getattr(config, "max_position_embeddings", 0) or getattr(config, "n_positions", 0) or 0)
        facts: dict[str, Any] = {
            **self._text.info_fields(),
            "lanes": request.lanes,
            "engine": self.version(),
            "description": loaded.description or type(self._model).__name__,
            "weights_bytes": _weights_bytes(self._model),
            "trained_context_tokens": trained,
            "generates": loaded.generates,
        }
        if not loaded.generates:
            facts |= self._prepare_vectors(request, folder, PaddedForward(self._model, padding_id=0))
            return EngineInfo(**facts, context_tokens=facts["embedding_tokens"], kv_tokens=0, prefix="none")
        _check_positions(request, config, trained)
        verdict = try_packed(self._model, vocabulary=facts["vocabulary"], is_exact=loaded.is_exact)
        gpu_bytes = free_bytes(self._model.device)
        memory = (
            None if request.memory_bytes is None else max(0, request.memory_bytes - facts["weights_bytes"])
        )
        sizes = plan_sizes(
            request,
            trained_tokens=trained,
            token_bytes=verdict.token_bytes,
            room_bytes=memory if gpu_bytes is None else gpu_bytes,
            on_gpu=gpu_bytes is not None,
        )
        self._lanes = self._make_lanes(request, verdict, context=sizes.context_tokens, pool=sizes.kv_tokens)
        facts["vocabulary"] = verdict.outputs
        self._samplers = Samplers(vocabulary=verdict.outputs)
        self._max_batch_tokens = request.max_batch_tokens
        facts["capabilities"] = GENERATES
        if request.embeddings:
            forward = PaddedForward(self._model.base_model, padding_id=0)
            hidden = self._lanes.hidden if isinstance(self._lanes, PackedLanes) else forward
            facts |= self._prepare_vectors(request, folder, hidden, longest=sizes.context_tokens)
            facts["capabilities"] |= GENERATES
        return EngineInfo(
            **facts,
            context_tokens=sizes.context_tokens,
            kv_tokens=sizes.kv_tokens,
            prefix=self._lanes.prefix,
            draftable=self._lanes.prefix == "tokens",
            shares_kv=False,
            kv_bytes=verdict.token_bytes * sizes.kv_tokens,
        )

    def _make_lanes(
        self, request: LoadRequest, verdict: Verdict, *, context: int, pool: int
    ) -> PackedLanes | SingleLanes:
        device = self._model.device
        if not verdict.problem:
            return PackedLanes(
                self._model, count=request.lanes, lane_tokens=context, kv_tokens=pool, device=device
            )
        logger.warning(
            "%s cannot be computed in batches (%s): sequences run one after the other",
            type(self._model).__name__,
            verdict.problem,
        )
        return SingleLanes(self._model, count=request.lanes, kv_tokens=pool, device=device)

    def _prepare_vectors(
        self, request: LoadRequest, folder: Path, hidden: Any, *, longest: int | None = None
    ) -> dict[str, Any]:
        """Make the embedder; returns what the facts have of it."""
        config = self._model.config.get_text_config()
        if longest is None:
            longest = self._text_tokens(request)
        self._embedder = Embedder(hidden, pooling=read_pooling(folder, request.options), longest=longest)
        return {
            "embedding_length": int(config.hidden_size),
            "embedding_tokens": longest,
            "capabilities": frozenset({"embeddings"}),
        }

    def _text_tokens(self, request: LoadRequest) -> int:
        """The longest text that a model without lanes takes."""
        config = self._model.config.get_text_config()
        most = int(getattr(config, "max_position_embeddings", 0) or 0)
        if config.model_type in ROBERTAS:
            most -= int(config.pad_token_id) + 1  # positions begin behind the padding's
        return min(one for one in (most, request.context_tokens) if one) if most else 512

    def unload(self) -> None:
        """Free the weights and the lanes. May be called again."""
        if self._lanes is not None:
            self._lanes.close()
        self._lanes = self._embedder = self._model = None
        gc.collect()

    # Text and vectors

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        return self._text.tokenize(text, special=special)

    def token_bytes(self, token: int, *, special: bool = False) -> bytes:
        return self._text.token_bytes(token, special=special)

    def framed(self, tokens: Sequence[int]) -> list[int]:
        return self._text.framed(tokens)

    def embed(self, batch: Sequence[Sequence[int]]) -> list[list[float]]:
        if self._embedder is None:
            return super().embed(batch)
        with torch.inference_mode():
            return self._embedder.embed([self._text.framed(tokens) for tokens in batch])

    # Steps

    def open(self, seq: int, sampling: Sampling, history: Sequence[int]) -> None:
        self._samplers.open(seq, sampling, history)

    def close(self, seq: int) -> None:
        self._samplers.close(seq)

    def step(self, plan: StepPlan) -> StepResult:
        if plan.num_tokens > self._max_batch_tokens:
            raise EngineError(
                f"the step has {plan.num_tokens} tokens; a batch holds {self._max_batch_tokens}"
            )
        refused = {row.seq: reason for row in plan.rows if (reason := self._refusal(row))}
        rows = [row for row in plan.rows if row.seq not in refused]
        results = {seq: ResultRow(seq=seq, error=reason) for seq, reason in refused.items()}
        if rows:
            lanes = self._loaded()
            if sum(len(row.tokens) for row in rows) > lanes.free_tokens:
                return StepResult(fit=False)
            placed, outputs = place(rows)
            with torch.inference_mode():
                logits = to_numpy(lanes.compute(rows, outputs))
            results |= {one.row.seq: self._samplers.result(one, logits) for one in placed}
        return StepResult(rows=tuple([results[row.seq] for row in plan.rows]))

    def _refusal(self, row: PlanRow) -> str | None:
        """Why a row cannot be computed, or None."""
        if row.adapter is not None:
            return "this engine does not serve adapters"
        if row.drafts and not self.info.draftable:
            return "this model's state cannot be cut, so its drafts cannot be verified"
        if row.drafts and (row.mask is not None or row.prompt_logprobs is not None):
            return "drafts go with neither a mask nor log-probabilities of the prompt"
        end = row.start + len(row.tokens)
        if not row.tokens or end > self.info.context_tokens:
            return f"tokens {row.start} to {end} do not fit a context of {self.info.context_tokens}"
        if min(row.tokens) < 0 or max(row.tokens) >= self.info.vocabulary:
            return f"the prompt has a token outside of the model's 0 to {self.info.vocabulary - 1}"
        return None

    def truncate(self, lane: int, keep: int) -> int:
        with torch.inference_mode():
            return self._loaded().truncate(lane, keep)

    def fork(self, source: int, target: int, keep: int) -> bool:
        with torch.inference_mode():
            return self._loaded().fork(source, target, keep)

    def save(self, lane: int, start: int, stop: int) -> memoryview | None:
        with torch.inference_mode():
            return self._loaded().save(lane, start, stop)

    def restore(self, lane: int, start: int, state: memoryview) -> bool:
        with torch.inference_mode():
            return self._loaded().restore(lane, start, state)

    def _loaded(self) -> PackedLanes | SingleLanes:
        if self._lanes is None:
            raise EngineError("this model makes embeddings only; it cannot generate text")
        return self._lanes


def _text(folder: Path, tokenizer: Tokenizer | None) -> HuggingFaceText:
    return HuggingFaceText(folder, tokenizer)


def _weights_bytes(model: Any) -> int:
    return sum(one.numel() * one.element_size() for one in (*model.parameters(), *model.buffers()))


def _check_positions(request: LoadRequest, config: Any, trained: int) -> None:
    """Rotary positions go on past those that were trained, if badly; learned ones have an end."""
    context = request.context_tokens or 0
    if not trained or context <= trained:
        return
    if getattr(config, "rope_parameters", None) is None:
        raise LoadError(f"context_size {context} is more than the {trained} positions that this model has")
    logger.warning(
        "context_size %d is more than the %d tokens that this model was trained for", context, trained
    )


def check_memory(request: LoadRequest, device: Any, needed: int) -> None:
    """Raises LoadError where weights of `needed` bytes cannot fit."""
    room = request.memory_bytes if device.type == "cpu" else free_bytes(device)
    if room is not None and needed > room:
        where = "memory" if device.type == "cpu" else f"memory of {device}"
        raise LoadError(
            f"the weights take {needed / 2**20:.0f} MiB and {room / 2**20:.0f} MiB of {where} are free; "
            "set f16 or a quantization, or make room"
        )
