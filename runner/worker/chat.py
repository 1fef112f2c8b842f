"""Prompts by one template each: a whole chat, an edit, a completion. Messages that are rendered one by one and then
put together are `message_templates.py`'s.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Self

from backends.contract import EngineInfo
from runner.wire.requests import ChatPrompt, EditPrompt
from runner.worker.control_texts import END, ControlTexts, Guard, Piece, cut_at_end
from runner.worker.sandbox import CompiledTemplate, TemplateError

NOTHING: Mapping[str, Any] = MappingProxyType({})


class Template:
    """A compiled template, which reads `variables`. Raises TemplateError where `source` is not valid Jinja2."""

    kind: ClassVar[str]

    def __init__(
        self, source: str, *, special_tokens: Sequence[str], bos_token: str = "", eos_token: str = ""
    ) -> None:
        self._template = CompiledTemplate(self.kind, source)
        self._constants = {"bos_token": bos_token, "eos_token": eos_token}
        self._control_texts = ControlTexts(special_tokens)

    @classmethod
    def of(cls, info: EngineInfo, source: str) -> Self:
        """`source` for the model that `info` tells of."""
        return cls(
            source, special_tokens=info.special_tokens, bos_token=info.bos_token, eos_token=info.eos_token
        )

    @property
    def source(self) -> str:
        return self._template.source

    @property
    def variables(self) -> frozenset[str]:
        return self._template.variables

    def _fill(self, variables: Mapping[str, Any]) -> str:
        return self._template.fill({**self._constants, **variables})

    def _guard(self) -> Guard:
        return Guard(self._control_texts)


class ChatTemplate(Template):
    """`system_prompt` begins a chat that has no system message; it is the configuration's, and may hold control
    tokens."""

    kind = "chat"

    def render(
        self, prompt: ChatPrompt, variables: Mapping[str, Any] = NOTHING, *, system_prompt: str = ""
    ) -> list[Piece]:
        """The prompt as pieces; one piece where no message holds control-token text.

        Raises TemplateError with the template's own message where it refuses the messages.
        """
        guard = self._guard()
        messages = [guard.hide(message) for message in prompt.messages]
        if prompt.continue_final_message:
            messages[-1]["content"] = (messages[-1].get("content") or "") + END
        if system_prompt and not has_system(prompt):
            messages.insert(0, {"role": "system", "content": system_prompt})
        text = self._fill(
            {
                "messages": messages,
                "tools": guard.hide(prompt.tools) if prompt.tools else None,
                "documents": None,
                "add_generation_prompt": prompt.add_generation_prompt and not prompt.continue_final_message,
                **variables,
                **guard.hide(prompt.template_kwargs),
            }
        )
        return guard.pieces(continued(text) if prompt.continue_final_message else text)


class EditTemplate(Template):
    """Gets the variables of `prompt_variables`, with the `Instruction`."""

    kind = "edit"

    def render(self, prompt: EditPrompt, *, system_prompt: str = "") -> list[Piece]:
        """The prompt as pieces. Raises TemplateError where the template fails."""
        guard = self._guard()
        text, instruction = guard.hide(prompt.text), guard.hide(prompt.instruction)
        return guard.pieces(self._fill(prompt_variables(text, system_prompt, instruction=instruction)))


class CompletionTemplate(Template):
    """Gets the variables of `prompt_variables`."""

    kind = "completion"

    def render(self, prompt: str, *, system_prompt: str = "") -> list[Piece]:
        """The prompt as pieces. Raises TemplateError where the template fails."""
        guard = self._guard()
        return guard.pieces(self._fill(prompt_variables(guard.hide(prompt), system_prompt)))


def has_system(prompt: ChatPrompt) -> bool:
    return any(message.get("role") == "system" for message in prompt.messages)


def system_variables(system_prompt: str) -> dict[str, Any]:
    """The system prompt by both of its names."""
    return {"SystemPrompt": system_prompt, "System": system_prompt}


def prompt_variables(
    text: str,
    system_prompt: str,
    *,
    instruction: str = "",
    functions: Sequence[Any] = (),
    suppresses_system: bool = False,
    effort: str = "",
) -> dict[str, Any]:
    """What the template of a whole prompt gets, where it does not go through messages itself."""
    return {
        **system_variables(system_prompt),
        "SuppressSystemPrompt": suppresses_system,
        "Input": text,
        "Prompt": text,
        "Instruction": instruction,
        "Functions": functions,
        "MessageIndex": 0,
        "ReasoningEffort": effort,
        "Metadata": {},
    }


def continued(text: str) -> str:
    """The rendered text up to the end of the last message's content, so that the model goes on from there. Raises
    TemplateError."""
    begun = cut_at_end(text)
    if begun is None:
        raise TemplateError(
            "continue_final_message needs a last message whose content the template renders as it is"
        )
    return begun


__all__ = ["ChatTemplate", "CompletionTemplate", "EditTemplate", "Piece", "Template", "TemplateError"]
