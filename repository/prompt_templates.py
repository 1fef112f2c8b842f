"""The templates of a configuration as Jinja2: reads those that are files, translates those that are Go's.

What a template is given, and how it is rendered, is the worker's.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from msgspec import Struct

from repository.checking import find
from repository.document import Entry, Node
from repository.go_template.translate import is_go, mixed_with_jinja, translate
from repository.names import printable
from repository.problem import Problem

SUFFIX = ".tmpl"
MOST_BYTES = 256 * 1024

_PROMPT = frozenset(
    {"Input", "Prompt", "Instruction", "SystemPrompt", "System", "SuppressSystemPrompt", "Functions"}
    | {"MessageIndex", "ReasoningEffort", "Metadata"}
)
_MESSAGE = frozenset(
    {"Role", "RoleName", "Content", "FunctionCall", "FunctionName", "Function", "LastMessage", "MessageIndex"}
    | {"SystemPrompt", "System"}
)
VARIABLES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "chat": _PROMPT,
        "chat_message": _MESSAGE,
        "completion": _PROMPT,
        "edit": _PROMPT,
        "function": _PROMPT,
    }
)
"""What each template may read; a Go template that reads something else is refused."""

_FILE_NAME = re.compile(r"\w[\w.+-]*(?:/\w[\w.+-]*)*")
_DEFAULTED = ("chat", "completion")
_FOR_CHATS = ("chat", "chat_message", "function")


class Templates(Struct, frozen=True):
    """`common` with its templates as Jinja2; `files` are those that were looked for, there or not."""

    common: Node
    problems: tuple[Problem, ...] = ()
    notes: tuple[Problem, ...] = ()
    files: tuple[Path, ...] = ()


def read_templates(common: Node, shown: str, folders: Sequence[Path]) -> Templates:
    """Of a configuration's common keys. `shown` names its file; a template may be a file in one of `folders`, of which
    the first that has it counts."""
    if not isinstance(common.value, dict):
        return Templates(common)
    section = common.value.get("template") or Entry(Node("template"), Node({}))
    if not isinstance(section.value.value, dict):
        return Templates(common)
    reader = _Reader(shown, folders)
    written = {**reader.of_weights(common), **section.value.value}
    if not written:
        return Templates(common, files=tuple(reader.files))
    entries = {
        key: reader.read(key, entry) if key in VARIABLES and isinstance(entry.value.value, str) else entry
        for key, entry in written.items()
    }
    read = Node(entries, section.value.line, section.value.column)
    common = Node({**common.value, "template": Entry(section.key, read)}, common.line, common.column)
    notes = tuple(Problem(shown, node.line, node.column, message) for node, message in _idle(common))
    return Templates(common, tuple(reader.problems), notes, tuple(reader.files))


class _Reader:
    def __init__(self, shown: str, folders: Sequence[Path]) -> None:
        self.problems: list[Problem] = []
        self.files: list[Path] = []
        self._shown = shown
        self._folders = folders

    def of_weights(self, common: Node) -> dict[str, Entry]:
        """LocalAI's default: a file with the name of the weights and `.tmpl` behind it shapes chats and completions."""
        parameters = find(common, ["parameters"]).value
        model = parameters.get("model") if isinstance(parameters, dict) else None
        if model is None or not isinstance(model.value.value, str):
            return {}
        name = model.value.value + SUFFIX
        if not _FILE_NAME.fullmatch(name) or self._find(name) is None:
            return {}
        return {key: Entry(model.key, Node(name, model.value.line, model.value.column)) for key in _DEFAULTED}

    def read(self, key: str, entry: Entry) -> Entry:
        """The entry of one template, with its text as Jinja2."""
        node, text, file = entry.value, str(entry.value.value), None
        if _FILE_NAME.fullmatch(text.strip()) and self._folders:
            file = self._find(text.strip().removesuffix(SUFFIX) + SUFFIX)
            if file is None:
                places = " or ".join(printable(str(folder)) for folder in self._folders)
                message = f'no file "{text.strip().removesuffix(SUFFIX)}{SUFFIX}" in {places}'
                self._problem(key, node, message)
                return entry
            try:
                data = file.read_bytes()[: MOST_BYTES + 1]
                text = data.decode("utf-8-sig")
            except (OSError, UnicodeDecodeError) as error:
                self._problem(key, node, f"{printable(str(file))} cannot be read: {error}")
                return entry
            if len(data) > MOST_BYTES:
                self._problem(key, node, f"{printable(str(file))} is larger than {MOST_BYTES // 1024} KiB")
                return entry
        return Entry(entry.key, Node(self._jinja(key, text, node, file), node.line, node.column))

    def _find(self, name: str) -> Path | None:
        for folder in self._folders:
            self.files.append(folder / name)
            if os.path.isfile(folder / name):  # noqa: PTH113  a name too long for a file is none
                return folder / name
        return None

    def _jinja(self, key: str, text: str, node: Node, file: Path | None) -> str:
        if is_go(text):
            translated = translate(text, VARIABLES[key])
            text, fault = translated.text, translated.fault
        else:
            fault = mixed_with_jinja(text)
        if fault is not None and file is not None:
            self.problems.append(Problem(printable(str(file)), fault.line, fault.column, fault.message))
        elif fault is not None:
            self._problem(key, node, f"line {fault.line}, column {fault.column} of the text: {fault.message}")
        return text or " "

    def _problem(self, key: str, node: Node, message: str) -> None:
        self.problems.append(Problem(self._shown, node.line, node.column, f"template.{key}: {message}"))


def _idle(common: Node) -> Iterator[tuple[Node, str]]:
    """What is set and does nothing, for another key decides."""
    template: Any = find(common, ["template"]).value
    given = [key for key in _FOR_CHATS if key in template]
    if "use_tokenizer_template" in template and template["use_tokenizer_template"].value.value is True:
        for key in given:
            why = "the template that came with the weights is used, if there is one, for use_tokenizer_template is set"
            yield template[key].key, f"template.{key}: No effect: {why}"
        return
    chat = template["chat"].value.value if "chat" in template else None
    if not isinstance(chat, str) or not re.search(r"\bmessages\b", chat):
        return
    why = "template.chat goes through the messages itself"
    for key in ("chat_message", "join_chat_messages_by_character"):
        if key in template:
            yield template[key].key, f"template.{key}: No effect: {why}"
    assert isinstance(common.value, dict)
    if "roles" in common.value:
        yield common.value["roles"].key, f"roles: No effect: {why}"
