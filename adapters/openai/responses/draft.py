"""A response in the making: from the events of its request to the `response` object, and to the stream of it."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from adapters.openai.errors import to_api_error
from adapters.openai.responses.output import Emit, Output
from adapters.openai.responses.schema import ResponseRequest, TextFormat
from adapters.openai.sse import named_event
from runner.errors import RunnerError
from runner.wire.requests import Accepted, Delta, Event, Finished, Usage

_FAILURES = {400: "invalid_prompt", 429: "rate_limit_exceeded"}


class Draft:
    """Takes the events of one request. `outline` is what all states of the response have in common; `emit` hears
    what a stream tells of it."""

    def __init__(self, outline: Mapping[str, Any], emit: Emit) -> None:
        self._outline = dict(outline)
        self._emit = emit
        self._output = Output(emit)
        self.has_begun = False
        self._status: Literal["in_progress", "completed", "incomplete", "failed", "cancelled"] = "in_progress"
        self._error: dict[str, str] | None = None
        self._usage: Usage | None = None

    def take(self, event: Event) -> None:
        match event:
            case Accepted():
                self._outline |= {"model": event.model, "service_tier": event.service_tier}
            case Delta():
                if event.text or event.token_ids or event.reasoning or event.tool_calls or event.finish:
                    self._begin()  # not before a token exists: until then errors have a status of their own
                    self._output.add(event)
                if event.finish is not None:
                    self._status = "incomplete" if event.finish == "length" else "completed"
                    self._output.end(self._status)
            case Finished():
                self._usage = event.usage

    def response(self) -> dict[str, Any]:
        """The `response` object as it is now."""
        is_cut = self._status == "incomplete"
        return self._outline | {
            "status": self._status,
            "error": self._error,
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "output": self._output.items,
            "usage": None if self._usage is None else usage_body(self._usage),
        }

    def end(self) -> None:
        """Tell the stream's last event."""
        self._emit(f"response.{self._status}", response=self.response())

    def fail(self, error: RunnerError) -> None:
        """Tell that the response has failed."""
        self._begin()
        code = _FAILURES.get(to_api_error(error).status, "server_error")
        self._status, self._error = "failed", {"code": code, "message": error.message}
        self._emit("response.failed", response=self.response())

    def cancel(self) -> None:
        """Its client has left, and hears no more."""
        self._status = "cancelled"

    def _begin(self) -> None:
        if not self.has_begun:
            self.has_begun = True
            self._emit("response.created", response=self.response())
            self._emit("response.in_progress", response=self.response())


class ResponseFrames:
    """The stream of a draft: events with names and numbers without gaps."""

    def __init__(self, outline: Mapping[str, Any]) -> None:
        self.draft = Draft(outline, self._tell)
        self._told: list[bytes] = []
        self._number = 0

    def add(self, prompt: int, event: Event, out: list[bytes]) -> None:
        self.draft.take(event)
        out += self._told
        self._told.clear()

    def end(self) -> bytes:
        self.draft.end()
        return b"".join(self._told)

    def fail(self, error: RunnerError) -> bytes:
        self.draft.fail(error)
        return b"".join(self._told)

    def ping(self, words: str) -> bytes:
        return f": {words}\n\n".encode()

    def _tell(self, kind: str, /, **fields: Any) -> None:
        body = {"type": kind, "sequence_number": self._number, **fields}
        self._told.append(named_event(kind, body))
        self._number += 1


def usage_body(usage: Usage) -> dict[str, Any]:
    """The usage object of responses."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def outline(body: ResponseRequest, *, id: str, created_at: int, is_stored: bool) -> dict[str, Any]:
    """What all states of a response have in common: who it is, and what it was asked with."""
    form = body.text.format if body.text is not None else None
    return {
        "id": id,
        "object": "response",
        "created_at": created_at,
        "model": body.model or "",
        "background": False,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "metadata": body.metadata or {},
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "prompt_cache_key": body.prompt_cache_key,
        "reasoning": {
            "effort": body.reasoning.effort if body.reasoning is not None else None,
            "summary": None,
        },
        "safety_identifier": body.safety_identifier,
        "service_tier": "default",
        "store": is_stored,
        "temperature": body.temperature,
        "text": {
            "format": {"type": "text"} if form is None else _given(form),
            "verbosity": body.text.verbosity if body.text is not None else None,
        },
        "tool_choice": "auto" if body.tool_choice is None else body.tool_choice,
        "tools": [{"strict": None, "parameters": None} | tool for tool in body.tools or ()],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": body.top_p,
        "truncation": "disabled",
        "user": body.user,
    }


def _given(form: TextFormat) -> dict[str, Any]:
    return {name: value for name, value in msgspec.to_builtins(form).items() if value is not None}
