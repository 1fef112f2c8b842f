"""Which markup a model's output may hold: decided once, when the model is loaded."""

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from backends.contract import Engine
from runner.errors import UnsupportedFeature
from runner.wire.messages import TemplateTexts
from runner.wire.requests import ChatPrompt, Constraint, GenerateRequest, ToolUse
from runner.worker.output.call_grammar import call_grammar, lazy_call_grammar
from runner.worker.output.message import MessageReader
from runner.worker.output.reasoning import ReasoningReader, ReasoningTags, find_reasoning_tags
from runner.worker.output.tool_calls import ToolCallReader
from runner.worker.output.tool_formats import TOOL_FORMATS, ToolFormat, find_tool_format
from runner.worker.text import StopMatcher

_TAIL_TOKENS = 16


class Markup:
    """The model's tags and its format of tool calls, each None where it has none. `template` is its chat template;
    what the configuration says goes before what is found there."""

    def __init__(self, engine: Engine, template: str, configured: TemplateTexts) -> None:
        self._engine = engine
        self.tool_format: ToolFormat | None
        if configured.tool_format is None:
            self.tool_format = find_tool_format(template)
        else:
            self.tool_format = TOOL_FORMATS.get(configured.tool_format)
        self.reasoning: ReasoningTags | None
        match configured.reasoning_tags:
            case None:
                self.reasoning = find_reasoning_tags(template, self._tokens_of)
            case (open, close):
                self.reasoning = ReasoningTags(open, close)
            case _:
                self.reasoning = None
        tool_markup = self.tool_format.markup if self.tool_format is not None else ""
        tags = self.reasoning.open + self.reasoning.close if self.reasoning is not None else ""
        self._visible = frozenset(self._tokens_of(tool_markup + tags))

    def token_bytes(self, token: int) -> bytes:
        """What `token` adds to a text that is read for markup: a control token that is markup is no secret then."""
        data = self._engine.token_bytes(token)
        return data or (self._engine.token_bytes(token, special=True) if token in self._visible else b"")

    def symbol(self, text: str) -> str:
        """`text` as an operand of Lark: a control token by its id, other text as it is spelt."""
        tokens = self._tokens_of(text)
        is_control = len(tokens) == 1 and not self._engine.token_bytes(tokens[0])
        return f"<[{tokens[0]}]>" if is_control else json.dumps(text)

    def is_reasoning(self, prompt: Sequence[int] | str) -> bool:
        """Whether the prompt, tokens or a text, leaves the reasoning open for the model to begin with."""
        if self.reasoning is None:
            return False
        if not isinstance(prompt, str):
            tail = prompt[-_TAIL_TOKENS:]
            data = b"".join(self._engine.token_bytes(token, special=True) for token in tail)
            prompt = data.decode(errors="replace")
        return prompt.rstrip().endswith(self.reasoning.open)

    def constraints(self, request: GenerateRequest) -> tuple[Constraint, ...]:
        """What the answer, behind its reasoning, must be one of; none where it may be anything. Where calls are left
        to the model, they are another way to answer than the form that the request asks for.

        Raises UnsupportedFeature where calls are wanted of a model that has no format for them.
        """
        own = (request.constraint,) if request.constraint is not None else ()
        use = request.tool_use
        if use is None or (use.choice == "auto" and not own):
            return own
        functions = functions_of(request)
        if use.choice == "function":
            functions = [function for function in functions if function["name"] == use.name]
        grammar = call_grammar(
            self.require_tool_format(), functions, parallel=_may_call_on(use), symbol=self.symbol
        )
        calls = Constraint("lark", grammar)
        return (*own, calls) if use.choice == "auto" else (calls,)

    def strict_calls(self, request: GenerateRequest) -> tuple[Constraint, ...]:
        """What binds calls that are left to the model, where some are to be strict. Raises UnsupportedFeature where
        the model has no format for calls."""
        use = request.tool_use
        if use is None or not use.strict:
            return ()
        grammar = lazy_call_grammar(
            self.require_tool_format(),
            functions_of(request),
            strict=use.strict,
            parallel=_may_call_on(use),
            symbol=self.symbol,
            thinks=self.reasoning.open if request.split_reasoning and self.reasoning is not None else "",
        )
        return (Constraint("lark", grammar),)

    def reader(
        self, request: GenerateRequest, prompt: Sequence[int] | str, stops: StopMatcher, *, begins: str = ""
    ) -> MessageReader | None:
        """What reads one sample of a request; None where its output is plain text. `stops` end its content, and it
        `begins` with a text of the configuration's.

        Raises UnsupportedFeature where the request has tools and the model has no format for calls.
        """
        reasoning = calls = None
        if request.split_reasoning and self.reasoning is not None:
            is_open = self.is_reasoning(prompt) and self.reasoning.open not in begins
            reasoning = ReasoningReader(self.reasoning, is_open=is_open)
        if request.tool_use is not None:
            format = self.require_tool_format()
            tools = {one["name"]: one.get("parameters") or {} for one in functions_of(request)}
            calls = ToolCallReader(format, tools, most=None if _may_call_on(request.tool_use) else 1)
        if reasoning is None and calls is None:
            return None
        return MessageReader(stops, reasoning=reasoning, calls=calls, new_id=self._call_id)

    def require_tool_format(self) -> ToolFormat:
        """The format of calls. Raises UnsupportedFeature where the model has none."""
        if self.tool_format is None:
            raise UnsupportedFeature(
                "this model's chat template shows no format for tool calls that is known; if the model can call "
                "tools, name the format as template.tool_format in its config.yaml",
                param="tools",
            )
        return self.tool_format

    def _tokens_of(self, text: str) -> list[int]:
        """Those of markup; none where the engine's tokenizer is elsewhere."""
        return [] if self._engine.info.text_only else self._engine.tokenize(text, special=True)

    def _call_id(self) -> str:
        is_short = self.tool_format is not None and self.tool_format.short_ids
        return secrets.token_hex(5)[:9] if is_short else f"call_{secrets.token_hex(12)}"


def _may_call_on(use: ToolUse) -> bool:
    """More than one call; a tool that is asked for by its name is called once."""
    return use.parallel and use.choice != "function"


def functions_of(request: GenerateRequest) -> Sequence[Mapping[str, Any]]:
    """The functions that a request's template is shown."""
    tools = (request.prompt.tools or ()) if isinstance(request.prompt, ChatPrompt) else ()
    return [tool["function"] for tool in tools]
