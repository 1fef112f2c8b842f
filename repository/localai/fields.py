"""Every field of LocalAI's that bears on text, one row each: where it goes here, or why it does nothing.

The order is that of the table in docs/localai.md, which a test holds to this one. Values that need more than another
place are read in `values.py`.
"""

from collections.abc import Mapping
from types import MappingProxyType

from repository.localai.field import OFF, UNSET, Field, idle, moved, refused
from repository.localai.sections import SECTIONS

_GPU_HINT = "as the engine decides; `gpu_layers`, `main_gpu` and `instance_group` are what it goes by"
_NO_GUIDANCE = "no engine here does classifier-free guidance; say it in the prompt"
_NO_MIROSTAT = "it is not offered; `parameters.min_p` or `parameters.top_p` keep a text from drifting"
_NO_DRAFTS = (
    "no second model makes guesses here; `scheduler: {prompt_lookup: true}` guesses from the text itself"
)

MODEL = (
    Field("name", "the served name; the file's name when absent"),
    Field("backend", "the engine, by any of LocalAI's names for it, those of its hardware variants too"),
    Field("description", "shown in lists"),
    Field("usage", "shown with the model"),
    Field(
        "alias",
        "a pure redirect: this name stands for another model, which the file then says nothing else of",
    ),
    Field("disabled", "listed, and refused with 403 `model_disabled`"),
    Field("pinned", "never evicted"),
    Field("concurrency_groups", "models of one group are not loaded together: the idle one makes room"),
    Field("known_usecases", "`embeddings` loads the model for vectors too; what is not text is told"),
    Field("known_input_modalities", "`text` is what there is; others are told"),
    Field("known_output_modalities", "`text` is what there is; others are told"),
)

PARAMETERS = (
    Field("parameters.model", "the weights: a file or folder below the repository, or a name on a hub"),
    Field("parameters.temperature", "default of requests; 1 where nothing says otherwise, not LocalAI's 0.9"),
    Field("parameters.top_p", "default of requests; 1 where nothing says otherwise, not LocalAI's 0.95"),
    Field("parameters.top_k", "default of requests; off where nothing says otherwise, not LocalAI's 40"),
    Field("parameters.min_p", "default of requests"),
    Field("parameters.typical_p", "default of requests"),
    idle("parameters.tfz", "no engine has tail-free sampling any more; use `parameters.min_p`", 0, 1),
    Field("parameters.max_tokens", "default of requests; 0: until the context is full", neutral=UNSET),
    Field("parameters.seed", "default of requests; -1: another one every time"),
    Field(
        "parameters.repeat_penalty",
        "default of requests; off where nothing says otherwise, not LocalAI's 1.1",
    ),
    Field(
        "parameters.repeat_last_n",
        "default of requests: how many tokens `repeat_penalty` looks back, -1 for all",
    ),
    Field("parameters.frequency_penalty", "default of requests"),
    Field("parameters.presence_penalty", "default of requests"),
    Field("parameters.n", "default of OpenAI chats and completions"),
    Field("parameters.logprobs", "default of OpenAI chats and completions: true, or how many alternatives"),
    Field("parameters.top_logprobs", "default of OpenAI chats and completions"),
    Field("parameters.logit_bias", "default of requests, by token id"),
    Field("parameters.echo", "default of OpenAI completions"),
    Field("parameters.ignore_eos", "default of requests"),
    idle("parameters.keep", "a prompt is never cut here: one that is too long gets a 400", *UNSET),
    idle("parameters.n_keep", "a prompt is never cut here: one that is too long gets a 400", *UNSET),
    moved("parameters.batch", "scheduler.max_batch_tokens", "tokens in one step", *UNSET),
    Field("parameters.rope_freq_base", "RoPE's base", to="rope_freq_base", only="llamacpp", neutral=UNSET),
    Field("parameters.rope_freq_scale", "RoPE's scale", to="rope_freq_scale", only="llamacpp", neutral=UNSET),
    idle("parameters.negative_prompt", _NO_GUIDANCE),
    idle("parameters.negative_prompt_scale", _NO_GUIDANCE, *UNSET, 1),
    idle("parameters.cfg_scale", _NO_GUIDANCE, *UNSET, 1),
    Field("parameters.tokenizer", "the file of an RWKV model's tokenizer", to="tokenizer", only="rwkv"),
    idle("parameters.encoding_format", "a request says it", "float"),
    moved("parameters.pooling", "pooling", "how token vectors become one embedding"),
    idle("parameters.language", "it is for speech, and only text is served"),
    idle("parameters.translate", "it is for speech, and only text is served", *OFF),
    idle("parameters.clip_skip", "it is for images, and only text is served", *UNSET),
)

ENGINE = (
    Field("context_size", "the longest a sequence may be; -1 or absent: as trained, not 512", neutral=(-1,)),
    Field("threads", "CPU threads; all cores where absent"),
    Field("f16", "half precision"),
    Field("gpu_layers", "how many layers go to the GPU"),
    Field("tensor_split", "share of the model for each GPU", only="llamacpp"),
    Field("main_gpu", "the device, by its number or by its engine's name for it", neutral=("",)),
    Field("cuda", "transformers, gptq: compute on CUDA; elsewhere the engine decides", only="transformers"),
    Field("mmap", "map the weights from the file", only="llamacpp"),
    Field("mmlock", "lock the weights in memory", only="llamacpp"),
    Field(
        "low_vram", "the KV cache stays in main memory", to="no_kv_offloading", only="llamacpp", neutral=OFF
    ),
    Field("numa", "true: spread over all sockets (`distribute`)", only="llamacpp", neutral=OFF),
    Field("no_kv_offloading", "the KV cache stays in main memory", only="llamacpp"),
    Field("cache_type_k", "number format of the cached keys", only="llamacpp"),
    Field("cache_type_v", "number format of the cached values", only="llamacpp"),
    Field("flash_attention", "`auto`, `on` or `off`", only="llamacpp"),
    Field("rope_scaling", "RoPE's scaling method"),
    Field("yarn_ext_factor", "YaRN", only="llamacpp"),
    Field("yarn_attn_factor", "YaRN", only="llamacpp"),
    Field("yarn_beta_fast", "YaRN", only="llamacpp"),
    Field("yarn_beta_slow", "YaRN", only="llamacpp"),
    idle("rms_norm_eps", "the weights' own header says it", *UNSET),
    idle("ngqa", "the weights' own header says it", *UNSET),
    idle("no_mulmatq", "llama.cpp chooses its kernels by itself", *OFF),
    Field("quantization", "transformers: `bnb_8bit` and the like; vLLM: its name of a method"),
    Field("load_format", "vLLM: how the weights are read"),
    Field("dtype", "vLLM: the number format that is computed in"),
    Field("type", "transformers, OpenVINO: the class, which says whether it generates or embeds"),
    Field("trust_remote_code", "run code that came with the weights; the server must allow it too"),
    Field("embeddings", "serve vectors"),
    idle("reranking", "there is no endpoint for ranking here", *OFF),
    Field("gpu_memory_utilization", "vLLM: its share of the GPU's memory"),
    Field("enforce_eager", "vLLM: do not compile the model first"),
    Field("swap_space", "vLLM: of no effect there any more, which is told"),
    Field("max_model_len", "vLLM: the longest a sequence may be"),
    Field("tensor_parallel_size", "vLLM: GPUs that each layer is split over"),
    Field("disable_log_stats", "vLLM: no statistics in its log"),
    Field("limit_mm_per_prompt", "vLLM: how many images and so on a prompt may have"),
    Field("engine_args", "vLLM: any other argument of its engine"),
    Field("options", "`key:value` texts; the table below has those that act"),
    idle("overrides", "the header of a GGUF is taken as it is; write the change into the file"),
    Field("prompt_cache_path", "keep what was computed of prompts on disk", only="llamacpp"),
    Field("prompt_cache_all", "keep what was computed of answers too", only="llamacpp"),
    Field("prompt_cache_ro", "read that and write nothing", only="llamacpp"),
    idle("mirostat", _NO_MIROSTAT, *UNSET),
    idle("mirostat_tau", _NO_MIROSTAT, 5, *UNSET),
    idle("mirostat_eta", _NO_MIROSTAT, 0.1, *UNSET),
    Field(
        "lora_adapter", "a LoRA adapter: llama.cpp applies it always, vLLM where `model:adapter` is asked for"
    ),
    idle("lora_base", "an adapter is applied to the model as it is"),
    Field("lora_scale", "llama.cpp: how strongly it acts"),
    Field("lora_adapters", "several of them"),
    Field("lora_scales", "llama.cpp: how strongly each acts"),
    idle("draft_model", _NO_DRAFTS),
    idle("n_draft", _NO_DRAFTS, 0, 16),
)

TEXT = (
    Field("system_prompt", "for chats without a system message"),
    Field("roles", "what the template calls each role"),
    Field("template.chat", "the shape of a whole chat, `{{.Input}}`"),
    Field("template.chat_message", "the shape of one message"),
    Field("template.completion", "the shape of a completion's prompt"),
    Field("template.edit", "the shape of an edit's prompt"),
    Field("template.function", "the shape of a chat with tools"),
    idle("template.multimodal", "prompts are text here"),
    Field("template.reply_prefix", "what an answer begins with"),
    Field("template.use_tokenizer_template", "take the template that came with the weights"),
    Field("template.join_chat_messages_by_character", "what stands between messages"),
    Field("stopwords", "end every answer"),
    Field("cutstrings", "regular expressions that are cut out of answers"),
    Field("extract_regex", "regular expressions of which an answer's matches are kept"),
    Field("trimspace", "texts that are cut off an answer's beginning, and spaces with them"),
    Field("trimsuffix", "texts that are cut off an answer's end"),
    Field("grammar", "GBNF that binds every answer which its request does not bind otherwise"),
)

SERVING = (
    idle("feature_flags", "there are none here"),
    idle("debug", "`log_verbose_level: 1`, posted to /v2/logging, is for the whole server", *OFF),
    Field(
        "limits.max_concurrent",
        "so many sequences at once (`scheduler.max_lanes`), and nobody waits (`scheduler.max_queue_size: 0`): "
        "others get 429 with Retry-After",
        neutral=UNSET,
    ),
    moved(
        "limits.retry_after_seconds",
        "scheduler.retry_after_s",
        "the Retry-After of those who are turned away",
        *UNSET,
    ),
    idle(
        "grpc.attempts",
        "a load is waited for as long as its process lives, and its end is noticed at once",
        *UNSET,
    ),
    idle(
        "grpc.attempts_sleep_time",
        "a load is waited for as long as its process lives, and its end is noticed at once",
        *UNSET,
    ),
    Field("download_files", "files that are fetched before the first load"),
    Field("artifacts", "files of a hub that are fetched before the first load"),
    refused("router", "no model stands for a choice among others here; name one, or use `alias`"),
    refused(
        "proxy", "a model of another server is `backend: triton` with its `endpoint`, see docs/repository.md"
    ),
    refused("pipeline", "only text is served, so a model cannot be made of several others"),
    idle("compression", "prompts are never shortened here"),
    idle("pii", "texts are passed on as they are"),
    idle("mcp", "tools are called by clients, not by the server"),
    idle("agent", "tools are called by clients, not by the server"),
    idle("mmproj", "prompts are text here, so the projector is not loaded"),
    idle("diffusers", "it is for images, and only text is served"),
    idle("step", "it is for images, and only text is served", *UNSET),
    idle("cfg_scale", _NO_GUIDANCE, *UNSET, 1),
    idle("tts", "it is for speech, and only text is served"),
)

FIELDS: Mapping[str, Field] = MappingProxyType(
    {field.key: field for field in (*MODEL, *PARAMETERS, *ENGINE, *TEXT, *SECTIONS, *SERVING)}
)
