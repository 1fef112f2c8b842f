"""Fields whose value means something else here than there, one function each."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from repository.checking import found
from repository.document import Entry, Node
from repository.localai.backends import backend_of
from repository.localai.draft import Draft
from repository.localai.fields import FIELDS
from repository.localai.options import THINK_PARSERS, TOOL_PARSERS, read_option

TEXT_USES = ("chat", "completion", "edit", "embeddings", "tokenize", "llm", "any", "")
OFF, ON = ("disabled", "off", "false", "0"), ("enabled", "on", "true", "1")
THINKING = ("enable_thinking", "thinking")
"""What chat templates call the wish that the model thinks."""


def _backend(draft: Draft, entry: Entry) -> None:
    name = entry.value.value
    if not isinstance(name, str) or not name:
        draft.put("backend", entry)
        return
    backend = backend_of(name)
    if backend.problem:
        draft.problem(entry.value, backend.problem)
    draft.put("backend", entry, backend.name)
    if backend.embeds:
        draft.default("embeddings", entry, True)


def _usecases(draft: Draft, entry: Entry) -> None:
    for item in _texts(draft, "known_usecases", entry):
        use = str(item.value).lower().removeprefix("flag_")
        if use == "embeddings":
            draft.default("embeddings", entry, True)
        elif use not in TEXT_USES:
            draft.note(
                item, f"known_usecases: No effect: {item.value}: only text and vectors of it are served"
            )


def _modalities(draft: Draft, entry: Entry) -> None:
    key = str(entry.key.text)
    for item in _texts(draft, key, entry):
        if str(item.value).lower() != "text":
            draft.note(item, f"{key}: No effect: {item.value}: only text is served")


def _numa(draft: Draft, entry: Entry) -> None:
    draft.put("numa", entry, "distribute" if entry.value.value is True else ...)


def _flash_attention(draft: Draft, entry: Entry) -> None:
    word = str(entry.value.value).lower()
    draft.put("flash_attention", entry, "on" if word in ON else "off" if word in OFF else ...)


def _max_concurrent(draft: Draft, entry: Entry) -> None:
    draft.default("scheduler.max_queue_size", entry, 0)
    draft.put("scheduler.max_lanes", entry)


def _xml_format_preset(draft: Draft, entry: Entry) -> None:
    _tool_format(draft, entry, "function.xml_format_preset", entry.value.value)


def _reasoning_disable(draft: Draft, entry: Entry) -> None:
    if entry.value.value is True:
        _think(draft, entry, False)
    else:
        draft.problem(entry.value, f"reasoning.disable: expected true or false, found {_found(entry.value)}")


def _thinking_start_tokens(draft: Draft, entry: Entry) -> None:
    first = next(iter(_texts(draft, "reasoning.thinking_start_tokens", entry)), None)
    if first is None:
        return
    open = str(first.value)
    close = {"<": f"</{open[1:]}", "[": f"[/{open[1:]}"}.get(open[:1])
    if close is None:
        why = f"how reasoning that {open!r} begins would end is not said; write template.reasoning: {{open, close}}"
        draft.idle(entry, "reasoning.thinking_start_tokens", why)
        return
    draft.default("template.reasoning", entry, {"open": open, "close": close})


def _tag_pairs(draft: Draft, entry: Entry) -> None:
    pairs = entry.value.plain()
    first = pairs[0] if isinstance(pairs, list) and pairs else None
    if not isinstance(first, dict) or not all(isinstance(first.get(end), str) for end in ("start", "end")):
        draft.problem(entry.value, "reasoning.tag_pairs: expected a list of mappings with `start` and `end`")
        return
    draft.put("template.reasoning", entry, {"open": first["start"], "close": first["end"]})
    if len(pairs) > 1:
        draft.idle(entry, "reasoning.tag_pairs", "only the first pair is looked for")


def _reasoning_effort(draft: Draft, entry: Entry) -> None:
    draft.put("chat_template_kwargs.reasoning_effort", entry)
    _think(draft, entry, entry.value.value != "none")


def _think(draft: Draft, entry: Entry, wanted: bool) -> None:
    for name in THINKING:
        draft.default(f"chat_template_kwargs.{name}", entry, wanted)


def _options(draft: Draft, entry: Entry) -> None:
    for item in _texts(draft, "options", entry):
        _option(draft, Entry(item, item), str(item.value))


def _option(draft: Draft, entry: Entry, text: str) -> None:
    option = read_option(text)
    field, key = option.field, f"options: {option.key}"
    if field is None:
        draft.idle(entry, key, f"there is no option of this name{option.hint}")
    elif field.is_neutral(Node(option.value)):
        pass
    elif field.kind == "idle":
        draft.idle(entry, key, field.does)
    elif field.to is not None:
        draft.put(field.to, entry, option.value)
    else:
        _OPTIONS[option.key](draft, entry, option.value)


def _cache_ram(draft: Draft, entry: Entry, value: Any) -> None:
    if type(value) is not int or value < -1:
        draft.problem(entry.value, "options: cache_ram: expected whole MiB, or -1 for no limit")
        return
    draft.put("scheduler.offload_bytes", entry, value << 20)


def _reasoning_format(draft: Draft, entry: Entry, value: Any) -> None:
    if value == "none":
        draft.put("template.reasoning.split", entry, False)


def _reasoning_budget(draft: Draft, entry: Entry, value: Any) -> None:
    if value == 0:
        _think(draft, entry, False)
    else:
        draft.idle(
            entry, "options: reasoning_budget", "reasoning is not cut; a request's max_tokens counts it"
        )


def _spec_type(draft: Draft, entry: Entry, value: Any) -> None:
    if str(value).startswith("ngram"):
        draft.put("scheduler.prompt_lookup", entry, True)
    elif value != "none":
        draft.idle(entry, "options: spec_type", FIELDS["draft_model"].does)


def _tool_parser(draft: Draft, entry: Entry, value: Any) -> None:
    _tool_format(draft, entry, "options: tool_parser", value)


def _reasoning_parser(draft: Draft, entry: Entry, value: Any) -> None:
    if value in THINK_PARSERS:
        draft.put("template.reasoning", entry, {"open": "<think>", "close": "</think>"})
    else:
        why = f"{value} is not known; write template.reasoning: {{open: ..., close: ...}}"
        draft.idle(entry, "options: reasoning_parser", why)


def _tool_format(draft: Draft, entry: Entry, key: str, value: Any) -> None:
    if value in TOOL_PARSERS:
        draft.put("template.tool_format", entry, TOOL_PARSERS[value])
    else:
        known = ", ".join(sorted(set(TOOL_PARSERS.values())))
        draft.idle(entry, key, f"{value} is not known; write template.tool_format, one of {known}")


def _texts(draft: Draft, key: str, entry: Entry) -> list[Node]:
    """The nodes of a list of texts, or of one text; whatever else it is, is told."""
    node = entry.value
    items = (
        [node] if isinstance(node.value, str) else list(node.value) if isinstance(node.value, tuple) else None
    )
    if items is None or not all(isinstance(item.value, str) for item in items):
        draft.problem(node, f"{key}: expected a list of texts, found {_found(node)}")
        return []
    return items


def _found(node: Node) -> str:
    return found(node.plain())


READERS: Mapping[str, Callable[[Draft, Entry], None]] = MappingProxyType(
    {
        "backend": _backend,
        "known_usecases": _usecases,
        "known_input_modalities": _modalities,
        "known_output_modalities": _modalities,
        "numa": _numa,
        "flash_attention": _flash_attention,
        "limits.max_concurrent": _max_concurrent,
        "function.xml_format_preset": _xml_format_preset,
        "reasoning.disable": _reasoning_disable,
        "reasoning.thinking_start_tokens": _thinking_start_tokens,
        "reasoning.tag_pairs": _tag_pairs,
        "reasoning_effort": _reasoning_effort,
        "options": _options,
    }
)
"""By the field's place in the file."""

_OPTIONS: Mapping[str, Callable[[Draft, Entry, Any], None]] = MappingProxyType(
    {
        "cache_ram": _cache_ram,
        "reasoning_format": _reasoning_format,
        "reasoning_budget": _reasoning_budget,
        "spec_type": _spec_type,
        "tool_parser": _tool_parser,
        "reasoning_parser": _reasoning_parser,
    }
)
