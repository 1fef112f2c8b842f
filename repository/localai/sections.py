"""The fields of LocalAI's `function` and `reasoning` and what stands near them: how tool calls and thoughts are told
from an answer. Here a format of tool calls is named, not spelt out.
"""

from repository.localai.field import OFF, UNSET, Field, idle

_NAMED = "the format of tool calls has a name here: `template.tool_format`"
_REQUEST_BINDS = (
    "a request binds calls by `tool_choice` or `strict`, and the format says how they are written"
)
_PLAIN = "where no tool must be called, an answer is plain text"

SECTIONS = (
    idle("function.disable_no_action", _PLAIN, *OFF, True),
    idle("function.no_action_function_name", _PLAIN, "answer"),
    idle("function.no_action_description_name", _PLAIN),
    idle("function.function_name_key", _NAMED, "name"),
    idle("function.function_arguments_key", _NAMED, "arguments"),
    idle("function.response_regex", _NAMED),
    idle("function.json_regex_match", _NAMED),
    idle("function.argument_regex", _NAMED),
    idle("function.argument_regex_key_name", _NAMED),
    idle("function.argument_regex_value_name", _NAMED),
    idle("function.replace_function_results", _NAMED),
    idle("function.replace_llm_results", "use `cutstrings`, which acts on streams too"),
    idle("function.capture_llm_results", "use `extract_regex`"),
    idle("function.xml_format", _NAMED),
    Field(
        "function.xml_format_preset",
        "`hermes`, `qwen3-coder`, `glm-4.5`, `kimi-k2`: as `template.tool_format`",
    ),
    idle(
        "function.automatic_tool_parsing_fallback",
        "calls are told by one format, and what is none stays text",
        *OFF,
    ),
    idle("function.grammar.disable", _REQUEST_BINDS, *OFF, True),
    idle("function.grammar.parallel_calls", "a request says it, by `parallel_tool_calls`", *OFF, True),
    idle("function.grammar.mixed_mode", _REQUEST_BINDS, *OFF),
    idle("function.grammar.no_mixed_free_string", _REQUEST_BINDS, *OFF),
    idle("function.grammar.disable_parallel_new_lines", _REQUEST_BINDS, *OFF),
    idle("function.grammar.prefix", _NAMED),
    idle("function.grammar.expect_strings_after_json", _REQUEST_BINDS, *OFF),
    idle("function.grammar.properties_order", "arguments are written in the order of the tool's schema"),
    idle("function.grammar.schema_type", _NAMED),
    idle("function.grammar.triggers", "the format of the calls says how one begins"),
    Field("reasoning.disable", "true: `chat_template_kwargs: {enable_thinking: false}`", neutral=OFF),
    Field("reasoning.thinking_start_tokens", "the first says how reasoning begins: `template.reasoning`"),
    Field("reasoning.tag_pairs", "the first pair is the texts around reasoning: `template.reasoning`"),
    idle(
        "reasoning.strip_reasoning_only",
        "reasoning is never a part of the content; clients may leave `reasoning_content` aside",
        *OFF,
    ),
    idle(
        "reasoning.disable_reasoning_tag_prefill",
        "whether the prompt opens the reasoning is seen at its end",
        *OFF,
        True,
    ),
    Field(
        "reasoning_effort", "default of requests: the chat template's variable of that name", neutral=UNSET
    ),
    Field("chat_template_kwargs", "defaults for the variables of the chat template"),
)
