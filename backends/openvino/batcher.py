"""Drives openvino-genai's continuous batching on the event loop: a step, then what others want to do, then a step.

A step keeps Python's lock to itself, so nothing else of this process happens in one; between two the event loop and
the other threads have their turns. What is computed in a step is decided over there.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import numpy as np
import openvino as ov
import openvino_genai as genai

from backends.contract import EngineError, UnsupportedError

TURNS = 5
"""Of the event loop between two steps: a call that has come in needs some until its sequences are in the next step."""

RUNS_ON = genai.GenerationFinishReason.NONE


class Output(msgspec.Struct, frozen=True):
    """What a sequence gained in a step, a log-probability for each token, and whether that was all."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: genai.GenerationFinishReason


class Running:
    """A sequence of the pipeline, which drops it with its handle. What it gains comes through its queue."""

    __slots__ = ("handle", "outputs")

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.outputs: asyncio.Queue[Output | Exception] = asyncio.Queue()


class Batcher:
    """The sequences of one pipeline. For one event loop."""

    def __init__(self, pipeline: genai.ContinuousBatchingPipeline) -> None:
        self._pipeline = pipeline
        self._running: set[Running] = set()
        self._numbers = itertools.count(1)  # one that is used twice corrupts the pipeline
        self._is_driving = False

    async def stream(self, prompt: Sequence[int], config: genai.GenerationConfig) -> AsyncIterator[Output]:
        """What the sequence gains, step by step; closing the iterator takes it out. Raises EngineError where it alone
        cannot be computed, and what a step raised where the pipeline is broken."""
        tokens = ov.Tensor(np.array([prompt], dtype=np.int64))
        try:
            handle = self._pipeline.add_request(next(self._numbers), tokens, config)
        except RuntimeError as error:
            raise UnsupportedError(f"openvino-genai refuses this request: {_last_line(error)}") from error
        sequence = Running(handle)
        self._running.add(sequence)
        self._drive()
        try:
            finish = RUNS_ON
            while finish == RUNS_ON:
                output = await sequence.outputs.get()
                if isinstance(output, Exception):
                    raise output
                yield output
                finish = output.finish
        finally:
            if sequence in self._running:
                self._running.remove(sequence)
                handle.cancel()  # the next step frees its memory

    def _drive(self) -> None:
        """See to it that steps follow. Callbacks, no task: what an ending loop leaves of them is nobody's error."""
        if not self._is_driving:
            self._is_driving = True
            asyncio.get_running_loop().call_soon(self._turn, TURNS)

    def _turn(self, rest: int) -> None:
        if rest == 0:
            try:
                self._step()
            except Exception as error:
                self._is_driving = False
                for sequence in self._running:
                    sequence.outputs.put_nowait(error)
                self._running.clear()
                return
            if not self._pipeline.has_non_finished_requests():
                self._is_driving = False
                return
            rest = TURNS
        asyncio.get_running_loop().call_soon(self._turn, rest - 1)

    def _step(self) -> None:
        self._pipeline.step()
        for sequence in list(self._running):
            handle = sequence.handle
            while handle.can_read():
                for gained in handle.read().values():
                    if gained.finish_reason != RUNS_ON:
                        self._running.discard(sequence)
                    sequence.outputs.put_nowait(
                        Output(
                            tuple(gained.generated_ids),
                            tuple(gained.generated_log_probs),
                            gained.finish_reason,
                        )
                    )
            if sequence in self._running and handle.get_status() == genai.GenerationStatus.IGNORED:
                self._running.remove(sequence)
                sequence.outputs.put_nowait(
                    EngineError("the KV cache has no room for this sequence; raise scheduler.kv_tokens")
                )


def _last_line(error: RuntimeError) -> str:
    """OpenVINO's message behind the place in its sources."""
    return str(error).strip().rpartition("\n")[2]
