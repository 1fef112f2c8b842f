"""The engine: a token is a byte, and a lane a list of them. What follows is drawn as often as it did in corpus.txt."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from backends.contract import (
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
from backends.sampling import Sampler, log_softmax, token_logprobs

END = 256  # the token after all bytes: a paragraph is over


class MarkovEngine(StepEngine):
    def load(self, request: LoadRequest, progress: Progress) -> EngineInfo:
        corpus = Path(request.weights) / "corpus.txt"
        try:
            paragraphs = [[*each.strip(), END] for each in corpus.read_bytes().split(b"\n\n") if each.strip()]
        except OSError as error:
            raise LoadError(f"{corpus} cannot be read: {error.strerror}; put a text there") from error
        if not paragraphs:
            raise LoadError(f"{corpus} is empty; put a text there, with a blank line between paragraphs")
        self.order = request.options.get("order", 6)
        self.following: defaultdict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for paragraph in paragraphs:
            for place, token in enumerate(paragraph):
                for back in range(min(self.order, place) + 1):
                    self.following[tuple(paragraph[place - back : place])][token] += 1
        self.lanes: list[list[int]] = [[] for _ in range(request.lanes)]
        self.samplers: dict[int, Sampler] = {}
        context = request.context_tokens or 4096
        self.info = EngineInfo(
            vocabulary=END + 1,
            context_tokens=context,
            kv_tokens=request.kv_tokens or context * request.running_lanes,
            lanes=request.lanes,
            eos_ids=(END,),
            capabilities=frozenset({"logit_bias", "logprobs", "mask"}),
            engine="markov",
        )
        return self.info

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        return list(text.encode(errors="replace"))

    def token_bytes(self, token: int, *, special: bool = False) -> bytes:
        return bytes([token]) if token < END else b""

    def open(self, seq: int, sampling: Sampling, history: Sequence[int]) -> None:
        self.samplers[seq] = Sampler(sampling, history, vocabulary=END + 1)

    def close(self, seq: int) -> None:
        del self.samplers[seq]

    def truncate(self, lane: int, keep: int) -> int:
        del self.lanes[lane][keep:]
        return len(self.lanes[lane])

    def fork(self, source: int, target: int, keep: int) -> bool:
        self.lanes[target] = self.lanes[source][:keep]
        return True

    def step(self, plan: StepPlan) -> StepResult:
        return StepResult(rows=tuple(self.compute(row) for row in plan.rows))

    def compute(self, row: PlanRow) -> ResultRow:
        lane = self.lanes[row.lane]
        lane += row.tokens
        if not row.sample:
            return ResultRow(seq=row.seq)
        logits = self.logits(lane)
        token = self.samplers[row.seq].draw(logits, mask=row.mask)
        told = row.logprobs is not None
        logprobs = (token_logprobs(log_softmax(logits), token, top=row.logprobs),) if told else ()
        return ResultRow(seq=row.seq, tokens=(token,), logprobs=logprobs)

    def logits(self, lane: list[int]) -> np.ndarray:
        """How often each byte followed the longest ending of `lane` that the corpus knows, as logarithms."""
        known = (tuple(lane[len(lane) - back :]) for back in range(min(self.order, len(lane)), -1, -1))
        counts = self.following[next(each for each in known if each in self.following)]
        logits = np.full(END + 1, -30.0)
        for token, count in counts.items():
            logits[token] = np.log(count)
        return logits
