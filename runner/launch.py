"""From a version on disk to the worker that serves it: backend, sizes of context and KV pool, threads, environment."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec

from backends.contract import OVERHEAD_BYTES, BackendSpec, LoadRequest
from backends.registry import Registry
from repository.config import InstanceGroup, ModelConfig, SchedulerConfig
from repository.config_file import check_options, idle_options
from repository.localai.elsewhere import ELSEWHERE
from repository.patterns import python_pattern
from repository.snapshot import ModelEntry, VersionEntry
from repository.weights import WeightsError, WeightsFacts, read_facts
from runner.cores import share_cores
from runner.environments.interpreters import Interpreters
from runner.errors import LoadFailed
from runner.gpus import Gpus, gpu_environment
from runner.instance import Launch
from runner.ledger import mebibytes
from runner.resolve import choose_backend
from runner.wire.messages import (
    PROTOCOL,
    CleanUp,
    Pattern,
    QueueLimits,
    SchedulerLimits,
    Start,
    TemplateTexts,
)

logger = logging.getLogger(__name__)

POOL_SHARE = 0.25
"""Of the free memory, what the KV pool may take beyond one full context."""

POOL_STEP_TOKENS = 256
MAX_LANES = 255

STATE = "MODELYARD_STATE"
"""The variable of a worker's environment by which engines find what was made for them."""

STATE_SHARE = 4
"""Where a sequence's state does not grow with its tokens, states may take this part of what the weights take."""


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """Context and KV pool in tokens (None: the engine decides), the bytes for prefixes outside of the pool, and
    the memory it all takes."""

    context_tokens: int | None
    kv_tokens: int | None
    offload_bytes: int
    estimate_bytes: int
    warning: str = ""


class LaunchPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A launch per instance, and what they take together; of each worker, `overhead_bytes` are its own besides weights
    and KV, and `offload_bytes` what it may keep outside its pool."""

    backend: str
    launches: tuple[Launch, ...]
    overhead_bytes: int
    offload_bytes: int
    estimate_bytes: int


def plan_launch(
    entry: ModelEntry,
    version: VersionEntry,
    *,
    registry: Registry,
    free_bytes: int,
    cores: int,
    live_threads: Iterable[int],
    interpreters: Interpreters,
    state_dir: Path,
    gpus: Gpus,
    allow_remote_code: bool = False,
) -> LaunchPlan:
    """Decide how to serve `version`. Reads the weights' header. Raises LoadFailed with the reason."""
    if version.problem is not None:
        raise LoadFailed(str(version.problem))
    if entry.problems or entry.config is None:
        raise LoadFailed("; ".join(map(str, entry.problems)) or "its configuration cannot be used")
    config = entry.config
    try:
        facts = read_facts(version.weights_path) if version.weights_path is not None else None
    except WeightsError as error:
        raise LoadFailed(str(error)) from error
    choice = choose_backend(facts, config, registry, no_weights=version.no_weights)
    spec = choice.spec
    # The scan could not know which backend it would be.
    path, item = entry.config_path, entry.config_item
    problems = check_options(config, spec.name, spec.options, path=path, item=item)
    if problems:
        raise LoadFailed("; ".join(map(str, problems)))
    for idle in (*entry.ignored, *idle_options(config, spec.name, spec.options, path=path, item=item)):
        logger.warning("%s", idle)
    runs_code = not spec.options.get("properties", {}).get("trust_remote_code", {}).get("deprecated")
    if config.trust_remote_code and runs_code and not allow_remote_code:
        raise LoadFailed(
            "trust_remote_code runs Python code that came with the weights, which this server does not allow; "
            "start it with --allow-remote-code, or take the key out"
        )
    others = map(registry.get, choice.runners_up if config.backend is None else ())
    interpreter = interpreters.choose(spec, config.environment, others=others)
    count = config.instance_group.count
    sizes = plan_sizes(config, facts, free_bytes // count, overhead_bytes=spec.overhead_bytes)
    if sizes.warning:
        logger.warning("%s: %s", entry.name, sizes.warning)
    threads = config.threads or (1 if facts is None else None)  # what has no weights computes nothing much
    share = share_cores(
        threads, cores=cores, live_threads=live_threads, count=count, wait_policy=config.wait_policy
    )
    limits = config.scheduler
    start = Start(
        protocol=PROTOCOL,
        engine=spec.engine,
        load=LoadRequest(
            model=entry.name,
            weights=str(version.weights_path or version.path),
            options=_options(config, spec),
            context_tokens=sizes.context_tokens,
            lanes=min(limits.max_lanes + limits.cached_lanes, MAX_LANES),
            running_lanes=limits.max_lanes,
            kv_tokens=sizes.kv_tokens,
            memory_bytes=max(0, free_bytes // count),
            max_batch_tokens=max(limits.max_batch_tokens, limits.max_lanes),
            prefix_cache=limits.prefix_cache,
            threads=share.threads,
            device=_device(config.instance_group),
            embeddings=_makes_vectors(config, facts),
        ),
        limits=SchedulerLimits(
            max_lanes=limits.max_lanes,
            cached_lanes=limits.cached_lanes,
            max_batch_tokens=max(limits.max_batch_tokens, limits.max_lanes),
            offload_bytes=sizes.offload_bytes,
            prefix_cache=limits.prefix_cache,
            prompt_lookup=limits.prompt_lookup,
            queues=tuple(_queue(limits, level) for level in range(1, limits.priority_levels + 1)),
            default_level=limits.default_priority_level or (limits.priority_levels + 1) // 2,
            request_timeout_s=limits.request_timeout_s,
        ),
        template=template_texts(config),
        defaults=config.parameters.sampling(),
        stop=(*config.stopwords, *config.parameters.stop),
        warmup=config.warmup,
        matryoshka=config.matryoshka,
        grammar=config.grammar,
        clean_up=_clean_up(config),
    )
    file_name = entry.name.replace("/", "--")
    launches = tuple(
        Launch(
            interpreter=interpreter,
            start=start,
            environment={
                **share.environment,
                **gpu_environment(config.instance_group, index, gpus),
                STATE: str(state_dir.absolute()),
            },
            log_path=state_dir / "logs" / f"{file_name}-{version.number}-{index}.log",
        )
        for index in range(count)
    )
    return LaunchPlan(
        backend=spec.name,
        launches=launches,
        overhead_bytes=spec.overhead_bytes,
        offload_bytes=sizes.offload_bytes,
        estimate_bytes=sizes.estimate_bytes * count,
    )


def plan_sizes(
    config: ModelConfig, facts: WeightsFacts | None, free_bytes: int, *, overhead_bytes: int = OVERHEAD_BYTES
) -> Sizes:
    """Context and KV pool that fit `free_bytes` beside the weights."""
    weights = facts.size_bytes if facts is not None else 0
    token_bytes = facts.kv_bytes_per_token if facts is not None else None
    context = config.context_size or (facts.context_tokens if facts is not None else None)
    pool = config.scheduler.kv_tokens
    warning = ""
    if context is not None and token_bytes:
        room = max(0, free_bytes - weights - overhead_bytes) // token_bytes
        if config.context_size is None and pool is None and context > room >= POOL_STEP_TOKENS:
            warning = (
                f"the trained context of {context} tokens needs {mebibytes(context * token_bytes)} and is cut to "
                f"{room} tokens; set context_size to choose"
            )
            context = room
        if pool is None:
            wanted = config.scheduler.max_lanes * context
            pool = max(context, min(wanted, int(room * POOL_SHARE)))
            pool = -(-pool // POOL_STEP_TOKENS) * POOL_STEP_TOKENS
    if context is not None and pool is not None and context > pool:
        warning = f"context_size {context} is more than scheduler.kv_tokens {pool} and is cut to that"
        context = pool
    pool_bytes = (pool or 0) * (token_bytes or 0)
    needed = weights + pool_bytes + overhead_bytes
    offload = config.scheduler.offload_bytes
    if offload is None:
        offload = max(0, min(pool_bytes or weights // STATE_SHARE, free_bytes - needed))
    if not config.scheduler.prefix_cache:
        offload = 0
    return Sizes(
        context_tokens=context,
        kv_tokens=pool,
        offload_bytes=offload,
        estimate_bytes=needed + offload,
        warning=warning,
    )


def _device(group: InstanceGroup) -> Literal["auto", "cpu", "gpu"]:
    """Who names GPUs wants to compute on them."""
    return "gpu" if group.gpus else group.kind


def _queue(limits: SchedulerConfig, level: int) -> QueueLimits:
    policy = limits.queue(level)
    assert policy.max_queue_size is not None and policy.timeout_action is not None
    return QueueLimits(
        max_queue_size=policy.max_queue_size,
        queue_timeout_s=policy.queue_timeout_s,
        timeout_action=policy.timeout_action,
    )


def _makes_vectors(config: ModelConfig, facts: WeightsFacts | None) -> bool:
    if config.embeddings is not None:
        return config.embeddings
    return facts is not None and facts.is_embedding


def template_texts(config: ModelConfig) -> TemplateTexts:
    """What a worker needs of a configuration's `template` and of what goes with it."""
    template, reasoning = config.template, config.template.reasoning
    tags = None
    if reasoning is not None:
        tags = (reasoning.open, reasoning.close) if reasoning.split else ()
    joiner = template.join_chat_messages_by_character
    return TemplateTexts(
        chat=template.chat,
        chat_message=template.chat_message,
        completion=template.completion,
        edit=template.edit,
        function=template.function,
        joiner="\n" if joiner is None else joiner,
        reply_prefix=template.reply_prefix or "",
        roles=config.roles,
        system_prompt=config.system_prompt or "",
        prefers_own=bool(template.use_tokenizer_template),
        tool_format=template.tool_format,
        reasoning_tags=tags,
        variables=config.chat_template_kwargs,
    )


def _clean_up(config: ModelConfig) -> CleanUp | None:
    """What is cut from answers, None where nothing is; the patterns were checked with the configuration."""
    patterns = {
        key: tuple(Pattern(pattern.whole, pattern.growing) for pattern in map(python_pattern, texts))
        for key, texts in (("cutstrings", config.cutstrings), ("extract_regex", config.extract_regex))
    }
    clean_up = CleanUp(**patterns, trimspace=config.trimspace, trimsuffix=config.trimsuffix)
    return None if clean_up == CleanUp() else clean_up


def _options(config: ModelConfig, spec: BackendSpec) -> dict[str, Any]:
    """The backend's own keys, and the common ones that only an engine can act on, where they are set."""
    known = spec.options.get("properties", {})
    own = {key: each for key, each in config.options.items() if key in known or key not in ELSEWHERE}
    common = {
        "f16": config.f16,
        "main_gpu": config.main_gpu,
        "gpu_layers": config.gpu_layers,
        "trust_remote_code": config.trust_remote_code or None,
    }
    return {**own, **{key: value for key, value in common.items() if value is not None}}
