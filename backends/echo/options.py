"""Echo's options as values, and the failures and delays they ask for. Their schema stands in the spec."""

import os
import time
from typing import Any, Literal

import msgspec

from backends.contract import LoadError
from backends.echo.model import Context


class Fail(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Texts that make things fail once a sequence holds them and has `after_tokens` output tokens."""

    load: str | None = None
    row: str | None = None
    step: str | None = None
    exit: str | None = None
    hang: str | None = None
    hang_s: float = 3600.0
    after_tokens: int = 0

    def strike(self, context: Context, num_drawn: int) -> str | None:
        """The error of this sequence, if it is to have one. Raises RuntimeError, blocks or ends the process
        where told so."""
        if num_drawn < self.after_tokens or not (self.row or self.step or self.exit or self.hang):
            return None
        text = bytes(token for token in context.tokens if token < 256).decode(errors="replace")
        if self.exit and self.exit in text:
            os._exit(70)
        if self.hang and self.hang in text:
            time.sleep(self.hang_s)
        if self.step and self.step in text:
            raise RuntimeError(f"echo breaks here because its options say so (fail.step: {self.step!r})")
        if self.row and self.row in text:
            return f"echo fails this sequence because its options say so (fail.row: {self.row!r})"
        return None


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The top-level configuration keys of echo. Keys meant for any backend are not its business."""

    delay_s: float = 0.0
    tokens_per_s: float | None = None
    load_s: float = 0.0
    add_bos: bool = False
    prefix: Literal["tokens", "tip", "none"] = "tokens"
    shares_kv: bool = True
    fail: Fail = Fail()

    @classmethod
    def read(cls, options: dict[str, Any]) -> "Options":
        """LoadError where `options` do not fit."""
        try:
            return msgspec.convert(options, cls)
        except msgspec.ValidationError as error:
            raise LoadError(
                f"the options of echo are wrong: {error}; correct the model's config.yaml"
            ) from error

    def step_s(self, num_tokens: int) -> float:
        """Seconds that computing `num_tokens` in one step is to take."""
        return self.delay_s + (num_tokens / self.tokens_per_s if self.tokens_per_s else 0.0)
