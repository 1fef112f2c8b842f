"""LocalAI's `options`, a list of `key:value` texts for a backend: where each stands here, or why it does nothing."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from msgspec import Struct

from repository.document import read_scalar
from repository.localai.field import OFF, Field, idle, moved
from repository.problem import did_you_mean

_PREFIXES = (
    "beginnings of prompts are always looked for and used again; `scheduler.prefix_cache` turns that off"
)
_GUESSES = "the text itself is guessed from, as far as that pays: `scheduler: {prompt_lookup: true}`"
_REMOTE = "a model is not spread over several machines here"

OPTIONS: Mapping[str, Field] = MappingProxyType(
    {
        field.key: field
        for field in (
            moved("parallel", "scheduler.max_lanes", "sequences that run at once"),
            moved("n_parallel", "scheduler.max_lanes", "sequences that run at once"),
            Field("cache_ram", "MiB of main memory for prefixes: `scheduler.offload_bytes`", neutral=(-1,)),
            moved("split_mode", "split_mode", "how a model is spread over several GPUs"),
            moved("swa_full", "swa_full", "keep the whole past of sliding-window layers"),
            moved("n_ubatch", "ubatch", "tokens computed at once inside a step"),
            moved("ubatch", "ubatch", "tokens computed at once inside a step"),
            moved("n_batch", "scheduler.max_batch_tokens", "tokens in one step"),
            Field(
                "reasoning_format",
                "`none`: reasoning stays in the answer, as `template.reasoning.split: false`",
            ),
            Field("reasoning_budget", "0: as `reasoning.disable`; other budgets are told", neutral=(-1,)),
            Field("spec_type", "`ngram...`: `scheduler.prompt_lookup`; other ways of guessing are told"),
            Field("tool_parser", "vLLM's name of a format of tool calls: `template.tool_format`"),
            Field("reasoning_parser", "vLLM's name of a format of reasoning: `template.reasoning`"),
            idle("use_jinja", "chat templates are always Jinja2", True),
            idle("jinja", "chat templates are always Jinja2", True),
            idle("context_shift", "a prompt is never cut here: one that is too long gets a 400", *OFF),
            idle("n_cache_reuse", _PREFIXES, 0),
            idle("cache_reuse", _PREFIXES, 0),
            idle("slot_prompt_similarity", _PREFIXES),
            idle("sps", _PREFIXES),
            idle("cache_idle_slots", "`scheduler.cached_lanes` says how many idle prefixes are kept", True),
            idle("ctx_checkpoints", "states that cannot be cut are kept at the turns of a chat"),
            idle("swa_checkpoints", "states that cannot be cut are kept at the turns of a chat"),
            idle("kv_unified", "all sequences always share one KV pool", True),
            idle("devices", "`instance_group.gpus` says which GPUs a model may use"),
            idle("gpu", "`instance_group` and `main_gpu` say where a model computes"),
            idle("prefill_assistant", "a request says it, by `continue_final_message`"),
            idle("spec_n_max", _GUESSES),
            idle("spec_n_min", _GUESSES),
            idle("spec_p_min", _GUESSES),
            idle("draft_gpu_layers", _GUESSES),
            idle("draft_ctx_size", _GUESSES),
            idle("grpc_servers", _REMOTE),
            idle("rpc_servers", _REMOTE),
            idle("warmup", "`warmup` at the top level is a list of prompts", True),
            idle("check_tensors", "weights are checked when they are pulled", *OFF),
            idle("no_op_offload", "llama.cpp chooses where each operation runs", *OFF),
        )
    }
)

TOOL_PARSERS: Mapping[str, str] = MappingProxyType(
    {
        "hermes": "hermes",
        "llama3_json": "llama3",
        "llama4_json": "llama3",
        "mistral": "mistral",
        "granite": "granite",
        "qwen3_coder": "qwen3-coder",
        "qwen3_xml": "qwen3-coder",
        "glm45": "glm",
        "glm47": "glm",
        "kimi_k2": "kimi",
        "deepseek_v3": "deepseek-v3",
        "deepseek_v31": "deepseek-v3.1",
        "qwen3-coder": "qwen3-coder",
        "glm-4.5": "glm",
        "kimi-k2": "kimi",
    }
)
"""Formats of tool calls, by the names that vLLM's parsers and LocalAI's presets have."""

THINK_PARSERS = ("deepseek_r1", "deepseek-r1", "qwen3", "glm45", "deepseek_v3", "holo2", "ernie45")
"""Parsers of reasoning between <think> and </think>."""


class Option(Struct, frozen=True):
    """One entry of the list. `field` is None where there is no such option; then `hint` may name a near one."""

    key: str
    value: Any
    field: Field | None = None
    hint: str = ""


def read_option(text: str) -> Option:
    """`key:value` or `key=value`; a key alone means true."""
    cut = min((at for at in (text.find(":"), text.find("=")) if at >= 0), default=len(text))
    key, written = text[:cut].strip(), text[cut + 1 :].strip()
    try:
        value: Any = read_scalar(written) if written else True
    except ValueError:
        value = written
    field = OPTIONS.get(key)
    return Option(key, value, field, "" if field else did_you_mean(key, OPTIONS))
