"""What can go wrong with a model or a request, in words for people and without HTTP codes.

RunnerError
├── InvalidRequest           the request itself is wrong (`param` names the field)
│   ├── ContextLengthExceeded
│   ├── UnsupportedFeature   right, but this model or its engine cannot do it
│   └── WrongKind            text asked of a model that makes vectors, or vectors of one that does not
├── ModelNotFound            no such model or version
├── ModelDisabled            listed, not served
├── ModelNotReady            loading or draining; a retry may find it ready
│   └── ModelNotLoaded       not loaded, and nothing but a request to load it will do so
├── LoadFailed               the model cannot be loaded; a retry does not mend it
│   ├── EngineUnavailable    what its engine needs cannot be had now; a retry may find it
│   └── WeightsUnavailable   what is to come from the network does not come now; a retry may get it
├── InsufficientMemory       no room for the model now
├── Overloaded               the queue is full
├── DeadlineExceeded         its time ran out, queued or running
├── GenerationFailed         the engine failed this request
├── WorkerCrashed            the worker process died
└── ActionNotAllowed         the control mode forbids it
"""

from typing import Any, ClassVar, Self

import msgspec


class WireError(msgspec.Struct, frozen=True, array_like=True):
    """An error as it crosses a process boundary: the class's name, the message and its fields."""

    kind: str
    message: str
    fields: dict[str, Any] = {}


class RunnerError(Exception):
    """Something went wrong while serving a model."""

    fields: ClassVar[tuple[str, ...]] = ()

    def __init__(self, message: str = "", **values: Any) -> None:
        self.message = message or (type(self).__doc__ or "").strip()
        super().__init__(self.message)
        for name in self.fields:
            setattr(self, name, values.pop(name, None))
        if values:
            raise TypeError(f"{type(self).__name__} has no field {', '.join(values)}")

    def copy(self) -> Self:
        """The same error without this one's traceback: for an error that is kept and raised again and again."""
        return type(self)(self.message, **{name: getattr(self, name) for name in self.fields})

    def to_wire(self) -> WireError:
        return WireError(
            type(self).__name__, self.message, {name: getattr(self, name) for name in self.fields}
        )


class InvalidRequest(RunnerError):
    """The request is not valid."""

    param: str | None
    fields: ClassVar[tuple[str, ...]] = ("param",)


class ContextLengthExceeded(InvalidRequest):
    """The prompt is longer than the model's context."""

    prompt_tokens: int | None
    context_tokens: int | None
    fields: ClassVar[tuple[str, ...]] = ("param", "prompt_tokens", "context_tokens")


class UnsupportedFeature(InvalidRequest):
    """This model cannot do that."""


class WrongKind(InvalidRequest):
    """This model is of another kind."""


class ModelNotFound(RunnerError):
    """There is no such model. `hint`: what of the message helps to get it."""

    model: str | None
    hint: str | None
    fields: ClassVar[tuple[str, ...]] = ("model", "hint")


class ModelDisabled(RunnerError):
    """The model is disabled in its configuration."""


class ModelNotReady(RunnerError):
    """The model is not ready."""

    retry_after_s: float | None
    fields: ClassVar[tuple[str, ...]] = ("retry_after_s",)


class ModelNotLoaded(ModelNotReady):
    """The model is not loaded. `version`: the one that was asked for, if one was."""

    model: str | None
    version: int | None
    fields: ClassVar[tuple[str, ...]] = ("retry_after_s", "model", "version")


class LoadFailed(RunnerError):
    """The model could not be loaded."""


class EngineUnavailable(LoadFailed):
    """What the model's engine needs cannot be had now."""

    retry_after_s: float | None
    fields: ClassVar[tuple[str, ...]] = ("retry_after_s",)


class WeightsUnavailable(LoadFailed):
    """The model's weights cannot be fetched now."""

    retry_after_s: float | None
    fields: ClassVar[tuple[str, ...]] = ("retry_after_s",)


class InsufficientMemory(RunnerError):
    """There is no memory for the model now."""

    retry_after_s: float | None
    fields: ClassVar[tuple[str, ...]] = ("retry_after_s",)


class Overloaded(RunnerError):
    """The model's queue is full."""

    retry_after_s: float | None
    fields: ClassVar[tuple[str, ...]] = ("retry_after_s",)


class DeadlineExceeded(RunnerError):
    """The request's time ran out."""


class GenerationFailed(RunnerError):
    """The engine failed while generating."""


class WorkerCrashed(RunnerError):
    """The model's worker process ended unexpectedly; it is being restarted."""


class ActionNotAllowed(RunnerError):
    """The model control mode does not allow this."""


def error_classes() -> dict[str, type[RunnerError]]:
    """Every class of the tree by name, RunnerError included."""
    found: dict[str, type[RunnerError]] = {}
    pending: list[type[RunnerError]] = [RunnerError]
    while pending:
        cls = pending.pop()
        found[cls.__name__] = cls
        pending.extend(cls.__subclasses__())
    return found


def from_wire(error: WireError) -> RunnerError:
    """The exception a WireError stands for; one that is not known here becomes GenerationFailed."""
    cls = error_classes().get(error.kind, GenerationFailed)
    return cls(error.message, **{name: error.fields.get(name) for name in cls.fields})
