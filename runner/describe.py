"""A loaded version described for those who ask what it is and how it is configured. Pure."""

import msgspec

from repository.config import ModelConfig
from runner.api import ModelConfigInfo, ModelMetadata, QueueInfo
from runner.loaded import LoadedVersion


def describe_model(loaded: LoadedVersion, *, versions: tuple[int, ...]) -> ModelMetadata:
    """What `loaded` is; `versions` are all that its model serves."""
    info = loaded.info
    return ModelMetadata(
        name=loaded.name,
        versions=versions,
        version=loaded.version,
        backend=loaded.plan.backend,
        engine=info.engine,
        context_tokens=info.context_tokens,
        vocabulary=info.vocabulary,
        eos_token=info.eos_token,
        bos_token=info.bos_token,
        pad_token=info.pad_token,
        chat_template=_chat_template(loaded),
        capabilities=tuple(sorted(info.capabilities)),
        generates=info.generates,
        embedding_length=info.embedding_length,
    )


def _chat_template(loaded: LoadedVersion) -> str | None:
    texts, own = loaded.plan.launches[0].start.template, loaded.info.chat_template
    return own if own and texts.prefers_own else texts.chat or own


def describe_config(loaded: LoadedVersion) -> ModelConfigInfo:
    """How `loaded` is configured, defaults filled in."""
    config, info, limits = loaded.source[1] or ModelConfig(), loaded.info, loaded.limits
    policy = msgspec.to_builtins(config.version_policy)
    return ModelConfigInfo(
        name=loaded.name,
        version=loaded.version,
        backend=loaded.plan.backend,
        engine=info.engine,
        generates=info.generates,
        embedding_length=info.embedding_length,
        context_tokens=info.context_tokens,
        version_policy={key: value for key, value in policy.items() if value is not None},
        instance_count=len(loaded.instances),
        instance_kind=config.instance_group.kind,
        gpus=config.instance_group.gpus,
        max_lanes=loaded.lanes,
        queues=tuple(
            QueueInfo(
                max_queue_size=queue.max_queue_size,
                queue_timeout_s=queue.queue_timeout_s,
                timeout_action=queue.timeout_action,
            )
            for queue in limits.queues
        ),
        default_priority_level=limits.default_level,
        warmup=config.warmup,
        parameters=config.parameters.sampling(),
        options=config.options,
    )
