"""One sequence: its tokens, how many of them are computed, and when it must end."""

import enum
from collections.abc import Sequence as TokenList
from typing import TYPE_CHECKING

import msgspec

from backends.contract import Sampling
from runner.worker.lanes import Lane
from runner.worker.prefix_index import Key
from runner.worker.prefix_store import Stored
from runner.worker.prompt_lookup import Chances, PromptLookup

if TYPE_CHECKING:
    from runner.worker.grammar.matcher import Matcher

PATIENCE_S = 30.0
"""A sequence gives way to those of a level above that came at most so much later: nothing waits for ever."""


def due_at(submitted_at: float, level: int) -> float:
    """What ranks a sequence of a priority level: the time of submission, later for each level below the highest."""
    return submitted_at + PATIENCE_S * max(0, level - 1)


def delayed_due(now: float, level: int) -> float:
    """The same for one that waited too long: as if it had come a level below just now."""
    return now + PATIENCE_S * max(1, level)


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
    is_delayable: bool = False


class Sequence:
    """`tokens` are prompt and output together; the first `num_computed` of them are in the lane.

    There is no prefill and no decode phase: a step computes tokens until `num_computed` has caught up, and the
    last one's logits give the next token. After preemption `num_computed` is 0 and the same catching up resumes.
    `matcher` says which tokens may come next, where the output is bound to a grammar.
    The first `turn_tokens` are the turns of a chat, without what asks for an answer; `marks` are the lengths after
    which the engine's state is kept, where it cannot be cut. `lookup` guesses what comes next, where
    chances to begin with are given.
    """

    __slots__ = (
        "adapter",
        "arrival",
        "cache_salt",
        "cached_tokens",
        "due",
        "first_planned_at",
        "id",
        "lane",
        "limits",
        "logprobs",
        "lookup",
        "marks",
        "matcher",
        "num_prompt",
        "phase",
        "priority",
        "prompt_logprobs",
        "prompt_logprobs_sent",
        "sampling",
        "stored",
        "submitted_at",
        "tokens",
        "turn_tokens",
        "was_preempted",
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
        turn_tokens: int = 0,
        logprobs: int | None = None,
        prompt_logprobs: int | None = None,
        matcher: "Matcher | None" = None,
        lookup_chances: Chances | None = None,
        submitted_at: float = 0.0,
    ) -> None:
        self.id = id
        self.tokens = list(prompt)
        self.lookup = PromptLookup(self.tokens, lookup_chances) if lookup_chances is not None else None
        self.num_prompt = len(self.tokens)
        self.sampling = sampling
        self.limits = limits
        self.arrival = arrival
        self.priority = priority
        self.adapter = adapter
        self.cache_salt = cache_salt
        self.turn_tokens = turn_tokens
        self.marks: set[int] = set()
        self.logprobs = logprobs
        self.prompt_logprobs = prompt_logprobs
        self.prompt_logprobs_sent = 0
        self.matcher = matcher
        self.phase = Phase.WAITING
        self.lane: Lane | None = None
        self.stored: Stored | None = None  # what the prefix store has of it, until it is brought back
        self.was_preempted = False
        self.cached_tokens = 0
        self.submitted_at = submitted_at
        self.due = due_at(submitted_at, priority)
        self.first_planned_at: float | None = None

    @property
    def rank(self) -> tuple[float, int]:
        """Lower goes first: the time of submission, later by some patience for each level below the highest."""
        return (self.due, self.arrival)

    def delay(self, now: float) -> None:
        """It waited too long: it goes behind all that came at its level so far, as if it had come a level below
        just now, and has no deadline any more."""
        self.due = delayed_due(now, self.priority)
        self.limits = msgspec.structs.replace(self.limits, queue_deadline=None)

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
    def to_next_mark(self) -> int:
        """Tokens to compute before the state is to be kept, or else before the next token can be drawn."""
        computed = self.num_computed
        return min((mark - computed for mark in self.marks if mark > computed), default=self.remaining)

    @property
    def is_decoding(self) -> bool:
        # Asked for every stream in every step.
        lane = self.lane
        return lane is not None and lane.length + 1 == len(self.tokens) > self.num_prompt

    @property
    def wants_output(self) -> bool:
        return self.limits.max_tokens > 0

    @property
    def chance(self) -> float:
        """How likely the next guess is right."""
        return self.lookup.chance if self.lookup is not None else 0.0

    def guess(self, most: int) -> list[int]:
        """Up to `most` tokens that may come next, and that there would be room for."""
        if self.lookup is None or self.matcher is not None or self.num_output < self.limits.min_tokens:
            return []
        # One more than the guesses is drawn at least.
        return self.lookup.guess(min(most, self.limits.max_tokens - self.num_output - 1))

    def take(self, drawn: TokenList[int]) -> tuple[tuple[int, ...], str | None]:
        """Append what was drawn, up to what ends the sequence; that part of it, and how it ends."""
        for count, token in enumerate(drawn, start=1):
            self.tokens.append(token)
            if finish := self.finish_after(token):
                return tuple(drawn[:count]), finish
        return tuple(drawn), None

    def finish_after(self, token: int) -> str | None:
        """ "stop" or "length" if `token`, the newest, ends the sequence."""
        limits = self.limits
        if self.num_output >= limits.min_tokens and (
            token in limits.eos_ids or token in limits.stop_token_ids
        ):
            return "stop"
        return "length" if self.num_output >= limits.max_tokens else None

    def next_mask(self) -> bytes | None:
        """What the grammar of a bound sequence allows next; None where nothing is left to say. Raises RunnerError."""
        limits = self.limits
        assert self.matcher is not None
        return self.matcher.mask(
            limits.eos_ids | limits.stop_token_ids, may_end=self.num_output >= limits.min_tokens
        )

    def completes(self, tokens: TokenList[int]) -> bool:
        """Whether the grammar, if there is one, allows nothing behind `tokens`, the newest. Raises RunnerError."""
        matcher = self.matcher
        return matcher is not None and any(matcher.advance(token) for token in tokens)
