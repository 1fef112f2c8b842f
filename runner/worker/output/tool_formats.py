"""How models write tool calls: one row per format. `tool_calls.py` reads and `call_grammar.py` writes by these."""

import re
from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from runner.worker.output.parameters import ParameterMarks


class Written(msgspec.Struct, frozen=True):
    """Calls as the model was trained to write them: `begin`, calls with `between` between them, `end`. In `call`
    stand NAME and ARGUMENTS, and INDEX for a number; a line break may also be left out."""

    call: str
    between: str = ""
    begin: str = ""
    end: str = ""


class ToolFormat(msgspec.Struct, frozen=True, kw_only=True):
    """One way of writing calls.

    `sign`: a regular expression that the chat templates of its models match. A call begins after `open`, and also
    where the answer does if it is `bare`. It is an object with name and arguments, an array of such objects, or,
    where `named` (a regular expression with the group "name", and "id" where the model gives its calls ids) matches,
    arguments alone: an object, or `parameters` by these marks. `close` may follow a call
    and `section` surround them all; `separator` stands between calls without `open`. `short_ids`: the template
    takes call ids of nine letters and digits only.
    """

    sign: str
    open: str
    written: Written
    close: str = ""
    section: tuple[str, ...] = ()
    separator: str = ""
    others: str = ""
    named: str = ""
    parameters: ParameterMarks | None = None
    bare: bool = False
    short_ids: bool = False

    @property
    def markup(self) -> str:
        """All texts that may be control tokens and must be seen all the same, in a row."""
        written = self.written
        parameter = self.parameters.written if self.parameters is not None else ""
        texts = (self.open, self.close, *self.section, self.others)
        return "".join((*texts, written.begin, written.call, parameter, written.end))


_OBJECT = '{"name": "NAME", "arguments": ARGUMENTS}'
_MISTRAL_NAME = r"(?P<name>[\w.-]+)\s*(?:\[CALL_ID\]\w*\s*)?(?:\[ARGS\]\s*)?"
_DEEPSEEK_SECTION = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")

TOOL_FORMATS: Mapping[str, ToolFormat] = MappingProxyType(
    {
        "hermes": ToolFormat(
            sign=r"\A(?!.*(?:<function=|<arg_key>)).*<tool_call>",
            open="<tool_call>",
            close="</tool_call>",
            written=Written(f"<tool_call>\n{_OBJECT}\n</tool_call>", "\n"),
        ),
        "mistral-v11": ToolFormat(
            sign=r"\[TOOL_CALLS\].*\[ARGS\]",
            open="[TOOL_CALLS]",
            named=_MISTRAL_NAME,
            others="[CALL_ID]",
            short_ids=True,
            written=Written("[TOOL_CALLS]NAME[ARGS]ARGUMENTS"),
        ),
        "mistral": ToolFormat(
            sign=r"\[TOOL_CALLS\]",
            open="[TOOL_CALLS]",
            named=_MISTRAL_NAME,
            others="[CALL_ID]",
            short_ids=True,
            written=Written(_OBJECT, ", ", begin="[TOOL_CALLS][", end="]"),
        ),
        "llama3": ToolFormat(
            sign=r'<\|python_tag\|>|<\|eot_id\|>.*"parameters"|"parameters".*<\|eot_id\|>',
            open="<|python_tag|>",
            bare=True,
            separator=";",
            written=Written('{"name": "NAME", "parameters": ARGUMENTS}', "; "),
        ),
        "granite": ToolFormat(
            sign=r"<\|tool_call\|>",
            open="<|tool_call|>",
            close="<|/tool_call|>",
            written=Written(_OBJECT, ", ", begin="<|tool_call|>[", end="]"),
        ),
        "qwen3-coder": ToolFormat(
            sign=r"<function=.*<parameter=",
            open="<tool_call>",
            close="</tool_call>",
            named=r"<function=(?P<name>[^>\n]+)>",
            parameters=ParameterMarks(
                opening="<parameter=",
                key=r"<parameter=(?P<key>[^>\n]+)>",
                close="</parameter>",
                end="</function>",
                written="<parameter=KEY>\nVALUE\n</parameter>\n",
                pad="\n",
            ),
            written=Written("<tool_call>\n<function=NAME>\nARGUMENTS</function>\n</tool_call>", "\n"),
        ),
        "glm": ToolFormat(
            sign=r"<arg_key>",
            open="<tool_call>",
            named=r"(?P<name>[\w.-]+)\s*(?=<)",
            parameters=ParameterMarks(
                opening="<arg_key>",
                key=r"<arg_key>(?P<key>[^<]+)</arg_key>\s*<arg_value>",
                close="</arg_value>",
                end="</tool_call>",
                written="<arg_key>KEY</arg_key>\n<arg_value>VALUE</arg_value>\n",
            ),
            written=Written("<tool_call>NAME\nARGUMENTS</tool_call>", "\n"),
        ),
        "kimi": ToolFormat(
            sign=r"<\|tool_calls_section_begin\|>",
            open="<|tool_call_begin|>",
            section=("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
            named=r"(?P<id>(?:functions\.)?(?P<name>[\w.-]+?)(?::\d+)?)\s*<\|tool_call_argument_begin\|>\s*",
            close="<|tool_call_end|>",
            written=Written(
                "<|tool_call_begin|>functions.NAME:INDEX<|tool_call_argument_begin|>ARGUMENTS<|tool_call_end|>",
                begin="<|tool_calls_section_begin|>",
                end="<|tool_calls_section_end|>",
            ),
        ),
        "deepseek-v3": ToolFormat(
            sign=r"<｜tool▁calls▁begin｜>.*```json",
            open="<｜tool▁call▁begin｜>",
            section=_DEEPSEEK_SECTION,
            named=r"\w*<｜tool▁sep｜>(?P<name>[\w.-]+)\s*```json\s*",
            close="```<｜tool▁call▁end｜>",
            written=Written(
                "<｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME\n```json\nARGUMENTS\n```<｜tool▁call▁end｜>",
                "\n",
                begin="<｜tool▁calls▁begin｜>",
                end="<｜tool▁calls▁end｜>",
            ),
        ),
        "deepseek-v3.1": ToolFormat(
            sign=r"<｜tool▁calls▁begin｜>",
            open="<｜tool▁call▁begin｜>",
            section=_DEEPSEEK_SECTION,
            named=r"(?P<name>[\w.-]+)\s*<｜tool▁sep｜>\s*",
            close="<｜tool▁call▁end｜>",
            written=Written(
                "<｜tool▁call▁begin｜>NAME<｜tool▁sep｜>ARGUMENTS<｜tool▁call▁end｜>",
                begin="<｜tool▁calls▁begin｜>",
                end="<｜tool▁calls▁end｜>",
            ),
        ),
    }
)


def find_tool_format(template: str) -> ToolFormat | None:
    """The format that a chat template speaks of, if it is one that is known."""
    return next((one for one in TOOL_FORMATS.values() if re.search(one.sign, template, re.DOTALL)), None)
