"""Chats whose messages are rendered one by one, joined, and put into a template for the whole: LocalAI's shapes.

Which variables they get is told in docs/templates.md.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from backends.contract import EngineInfo
from runner.wire.messages import TemplateTexts
from runner.wire.requests import ChatPrompt
from runner.worker.chat import NOTHING, continued, has_system, prompt_variables, system_variables
from runner.worker.control_texts import END, ControlTexts, Guard, Piece, cut_at_end
from runner.worker.go_functions.printing import json_text
from runner.worker.go_functions.values import Struct
from runner.worker.sandbox import CompiledTemplate, TemplateError

_CALLER = "assistant_function_call"
"""The role of a message with calls, where `roles` has a text for it."""


class Function(Struct):
    fields = {"Name": "name", "Description": "description", "Parameters": "parameters"}  # noqa: RUF012


class ToolCall(Struct):
    fields = {"Index": "index", "ID": "id", "Type": "type", "FunctionCall": "function"}  # noqa: RUF012


class CalledFunction(Struct):
    fields = {"Name": "name", "Arguments": "arguments"}  # noqa: RUF012


class MessageTemplates:
    """`whole` puts the joined messages in its place; without it they are the prompt. Raises TemplateError where a
    template is not valid Jinja2."""

    def __init__(self, info: EngineInfo, texts: TemplateTexts, whole: CompiledTemplate | None) -> None:
        self._constants = {"bos_token": info.bos_token, "eos_token": info.eos_token}
        self._control_texts = ControlTexts(info.special_tokens)
        self._message = CompiledTemplate("chat_message", texts.chat_message) if texts.chat_message else None
        self._whole = whole
        self._joiner = texts.joiner
        self._roles = texts.roles
        self._system_prompt = texts.system_prompt
        templates = [each for each in (self._message, whole) if each is not None]
        self.source = "\n".join(template.source for template in templates)
        self.variables = frozenset().union(*(template.variables for template in templates))
        if "ReasoningEffort" in self.variables:
            self.variables |= {"reasoning_effort"}

    @property
    def shows_tools(self) -> bool:
        return bool(self.variables & {"Functions", "tools"})

    def render(self, prompt: ChatPrompt, variables: Mapping[str, Any] = NOTHING) -> list[Piece]:
        """The prompt as pieces. Raises TemplateError where a template fails."""
        guard = Guard(self._control_texts)
        messages: list[Any] = guard.hide(prompt.messages)
        if prompt.continue_final_message:
            messages[-1]["content"] = (messages[-1].get("content") or "") + END
        system_prompt = "" if has_system(prompt) else self._system_prompt
        if system_prompt and not self.variables & {"SystemPrompt", "System"}:
            messages.insert(0, {"role": "system", "content": system_prompt})
        functions = [_function(tool) for tool in guard.hide(prompt.tools or ())]
        shared = {**self._constants, **variables, **guard.hide(prompt.template_kwargs)}
        of_message = {**shared, **system_variables(system_prompt)}
        texts = self._texts(messages, of_message, has_functions=bool(functions))
        joined = self._joiner.join(texts)
        if not prompt.add_generation_prompt and not prompt.continue_final_message:
            joined += END
        text = joined
        if self._whole is not None:
            variables = prompt_variables(
                joined,
                system_prompt,
                functions=functions,
                suppresses_system=has_system(prompt),
                effort=shared.get("reasoning_effort") or "",
            )
            tools = guard.hide(prompt.tools) if prompt.tools else None
            text = self._whole.fill({**shared, "tools": tools, **variables})
        if prompt.continue_final_message:
            text = continued(text)
        elif not prompt.add_generation_prompt:
            begun = cut_at_end(text)
            if begun is None:
                raise TemplateError("the chat template does not show the messages as they were joined")
            text = begun
        return guard.pieces(text)

    def _texts(
        self, messages: Sequence[Mapping[str, Any]], shared: Mapping[str, Any], *, has_functions: bool
    ) -> list[str]:
        """Of every message that has one."""
        texts = []
        names: dict[str, str] = {}  # of the functions that were called, by the id of the call
        for index, message in enumerate(messages):
            calls = message.get("tool_calls") or ()
            names |= {call["id"]: call["function"]["name"] for call in calls if "id" in call}
            role = message.get("role", "")
            if calls and role == "assistant" and self._roles.get(_CALLER):
                role = _CALLER
            content = message.get("content") or ""
            made = [_call(number, call) for number, call in enumerate(calls)]
            if self._message is None:
                texts.append(self._plain(role, content, made))
                continue
            is_last = index == len(messages) - 1
            text = self._message.fill(
                {
                    **shared,
                    "Role": self._roles.get(role, ""),
                    "RoleName": role,
                    "Content": content,
                    "FunctionName": message.get("name") or names.get(message.get("tool_call_id", ""), ""),
                    "FunctionCall": made or None,
                    "Function": has_functions and is_last,
                    "LastMessage": is_last,
                    "MessageIndex": index,
                }
            )
            if text:
                texts.append(text)
        return texts

    def _plain(self, role: str, content: str, calls: Sequence[ToolCall]) -> str:
        """A message without a template of its own: the text of its role, its content, and its calls as JSON."""
        name = self._roles.get(role, "")
        lines = [name + content] if content else []
        if calls:
            lines.append(f"{name} {json_text(calls)}" if name else json_text(calls))
        return "\n".join(lines)


def _function(tool: Mapping[str, Any]) -> Function:
    function = tool.get("function") or {}
    return Function(
        name=function.get("name", ""),
        description=function.get("description") or "",
        parameters=function.get("parameters") or {},
    )


def _call(index: int, call: Mapping[str, Any]) -> ToolCall:
    function = call.get("function") or {}
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
    called = CalledFunction(name=function.get("name", ""), arguments=arguments)
    return ToolCall(index=index, id=call.get("id", ""), type=call.get("type", "function"), function=called)
