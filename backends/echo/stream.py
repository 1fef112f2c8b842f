"""Echo as a stream engine: the same answers from an engine that does its own batching."""

import asyncio
from collections.abc import AsyncIterator
from typing import Literal

import msgspec
import numpy as np

from backends.contract import (
    EngineError,
    EngineInfo,
    EngineRequest,
    LoadRequest,
    Progress,
    StreamEngine,
    TokenChunk,
    TokenLogprobs,
)
from backends.echo.base import EchoBase
from backends.echo.model import Context
from backends.sampling import Sampler, log_softmax, pack_mask, token_logprobs


class EchoStreamEngine(EchoBase, StreamEngine):
    """Runs `running_lanes` requests at once, one token each per turn of the event loop; the others wait.

    A request's own failure is an EngineError from its iterator; any other exception means a broken engine.
    """

    def load(self, request: LoadRequest, progress: Progress) -> EngineInfo:
        self._turns = asyncio.Semaphore(request.running_lanes)
        return super().load(request, progress)

    async def generate(self, request: EngineRequest) -> AsyncIterator[TokenChunk]:
        if request.adapter is not None:
            raise EngineError(f"echo has no adapters, so it cannot run {request.adapter!r}")
        if not 0 < len(request.prompt) <= self.info.context_tokens:
            raise EngineError(
                f"the prompt has {len(request.prompt)} tokens; 1 to {self.info.context_tokens} fit"
            )
        async with self._turns:
            sampler = self._sampler(request)
            context = Context()
            given = self._read_prompt(context, request)
            await asyncio.sleep(self.options.step_s(len(request.prompt)))
            stops = {*request.stop_token_ids, *(() if request.ignore_eos else self.info.eos_ids)}
            early_mask = self._mask_without(stops)
            while True:
                error = self.options.fail.strike(context, sampler.num_drawn)
                if error is not None:
                    raise EngineError(error)
                first = sampler.num_drawn == 0
                logits = self.model.logits(context)
                token = sampler.draw(
                    logits, mask=early_mask if sampler.num_drawn < request.min_tokens else None
                )
                top = request.logprobs
                finish = self._finish(token, stops, sampler.num_drawn, request)
                yield TokenChunk(
                    tokens=(token,),
                    logprobs=() if top is None else (token_logprobs(log_softmax(logits), token, top=top),),
                    prompt_logprobs=given if first else (),
                    cached_tokens=0 if first else None,
                    finish=finish,
                )
                if finish is not None:
                    return
                context.extend((token,))
                await asyncio.sleep(self.options.step_s(1))

    def _finish(
        self, token: int, stops: set[int], num_drawn: int, request: EngineRequest
    ) -> Literal["stop", "length"] | None:
        if token in stops:
            return "stop"
        room = self.info.context_tokens - len(request.prompt)
        return "length" if num_drawn >= request.max_tokens or num_drawn > room else None

    def _sampler(self, request: EngineRequest) -> Sampler:
        sampling = request.sampling
        if request.ignore_eos:
            banned = dict.fromkeys(self.info.eos_ids, -np.inf)
            sampling = msgspec.structs.replace(sampling, logit_bias={**sampling.logit_bias, **banned})
        return Sampler(sampling, request.prompt, vocabulary=self.info.vocabulary)

    def _mask_without(self, tokens: set[int]) -> bytes:
        allowed = np.ones(self.info.vocabulary, dtype=np.bool_)
        allowed[[token for token in tokens if token < allowed.size]] = False
        return pack_mask(allowed)

    def _read_prompt(self, context: Context, request: EngineRequest) -> tuple[TokenLogprobs, ...]:
        if request.prompt_logprobs is None:
            context.extend(request.prompt)
            return ()
        given = []
        for token, following in zip(request.prompt, request.prompt[1:], strict=False):
            context.extend((token,))
            scores = log_softmax(self.model.logits(context))
            given.append(token_logprobs(scores, following, top=request.prompt_logprobs))
        context.extend(request.prompt[-1:])
        return tuple(given)
