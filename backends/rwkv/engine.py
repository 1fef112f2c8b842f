"""The RWKV step engine: a state for each lane, and one forward over all rows of a plan.

It owns weights, states and the samplers of open sequences. What to compute when, and which state is kept for which
prompt, is the scheduler's business.
"""

from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
import torch
from numpy.typing import NDArray

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
    TokenLogprobs,
)
from backends.rwkv.checkpoint import Checkpoint, find_file, read_checkpoint
from backends.rwkv.forward import Forward, Piece
from backends.rwkv.library import Library, load_library, world_vocabulary
from backends.rwkv.states import States
from backends.rwkv.strategy import Strategy, choose_strategy, threads_for
from backends.rwkv.text import CHAT_STOPS, CHAT_TEMPLATE, Text, find_text
from backends.sampling import Sampler, log_softmax, token_logprobs

CONTEXT_TOKENS = 16_384
"""The longest sequence where `context_size` says nothing: a state takes any number of tokens."""

Logits = NDArray[np.float32]


class RwkvEngine(StepEngine):
    """See StepEngine. Sampling is numpy's on the logits."""

    info: EngineInfo
    _text: Text
    _states: States
    _forward: Forward

    def __init__(self) -> None:
        self._samplers: dict[int, Sampler] = {}

    # Loading

    def load(self, request: LoadRequest, progress: Progress) -> EngineInfo:
        progress(0.0)
        if request.embeddings:
            raise LoadError("rwkv makes no embeddings; remove `embeddings` from the model's config.yaml")
        checkpoint = read_checkpoint(find_file(request.weights))
        strategy = choose_strategy(
            request.options,
            version=checkpoint.generation,
            layers=checkpoint.layers,
            device=request.device,
            gpus=torch.cuda.device_count(),
        )
        self._text = find_text(
            checkpoint.path,
            request.options.get("tokenizer"),
            vocabulary=checkpoint.vocabulary,
            world_file=world_vocabulary(),
        )
        _check_memory(checkpoint, strategy, request)
        weights_bytes = checkpoint.parameters * strategy.weight_bytes
        torch.set_num_threads(threads_for(weights_bytes, asked=request.threads))
        progress(0.1)
        library = load_library(checkpoint, strategy)
        progress(0.9)
        self._forward = library.forward()
        self._states = _make_states(library, request)
        self._max_batch_tokens = request.max_batch_tokens
        self.info = self._describe(checkpoint, strategy, request)
        progress(1.0)
        return self.info

    def _describe(self, checkpoint: Checkpoint, strategy: Strategy, request: LoadRequest) -> EngineInfo:
        context = request.context_tokens or CONTEXT_TOKENS
        kv_tokens = request.kv_tokens or request.running_lanes * context
        end = self._text.end_ids[0]
        return EngineInfo(
            vocabulary=checkpoint.vocabulary,
            context_tokens=min(context, kv_tokens),
            kv_tokens=kv_tokens,
            lanes=request.lanes,
            eos_ids=self._text.end_ids,
            eos_token=self._text.token_bytes(end, special=True).decode(),
            chat_template=CHAT_TEMPLATE,
            chat_stops=CHAT_STOPS,
            special_tokens=self._text.special_tokens,
            prefix="tip",
            shares_kv=False,
            capabilities=frozenset(("logit_bias", "logprobs", "mask", "prompt_logprobs")),
            engine=f"rwkv {version('rwkv')} (torch {torch.__version__})",
            description=f"RWKV-{checkpoint.generation}, {checkpoint.parameters / 1e6:.0f} M parameters, {strategy}",
            weights_bytes=checkpoint.parameters * strategy.weight_bytes,
            kv_bytes=self._states.size_bytes * request.running_lanes,
        )

    def unload(self) -> None:
        """Forget weights, states and samplers. May be called again."""
        self._samplers.clear()
        for name in ("_forward", "_states"):
            self.__dict__.pop(name, None)

    # Text

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        return self._text.tokenize(text, special=special)

    def token_bytes(self, token: int, *, special: bool = False) -> bytes:
        return self._text.token_bytes(token, special=special)

    # Steps

    def open(self, seq: int, sampling: Sampling, history: Sequence[int]) -> None:
        if seq in self._samplers:
            raise EngineError(f"sequence {seq} is open already; close it first")
        self._samplers[seq] = Sampler(sampling, history, vocabulary=self.info.vocabulary)

    def close(self, seq: int) -> None:
        if self._samplers.pop(seq, None) is None:
            raise EngineError(f"sequence {seq} is not open, so it cannot be closed")

    def step(self, plan: StepPlan) -> StepResult:
        if plan.num_tokens > self._max_batch_tokens:
            raise EngineError(
                f"the step has {plan.num_tokens} tokens; a batch holds {self._max_batch_tokens}"
            )
        if sum(self._states.held) + plan.num_tokens > self.info.kv_tokens:
            return StepResult(fit=False)
        refused = {row.seq: reason for row in plan.rows if (reason := self._refusal(row))}
        rows = [row for row in plan.rows if row.seq not in refused]
        results = {seq: ResultRow(seq=seq, error=reason) for seq, reason in refused.items()}
        # Logits behind every token are wanted of few rows, and cost much: they are computed apart.
        scored = [row for row in rows if row.prompt_logprobs is not None]
        results |= self._compute([row for row in rows if row.prompt_logprobs is None])
        for row in scored:
            results |= self._score(row)
        return StepResult(rows=tuple([results[row.seq] for row in plan.rows]))

    def _refusal(self, row: PlanRow) -> str | None:
        if row.adapter is not None:
            return "rwkv does not serve adapters"
        if row.drafts:
            return "rwkv does not verify drafts"
        held, end = self._states.held[row.lane], row.start + len(row.tokens)
        if row.start != held or not row.tokens or end > self.info.context_tokens:
            return f"tokens {row.start} to {end} do not go on from {held} within {self.info.context_tokens}"
        if min(row.tokens) < 0 or max(row.tokens) >= self.info.vocabulary:
            return f"the prompt has a token outside of the model's 0 to {self.info.vocabulary - 1}"
        return None

    def _compute(self, rows: Sequence[PlanRow]) -> dict[int, ResultRow]:
        if not rows:
            return {}
        # Lanes in order are picked out of the states without copying them.
        rows = sorted(rows, key=lambda row: (len(row.tokens), row.lane))
        logits = self._run(rows)
        likeliest = logits.argmax(-1).tolist()
        numbers: Logits = logits.cpu().numpy()
        results = {}
        for row, own, best in zip(rows, numbers, likeliest, strict=True):
            results[row.seq] = self._result(row, own, best) if row.sample else ResultRow(seq=row.seq)
        return results

    def _run(self, rows: Sequence[PlanRow], *, every: bool = False) -> torch.Tensor:
        self._states.reserve(max(row.lane for row in rows))
        logits = self._forward.run([Piece(row.lane, row.tokens) for row in rows], self._states, every=every)
        for row in rows:
            self._states.held[row.lane] += len(row.tokens)
        return logits

    def _score(self, row: PlanRow) -> dict[int, ResultRow]:
        """A row whose prompt is scored too."""
        logits = self._run([row], every=True)
        numbers: Logits = logits.cpu().numpy()
        following = [*row.tokens[1:], *([] if row.next_token is None else [row.next_token])]
        given = tuple(
            token_logprobs(log_softmax(own), token, top=row.prompt_logprobs or 0)
            for own, token in zip(numbers, following, strict=False)
        )
        if not row.sample:
            return {row.seq: ResultRow(seq=row.seq, prompt_logprobs=given)}
        last = numbers[-1]
        return {row.seq: self._result(row, last, int(last.argmax()), given)}

    def _result(
        self, row: PlanRow, logits: Logits, likeliest: int, given: tuple[TokenLogprobs, ...] = ()
    ) -> ResultRow:
        sampler = self._samplers[row.seq]
        is_sure = sampler.takes_likeliest and row.mask is None and likeliest not in sampler.banned
        if is_sure and np.isfinite(logits[likeliest]):
            token = likeliest
            sampler.accept(token)
        else:
            try:
                token = sampler.draw(logits, mask=row.mask)
            except EngineError as error:
                return ResultRow(seq=row.seq, error=str(error))
        own = () if row.logprobs is None else (token_logprobs(log_softmax(logits), token, top=row.logprobs),)
        return ResultRow(seq=row.seq, tokens=(token,), logprobs=own, prompt_logprobs=given)

    # Lanes

    def truncate(self, lane: int, keep: int) -> int:
        held = self._held(lane)
        if keep >= held:
            return held
        self._states.clear(lane)
        return 0

    def fork(self, source: int, target: int, keep: int) -> bool:
        if self._held(target):
            raise EngineError(f"lane {target} is not empty; truncate it before forking into it")
        if keep != self._held(source):
            return False
        self._states.copy(source, target)
        return True

    def save(self, lane: int, start: int, stop: int) -> memoryview | None:
        if start != 0 or stop != self._held(lane) or stop == 0:
            return None
        return self._states.save(lane)

    def restore(self, lane: int, start: int, state: memoryview) -> bool:
        if start or self._held(lane):
            raise EngineError(f"lane {lane} holds {self._held(lane)} tokens; a state needs an empty one")
        self._states.restore(lane, state)
        return True

    def _held(self, lane: int) -> int:
        if not 0 <= lane < self.info.lanes:
            raise EngineError(f"there is no lane {lane}; the engine has {self.info.lanes}")
        return self._states.held[lane]


def _make_states(library: Library, request: LoadRequest) -> States:
    try:
        return States(library.blank_state(), lanes=request.lanes, running=request.running_lanes)
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise LoadError(
            f"there is not enough memory for the states of {request.running_lanes} lanes ({reason}); "
            "lower scheduler.max_lanes"
        ) from error


def _check_memory(checkpoint: Checkpoint, strategy: Strategy, request: LoadRequest) -> None:
    needed = checkpoint.parameters * strategy.weight_bytes
    on_cpu = all(part.device == "cpu" for part in strategy.parts)
    if on_cpu and request.memory_bytes is not None and needed > request.memory_bytes:
        raise LoadError(
            f'"{strategy}" takes {needed // 2**20} MiB for the weights, and {request.memory_bytes // 2**20} MiB are '
            "free; set `f16: true` or unload other models"
        )
