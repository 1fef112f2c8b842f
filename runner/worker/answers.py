"""How what an engine gives or refuses becomes an answer; the same for both shapes of engine."""

import contextlib
from collections.abc import MutableMapping, Sequence
from typing import Any, Protocol

from backends.contract import Engine, EngineError, UnsupportedError
from runner.errors import GenerationFailed, RunnerError, UnsupportedFeature, WireError
from runner.wire.messages import CallFailed, Embedded, FromWorker


class Sender(Protocol):
    """Where frames go."""

    def send(self, messages: Sequence[FromWorker]) -> None: ...


def request_error(error: EngineError) -> RunnerError:
    """An engine's refusal of one request, as its caller gets it. The engine itself is fine."""
    return (UnsupportedFeature if isinstance(error, UnsupportedError) else GenerationFailed)(str(error))


def broken_error(error: BaseException) -> RunnerError:
    """What every request gets when `error` shows that the engine is broken."""
    return GenerationFailed(f"the engine failed: {str(error) or type(error).__name__}")


def fail_calls(calls: MutableMapping[int, Any], failure: WireError, sender: Sender) -> None:
    """Empty `calls` and fail every one of them, each once, though two threads may be at it."""
    with contextlib.suppress(KeyError):
        while True:
            call, _ = calls.popitem()
            sender.send([CallFailed(call, failure)])


def embed(engine: Engine, call: int, batch: Sequence[Sequence[int]]) -> FromWorker:
    """The answer to an Embed whose prompts are tokenised. Whatever is not an EngineError passes through."""
    try:
        vectors = engine.embed(batch)
    except EngineError as error:
        return CallFailed(call, request_error(error).to_wire())
    return Embedded(call, tuple(map(tuple, vectors)), sum(map(len, batch)))
