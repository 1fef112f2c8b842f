"""What is sent and when. Values only."""

import msgspec

from benchmarks.client import Call


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that follow one another, each sent when the one before it is answered. In a `is_chat` session each has
    one new user turn, and is sent with all turns and answers before it."""

    calls: tuple[Call, ...]
    is_chat: bool = False


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """How sessions begin. A closed loop: `clients` at once, each taking the next session when its last one ended. An
    open loop: at random (Poisson) times, `rate` of them a second, however busy the server is."""

    clients: int = 8
    rate: float | None = None

    def __str__(self) -> str:
        if self.rate is not None:
            return f"{self.rate:g} requests/s"
        return f"{self.clients} client{'s' if self.clients > 1 else ''}"


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """How large the requests of a mix are; tokens are exact where the server has `ignore_eos`, words are not tokens."""

    prompt_words: int
    output_tokens: int
    prefix_words: int = 0
    turns: int = 1


class Slo(msgspec.Struct, frozen=True, kw_only=True):
    """What a request must keep to count as good; None: whatever. Seconds."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None

    def __str__(self) -> str:
        limits = {"TTFT": self.ttft_s, "TPOT": self.tpot_s, "E2E": self.e2e_s}
        return (
            ", ".join(f"{name} <= {value:g} s" for name, value in limits.items() if value is not None)
            or "none"
        )
