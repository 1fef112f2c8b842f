"""A model's `config.yaml` as values: the keys common to all backends, their ranges and their defaults.

Every other top-level key is one of the backend's own options. Reading and checking is `repository.config_file`'s.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

Text = Annotated[str, Meta(min_length=1)]
Texts = tuple[Text, ...]  # in a file, one text stands for a list of one
Index = Annotated[int, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
TokenId = Annotated[str, Meta(pattern="^[0-9]+$")]
Bias = Annotated[float, Meta(ge=-100, le=100)]
Ordinal = Annotated[str, Meta(pattern="^[1-9][0-9]{0,17}$")]  # a key that is a number from 1 on
TimeoutAction = Literal["reject", "delay"]
WaitPolicy = Literal["active", "passive"]
Sha256 = Annotated[str, Meta(pattern="^([0-9a-fA-F]{64})?$")]

ToolFormat = Literal[
    "none",
    "hermes",
    "llama3",
    "mistral",
    "mistral-v11",
    "granite",
    "qwen3-coder",
    "glm",
    "kimi",
    "deepseek-v3",
    "deepseek-v3.1",
]


_SHAPE = ("n", "logprobs", "top_logprobs", "echo")


class Parameters(Struct, frozen=True, forbid_unknown_fields=True):
    """The weights, and the defaults for requests; None: not set here."""

    model: Text | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Fraction | None = None
    top_k: Annotated[int, Meta(ge=-1)] | None = None
    min_p: Fraction | None = None
    typical_p: Fraction | None = None
    max_tokens: Count | None = None
    min_tokens: Index | None = None
    seed: Annotated[int, Meta(ge=-1)] | None = None
    repeat_penalty: Annotated[float, Meta(ge=0.01, le=10)] | None = None
    repeat_last_n: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    stop: Texts = ()
    stop_token_ids: tuple[Index, ...] = ()
    ignore_eos: bool | None = None
    logit_bias: dict[TokenId, Bias] = {}
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    logprobs: bool | Annotated[int, Meta(ge=0, le=20)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    echo: bool | None = None

    def sampling(self) -> dict[str, Any]:
        """The request defaults that are set, by name."""
        values = {
            field: getattr(self, field) for field in self.__struct_fields__ if field not in ("model", *_SHAPE)
        }
        return {field: value for field, value in values.items() if value not in (None, (), {})}

    def shape(self) -> dict[str, Any]:
        """Those of them that are set and ask for another shape of answer, and `max_tokens`."""
        values = {field: getattr(self, field) for field in (*_SHAPE, "max_tokens")}
        return {field: value for field, value in values.items() if value is not None}


class Reasoning(Struct, frozen=True, forbid_unknown_fields=True):
    """The texts around a model's reasoning; without `split` it stays a part of the answer."""

    open: Text = "<think>"
    close: Text = "</think>"
    split: bool = True


class Template(Struct, frozen=True, forbid_unknown_fields=True):
    """Prompt templates in Jinja2; `use_tokenizer_template` asks for the one that came with the weights.
    `join_chat_messages_by_character` stands between messages, a line break where it is None; `reply_prefix` begins
    every answer.

    `tool_format` and `reasoning` say how the model marks tool calls and reasoning; by default its chat template and
    vocabulary tell.
    """

    use_tokenizer_template: bool | None = None
    chat: Text | None = None
    chat_message: Text | None = None
    completion: Text | None = None
    edit: Text | None = None
    function: Text | None = None
    join_chat_messages_by_character: str | None = None
    reply_prefix: Text | None = None
    tool_format: ToolFormat | None = None
    reasoning: Reasoning | None = None


class Latest(Struct, frozen=True, forbid_unknown_fields=True):
    num_versions: Count = 1


class All(Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Specific(Struct, frozen=True, forbid_unknown_fields=True):
    versions: Annotated[tuple[Count, ...], Meta(min_length=1)]


class VersionPolicy(Struct, frozen=True, forbid_unknown_fields=True):
    """Exactly one of the three is set."""

    latest: Latest | None = None
    all: All | None = None
    specific: Specific | None = None


class Split(Struct, frozen=True, forbid_unknown_fields=True):
    """How requests without a version are shared out: version -> weight."""

    weights: Annotated[
        dict[Ordinal, Annotated[int, Meta(ge=0, le=1_000_000)]], Meta(extra_json_schema={"minProperties": 1})
    ]


class InstanceGroup(Struct, frozen=True, forbid_unknown_fields=True):
    """How many workers run a model, and on what. `gpus` are dealt out to them, as many to each."""

    count: Count = 1
    kind: Literal["auto", "cpu", "gpu"] = "auto"
    gpus: tuple[Index, ...] = ()


class QueuePolicy(Struct, frozen=True, forbid_unknown_fields=True):
    """The queue of one priority level; None: as for every level."""

    max_queue_size: Index | None = None
    queue_timeout_s: Seconds | None = None
    timeout_action: TimeoutAction | None = None


class SchedulerConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of the step scheduler and of its queues, one per priority level, of which 1 is the highest. `kv_tokens`
    None: what memory allows; `offload_bytes` None: as much as the KV pool, if memory allows;
    `default_priority_level` None: the middle one; `retry_after_s` None: as long as a place in the queue takes to
    become free."""

    max_lanes: Annotated[int, Meta(ge=1, le=255)] = 16
    cached_lanes: Annotated[int, Meta(ge=0, le=255)] = 16
    kv_tokens: Count | None = None
    offload_bytes: Index | None = None
    max_batch_tokens: Count = 512
    prefix_cache: bool = True
    prompt_lookup: bool = False
    max_queue_size: Index = 256
    queue_timeout_s: Seconds | None = None
    timeout_action: TimeoutAction = "reject"
    request_timeout_s: Seconds | None = None
    priority_levels: Annotated[int, Meta(ge=1, le=100)] = 1
    default_priority_level: Count | None = None
    retry_after_s: Seconds | None = None
    priority_queue_policy: dict[Ordinal, QueuePolicy] = {}

    def queue(self, level: int) -> QueuePolicy:
        """The policy of one level's queue, with what holds for every level filled in."""
        own = self.priority_queue_policy.get(str(level), QueuePolicy())
        return QueuePolicy(
            self.max_queue_size if own.max_queue_size is None else own.max_queue_size,
            own.queue_timeout_s or self.queue_timeout_s,
            own.timeout_action or self.timeout_action,
        )


class DownloadFile(Struct, frozen=True, forbid_unknown_fields=True):
    """A file to have before the load. `filename` is relative to the repository, where it is not fetched if it is there;
    `uri` is `huggingface://owner/repo/file` or an http address."""

    filename: Text
    uri: Text
    sha256: Sha256 | None = None


class ArtifactSource(Struct, frozen=True, forbid_unknown_fields=True):
    """A repository on a hub. `token_env`: the variable with the token for it."""

    type: Text
    repo: Text
    revision: Text | None = None
    token_env: Text | None = None
    allow_patterns: Texts = ()
    ignore_patterns: Texts = ()


class Resolved(Struct, frozen=True, forbid_unknown_fields=True):
    """The commit that an artifact was at; the rest is the business of who wrote it."""

    revision: Annotated[str, Meta(pattern="^[0-9a-f]{40}$")]
    endpoint: str | None = None
    cache_key: str | None = None


class Artifact(Struct, frozen=True, forbid_unknown_fields=True):
    """The weights as a repository on a hub, narrowed by patterns, at the revision resolved if there is one."""

    source: ArtifactSource
    name: str | None = None
    target: str | None = None
    resolved: Resolved | None = None


class ModelConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model's configuration. None: not set; whoever needs the value decides it."""

    name: Text | None = None
    description: str | None = None
    usage: str | None = None
    alias: Text | None = None
    aliases: Texts = ()
    backend: Text | None = None
    parameters: Parameters = Parameters()
    context_size: Count | None = None
    threads: Count | None = None
    wait_policy: WaitPolicy | None = None
    f16: bool | None = None
    main_gpu: Index | Text | None = None
    gpu_layers: Annotated[int, Meta(ge=-1)] | None = None
    embeddings: bool | None = None
    matryoshka: bool = False
    trust_remote_code: bool = False
    template: Template = Template()
    roles: dict[str, str] = {}
    system_prompt: str | None = None
    chat_template_kwargs: dict[str, Any] = {}
    stopwords: Texts = ()
    cutstrings: Texts = ()
    extract_regex: Texts = ()
    trimspace: tuple[str, ...] = ()
    trimsuffix: tuple[str, ...] = ()
    grammar: Text | None = None
    version_policy: Annotated[
        VersionPolicy, Meta(extra_json_schema={"minProperties": 1, "maxProperties": 1})
    ] = VersionPolicy(latest=Latest())
    default_version: Count | Split | None = None
    instance_group: InstanceGroup = InstanceGroup()
    environment: Text | None = None
    scheduler: SchedulerConfig = SchedulerConfig()
    preload: bool = False
    pinned: bool = False
    ttl_s: Seconds | None = None
    concurrency_groups: Texts = ()
    warmup: Texts = ()
    disabled: bool = False
    download_files: tuple[DownloadFile, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    options: dict[str, Any] = {}  # the backend's own: every other top-level key of the file
