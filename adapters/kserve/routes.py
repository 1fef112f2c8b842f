"""The routes of the KServe v2 protocol and of Triton's extensions."""

from typing import Any

from adapters.kserve.face import KServe
from adapters.kserve.over_http.body import Bodies
from adapters.kserve.over_http.generate import GenerateEndpoints
from adapters.kserve.over_http.infer import InferEndpoint
from adapters.kserve.over_http.repository import RepositoryEndpoints
from adapters.kserve.over_http.server import ServerEndpoints
from adapters.kserve.over_http.settings import SettingsEndpoints
from adapters.routes import Operation, get, post
from adapters.settings import AppSettings

_OBJECT = dict[str, Any]
_MODEL = "/v2/models/{model:path}"
_VERSION = "/v2/models/{model:path}/versions/{version:digits}"


def kserve_operations(kserve: KServe, settings: AppSettings) -> list[Operation]:
    """In this order: a model's name may hold slashes, so that its own path comes last."""
    bodies = Bodies(settings)
    table: list[Operation] = []
    table += _server(ServerEndpoints(kserve))
    table += _settings(SettingsEndpoints(kserve, bodies))
    table += _repository(RepositoryEndpoints(kserve, bodies))
    table += _inference(InferEndpoint(kserve, bodies), GenerateEndpoints(kserve, bodies))
    table += _models(ServerEndpoints(kserve))
    return table


def _server(server: ServerEndpoints) -> list[Operation]:
    return [
        get("/v2", server.metadata, "Name, version and extensions of the server", answer=_OBJECT),
        get("/v2/health/live", server.live, "Whether the process works", media=None),
        get("/v2/health/ready", server.ready, "Whether what was to be loaded is", media=None),
        get("/v2/models/stats", server.statistics, "Statistics of all loaded models", answer=_OBJECT),
    ]


def _settings(settings: SettingsEndpoints) -> list[Operation]:
    trace = "/v2/trace/setting"
    of_model = f"{_MODEL}/trace/setting"
    table = [
        get("/v2/logging", settings.log, "What is logged", answer=_OBJECT),
        post("/v2/logging", settings.change_log, "Change that", body=_OBJECT, answer=_OBJECT, admin=True),
        get(trace, settings.trace, "Which requests are traced", answer=_OBJECT),
        post(trace, settings.change_trace, "Change that", body=_OBJECT, answer=_OBJECT, admin=True),
        get(of_model, settings.trace, "Which requests to a model are traced", answer=_OBJECT),
        post(of_model, settings.change_trace, "Change that", body=_OBJECT, answer=_OBJECT, admin=True),
    ]
    for kind in ("system", "cuda"):
        memory, region = f"/v2/{kind}sharedmemory", f"/v2/{kind}sharedmemory/region/{{region}}"
        no = settings.no_shared_memory
        table += [
            get(f"{memory}/status", settings.shared_memory, "Which regions are registered: none"),
            get(f"{region}/status", no, "Refused: there is no shared memory"),
            post(f"{region}/register", no, "Refused: there is no shared memory", body=_OBJECT),
            post(f"{region}/unregister", no, "Refused: there is no shared memory"),
            post(f"{memory}/unregister", no, "Refused: there is no shared memory"),
        ]
    return table


def _repository(repository: RepositoryEndpoints) -> list[Operation]:
    table = [post("/v2/repository/index", repository.index, "All models and versions", body=_OBJECT)]
    verbs = {
        "load": (repository.load, "Load a model and wait until it is ready"),
        "unload": (repository.unload, "Begin to unload a model"),
    }
    for verb, (endpoint, summary) in verbs.items():
        path = f"/v2/repository/models/{{model:path}}/{verb}"
        table.append(post(path, endpoint, summary, body=_OBJECT, media=None, admin=True))
    for path in ("index", "models/{model:path}/load", "models/{model:path}/unload"):
        refused = f"/v2/repository/{{repository}}/{path}"
        table.append(post(refused, repository.elsewhere, "Refused: there is one repository", body=_OBJECT))
    return table


def _inference(infer: InferEndpoint, generate: GenerateEndpoints) -> list[Operation]:
    table = []
    for path in (_VERSION, _MODEL):
        table += [
            post(f"{path}/infer", infer.infer, "Infer with tensors", body=_OBJECT, answer=_OBJECT),
            post(f"{path}/generate", generate.generate, "Generate text", body=_OBJECT, answer=_OBJECT),
            post(
                f"{path}/generate_stream",
                generate.stream,
                "Generate text, a piece at a time",
                body=_OBJECT,
                media="text/event-stream",
            ),
        ]
    return table


def _models(server: ServerEndpoints) -> list[Operation]:
    table = []
    for path, what in ((_VERSION, "a version"), (_MODEL, "a model")):
        table += [
            get(f"{path}/ready", server.model_ready, f"Whether {what} answers", media=None),
            get(f"{path}/config", server.model_config, f"The configuration of {what}", answer=_OBJECT),
            get(f"{path}/stats", server.model_statistics, f"The statistics of {what}", answer=_OBJECT),
        ]
    for path, what in ((_VERSION, "a version"), (_MODEL, "a model")):
        table.append(get(path, server.model_metadata, f"The tensors of {what}", answer=_OBJECT))
    return table
