"""Every field of LocalAI's that bears on text: what a file with it becomes here. One row each, and a check that none is
missing.
"""

from typing import Any

import msgspec
import pytest

from repository.config import ModelConfig
from repository.config_file import Loaded, load_document
from repository.document import parse_document
from repository.localai.fields import FIELDS
from repository.localai.options import OPTIONS

FILE = "models/orca.yaml"


def load(text: str) -> Loaded:
    return load_document(parse_document(text.encode(), FILE), FILE)


def settings(text: str) -> dict[str, Any]:
    """What a file sets, by place: common keys that are not their default, and the backend's options."""
    loaded = load(text)
    assert not loaded.problems, loaded.problems
    assert loaded.config is not None
    config, plain = msgspec.to_builtins(loaded.config), msgspec.to_builtins(ModelConfig())
    found = dict(loaded.config.options)
    for key, value in config.items():
        if key == "options" or value == plain[key]:
            continue
        if isinstance(value, dict) and plain[key]:
            found |= {f"{key}.{each}": value[each] for each in value if value[each] != plain[key][each]}
        else:
            found[key] = value
    return msgspec.json.decode(msgspec.json.encode(found))


ACTS: list[tuple[str, str, dict[str, Any]]] = [
    ("name", "name: orca", {"name": "orca"}),
    ("backend", "backend: llama", {"backend": "llama"}),
    ("backend", "backend: cuda12-llama-cpp", {"backend": "llama-cpp"}),
    ("backend", "backend: cpu-vllm-development", {"backend": "vllm"}),
    ("backend", "backend: rocm-transformers", {"backend": "transformers"}),
    ("backend", "backend: sentencetransformers", {"backend": "transformers", "embeddings": True}),
    ("backend", "backend: llama-stable", {"backend": "llama-cpp"}),
    ("backend", "backend: my-plugin", {"backend": "my-plugin"}),
    ("description", "description: good", {"description": "good"}),
    ("usage", "usage: ask it", {"usage": "ask it"}),
    ("alias", "name: gpt-4\nalias: orca", {"name": "gpt-4", "alias": "orca"}),
    ("disabled", "disabled: true", {"disabled": True}),
    ("pinned", "pinned: true", {"pinned": True}),
    ("concurrency_groups", "concurrency_groups: [big]", {"concurrency_groups": ["big"]}),
    ("known_usecases", "known_usecases: [chat, embeddings]", {"embeddings": True}),
    ("known_usecases", "known_usecases: [FLAG_CHAT]", {}),
    ("known_input_modalities", "known_input_modalities: [text]", {}),
    ("known_output_modalities", "known_output_modalities: [text]", {}),
    ("parameters.model", "parameters: {model: a.gguf}", {"parameters.model": "a.gguf"}),
    ("parameters.temperature", "parameters: {temperature: 0.2}", {"parameters.temperature": 0.2}),
    ("parameters.top_p", "parameters: {top_p: 0.7}", {"parameters.top_p": 0.7}),
    ("parameters.top_k", "parameters: {top_k: 80}", {"parameters.top_k": 80}),
    ("parameters.min_p", "parameters: {min_p: 0.1}", {"parameters.min_p": 0.1}),
    ("parameters.typical_p", "parameters: {typical_p: 0.9}", {"parameters.typical_p": 0.9}),
    ("parameters.max_tokens", "parameters: {max_tokens: 5}", {"parameters.max_tokens": 5}),
    ("parameters.max_tokens", "parameters: {max_tokens: 0}", {}),
    ("parameters.seed", "parameters: {seed: -1}", {"parameters.seed": -1}),
    ("parameters.repeat_penalty", "parameters: {repeat_penalty: 1.1}", {"parameters.repeat_penalty": 1.1}),
    ("parameters.repeat_last_n", "parameters: {repeat_last_n: 64}", {"parameters.repeat_last_n": 64}),
    (
        "parameters.frequency_penalty",
        "parameters: {frequency_penalty: 1}",
        {"parameters.frequency_penalty": 1},
    ),
    ("parameters.presence_penalty", "parameters: {presence_penalty: 1}", {"parameters.presence_penalty": 1}),
    ("parameters.n", "parameters: {n: 2}", {"parameters.n": 2}),
    ("parameters.logprobs", "parameters: {logprobs: true}", {"parameters.logprobs": True}),
    ("parameters.logprobs", "parameters: {logprobs: 3}", {"parameters.logprobs": 3}),
    ("parameters.top_logprobs", "parameters: {top_logprobs: 2}", {"parameters.top_logprobs": 2}),
    ("parameters.logit_bias", "parameters: {logit_bias: {1: -5}}", {"parameters.logit_bias": {"1": -5}}),
    ("parameters.echo", "parameters: {echo: true}", {"parameters.echo": True}),
    ("parameters.ignore_eos", "parameters: {ignore_eos: true}", {"parameters.ignore_eos": True}),
    ("parameters.batch", "parameters: {batch: 256}", {"scheduler.max_batch_tokens": 256}),
    ("parameters.rope_freq_base", "parameters: {rope_freq_base: 1e4}", {"rope_freq_base": 10000.0}),
    ("parameters.rope_freq_scale", "parameters: {rope_freq_scale: 0.5}", {"rope_freq_scale": 0.5}),
    ("parameters.rope_freq_scale", "parameters: {rope_freq_scale: 0}", {}),
    ("parameters.tokenizer", "parameters: {tokenizer: t.json}", {"tokenizer": "t.json"}),
    ("parameters.pooling", "parameters: {pooling: cls}", {"pooling": "cls"}),
    ("context_size", "context_size: 1024", {"context_size": 1024}),
    ("context_size", "context_size: -1", {}),
    ("threads", "threads: 4", {"threads": 4}),
    ("f16", "f16: true", {"f16": True}),
    ("gpu_layers", "gpu_layers: 99999999", {"gpu_layers": 99999999}),
    ("tensor_split", 'tensor_split: "1,3"', {"tensor_split": "1,3"}),
    ("main_gpu", "main_gpu: AUTO:-CPU", {"main_gpu": "AUTO:-CPU"}),
    ("main_gpu", 'main_gpu: ""', {}),
    ("cuda", "cuda: true", {"cuda": True}),
    ("mmap", "mmap: false", {"mmap": False}),
    ("mmlock", "mmlock: true", {"mmlock": True}),
    ("low_vram", "low_vram: true", {"no_kv_offloading": True}),
    ("low_vram", "low_vram: false", {}),
    ("numa", "numa: true", {"numa": "distribute"}),
    ("numa", "numa: false", {}),
    ("numa", "numa: isolate", {"numa": "isolate"}),
    ("no_kv_offloading", "no_kv_offloading: true", {"no_kv_offloading": True}),
    ("cache_type_k", "cache_type_k: q8_0", {"cache_type_k": "q8_0"}),
    ("cache_type_v", "cache_type_v: q8_0", {"cache_type_v": "q8_0"}),
    ("flash_attention", "flash_attention: enabled", {"flash_attention": "on"}),
    ("flash_attention", 'flash_attention: "auto"', {"flash_attention": "auto"}),
    ("rope_scaling", "rope_scaling: yarn", {"rope_scaling": "yarn"}),
    ("yarn_ext_factor", "yarn_ext_factor: 1.0", {"yarn_ext_factor": 1.0}),
    ("yarn_attn_factor", "yarn_attn_factor: 1.0", {"yarn_attn_factor": 1.0}),
    ("yarn_beta_fast", "yarn_beta_fast: 32", {"yarn_beta_fast": 32}),
    ("yarn_beta_slow", "yarn_beta_slow: 1", {"yarn_beta_slow": 1}),
    ("quantization", "quantization: bnb_4bit", {"quantization": "bnb_4bit"}),
    ("load_format", "load_format: auto", {"load_format": "auto"}),
    ("dtype", "dtype: float16", {"dtype": "float16"}),
    ("type", "type: AutoModelForCausalLM", {"type": "AutoModelForCausalLM"}),
    ("trust_remote_code", "trust_remote_code: true", {"trust_remote_code": True}),
    ("embeddings", "embeddings: true", {"embeddings": True}),
    ("gpu_memory_utilization", "gpu_memory_utilization: 0.5", {"gpu_memory_utilization": 0.5}),
    ("enforce_eager", "enforce_eager: true", {"enforce_eager": True}),
    ("swap_space", "swap_space: 2", {"swap_space": 2}),
    ("max_model_len", "max_model_len: 32768", {"max_model_len": 32768}),
    ("tensor_parallel_size", "tensor_parallel_size: 2", {"tensor_parallel_size": 2}),
    ("disable_log_stats", "disable_log_stats: true", {"disable_log_stats": True}),
    ("limit_mm_per_prompt", "limit_mm_per_prompt: {image: 1}", {"limit_mm_per_prompt": {"image": 1}}),
    ("engine_args", "engine_args: {max_num_seqs: 4}", {"engine_args": {"max_num_seqs": 4}}),
    ("options", "options: [parallel:2]", {"scheduler.max_lanes": 2}),
    ("options", "options: parallel:2", {"scheduler.max_lanes": 2}),
    ("prompt_cache_path", "prompt_cache_path: cache", {"prompt_cache_path": "cache"}),
    ("prompt_cache_all", "prompt_cache_all: true", {"prompt_cache_all": True}),
    ("prompt_cache_ro", "prompt_cache_ro: true", {"prompt_cache_ro": True}),
    ("lora_adapter", "lora_adapter: a.gguf", {"lora_adapter": "a.gguf"}),
    ("lora_scale", "lora_scale: 0.5", {"lora_scale": 0.5}),
    ("lora_adapters", "lora_adapters: [a.gguf]", {"lora_adapters": ["a.gguf"]}),
    ("lora_scales", "lora_scales: [0.5]", {"lora_scales": [0.5]}),
    ("stopwords", "stopwords: [END]", {"stopwords": ["END"]}),
    ("cutstrings", 'cutstrings: ["a+"]', {"cutstrings": ["a+"]}),
    ("extract_regex", 'extract_regex: ["a+"]', {"extract_regex": ["a+"]}),
    ("trimspace", 'trimspace: ["x"]', {"trimspace": ["x"]}),
    ("trimsuffix", 'trimsuffix: ["x"]', {"trimsuffix": ["x"]}),
    ("grammar", 'grammar: root ::= "yes"', {"grammar": 'root ::= "yes"'}),
    ("system_prompt", "system_prompt: Be kind.", {"system_prompt": "Be kind."}),
    ("roles", 'roles: {user: "USER:"}', {"roles": {"user": "USER:"}}),
    ("template.chat", "template: {chat: x}", {"template.chat": "x"}),
    ("template.chat_message", "template: {chat_message: x}", {"template.chat_message": "x"}),
    ("template.completion", "template: {completion: x}", {"template.completion": "x"}),
    ("template.edit", "template: {edit: x}", {"template.edit": "x"}),
    ("template.function", "template: {function: x}", {"template.function": "x"}),
    ("template.reply_prefix", 'template: {reply_prefix: "A:"}', {"template.reply_prefix": "A:"}),
    (
        "template.use_tokenizer_template",
        "template: {use_tokenizer_template: true}",
        {"template.use_tokenizer_template": True},
    ),
    (
        "template.join_chat_messages_by_character",
        'template: {join_chat_messages_by_character: ""}',
        {"template.join_chat_messages_by_character": ""},
    ),
    (
        "template.join_chat_messages_by_character",
        'template: {join_chat_messages_by_character: "\\n"}',
        {"template.join_chat_messages_by_character": "\n"},
    ),
    (
        "function.xml_format_preset",
        "function: {xml_format_preset: qwen3-coder}",
        {"template.tool_format": "qwen3-coder"},
    ),
    (
        "reasoning.disable",
        "reasoning: {disable: true}",
        {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}},
    ),
    (
        "reasoning.thinking_start_tokens",
        'reasoning: {thinking_start_tokens: ["[THINK]"]}',
        {"template.reasoning": {"open": "[THINK]", "close": "[/THINK]", "split": True}},
    ),
    (
        "reasoning.tag_pairs",
        "reasoning: {tag_pairs: [{start: <a>, end: </a>}]}",
        {"template.reasoning": {"open": "<a>", "close": "</a>", "split": True}},
    ),
    (
        "reasoning_effort",
        "reasoning_effort: low\nchat_template_kwargs: {thinking: false}",
        {"chat_template_kwargs": {"thinking": False, "reasoning_effort": "low", "enable_thinking": True}},
    ),
    ("chat_template_kwargs", "chat_template_kwargs: {a: 1}", {"chat_template_kwargs": {"a": 1}}),
    (
        "limits.max_concurrent",
        "limits: {max_concurrent: 4}",
        {"scheduler.max_lanes": 4, "scheduler.max_queue_size": 0},
    ),
    ("limits.max_concurrent", "limits: {max_concurrent: 0}", {}),
    ("limits.retry_after_seconds", "limits: {retry_after_seconds: 7}", {"scheduler.retry_after_s": 7}),
    (
        "download_files",
        "download_files: [{filename: a.gguf, uri: huggingface://o/r/a.gguf}]",
        {"download_files": [{"filename": "a.gguf", "uri": "huggingface://o/r/a.gguf", "sha256": None}]},
    ),
]

IDLE: list[tuple[str, str, str]] = [
    ("known_usecases", "known_usecases: [image]", "1:18: known_usecases: No effect: image: only text"),
    (
        "known_input_modalities",
        "known_input_modalities: [image]",
        "1:26: known_input_modalities: No effect: image",
    ),
    ("parameters.tfz", "parameters: {tfz: 0.9}", "1:14: parameters.tfz: No effect: no engine has tail-free"),
    ("parameters.keep", "parameters: {keep: 80}", "parameters.keep: No effect: a prompt is never cut"),
    ("parameters.n_keep", "parameters: {n_keep: 80}", "parameters.n_keep: No effect: a prompt is never cut"),
    ("parameters.negative_prompt", "parameters: {negative_prompt: x}", "classifier-free guidance"),
    (
        "parameters.negative_prompt_scale",
        "parameters: {negative_prompt_scale: 2}",
        "classifier-free guidance",
    ),
    ("parameters.cfg_scale", "parameters: {cfg_scale: 2}", "classifier-free guidance"),
    ("parameters.encoding_format", "parameters: {encoding_format: base64}", "a request says it"),
    ("parameters.language", "parameters: {language: en}", "only text is served"),
    ("parameters.translate", "parameters: {translate: true}", "only text is served"),
    ("parameters.clip_skip", "parameters: {clip_skip: 2}", "only text is served"),
    ("rms_norm_eps", "rms_norm_eps: 1e-5", "1:1: rms_norm_eps: No effect: the weights' own header"),
    ("ngqa", "ngqa: 8", "the weights' own header"),
    ("no_mulmatq", "no_mulmatq: true", "llama.cpp chooses its kernels"),
    ("reranking", "reranking: true", "no endpoint for ranking"),
    ("overrides", "overrides: [a=int:1]", "the header of a GGUF is taken as it is"),
    ("mirostat", "mirostat: 2", "parameters.min_p"),
    ("mirostat_tau", "mirostat_tau: 3", "parameters.min_p"),
    ("mirostat_eta", "mirostat_eta: 0.5", "parameters.min_p"),
    ("lora_base", "lora_base: a.gguf", "applied to the model as it is"),
    ("draft_model", "draft_model: small.gguf", "prompt_lookup: true"),
    ("n_draft", "n_draft: 8", "prompt_lookup: true"),
    (
        "options",
        "options: [paralel:2]",
        "options: paralel: No effect: there is no option of this name (did you mean",
    ),
    ("options", "options: [cache_reuse:256]", "1:11: options: cache_reuse: No effect: beginnings of prompts"),
    ("options", "options: [reasoning_budget:512]", "a request's max_tokens"),
    ("options", "options: [spec_type:draft]", "no second model makes guesses"),
    ("options", "options: [tool_parser:odd]", "write template.tool_format, one of deepseek-v3"),
    ("options", "options: [reasoning_parser:odd]", "write template.reasoning"),
    ("template.multimodal", 'template: {multimodal: "x"}', "prompts are text here"),
    ("function.disable_no_action", "function: {disable_no_action: x}", "an answer is plain text"),
    ("function.no_action_function_name", "function: {no_action_function_name: x}", "an answer is plain text"),
    (
        "function.no_action_description_name",
        "function: {no_action_description_name: x}",
        "an answer is plain text",
    ),
    ("function.function_name_key", "function: {function_name_key: function}", "template.tool_format"),
    ("function.function_arguments_key", "function: {function_arguments_key: args}", "template.tool_format"),
    ("function.response_regex", "function: {response_regex: [a]}", "template.tool_format"),
    ("function.json_regex_match", "function: {json_regex_match: [a]}", "template.tool_format"),
    ("function.argument_regex", "function: {argument_regex: [a]}", "template.tool_format"),
    ("function.argument_regex_key_name", "function: {argument_regex_key_name: a}", "template.tool_format"),
    (
        "function.argument_regex_value_name",
        "function: {argument_regex_value_name: a}",
        "template.tool_format",
    ),
    (
        "function.replace_function_results",
        "function: {replace_function_results: [a]}",
        "template.tool_format",
    ),
    ("function.replace_llm_results", "function: {replace_llm_results: [a]}", "use `cutstrings`"),
    ("function.capture_llm_results", "function: {capture_llm_results: [a]}", "use `extract_regex`"),
    ("function.xml_format", "function: {xml_format: {a: 1}}", "template.tool_format"),
    ("function.xml_format_preset", "function: {xml_format_preset: odd}", "odd is not known; write"),
    (
        "function.automatic_tool_parsing_fallback",
        "function: {automatic_tool_parsing_fallback: true}",
        "told by one format",
    ),
    ("function.grammar.disable", "function: {grammar: {disable: x}}", "`tool_choice` or `strict`"),
    ("function.grammar.parallel_calls", "function: {grammar: {parallel_calls: x}}", "`parallel_tool_calls`"),
    ("function.grammar.mixed_mode", "function: {grammar: {mixed_mode: true}}", "`tool_choice` or `strict`"),
    (
        "function.grammar.no_mixed_free_string",
        "function: {grammar: {no_mixed_free_string: true}}",
        "`tool_choice`",
    ),
    (
        "function.grammar.disable_parallel_new_lines",
        "function: {grammar: {disable_parallel_new_lines: true}}",
        "`tool_choice`",
    ),
    ("function.grammar.prefix", "function: {grammar: {prefix: x}}", "template.tool_format"),
    (
        "function.grammar.expect_strings_after_json",
        "function: {grammar: {expect_strings_after_json: true}}",
        "`tool_choice`",
    ),
    ("function.grammar.properties_order", "function: {grammar: {properties_order: a}}", "the tool's schema"),
    ("function.grammar.schema_type", "function: {grammar: {schema_type: json}}", "template.tool_format"),
    ("function.grammar.triggers", "function: {grammar: {triggers: [{word: a}]}}", "how one begins"),
    (
        "reasoning.thinking_start_tokens",
        "reasoning: {thinking_start_tokens: [think]}",
        "write template.reasoning",
    ),
    ("reasoning.strip_reasoning_only", "reasoning: {strip_reasoning_only: true}", "`reasoning_content`"),
    (
        "reasoning.disable_reasoning_tag_prefill",
        "reasoning: {disable_reasoning_tag_prefill: x}",
        "seen at its end",
    ),
    ("feature_flags", "feature_flags: {a: true}", "there are none here"),
    ("debug", "debug: true", "log_verbose_level: 1"),
    ("grpc.attempts", "grpc: {attempts: 20}", "as long as its process lives"),
    ("grpc.attempts_sleep_time", "grpc: {attempts_sleep_time: 2}", "as long as its process lives"),
    ("compression", "compression: {a: 1}", "never shortened"),
    ("pii", "pii: {a: 1}", "passed on as they are"),
    ("mcp", "mcp: {a: 1}", "called by clients"),
    ("agent", "agent: {a: 1}", "called by clients"),
    ("mmproj", "mmproj: a.gguf", "prompts are text here"),
    ("diffusers", "diffusers: {cuda: true}", "only text is served"),
    ("step", "step: 25", "only text is served"),
    ("cfg_scale", "cfg_scale: 7", "classifier-free guidance"),
    ("tts", "tts: {voice: a}", "only text is served"),
]

REFUSED: list[tuple[str, str, str]] = [
    ("backend", "backend: whisper", '1:10: backend "whisper" writes down speech; Modelyard serves text'),
    ("backend", "backend: cuda12-diffusers", '1:10: backend "cuda12-diffusers" makes images'),
    ("alias", "alias: a\nbackend: llama", "2:1: backend: a file with `alias` is a name for another model"),
    (
        "parameters.batch",
        "parameters: {batch: many}",
        "1:21: scheduler.max_batch_tokens: expected a whole number",
    ),
    (
        "parameters.batch",
        "parameters: {batch: 8}\nscheduler: {max_batch_tokens: 9}",
        "1:14: batch: scheduler.max_batch_tokens is given too, and is the same; remove one of the two",
    ),
    ("parameters.model", "parameters: {model: /etc/x}", "must be a path inside"),
    ("context_size", "context_size: big", "1:15: context_size: expected a whole number"),
    (
        "options",
        "options: {parallel: 2}",
        "1:10: options: expected a list of texts, found a mapping of parallel",
    ),
    ("options", "options: [parallel:many]", "1:11: scheduler.max_lanes: expected a whole number"),
    ("options", "options: [cache_ram:lots]", "1:11: options: cache_ram: expected whole MiB"),
    ("reasoning.disable", "reasoning: {disable: maybe}", "1:22: reasoning.disable: expected true or false"),
    (
        "reasoning.tag_pairs",
        "reasoning: {tag_pairs: [a]}",
        "expected a list of mappings with `start` and `end`",
    ),
    (
        "function.disable_no_action",
        "function: {disable_no_actoin: true}",
        'did you mean "function.disable_no_action"',
    ),
    (
        "limits.max_concurrent",
        "limits: {max_concurent: 4}",
        '1:10: unknown key "max_concurent" in limits (did you',
    ),
    ("router", "router: {a: 1}", "1:1: router: no model stands for a choice among others"),
    ("proxy", "proxy: {upstream_url: x}", "1:1: proxy: a model of another server is `backend: triton`"),
    ("pipeline", "pipeline: {llm: a}", "1:1: pipeline: only text is served"),
    (
        "context_size",
        "parameters: {context_size: 8}",
        '1:14: unknown key "context_size" in parameters (it belongs at the',
    ),
    (
        "stopwords",
        "parameters: {stopwords: [a]}",
        '1:14: unknown key "stopwords" in parameters (it belongs at the top',
    ),
]


@pytest.mark.parametrize(("field", "text", "expected"), ACTS, ids=[text for _, text, _ in ACTS])
def test_a_field_becomes_a_setting_of_ours(field: str, text: str, expected: dict[str, Any]) -> None:
    assert settings(text) == expected
    assert not load(text).notes


@pytest.mark.parametrize(("field", "text", "words"), IDLE, ids=[text for _, text, _ in IDLE])
def test_a_field_of_no_effect_is_told_with_its_place(field: str, text: str, words: str) -> None:
    assert settings(text) == {}
    (note,) = map(str, load(text).notes)
    assert note.startswith(f"{FILE}:1:")
    assert words in note


@pytest.mark.parametrize(("field", "text", "words"), REFUSED, ids=[text for _, text, _ in REFUSED])
def test_a_field_that_cannot_be_is_refused_with_its_place(field: str, text: str, words: str) -> None:
    loaded = load(text)
    assert loaded.config is None
    assert any(words in str(problem) for problem in loaded.problems), loaded.problems


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "context_shift: true",
            '1:1: unknown key "context_shift" for any backend (it belongs into the list `options`',
        ),
        ("chat_message: x", '1:1: unknown key "chat_message" for any backend (it belongs under "template")'),
        ("temperature: 1", '1:1: unknown key "temperature" for any backend (it belongs under "parameters")'),
        (
            "max_concurrent: 1",
            '1:1: unknown key "max_concurrent" for any backend (it belongs under "limits")',
        ),
    ],
)
def test_a_key_in_the_wrong_place_is_told_the_right_one(text: str, words: str) -> None:
    schemas = {"llamacpp": {"properties": {"mmap": {"type": "boolean"}}}}
    loaded = load_document(parse_document(text.encode(), FILE), FILE, schemas)
    assert [str(problem)[len(FILE) + 1 :][: len(words)] for problem in loaded.problems] == [words]


def test_every_field_has_its_row() -> None:
    rows = {field for field, *_ in (*ACTS, *IDLE, *REFUSED)}
    assert rows | {"artifacts"} == set(FIELDS)


@pytest.mark.parametrize(
    "field", [each for each in FIELDS.values() if each.kind == "idle"], ids=lambda each: each.key
)
def test_a_neutral_value_needs_no_word(field: Any) -> None:
    for value in field.neutral:
        text: Any = value
        for key in reversed(field.key.split(".")):
            text = {key: text}
        loaded = load(msgspec.json.encode(text).decode())
        assert (loaded.problems, loaded.notes) == ((), ())


OPTION_ROWS: list[tuple[str, dict[str, Any]]] = [
    ("parallel:4", {"scheduler.max_lanes": 4}),
    ("n_parallel=4", {"scheduler.max_lanes": 4}),
    ("cache_ram:16", {"scheduler.offload_bytes": 16 << 20}),
    ("cache_ram:-1", {}),
    ("split_mode:row", {"split_mode": "row"}),
    ("swa_full:true", {"swa_full": True}),
    ("swa_full", {"swa_full": True}),
    ("n_ubatch:64", {"ubatch": 64}),
    ("ubatch:64", {"ubatch": 64}),
    ("n_batch:64", {"scheduler.max_batch_tokens": 64}),
    (
        "reasoning_format:none",
        {"template.reasoning": {"open": "<think>", "close": "</think>", "split": False}},
    ),
    ("reasoning_format:auto", {}),
    ("reasoning_budget:0", {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}}),
    ("spec_type:ngram_simple", {"scheduler.prompt_lookup": True}),
    ("spec_type:none", {}),
    ("tool_parser:hermes", {"template.tool_format": "hermes"}),
    ("tool_parser:llama3_json", {"template.tool_format": "llama3"}),
    (
        "reasoning_parser:deepseek_r1",
        {"template.reasoning": {"open": "<think>", "close": "</think>", "split": True}},
    ),
    ("use_jinja:true", {}),
    ("context_shift:false", {}),
]


@pytest.mark.parametrize(("text", "expected"), OPTION_ROWS, ids=[text for text, _ in OPTION_ROWS])
def test_an_option_becomes_a_setting_of_ours(text: str, expected: dict[str, Any]) -> None:
    assert settings(f'options: ["{text}"]') == expected


def test_every_option_that_acts_has_its_row() -> None:
    rows = {text.replace("=", ":").partition(":")[0] for text, _ in OPTION_ROWS}
    assert {key for key, field in OPTIONS.items() if field.kind == "acts"} <= rows


def test_a_plain_configuration_comes_out_as_it_went_in() -> None:
    text = "name: a\nscheduler: {max_lanes: 3}\ntemplate: {chat: x}\nparameters: {model: m, top_k: 3}\nmmap: true\n"
    assert settings(text) == {
        "name": "a",
        "scheduler.max_lanes": 3,
        "template.chat": "x",
        "parameters.model": "m",
        "parameters.top_k": 3,
        "mmap": True,
    }
