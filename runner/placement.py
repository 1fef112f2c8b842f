"""Which instance of a version a request goes to: the one that has most of its prompt in the cache, unless waiting
there costs more than that saves.

The server has no token ids, so it remembers by itself, as hashes of bytes, which prompts it sent to whom. That is a
guess at what is cached there, and costs are estimates; being wrong costs time and nothing else.
"""

import array
from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from runner.wire.requests import ChatPrompt, EditPrompt, GenerateRequest, Prompt, TextPrompt, TokenPrompt

BLOCK_BYTES = 256
MOST_BLOCKS = 1 << 16
GUESSED_TOKEN_BYTES = 4
GUESSED_PREFILL_S = 0.0001
"""Seconds for a byte of a prompt before any was measured."""

_WEIGHT = 0.2  # of the newest request in the running mean


class Content(msgspec.Struct, frozen=True):
    """A prompt's size in bytes and its whole blocks as hashes, each of all that comes before its end."""

    size_bytes: int = 0
    blocks: tuple[int, ...] = ()


NO_CONTENT = Content()
"""Of a request that has no prompt, or whose prompt does not matter."""


class Prospect(msgspec.Struct, frozen=True, kw_only=True):
    """What an instance would be for a request. `backlog_bytes`: of prompts that it was sent and is not done with;
    `cached_bytes`: of the request's prompt, those that it has seen."""

    is_available: bool = True
    active: int = 0
    lanes: int = 1
    backlog_bytes: int = 0
    cached_bytes: int = 0


def pick_instance(prospects: Sequence[Prospect], size_bytes: int, *, prefill_s: float, turn_s: float) -> int:
    """The index of the instance that would be through with a prompt of `size_bytes` first; the less busy one of two.

    `prefill_s`: seconds for a byte of a prompt. `turn_s`: seconds until one of an instance's lanes becomes free.
    An instance that cannot answer now is taken only where none can.
    """

    def rank(index: int) -> tuple[bool, float, int]:
        prospect = prospects[index]
        waiting = max(0, prospect.active + 1 - prospect.lanes)
        work_bytes = prospect.backlog_bytes + size_bytes - prospect.cached_bytes
        return (not prospect.is_available, waiting * turn_s + work_bytes * prefill_s, prospect.active)

    return min(range(len(prospects)), key=rank)


class SeenPrompts:
    """The blocks of the prompts that one instance was sent. Beyond `most_blocks` those that were not sent for
    longest are forgotten, the ends of prompts before their beginnings."""

    def __init__(self, most_blocks: int) -> None:
        self._most = most_blocks
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._blocks)

    def cached_bytes(self, content: Content) -> int:
        """How much of the beginning of a prompt was sent before."""
        known = 0
        for block in content.blocks:
            if block not in self._blocks:
                break
            known += BLOCK_BYTES
        return known

    def add(self, content: Content) -> None:
        for block in reversed(content.blocks[: self._most]):
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > self._most:
            self._blocks.popitem(last=False)

    def clear(self) -> None:
        self._blocks.clear()


def seen_blocks(kv_tokens: int, *, offloads: bool) -> int:
    """How many blocks an instance's cache can hold, about; `offloads`: as much again outside of the KV pool."""
    cached_bytes = kv_tokens * GUESSED_TOKEN_BYTES * (2 if offloads else 1)
    return min(MOST_BLOCKS, cached_bytes // BLOCK_BYTES if kv_tokens else MOST_BLOCKS)


class PrefillRate:
    """Seconds for a byte of a prompt that is not cached: a running mean over requests."""

    def __init__(self) -> None:
        self.byte_s = GUESSED_PREFILL_S
        self._is_measured = False

    def record(self, content: Content, *, computed_share: float, elapsed_s: float) -> None:
        """Learn from a request of whose prompt `computed_share` (0 to 1) was computed, in `elapsed_s`."""
        computed = content.size_bytes * computed_share
        if computed < BLOCK_BYTES:
            return  # too little for the time to be the prompt's
        measured = elapsed_s / computed
        self.byte_s = self.byte_s + _WEIGHT * (measured - self.byte_s) if self._is_measured else measured
        self._is_measured = True


def content_of(request: GenerateRequest) -> Content:
    """The prompt as it is sent; what comes first in the model's prompt comes first here."""
    data = _data(request.prompt)
    if request.prompt_logprobs is not None:
        return Content(len(data))  # such a prompt is computed anew, wherever it goes
    end = len(data) - len(data) % BLOCK_BYTES
    key = hash((request.adapter, request.cache_salt))
    blocks = []
    for start in range(0, end, BLOCK_BYTES):
        key = hash((key, data[start : start + BLOCK_BYTES]))
        blocks.append(key)
    return Content(len(data), tuple(blocks))


def _data(prompt: Prompt) -> bytes:
    match prompt:
        case TextPrompt(text, suffix):
            return _bytes(text) + _bytes(suffix or "")
        case TokenPrompt(tokens):
            try:
                return array.array("q", tokens).tobytes()
            except OverflowError:
                return b""  # the worker refuses it
        case EditPrompt(text=text, instruction=instruction):
            return _bytes(instruction) + _bytes(text)
        case ChatPrompt(messages=messages, tools=tools, template_kwargs=kwargs):
            return b"".join(msgspec.json.encode(part) for part in (tools, kwargs, *messages))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
