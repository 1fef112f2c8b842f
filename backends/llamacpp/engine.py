"""The llama.cpp step engine: one context whose KV cache all lanes share, one decode per plan.

It owns the model, the contexts and the samplers of open sequences. What to compute when, and which lane
holds which tokens, is the scheduler's business.
"""

import ctypes
import mmap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from llama_cpp import llama_cpp as ll
from numpy.typing import NDArray

from backends.contract import (
    EngineError,
    EngineInfo,
    LoadError,
    LoadRequest,
    PlanRow,
    Progress,
    PromptCache,
    ResultRow,
    Sampling,
    StepEngine,
    StepPlan,
    StepResult,
    TokenLogprobs,
)
from backends.llamacpp.adapters import Adapters, listed_adapters
from backends.llamacpp.batch import Batch, FloatRows, Placed
from backends.llamacpp.embedding import TEXTS, Embedder
from backends.llamacpp.loading import Header, all_parts, engine_version, find_file, load_model, new_context
from backends.llamacpp.logs import last_errors, log_bridge
from backends.llamacpp.memory import Pool, plan_pool
from backends.llamacpp.parameters import (
    SPARE_SEQUENCES,
    cache_types,
    embedding_params,
    generation_params,
    start_backend,
    ubatch_tokens,
)
from backends.llamacpp.prompt_cache import prompt_cache
from backends.llamacpp.sampling import Distribution, Logits, Sampler, allow_only
from backends.llamacpp.small_batches import TILE_TOKENS, SmallBatches
from backends.llamacpp.vocabulary import Vocabulary

NO_SLOT = 1
NO_ROOM = "the KV cache has no room left"
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


class LlamaCppEngine(StepEngine):
    """See StepEngine. Samplers are llama.cpp's own; masks and log-probabilities are numpy on its logits."""

    def __init__(self) -> None:
        self._model: Any = None
        self._context: Any = None
        self._memory: Any = None
        self._embedder: Embedder | None = None
        self._samplers: dict[int, Sampler] = {}
        self._small_batches = SmallBatches()

    # Loading

    def load(self, request: LoadRequest, progress: Progress) -> EngineInfo:
        log_bridge()
        most = ll.llama_max_parallel_sequences() - SPARE_SEQUENCES
        if not 1 <= request.lanes <= most:
            raise LoadError(
                f"{request.lanes} lanes are asked for, and llama.cpp has {most}; "
                "lower scheduler.max_lanes or scheduler.cached_lanes"
            )
        path = find_file(request.weights)
        adapters = listed_adapters(request.options, path.parent)
        start_backend(request.options)
        self._model = load_model(path, request.options, progress, device=request.device)
        try:
            self._adapters = Adapters(self._model, adapters)
            info = self._prepare(request)
            files = [*all_parts(path), *(each.path for each in adapters)]
            self.info = msgspec.structs.replace(info, prompt_cache=self._prompt_cache(request, files))
        except BaseException:
            self.unload()
            raise
        return self.info

    def _prepare(self, request: LoadRequest) -> EngineInfo:
        model, header = self._model, Header(self._model)
        if ll.llama_model_has_encoder(model):
            raise LoadError(f"llamacpp does not serve encoder-decoder models such as {header.architecture}")
        shape = header.shape()
        types = cache_types(request.options)
        bytes_per_token = 0.0 if ll.llama_model_is_recurrent(model) else shape.kv_bytes_per_token(*types)
        pool = plan_pool(request, shape, bytes_per_token=bytes_per_token, ubatch=ubatch_tokens(request))
        self._vocabulary = Vocabulary(model)
        self._suppressed = self._vocabulary.suppressed()
        self._context, kv_bytes = new_context(
            model, generation_params(request, kv_tokens=pool.kv_tokens), purpose="generation"
        )
        self._memory = ll.llama_get_memory(self._context)
        self._batch = Batch(request.max_batch_tokens)
        self._logits = FloatRows(self._vocabulary.size)
        self._adapters.apply(self._context, None)
        if request.embeddings or not self._memory:
            kv_bytes += self._prepare_embeddings(request, header, pool)
        kv_tokens = ll.llama_n_ctx(self._context)
        can_cut = self._can_cut(request.options)
        return EngineInfo(
            vocabulary=self._vocabulary.size,
            context_tokens=min(pool.context_tokens, kv_tokens),
            kv_tokens=kv_tokens,
            lanes=request.lanes,
            eos_ids=self._vocabulary.ending(),
            bos_id=self._vocabulary.bos_id,
            adds_bos=self._vocabulary.adds_bos,
            bos_token=self._vocabulary.text_of(self._vocabulary.bos_id),
            eos_token=self._vocabulary.text_of(self._vocabulary.eos_id),
            pad_token=self._vocabulary.text_of(self._vocabulary.pad_id),
            chat_template=self._vocabulary.chat_template(),
            special_tokens=self._vocabulary.special_texts(),
            generation_defaults=header.generation_defaults(),
            prefix=self._prefix(can_cut),
            shares_kv=can_cut,
            draftable=can_cut,
            mixed_adapters=True,
            adapters=self._adapters.names,
            capabilities=self._capabilities(),
            engine=engine_version(),
            description=header.description(),
            weights_bytes=shape.weights_bytes,
            kv_bytes=kv_bytes or (int(bytes_per_token * kv_tokens) if self._memory else 0),
            trained_context_tokens=shape.trained_tokens,
            embedding_length=ll.llama_model_n_embd_out(model) if self._embedder else 0,
            embedding_tokens=self._longest_text(),
            generates=bool(self._memory),
        )

    def _prepare_embeddings(self, request: LoadRequest, header: Header, pool: Pool) -> int:
        """Make the context for embeddings; returns the bytes of its cache."""
        params = embedding_params(
            request, context_tokens=pool.context_tokens, texts=TEXTS, is_causal=header.is_causal
        )
        context, kv_bytes = new_context(self._model, params, purpose="embeddings")
        self._adapters.apply(context, None)
        self._embedder = Embedder(
            context,
            length=ll.llama_model_n_embd_out(self._model),
            pooling=request.options.get("pooling") or header.pooling,
        )
        return kv_bytes

    def _prompt_cache(self, request: LoadRequest, files: Sequence[Path]) -> PromptCache | None:
        # Where a model has factors for long contexts, what counts is how long the context may become.
        trained = Header(self._model).own("rope.scaling.original_context_length") or 0
        is_long = ll.llama_n_ctx(self._context) > int(trained)
        context = (*cache_types(request.options), is_long)
        return prompt_cache(request, files=files, engine=engine_version(), context=context)

    def _longest_text(self) -> int:
        """Tokens of a text that a vector can be made of, beside the marks that are put around it."""
        return self._embedder.longest - len(self._vocabulary.framed([])) if self._embedder else 0

    def _can_cut(self, options: Mapping[str, Any]) -> bool:
        """Whether lanes can be cut anywhere: recurrent states cannot, and a sliding window that forgets has
        lost what a shorter prefix would need."""
        model = self._model
        if not self._memory or ll.llama_model_is_recurrent(model) or ll.llama_model_is_hybrid(model):
            return False
        return bool(ll.llama_model_n_swa(model) == 0 or options.get("swa_full", True))

    def _prefix(self, can_cut: bool) -> Literal["tokens", "tip", "none"]:
        """What cannot be cut can still be copied whole."""
        if not self._memory:
            return "none"
        return "tokens" if can_cut else "tip"

    def _capabilities(self) -> frozenset[str]:
        generates = {"logit_bias", "logprobs", "mask", "prompt_logprobs"} if self._memory else set()
        embeds = {"embeddings"} if self._embedder else set()
        return frozenset(generates | embeds | ({"adapters"} if generates and self._adapters.names else set()))

    def unload(self) -> None:
        """Free samplers, contexts and weights. May be called again."""
        while self._samplers:
            self._samplers.popitem()[1].close()
        if self._embedder is not None:
            self._embedder.close()
            self._embedder = None
        if self._context is not None:
            ll.llama_free(self._context)
            self._context = self._memory = None
        if self._model is not None:
            ll.llama_model_free(self._model)
            self._model = None

    # Text and vectors

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        return self._vocabulary.tokenize(text, special=special)

    def token_bytes(self, token: int, *, special: bool = False) -> bytes:
        return self._vocabulary.token_bytes(token, special=special)

    def framed(self, tokens: Sequence[int]) -> list[int]:
        return self._vocabulary.framed(tokens)

    def embed(self, batch: Sequence[Sequence[int]]) -> list[list[float]]:
        if self._embedder is None:
            return super().embed(batch)
        return self._embedder.embed([self._vocabulary.framed(tokens) for tokens in batch])

    # Steps

    def open(self, seq: int, sampling: Sampling, history: Sequence[int]) -> None:
        if seq in self._samplers:
            raise EngineError(f"sequence {seq} is open already; close it first")
        self._samplers[seq] = Sampler(
            sampling,
            history,
            vocabulary=self.info.vocabulary,
            window=self.info.kv_tokens,
            banned=self._suppressed,
        )

    def close(self, seq: int) -> None:
        sampler = self._samplers.pop(seq, None)
        if sampler is None:
            raise EngineError(f"sequence {seq} is not open, so it cannot be closed")
        sampler.close()

    def step(self, plan: StepPlan) -> StepResult:
        if plan.num_tokens > self._batch.capacity:
            raise EngineError(f"the step has {plan.num_tokens} tokens; a batch holds {self._batch.capacity}")
        refused = {row.seq: reason for row in plan.rows if (reason := self._refusal(row))}
        rows = [row for row in plan.rows if row.seq not in refused]
        results = {seq: ResultRow(seq=seq, error=reason) for seq, reason in refused.items()}
        if rows:
            computed = self._compute_adapters(rows)
            if computed is None:
                return StepResult(fit=False)
            results |= computed
        return StepResult(rows=tuple([results[row.seq] for row in plan.rows]))

    def _compute_adapters(self, rows: Sequence[PlanRow]) -> dict[int, ResultRow] | None:
        """The results of `rows` by sequence, one adapter after the other, as llama.cpp applies each to a whole
        computation; None where they have no room."""
        if not self._adapters.names:
            return self._compute(rows)
        results: dict[int, ResultRow] = {}
        for adapter in dict.fromkeys([row.adapter for row in rows]):
            own = [row for row in rows if row.adapter == adapter]
            self._adapters.apply(self._context, adapter)
            computed = self._compute(own)
            if computed is None and not results:
                return None
            results |= computed or {row.seq: ResultRow(seq=row.seq, error=NO_ROOM) for row in own}
        return results

    def _compute(self, rows: Sequence[PlanRow]) -> dict[int, ResultRow] | None:
        """The results of `rows` of one adapter, got the quickest way; None where they have no room."""
        tokens = sum([len(row.tokens) for row in rows])
        are_single = tokens == len(rows)
        way = self._small_batches.way(tokens, are_single=are_single)
        began = time.perf_counter()
        match way:
            case "together":
                results = self._compute_together(rows)
            case "padded":
                results = self._compute_together(rows, padding=TILE_TOKENS - tokens)
            case "singly":
                results = self._compute_singly(rows)
        self._small_batches.record(tokens, way, time.perf_counter() - began, are_single=are_single)
        return results

    def _compute_together(self, rows: Sequence[PlanRow], *, padding: int = 0) -> dict[int, ResultRow] | None:
        """One decode, with so many tokens besides that nobody wants."""
        spare = self.info.lanes
        placed = self._batch.fill(rows, padding=(spare, 0, (0,) * padding) if padding else None)
        has_room = self._decode()
        if padding:
            ll.llama_memory_seq_rm(self._memory, spare, -1, -1)
            if not has_room:
                return self._compute_together(rows)
        if not has_room:
            return None
        outputs = max(place.sampled + place.row.drafts for place in placed) + 1
        if not outputs:
            return {row.seq: ResultRow(seq=row.seq) for row in rows}
        logits = self._logits.view(ll.llama_get_logits(self._context), outputs)
        return {place.row.seq: self._result(place, logits) for place in placed}

    def _compute_singly(self, rows: Sequence[PlanRow]) -> dict[int, ResultRow] | None:
        """A decode for each row."""
        results: dict[int, ResultRow] = {}
        for row in rows:
            computed = self._compute_together([row])
            if computed is None and not results:
                return None
            # Those before it are computed and drawn already, which cannot be taken back.
            results |= computed or {row.seq: ResultRow(seq=row.seq, error=NO_ROOM)}
        return results

    def _refusal(self, row: PlanRow) -> str | None:
        """Why a row cannot be computed, or None. llama.cpp would refuse the whole batch for it."""
        if not self._memory:
            return "this model makes embeddings only; it cannot generate text"
        if row.adapter is not None and row.adapter not in self._adapters.names:
            return f"the model has no adapter {row.adapter!r}"
        if row.drafts and not self.info.draftable:
            return "this model's state cannot be cut, so its drafts cannot be verified"
        if row.drafts and (row.mask is not None or row.prompt_logprobs is not None):
            return "drafts go with neither a mask nor log-probabilities of the prompt"
        if not row.tokens or row.start + len(row.tokens) > self.info.kv_tokens:
            end = row.start + len(row.tokens)
            return f"tokens {row.start} to {end} do not fit a pool of {self.info.kv_tokens}"
        if min(row.tokens) < 0 or max(row.tokens) >= self.info.vocabulary:
            return f"the prompt has a token outside of the model's 0 to {self.info.vocabulary - 1}"
        return None

    def _decode(self) -> bool:
        """Compute the filled batch; False where the pool has no room and nothing has changed."""
        with log_bridge().record() as lines:
            code = ll.llama_decode(self._context, self._batch.native)
        if code not in (0, NO_SLOT):
            raise EngineError(f"llama.cpp could not compute the step (code {code}): {last_errors(lines)}")
        return bool(code == 0)

    def _result(self, place: Placed, logits: Logits) -> ResultRow:
        row = place.row
        prompt_logprobs = self._prompt_logprobs(place, logits) if place.prompt else ()
        if not row.sample:
            return ResultRow(seq=row.seq, prompt_logprobs=prompt_logprobs)
        tokens: list[int] = []
        logprobs: list[TokenLogprobs] = []
        drafts = row.tokens[len(row.tokens) - row.drafts :]
        # A draft that was drawn anyway makes the position behind it one of this sequence too.
        for ahead, draft in enumerate((*drafts, None)):
            own, sampler = logits[place.sampled + ahead], self._samplers[row.seq]
            distribution = None if row.logprobs is None else Distribution(own, row.logprobs)
            if row.mask is not None and not allow_only(own, row.mask):
                return ResultRow(seq=row.seq, error="the grammar allows no token here")
            token = sampler.draw(self._context, place.drawn + ahead, own)
            # False for NaN too, which a broken model computes.
            if not own[token] > -np.inf or sampler.bans(token):
                return ResultRow(
                    seq=row.seq, error="no token is left to draw: mask, bias or the model rule out all"
                )
            tokens.append(token)
            if distribution is not None:
                logprobs.append(distribution.of(token))
            if token != draft:
                break
        return ResultRow(
            seq=row.seq, tokens=tuple(tokens), logprobs=tuple(logprobs), prompt_logprobs=prompt_logprobs
        )

    def _prompt_logprobs(self, place: Placed, logits: Logits) -> tuple[TokenLogprobs, ...]:
        row = place.row
        following = [*row.tokens[1:], *([] if row.next_token is None else [row.next_token])]
        own = logits[place.first : place.first + place.prompt]
        alternatives = row.prompt_logprobs or 0
        return tuple(
            [Distribution(one, alternatives).of(token) for one, token in zip(own, following, strict=True)]
        )

    def truncate(self, lane: int, keep: int) -> int:
        held = self._held(lane)
        if keep >= held:
            return held
        if keep > 0 and self.info.prefix == "tokens" and ll.llama_memory_seq_rm(self._memory, lane, keep, -1):
            return keep
        ll.llama_memory_seq_rm(self._memory, lane, -1, -1)
        return 0

    def fork(self, source: int, target: int, keep: int) -> bool:
        if self._held(target):
            raise EngineError(f"lane {target} is not empty; truncate it before forking into it")
        held = self._held(source)
        if keep > held or (self.info.prefix != "tokens" and keep != held):
            return False
        stop = keep if keep < held else -1  # a state that cannot be cut can be copied to its end
        ll.llama_memory_seq_cp(self._memory, source, target, 0, stop)
        return True

    def save(self, lane: int, start: int, stop: int) -> memoryview | None:
        held = self._held(lane)
        if not 0 <= start < stop <= held:
            return None
        if self.info.prefix != "tokens":
            return self._state_of(lane) if (start, stop) == (0, held) else None
        # llama.cpp saves whole sequences: a spare one gets just the wanted part.
        spare = self.info.lanes
        ll.llama_memory_seq_cp(self._memory, lane, spare, start, stop)
        try:
            return self._state_of(spare)
        finally:
            ll.llama_memory_seq_rm(self._memory, spare, -1, -1)

    def restore(self, lane: int, start: int, state: memoryview) -> bool:
        if self._held(lane) != start:
            raise EngineError(f"lane {lane} holds {self._held(lane)} tokens; this state goes on from {start}")
        # Reading a state replaces what the sequence holds.
        target = self.info.lanes if self.info.prefix == "tokens" else lane
        data = np.frombuffer(state, np.uint8)
        with log_bridge().record():  # no room is said with an error that is none here
            read = ll.llama_state_seq_set_data(self._context, _bytes_at(data), data.size, target)
        if target != lane:
            ll.llama_memory_seq_cp(self._memory, target, lane, -1, -1)
            ll.llama_memory_seq_rm(self._memory, target, -1, -1)
        return bool(read == data.size)

    def _state_of(self, sequence: int) -> memoryview | None:
        size = ll.llama_state_seq_get_size(self._context, sequence)
        # Pages of its own: what is forgotten goes back to the system at once, which a heap would keep.
        state: NDArray[np.uint8] = np.frombuffer(mmap.mmap(-1, size, PRIVATE), np.uint8)
        written = ll.llama_state_seq_get_data(self._context, _bytes_at(state), size, sequence)
        return state.data if written == size else None

    def _held(self, lane: int) -> int:
        if not 0 <= lane < self.info.lanes:
            raise EngineError(f"there is no lane {lane}; the engine has {self.info.lanes}")
        return int(ll.llama_memory_seq_pos_max(self._memory, lane)) + 1


def _bytes_at(array: NDArray[np.uint8]) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
