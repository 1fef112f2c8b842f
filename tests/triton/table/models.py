"""What is said of models: metadata, configuration, readiness, statistics; their versions and unknown names."""

import re
import time
from typing import Any

from tritonclient.grpc import service_pb2 as pb

from tests.triton.asking import Reply, Row, Side, ask, call, exactly, shape_of

NAMES = ("llm", "vec", "two", "idle", "nope")
VERSIONS = ("1", "9", "0", "01", "abc", "-1", "18446744073709551616")
CONFIG = ("name", "input", "output", "max_batch_size", "version_policy")
ASKED = {"text_input": "hello"}
TEXT = {"name": "text_input", "shape": [1], "datatype": "BYTES", "data": ["hello"]}
COUNTED_S = 0.5


def _metadata(reply: Reply) -> Any:
    """All but the engine's name."""
    return reply.status, reply.headers, reply.json | {"platform": type(reply.json["platform"])}


def _configuration(reply: Reply) -> Any:
    return reply.status, reply.headers, _config(reply.json)


def _config(value: Any) -> Any:
    """What clients read: all that says which tensors there are."""
    decoupled = (value.get("model_transaction_policy") or {}).get("decoupled", False)
    kept = {key: value.get(key) for key in CONFIG}
    return kept | {"decoupled": decoupled, "has instances": bool(value["instance_group"])}


def _statistics(reply: Reply) -> Any:
    one = next(each for each in reply.json["model_stats"] if each["name"] == "vec")
    return reply.status, reply.headers, sorted(one), shape_of(one["inference_stats"])


def _grpc_statistics(value: Any) -> Any:
    """Whose they are and which there are; counts of zero are left out of messages."""
    (one,) = value["model_stats"]
    return one["name"], one["version"], sorted(one["inference_stats"])


def _counted(model: str, *bodies: Any) -> Any:
    """How requests move the counters of a model. Triton counts one a moment after it has answered it."""

    def asked(side: Side) -> Any:
        before = _counts(side, model)
        for body in bodies:
            side.http("POST", f"/v2/models/{model}/infer", body)
        latest = time.monotonic() + COUNTED_S
        while True:
            moved = {name: count - before[name] for name, count in _counts(side, model).items()}
            if moved["success"] + moved["fail"] >= len(bodies) or time.monotonic() >= latest:
                return moved

    return asked


def _metrics(side: Side) -> Any:
    """The names of Triton's metrics of inference, and their labels."""
    side.http("POST", "/v2/models/vec/infer", {"inputs": [TEXT]})
    lines = side.http("GET", "/metrics", port=side.metrics_port).body.decode().splitlines()
    samples = [line for line in lines if line.startswith("nv_inference_") and 'model="vec"' in line]
    assert samples, lines
    names = (re.match(r"(\w+)\{(.*)\} ", line) for line in samples)
    return sorted({(name[1], *sorted(re.findall(r"(\w+)=", name[2]))) for name in names if name})


def _counts(side: Side, model: str) -> dict[str, int]:
    (one,) = side.http("GET", f"/v2/models/{model}/stats").json["model_stats"]
    counts = {name: one[name] for name in ("inference_count", "execution_count")}
    return counts | {name: each["count"] for name, each in one["inference_stats"].items()}


def _version_rows() -> list[Row]:
    sees = {"": _metadata, "/config": _configuration, "/ready": exactly, "/stats": lambda reply: reply.status}
    return [
        Row(
            name=f"llm version {version}{path}",
            ask=ask("GET", f"/v2/models/llm/versions/{version}{path}", see=see),
        )
        for version in VERSIONS
        for path, see in sees.items()
    ]


def _grpc_rows() -> list[Row]:
    versions = (("llm", each) for each in ("", "9", "0", "-1", "abc", str(2**64)))
    asked = (*versions, ("vec", "1"), ("idle", ""), ("nope", ""))
    sees = {
        "ModelReady": (pb.ModelReadyRequest, None),
        "ModelMetadata": (pb.ModelMetadataRequest, lambda value: value | {"platform": str}),
        "ModelConfig": (pb.ModelConfigRequest, lambda value: _config(value["config"])),
        "ModelStatistics": (pb.ModelStatisticsRequest, _grpc_statistics),
    }
    return [
        Row(
            name=f"grpc {method} of {name} {version}".strip(),
            ask=call(method, request(name=name, version=version), see=see),
        )
        for method, (request, see) in sees.items()
        for name, version in asked
    ]


ROWS = [
    *(Row(name=f"metadata of {name}", ask=ask("GET", f"/v2/models/{name}", see=_metadata)) for name in NAMES),
    *(
        Row(name=f"configuration of {name}", ask=ask("GET", f"/v2/models/{name}/config", see=_configuration))
        for name in NAMES
    ),
    *(Row(name=f"{name} ready", ask=ask("GET", f"/v2/models/{name}/ready")) for name in NAMES),
    *(
        Row(name=f"statistics of {name}", ask=ask("GET", f"/v2/models/{name}/stats", see=_statistics))
        for name in ("vec", "idle", "nope")
    ),
    Row(name="statistics of all", ask=ask("GET", "/v2/models/stats", see=_statistics)),
    Row(name="what statistics count of good requests", ask=_counted("vec", {"inputs": [TEXT]})),
    Row(
        name="what statistics count of a wrong shape",
        ask=_counted("vec", {"inputs": [TEXT | {"shape": [2]}]}),
    ),
    Row(
        name="what statistics count of a model's refusal",
        ask=_counted("flat", {"inputs": [TEXT], "parameters": {"nope": 1}}),
    ),
    Row(name="metrics", ask=_metrics),
    *(
        Row(name=f"generate two{version}", ask=ask("POST", f"/v2/models/two{version}/generate", ASKED))
        for version in ("", "/versions/1", "/versions/2", "/versions/3")
    ),
    *(
        Row(name=f"two{version}", ask=ask("GET", f"/v2/models/two/versions/{version}", see=_metadata))
        for version in (1, 2, 3)
    ),
    *_version_rows(),
    *_grpc_rows(),
]
