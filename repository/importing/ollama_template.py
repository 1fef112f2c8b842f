"""The chat template of an Ollama model: the weights' own where they have one, else Ollama's, from Go to Jinja2.

Ollama's older templates are one turn (`.System`, `.Prompt`, `.Response`) that is written again for each pair of
messages; its newer ones go over `.Messages`.
"""

import re
from pathlib import Path

from msgspec import Struct

from repository.gguf_header import BadGguf, read_header
from repository.go_template.translate import translate

_OWN = "tokenizer.chat_template"
_TURN = ("System", "Prompt", "Response")
_WHOLE = (*_TURN, "Messages", "Tools")

_END = "\\x1f"  # stands where the answer goes: what the template has behind it belongs to a finished answer

_FLUSH = (
    "{%+ if go_said.prompt or go_said.response +%}{{ go_turn(go_said.system, go_said.prompt, go_said.response) }}"
    "{%+ set go_said.system = '' +%}{%+ set go_said.prompt = '' +%}{%+ set go_said.response = '' +%}{%+ endif +%}"
)
_BY_TURNS = (
    "{%+ macro go_turn(System, Prompt, Response) +%}BODY{%+ endmacro +%}"
    "{%+ set go_said = namespace(system='', prompt='', response='') +%}"
    "{%+ for go_message in messages +%}"
    f"{{%+ if go_message.role == 'system' +%}}{_FLUSH}{{%+ set go_said.system = go_message.content +%}}"
    "{%+ elif go_message.role == 'assistant' +%}{%+ set go_said.response = go_message.content or '' +%}"
    f"{{%+ else +%}}{{%+ if go_said.response +%}}{_FLUSH}{{%+ endif +%}}"
    "{%+ set go_said.prompt = go_message.content +%}{%+ endif +%}"
    "{%+ endfor +%}"
    f"{{{{ go_turn(go_said.system, go_said.prompt, go_said.response ~ '{_END}').split('{_END}')[0] }}}}"
)
_BY_MESSAGES = (
    "{%+ macro go_turn(System, Prompt, Response, Messages, Tools) +%}BODY{%+ endmacro +%}"
    "{%+ set go_said = namespace(system='', messages=[]) +%}"
    "{%+ for go_message in messages +%}"
    "{%+ if go_message.role == 'system' +%}{%+ set go_said.system = go_message.content +%}{%+ endif +%}"
    "{%+ set go_said.messages = go_said.messages + "
    "[{'Role': go_message.role, 'Content': go_message.content or '', 'ToolCalls': [], 'Thinking': ''}] +%}"
    "{%+ endfor +%}"
    f"{{{{ go_turn(go_said.system, '', '{_END}', go_said.messages, []).split('{_END}')[0] }}}}"
)


class Chat(Struct, frozen=True):
    """`chat` is the Jinja2 template to configure, None for the one that the model has without."""

    chat: str | None
    notes: tuple[str, ...] = ()


def chat_template(text: str, *, weights: Path) -> Chat:
    """What to do with a template layer."""
    try:
        own = read_header(weights).metadata.get(_OWN)
    except (BadGguf, OSError):
        own = None
    if own:
        return Chat(None, ("its template is left behind: the weights have one of their own",))
    return translated(text)


def translated(text: str) -> Chat:
    """The template as Jinja2; where that is not possible, a note says why."""
    by_messages = re.search(r"\.Messages\b", text) is not None
    if not by_messages and not re.search(r"\.Response\b", text):
        text += "{{ .Response }}"
    found = translate(text, _WHOLE if by_messages else _TURN)
    if found.fault is not None:
        fault = found.fault
        return Chat(
            None,
            (f"its template is left behind: line {fault.line}, column {fault.column}: {fault.message}",),
        )
    chat = (_BY_MESSAGES if by_messages else _BY_TURNS).replace("BODY", found.text)
    tools = "tools are not put into prompts: its template has them in a form of Ollama's own"
    return Chat(chat, (tools,) if re.search(r"\.Tools\b", text) else ())
