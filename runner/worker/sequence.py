"""One sequence: its tokens, how many of them are computed, and when it must end."""

import enum
from collections.abc import Sequence as TokenList

import msgspec

from backends.contract import Sampling
from runner.worker.lanes import Lane
from runner.worker.prefix_index import Key


class Phase(enum.Enum):
    """Where a sequence is. Preempted ones are waiting again."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


class SequenceLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What ends a sequence, in tokens and in seconds of the worker's clock."""

    max_tokens: int
    min_tokens: int = 0
    stop_token_ids: frozenset[int] = frozenset()
    eos_ids: frozenset[int] = frozenset()
    queue_deadline: float | None = None


class Sequence:
    """`tokens` are prompt and output together; the first `num_computed` of them are in the lane.

    There is no prefill and no decode phase: a step computes tokens until `num_computed` has caught up, and the
    last one's logits give the next token. After preemption `num_computed` is 0 and the same catching up resumes.
    """

    __slots__ = (
        "adapter",
        "arrival",
        "cache_salt",
        "cached_tokens",
        "first_planned_at",
        "id",
        "lane",
        "limits",
        "logprobs",
        "num_prompt",
        "phase",
        "priority",
        "prompt_logprobs",
        "prompt_logprobs_sent",
        "sampling",
        "submitted_at",
        "tokens",
    )

    def __init__(
        self,
        id: int,
        prompt: TokenList[int],
        *,
        sampling: Sampling,
        limits: SequenceLimits,
        arrival: int,
        priority: int = 0,
        adapter: str | None = None,
        cache_salt: str | None = None,
        logprobs: int | None = None,
        prompt_logprobs: int | None = None,
        submitted_at: float = 0.0,
    ) -> None:
        self.id = id
        self.tokens = list(prompt)
        self.num_prompt = len(self.tokens)
        self.sampling = sampling
        self.limits = limits
        self.arrival = arrival
        self.priority = priority
        self.adapter = adapter
        self.cache_salt = cache_salt
        self.logprobs = logprobs
        self.prompt_logprobs = prompt_logprobs
        self.prompt_logprobs_sent = 0
        self.phase = Phase.WAITING
        self.lane: Lane | None = None
        self.cached_tokens = 0
        self.submitted_at = submitted_at
        self.first_planned_at: float | None = None

    @property
    def rank(self) -> tuple[int, int]:
        """Lower goes first: priority, then age."""
        return (self.priority, self.arrival)

    @property
    def key(self) -> Key:
        return (self.adapter, self.cache_salt)

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    @property
    def num_computed(self) -> int:
        return self.lane.length if self.lane is not None else 0

    @property
    def num_output(self) -> int:
        return len(self.tokens) - self.num_prompt

    @property
    def remaining(self) -> int:
        """Tokens still to compute before the next one can be drawn."""
        return len(self.tokens) - self.num_computed

    @property
    def is_decoding(self) -> bool:
        return self.num_output > 0 and self.remaining == 1

    @property
    def wants_output(self) -> bool:
        return self.limits.max_tokens > 0

    def finish_after(self, token: int) -> str | None:
        """ "stop" or "length" if `token`, the newest, ends the sequence."""
        limits = self.limits
        if self.num_output >= limits.min_tokens and (
            token in limits.eos_ids or token in limits.stop_token_ids
        ):
            return "stop"
        return "length" if self.num_output >= limits.max_tokens else None
