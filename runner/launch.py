"""From a version on disk to the worker that serves it: backend, sizes of context and KV pool, threads, environment."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from backends.contract import LoadRequest
from backends.registry import Registry
from repository.config import ModelConfig, check_options
from repository.snapshot import ModelEntry, VersionEntry
from repository.weights import WeightsError, WeightsFacts, read_facts
from runner.cores import share_cores
from runner.errors import LoadFailed
from runner.instance import Launch
from runner.ledger import mebibytes
from runner.resolve import choose_backend
from runner.wire.messages import PROTOCOL, SchedulerLimits, Start, TemplateTexts

logger = logging.getLogger(__name__)

OVERHEAD_BYTES = 160 * 2**20
"""A worker's own memory beside weights and KV: interpreter, libraries, compute buffers."""

POOL_SHARE = 0.25
"""Of the free memory, what the KV pool may take beyond one full context."""

POOL_STEP_TOKENS = 256
MAX_LANES = 256


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """Context and KV pool in tokens (None: the engine decides), and the memory it all takes."""

    context_tokens: int | None
    kv_tokens: int | None
    estimate_bytes: int
    warning: str = ""


class LaunchPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A launch per instance, and what they take together."""

    backend: str
    launches: tuple[Launch, ...]
    estimate_bytes: int


def plan_launch(
    entry: ModelEntry,
    version: VersionEntry,
    *,
    registry: Registry,
    free_bytes: int,
    cores: int,
    live_threads: Iterable[int],
    interpreter: str,
    log_dir: Path,
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
    spec = choose_backend(facts, config, registry, no_weights=version.no_weights).spec
    if config.backend is None:  # the scan could check options against no particular backend
        problems = check_options(config, spec.name, spec.options, path=entry.config_path)
        if problems:
            raise LoadFailed("; ".join(map(str, problems)))
    count = config.instance_group.count
    sizes = plan_sizes(config, facts, free_bytes // count)
    if sizes.warning:
        logger.warning("%s: %s", entry.name, sizes.warning)
    share = share_cores(config.threads, cores=cores, live_threads=live_threads, count=count)
    limits = config.scheduler
    start = Start(
        protocol=PROTOCOL,
        engine=spec.engine,
        shape=spec.shape,
        load=LoadRequest(
            model=entry.name,
            weights=str(version.weights_path or version.path),
            options=_options(config),
            context_tokens=sizes.context_tokens,
            lanes=min(limits.max_lanes + limits.cached_lanes, MAX_LANES),
            running_lanes=limits.max_lanes,
            kv_tokens=sizes.kv_tokens,
            memory_bytes=max(0, free_bytes // count),
            max_batch_tokens=max(limits.max_batch_tokens, limits.max_lanes),
            threads=share.threads,
            embeddings=bool(config.embeddings),
        ),
        limits=SchedulerLimits(
            max_lanes=limits.max_lanes,
            cached_lanes=limits.cached_lanes,
            max_batch_tokens=max(limits.max_batch_tokens, limits.max_lanes),
            prefix_cache=limits.prefix_cache,
            max_queue_size=limits.max_queue_size,
            queue_timeout_s=limits.queue_timeout_s,
            request_timeout_s=limits.request_timeout_s,
        ),
        template=TemplateTexts(chat=config.template.chat),
        defaults=config.parameters.sampling(),
        stop=(*config.stopwords, *config.parameters.stop),
        warmup=config.warmup,
    )
    file_name = entry.name.replace("/", "--")
    launches = tuple(
        Launch(
            interpreter=interpreter,
            start=start,
            environment=share.environment,
            log_path=log_dir / f"{file_name}-{version.number}-{index}.log",
        )
        for index in range(count)
    )
    return LaunchPlan(backend=spec.name, launches=launches, estimate_bytes=sizes.estimate_bytes * count)


def plan_sizes(config: ModelConfig, facts: WeightsFacts | None, free_bytes: int) -> Sizes:
    """Context and KV pool that fit `free_bytes` beside the weights."""
    weights = facts.size_bytes if facts is not None else 0
    token_bytes = facts.kv_bytes_per_token if facts is not None else None
    context = config.context_size or (facts.context_tokens if facts is not None else None)
    pool = config.scheduler.kv_tokens
    warning = ""
    if context is not None and token_bytes:
        room = max(0, free_bytes - weights - OVERHEAD_BYTES) // token_bytes
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
    return Sizes(
        context_tokens=context,
        kv_tokens=pool,
        estimate_bytes=weights + (pool or 0) * (token_bytes or 0) + OVERHEAD_BYTES,
        warning=warning,
    )


def _options(config: ModelConfig) -> dict[str, Any]:
    """The backend's own keys, and the common ones that only an engine can act on, where they are set."""
    common = {
        "f16": config.f16,
        "main_gpu": config.main_gpu,
        "gpu_layers": config.gpu_layers,
        "trust_remote_code": config.trust_remote_code or None,
    }
    return {**config.options, **{key: value for key, value in common.items() if value is not None}}
