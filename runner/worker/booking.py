"""A plan in the making: its rows, the KV tokens they will fill and what is left of the token budget.

It decides nothing but how much of the budget one prefill may take while others are behind it.
"""

import msgspec

from backends.contract import PlanRow, StepPlan
from runner.worker.sequence import Sequence

NEWCOMER_PART = 8
NEWCOMER_TOKENS = 16
"""A prefill leaves this part of the budget, and at least so many tokens, to those behind it."""


class Booking:
    """`budget`: tokens that may still be booked; `tokens`: those that are. `restored`: tokens whose state came back
    from main memory for this plan."""

    def __init__(self, budget: int, *, vocabulary: int) -> None:
        self.budget = budget
        self.tokens = 0
        self.restored = 0
        self._rows: dict[int, PlanRow] = {}
        self._vocabulary = vocabulary

    @property
    def is_empty(self) -> bool:
        return not self._rows

    @property
    def share(self) -> int:
        """What one prefill may take while others are behind it: most of the budget, so that it goes on by rank,
        but not all of it, so that a long prompt does not hold up a short one to its end."""
        left = max(self.budget // NEWCOMER_PART, NEWCOMER_TOKENS)
        return max(self.budget - left, (self.budget + 1) // 2)

    def add(self, seq: Sequence, count: int) -> None:
        """Book the next `count` tokens of `seq`, which must not be booked."""
        self._rows[seq.id] = self._row(seq, count)
        self.tokens += count
        self.budget -= count

    def drop(self, seq: Sequence) -> None:
        """Take back what is booked for `seq`, if anything is."""
        count = self.num_tokens(seq)
        self._rows.pop(seq.id, None)
        self.tokens -= count
        self.budget += count

    def guess(self, seq: Sequence, drafts: list[int]) -> None:
        """Book guesses of what comes after the one token of `seq` that is booked."""
        row = self._rows[seq.id]
        tokens = [*row.tokens, *drafts]
        self._rows[seq.id] = msgspec.structs.replace(row, tokens=tokens, drafts=len(drafts))
        self.tokens += len(drafts)
        self.budget -= len(drafts)

    def num_tokens(self, seq: Sequence) -> int:
        """What is booked for `seq`."""
        row = self._rows.get(seq.id)
        return 0 if row is None else len(row.tokens)

    def draws(self, seq: Sequence) -> bool:
        """Whether a token of `seq` is to be drawn."""
        row = self._rows.get(seq.id)
        return row is not None and row.sample

    def allow(self, seq: Sequence, mask: bytes) -> None:
        """Let only the tokens of `mask` be drawn for `seq`, which must be booked."""
        self._rows[seq.id] = msgspec.structs.replace(self._rows[seq.id], mask=mask)

    def plan(self) -> StepPlan:
        return StepPlan(rows=tuple(self._rows.values()))

    def _row(self, seq: Sequence, count: int) -> PlanRow:
        assert seq.lane is not None
        start = seq.num_computed
        end = start + count
        is_last = end == seq.num_tokens
        in_prompt = seq.prompt_logprobs is not None and start < seq.num_prompt - 1
        return PlanRow(
            seq=seq.id,
            lane=seq.lane.index,
            start=start,
            tokens=seq.tokens[start:end],
            sample=is_last and seq.wants_output,
            logprobs=seq.logprobs,
            prompt_logprobs=seq.prompt_logprobs if in_prompt else None,
            next_token=None if is_last else seq.tokens[end],
            mask=self._mask(seq) if is_last and seq.num_output < seq.limits.min_tokens else None,
            adapter=seq.adapter,
        )

    def _mask(self, seq: Sequence) -> bytes:
        """All tokens but those that would end the sequence before its `min_tokens`."""
        bits = bytearray(b"\xff" * (4 * ((self._vocabulary + 31) // 32)))
        for token in seq.limits.eos_ids | seq.limits.stop_token_ids:
            if 0 <= token < self._vocabulary:
                bits[token >> 3] &= ~(1 << (token & 7))
        return bytes(bits)
