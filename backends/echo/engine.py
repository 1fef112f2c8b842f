"""Echo as a step engine: lanes that really hold their tokens, in a KV pool that really runs out.

It is strict: what the contract forbids the scheduler to do raises an EngineError that names it, before any
state changes. What it answers is `backends.echo.model`'s business.
"""

import time
from array import array
from collections.abc import Callable, Sequence

import msgspec

from backends.contract import (
    EngineError,
    EngineInfo,
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
from backends.echo.base import EchoBase
from backends.echo.model import Context
from backends.echo.pool import CellPool
from backends.echo.tokenizer import ByteTokenizer
from backends.sampling import Sampler, log_softmax, token_logprobs


class Lane:
    """The tokens of one lane and the cells they occupy, one each."""

    def __init__(self) -> None:
        self.context = Context()
        self.cells: list[int] = []


class EchoEngine(EchoBase, StepEngine):
    """One `step` at a time; `sleep` stands in for the time that computing takes."""

    def __init__(self, *, sleep: Callable[[float], None] = time.sleep) -> None:
        super().__init__()
        self._sleep = sleep
        self._lanes: list[Lane] = []
        self._samplers: dict[int, Sampler] = {}

    def load(self, request: LoadRequest, progress: Progress) -> EngineInfo:
        info = super().load(request, progress)
        self._max_batch_tokens = request.max_batch_tokens
        self._pool = CellPool(info.kv_tokens)
        self._lanes = [Lane() for _ in range(info.lanes)]
        return info

    def unload(self) -> None:
        self._lanes = []
        self._samplers = {}

    @property
    def num_free_cells(self) -> int:
        """KV tokens that a step could still take; for tests of whoever books memory."""
        return self._pool.num_free

    def open(self, seq: int, sampling: Sampling, history: Sequence[int]) -> None:
        if seq in self._samplers:
            raise EngineError(f"sequence {seq} is open already; close it first")
        self._samplers[seq] = Sampler(sampling, history, vocabulary=self.info.vocabulary)

    def close(self, seq: int) -> None:
        if self._samplers.pop(seq, None) is None:
            raise EngineError(f"sequence {seq} is not open, so it cannot be closed")

    def step(self, plan: StepPlan) -> StepResult:
        self._check(plan)
        num_tokens = plan.num_tokens
        if num_tokens > self._pool.num_free:
            return StepResult(fit=False)
        if (seconds := self.options.step_s(num_tokens)) > 0:
            self._sleep(seconds)
        return StepResult(rows=tuple([self._compute(row) for row in plan.rows]))

    def truncate(self, lane: int, keep: int) -> int:
        held = self._lane(lane)
        if keep >= len(held.context):
            return len(held.context)
        kept = max(keep, 0) if self.info.prefix == "tokens" else 0
        held.context.truncate(kept)
        self._pool.release(held.cells[kept:])
        del held.cells[kept:]
        return kept

    def fork(self, source: int, target: int, keep: int) -> bool:
        origin, copy = self._lane(source), self._lane(target)
        if len(copy.context):
            raise EngineError(
                f"lane {target} holds {len(copy.context)} tokens; truncate it before forking into it"
            )
        if not 0 <= keep <= len(origin.context):
            raise EngineError(f"lane {source} holds {len(origin.context)} tokens, so {keep} cannot be forked")
        if self.info.prefix == "none" or (self.info.prefix == "tip" and keep != len(origin.context)):
            return False
        if self.info.shares_kv:
            copy.cells = origin.cells[:keep]
            self._pool.share(copy.cells)
        elif keep > self._pool.num_free:
            return False
        else:
            copy.cells = self._pool.take(keep)
        copy.context = origin.context.copy(keep)
        return True

    def save(self, lane: int, start: int, stop: int) -> memoryview | None:
        held = self._lane(lane)
        if not 0 <= start < stop <= len(held.context):
            raise EngineError(
                f"lane {lane} holds {len(held.context)} tokens, so {start} to {stop} cannot be saved"
            )
        is_whole = (start, stop) == (0, len(held.context))
        if self.info.prefix == "none" or (self.info.prefix == "tip" and not is_whole):
            return None
        return memoryview(array("i", held.context.tokens[start:stop]))

    def restore(self, lane: int, start: int, state: memoryview) -> bool:
        held = self._lane(lane)
        if start != len(held.context):
            raise EngineError(
                f"lane {lane} holds {len(held.context)} tokens; this state goes on from {start}"
            )
        if self.info.prefix == "tip" and start:
            raise EngineError(f"lane {lane} holds {start} tokens; a whole state needs an empty lane")
        tokens = state.tolist()
        if len(tokens) > self._pool.num_free:
            return False
        held.cells += self._pool.take(len(tokens))
        held.context.extend(tokens)
        return True

    def _lane(self, lane: int) -> Lane:
        if not 0 <= lane < len(self._lanes):
            raise EngineError(f"there is no lane {lane}; the engine has {len(self._lanes)}")
        return self._lanes[lane]

    def _check(self, plan: StepPlan) -> None:
        if plan.num_tokens > self._max_batch_tokens:
            raise EngineError(
                f"the step has {plan.num_tokens} tokens; a batch holds {self._max_batch_tokens}"
            )
        lanes, seqs = {row.lane for row in plan.rows}, {row.seq for row in plan.rows}
        if len(lanes) < len(plan.rows) or len(seqs) < len(plan.rows):
            raise EngineError("two rows of the step have the same lane or the same sequence")
        for row in plan.rows:
            if wrong := self._wrong(row):
                raise EngineError(f"sequence {row.seq} on lane {row.lane} {wrong}")

    def _wrong(self, row: PlanRow) -> str:
        """What the contract forbids about a row; nothing where it is right."""
        held, size = len(self._lane(row.lane).context), len(row.tokens)
        if row.seq not in self._samplers:
            return "is not open"
        if row.start != held:
            return f"starts at {row.start}, but the lane holds {held} tokens"
        if size == 0:
            return "has no tokens to compute"
        if held + size > self.info.context_tokens:
            return f"would hold {held + size} tokens; the context is {self.info.context_tokens}"
        if row.drafts and not self.info.draftable:
            return "has drafts, but this engine is not draftable"
        if not 0 <= min(row.tokens) <= max(row.tokens) < ByteTokenizer.VOCABULARY:
            return f"has a token outside the vocabulary of {ByteTokenizer.VOCABULARY}"
        return ""

    def _compute(self, row: PlanRow) -> ResultRow:
        lane, sampler = self._lanes[row.lane], self._samplers[row.seq]
        if row.adapter is not None:
            return ResultRow(seq=row.seq, error=f"echo has no adapters, so it cannot run {row.adapter!r}")
        lane.cells += self._pool.take(len(row.tokens))
        given: tuple[TokenLogprobs, ...] = ()
        known = len(row.tokens) - row.drafts
        if row.prompt_logprobs is None:
            lane.context.extend(row.tokens[:known])
        else:
            given = self._prompt_logprobs(lane.context, row, top=row.prompt_logprobs)
        error = self.options.fail.strike(lane.context, sampler.num_drawn)
        if error is not None:
            return ResultRow(seq=row.seq, error=error)
        if not row.sample:
            return ResultRow(seq=row.seq, prompt_logprobs=given)
        try:
            return self._verify(lane.context, sampler, row, given)
        except EngineError as cause:
            return ResultRow(seq=row.seq, error=str(cause))

    def _verify(
        self, context: Context, sampler: Sampler, row: PlanRow, given: tuple[TokenLogprobs, ...]
    ) -> ResultRow:
        """Draw, and go on drawing as long as what is drawn was drafted. The lane holds all drafts afterwards."""
        drafts = row.tokens[len(row.tokens) - row.drafts :]
        got = self._sample(context, sampler, row, given)
        for ahead, draft in enumerate(drafts, start=1):
            context.extend((draft,))
            if len(got.tokens) == ahead and got.tokens[-1] == draft:
                more = self._sample(context, sampler, row, ())
                got = msgspec.structs.replace(
                    got, tokens=got.tokens + more.tokens, logprobs=got.logprobs + more.logprobs
                )
        return got

    def _prompt_logprobs(self, context: Context, row: PlanRow, *, top: int) -> tuple[TokenLogprobs, ...]:
        given = []
        for index, token in enumerate(row.tokens):
            context.extend((token,))
            following = row.tokens[index + 1] if index + 1 < len(row.tokens) else row.next_token
            if following is not None:
                given.append(token_logprobs(log_softmax(self.model.logits(context)), following, top=top))
        return tuple(given)

    def _sample(
        self, context: Context, sampler: Sampler, row: PlanRow, given: tuple[TokenLogprobs, ...]
    ) -> ResultRow:
        if sampler.takes_likeliest and row.mask is None and row.logprobs is None:
            # Most rows of an overhead measurement come this way: no logits are made.
            for token in context.likeliest():
                if token not in sampler.banned:
                    sampler.accept(token)
                    return ResultRow(seq=row.seq, tokens=(token,), prompt_logprobs=given)
        logits = self.model.logits(context)
        token = sampler.draw(logits, mask=row.mask)
        drawn = (
            () if row.logprobs is None else (token_logprobs(log_softmax(logits), token, top=row.logprobs),)
        )
        return ResultRow(seq=row.seq, tokens=(token,), logprobs=drawn, prompt_logprobs=given)
