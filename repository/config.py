"""A model's `config.yaml`: the keys common to all backends as Structs, and loading with located problems.

Every other top-level key is one of the backend's own options, checked against an option schema that the
caller hands in (this package knows no backend). Which backend serves a model without `backend` is decided
elsewhere; `check_options` then checks its options.
"""

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from repository.checking import check, find, schema_of
from repository.document import Entry, Node, read_document
from repository.names import name_problem
from repository.options import Schemas, option_problems, unknown_keys
from repository.problem import Problem, did_you_mean

Text = Annotated[str, Meta(min_length=1)]
Texts = tuple[Text, ...]  # in a file, one text stands for a list of one
Index = Annotated[int, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
TokenId = Annotated[str, Meta(pattern="^[0-9]+$")]
Bias = Annotated[float, Meta(ge=-100, le=100)]


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
    repeat_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    stop: Texts = ()
    stop_token_ids: tuple[Index, ...] = ()
    ignore_eos: bool | None = None
    logit_bias: dict[TokenId, Bias] = {}

    def sampling(self) -> dict[str, Any]:
        """The request defaults that are set, by name."""
        values = {field: getattr(self, field) for field in self.__struct_fields__ if field != "model"}
        return {field: value for field, value in values.items() if value not in (None, (), {})}


class Template(Struct, frozen=True, forbid_unknown_fields=True):
    """Prompt templates as text; `use_tokenizer_template` asks for the one that came with the weights."""

    use_tokenizer_template: bool | None = None
    chat: Text | None = None
    chat_message: Text | None = None
    completion: Text | None = None
    edit: Text | None = None
    function: Text | None = None


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


class InstanceGroup(Struct, frozen=True, forbid_unknown_fields=True):
    """How many workers run a model, and on what."""

    count: Count = 1
    kind: Literal["auto", "cpu", "gpu"] = "auto"
    gpus: tuple[Index, ...] = ()


class SchedulerConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of the step scheduler and of its queue. `kv_tokens` None: what memory allows."""

    max_lanes: Annotated[int, Meta(ge=1, le=256)] = 16
    cached_lanes: Annotated[int, Meta(ge=0, le=256)] = 16
    kv_tokens: Count | None = None
    max_batch_tokens: Count = 512
    prefix_cache: bool = True
    max_queue_size: Index = 256
    queue_timeout_s: Seconds | None = None
    request_timeout_s: Seconds | None = None
    priority_levels: Count = 1


class ModelConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model's configuration. None: not set; whoever needs the value decides it."""

    name: Text | None = None
    description: str | None = None
    aliases: Texts = ()
    backend: Text | None = None
    parameters: Parameters = Parameters()
    context_size: Count | None = None
    threads: Count | None = None
    f16: bool | None = None
    main_gpu: Index | Text | None = None
    gpu_layers: Annotated[int, Meta(ge=-1)] | None = None
    embeddings: bool | None = None
    trust_remote_code: bool = False
    template: Template = Template()
    stopwords: Texts = ()
    version_policy: Annotated[
        VersionPolicy, Meta(extra_json_schema={"minProperties": 1, "maxProperties": 1})
    ] = VersionPolicy(latest=Latest())
    default_version: Count | None = None
    instance_group: InstanceGroup = InstanceGroup()
    environment: Text | None = None
    scheduler: SchedulerConfig = SchedulerConfig()
    preload: bool = False
    pinned: bool = False
    ttl_s: Seconds | None = None
    warmup: Texts = ()
    disabled: bool = False
    options: dict[str, Any] = {}  # the backend's own: every other top-level key of the file


class Loaded(Struct, frozen=True):
    """`config` is None when there are problems; `name` is the name the file gives, readable even then."""

    config: ModelConfig | None
    problems: tuple[Problem, ...] = ()
    name: str | None = None


def load_config(path: Path, schemas: Schemas | None = None) -> Loaded:
    """Reads and checks a `config.yaml`, reporting all that is wrong with it at once.

    With `backend` set, options are checked against that backend's schema; without it, only that some backend
    knows them. `schemas` None: options are taken as they are.
    """
    document = read_document(path)
    if document.root is None:
        return Loaded(None, document.problems)
    root, shown, schema = _settled(document.root, common_schema()), str(path), common_schema()
    problems = list(document.problems)
    if not isinstance(root.value, dict):
        return Loaded(None, (*problems, *check(root, schema, path=shown, label="the file")))
    common = Node({key: entry for key, entry in root.value.items() if key in schema["properties"]})
    options = {key: entry for key, entry in root.value.items() if key not in schema["properties"]}
    problems += check(common, schema, path=shown)
    problems += _refused_values(common, shown)
    name = find(common, ["name"]).value
    if schemas is not None:
        backend = find(common, ["backend"])
        if not isinstance(backend.value, str):
            problems += unknown_keys(options, schemas, path=shown, common=schema)
        elif backend.value in schemas:
            problems += option_problems(options, backend.value, schemas, path=shown, common=schema)
        else:
            problems += unknown_keys(options, schemas, path=shown, common=schema)
            message = f'unknown backend "{backend.value}"{did_you_mean(backend.value, schemas)}'
            problems.append(Problem(shown, backend.line, backend.column, message))
    name = name if isinstance(name, str) and not name_problem(name) else None
    if problems:
        return Loaded(None, tuple(sorted(problems)), name)
    config = msgspec.convert(common.plain(), ModelConfig)
    return Loaded(msgspec.structs.replace(config, options=Node(options).plain()), (), name)


def check_options(
    config: ModelConfig, backend: str, schema: Mapping[str, Any], *, path: Path | None = None
) -> list[Problem]:
    """What is wrong with a configuration's options for the backend that was inferred for it.

    `path` is the file the configuration came from; read again, for positions, only if something is wrong.
    """
    shown, schemas, common = str(path or "options"), {backend: schema}, common_schema()
    options = {key: Entry(Node(key), _node(value)) for key, value in config.options.items()}
    problems = option_problems(options, backend, schemas, path=shown, common=common)
    written = read_document(path).root if problems and path is not None else None
    if written is None or not isinstance(written.value, dict):
        return problems
    located = {key: entry for key, entry in written.value.items() if key in config.options}
    return option_problems(located, backend, schemas, path=shown, common=common)


def locate(path: Path, *keys: str) -> tuple[int, int]:
    """Line and column at which a value stands in a file; zeros when it cannot be found any more."""
    root = read_document(path).root
    node = find(root, keys) if root is not None else Node(None)
    return node.line, node.column


@functools.cache
def common_schema() -> dict[str, Any]:
    """JSON Schema of the keys common to all backends; other top-level keys are left open."""
    schema = schema_of(ModelConfig)
    del schema["properties"]["options"], schema["additionalProperties"]
    return schema


def _settled(node: Node, schema: Mapping[str, Any]) -> Node:
    """A node as the common keys mean it: nulls are absent (or an empty mapping), one text may be a list."""
    kind = schema.get("type")
    if node.value is None and kind == "object":
        return Node({}, node.line, node.column)
    if isinstance(node.value, str) and isinstance(kind, list):
        return Node((node,), node.line, node.column)
    if not isinstance(node.value, dict):
        return node
    known = schema.get("properties", {})
    entries = {
        key: Entry(entry.key, _settled(entry.value, known.get(key, {})))
        for key, entry in node.value.items()
        if entry.value.value is not None or key not in known or known[key].get("type") == "object"
    }
    return Node(entries, node.line, node.column)


def _refused_values(common: Node, shown: str) -> Iterable[Problem]:
    """What no schema says: names that the wire cannot carry, and weights outside the repository."""
    aliases = find(common, ["aliases"])
    nodes = [find(common, ["name"]), *(aliases.value if isinstance(aliases.value, tuple) else ())]
    for node in nodes:
        if isinstance(node.value, str) and node.value and (message := name_problem(node.value)):
            yield Problem(shown, node.line, node.column, message)
    model = find(common, ["parameters", "model"])
    if isinstance(model.value, str) and (message := _path_problem(model.value)):
        yield Problem(shown, model.line, model.column, f"parameters.model: {message}")


def _path_problem(model: str) -> str | None:
    if "://" in model:
        return f'"{model}" is an address; weights from the network are not supported yet'
    if "\0" in model or model.startswith(("/", "~")):
        return f'"{model}" must be a path inside the version\'s folder or relative to the repository'
    if ".." in PurePosixPath(model).parts:
        return f'"{model}" leads out of the repository'
    return None


def _node(value: Any) -> Node:
    match value:
        case dict():
            return Node({key: Entry(Node(key), _node(each)) for key, each in value.items()})
        case list():
            return Node(tuple(_node(each) for each in value))
        case _:
            return Node(value)
