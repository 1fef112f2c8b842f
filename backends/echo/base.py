"""What both of echo's engines do alike: loading, the tokenizer and embeddings."""

import math
import time
from collections import Counter
from collections.abc import Sequence

from backends.contract import Engine, EngineError, EngineInfo, LoadError, LoadRequest, Progress
from backends.echo.model import EchoModel
from backends.echo.options import Options
from backends.echo.tokenizer import ByteTokenizer


class EchoBase(Engine):
    """A loaded echo without its generation."""

    options: Options
    model: EchoModel

    def __init__(self) -> None:
        self._tokenizer = ByteTokenizer()

    def load(self, request: LoadRequest, progress: Progress) -> EngineInfo:
        self.options = Options.read(request.options)
        progress(0.0)
        for tenth in range(10 if self.options.load_s else 0):
            time.sleep(self.options.load_s / 10)
            progress((tenth + 1) / 11)
        if self.options.fail.load is not None:
            raise LoadError(self.options.fail.load)
        self.model = EchoModel()
        self.info = self._describe(request)
        progress(1.0)
        return self.info

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        return self._tokenizer.tokenize(text, special=special)

    def token_bytes(self, token: int, *, special: bool = False) -> bytes:
        return self._tokenizer.token_bytes(token, special=special)

    def embed(self, batch: Sequence[Sequence[int]]) -> list[list[float]]:
        """The token counts of each text, normalised."""
        return (
            super().embed(batch)
            if not self.info.embedding_length
            else [self._histogram(one) for one in batch]
        )

    def _histogram(self, tokens: Sequence[int]) -> list[float]:
        if not tokens:
            raise EngineError("an empty text has no embedding; send at least one token")
        counts = Counter(tokens)
        length = math.sqrt(sum(count * count for count in counts.values()))
        return [counts[token] / length for token in range(ByteTokenizer.VOCABULARY)]

    def _describe(self, request: LoadRequest) -> EngineInfo:
        trained = 4096
        context = request.context_tokens or trained
        kv = request.kv_tokens or request.running_lanes * context
        abilities = ["cache_salt", "logit_bias", "logprobs", "mask", "prompt_logprobs"] + [
            "embeddings"
        ] * request.embeddings
        return EngineInfo(
            vocabulary=ByteTokenizer.VOCABULARY,
            context_tokens=min(context, kv),
            kv_tokens=kv,
            lanes=request.lanes,
            eos_ids=(ByteTokenizer.IM_END,),
            bos_id=ByteTokenizer.BOS,
            adds_bos=self.options.add_bos,
            bos_token=ByteTokenizer.CONTROLS[0] if self.options.add_bos else "",
            eos_token=ByteTokenizer.CONTROLS[2],
            pad_token=ByteTokenizer.CONTROLS[3],
            chat_template=ByteTokenizer.CHAT_TEMPLATE,
            special_tokens=ByteTokenizer.CONTROLS,
            generation_defaults={"temperature": 0.0},
            prefix=self.options.prefix,
            shares_kv=self.options.prefix == "tokens" and self.options.shares_kv,
            draftable=self.options.prefix == "tokens",
            capabilities=frozenset(abilities),
            engine="echo",
            description="repeats the prompt",
            trained_context_tokens=trained,
            embedding_length=ByteTokenizer.VOCABULARY if request.embeddings else 0,
        )
