"""`config.pbtxt` as keys of a `config.yaml`: what a Triton model says of its instances, versions and queue.

Reads the protocol's own message. Tensors are left out: every text model here has the same.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct

NAME = "config.pbtxt"

_MOST_BYTES = 1 << 20
_SETTLED = {
    "name": "",
    "backend": "",
    "platform": "",
    "runtime": "",
    "max_batch_size": "",
    "input": "",
    "output": "",
    "model_transaction_policy": "",
    "version_policy": "",
    "instance_group": "",
    "default_model_filename": "",
    "dynamic_batching": "requests join and leave between any two steps",
    "sequence_batching": "a prompt is a whole request here",
    "parameters": "they are the other server's",
    "model_warmup": "write `warmup`, a list of prompts, into a config.yaml",
    "response_cache": "answers are not kept",
    "optimization": "it is for other backends",
}
"""Fields that are known: without words they have their effect, or need none."""


class PbtxtError(Exception):
    """A `config.pbtxt` that cannot be read, or that is of no language model; the message is one sentence."""


class Pbtxt(Struct, frozen=True):
    """`values` are keys of a `config.yaml`; `ignored` says of each field that is left out why."""

    values: dict[str, Any]
    ignored: tuple[str, ...] = ()


def read_pbtxt(path: Path) -> Pbtxt:
    """A model of the vLLM backend. PbtxtError: it is another backend's, or the file is wrong."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES).decode()
        config = text_format.Parse(text, model_config_pb2.ModelConfig(), allow_unknown_field=True)
    except OSError as error:
        raise PbtxtError(f"it cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PbtxtError("it is not UTF-8 text") from error
    except text_format.ParseError as error:
        raise PbtxtError(f"it is not readable: {error}") from error
    backend = config.backend or config.platform
    if backend != "vllm":
        which = f'the backend "{backend}"' if backend else "no backend"
        raise PbtxtError(f"it names {which}; only Triton models of the backend vllm are served")
    values = {"backend": "vllm", **_version_policy(config), **_instance_group(config)}
    return Pbtxt(values, tuple(_ignored(config)))


def _version_policy(config: Any) -> dict[str, Any]:
    match config.version_policy.WhichOneof("policy_choice"):
        case "all":
            return {"version_policy": {"all": {}}}
        case "specific":
            return {
                "version_policy": {"specific": {"versions": list(config.version_policy.specific.versions)}}
            }
        case "latest" if config.version_policy.latest.num_versions > 1:
            count = config.version_policy.latest.num_versions
            return {"version_policy": {"latest": {"num_versions": count}}}
        case _:
            return {}


def _instance_group(config: Any) -> dict[str, Any]:
    """All groups as one: their instances together. vLLM's own way to say that it picks its GPUs is KIND_MODEL."""
    group: dict[str, Any] = {}
    count = sum(max(each.count, 1) for each in config.instance_group)
    if count > 1:
        group["count"] = count
    kinds = {type(each).Kind.Name(each.kind) for each in config.instance_group}
    if kinds == {"KIND_GPU"}:
        group["kind"] = "gpu"
    elif kinds == {"KIND_CPU"}:
        group["kind"] = "cpu"
    if gpus := sorted({gpu for each in config.instance_group for gpu in each.gpus}):
        group["gpus"] = gpus
    return {"instance_group": group} if group else {}


def _ignored(config: Any) -> Iterator[str]:
    for field, _ in config.ListFields():
        reason = _SETTLED.get(field.name, "it has no meaning here")
        if reason:
            yield f"{field.name} has no effect: {reason}"
