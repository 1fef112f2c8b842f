"""Metadata, configuration, statistics and names over both transports: versions, aliases, the single model, keys."""

import asyncio

import grpc
import msgspec
import pytest
import tritonclient.http
from tritonclient.grpc import service_pb2 as pb

from adapters.settings import AppSettings
from runner.api import ModelStats, ModelStatus, QueueInfo, Tally, VersionStatus
from runner.errors import ModelNotFound, ModelNotLoaded, ModelNotReady
from tests.adapters.kserve.faces import TEXT, faces, message, text_of
from tests.adapters.support import READY, TEXT_MODEL, VECTOR_MODEL, ScriptedRunner, serving

FLAGS = (
    "exclude_input_in_output",
    "return_finish_reason",
    "return_cumulative_logprob",
    "return_logprobs",
    "return_num_input_tokens",
    "return_num_output_tokens",
)
INPUTS = [
    ("text_input", "BYTES", [1]),
    ("stream", "BOOL", [1]),
    ("sampling_parameters", "BYTES", [1]),
    *((name, "BOOL", [1]) for name in FLAGS),
]
OUTPUTS = [
    ("text_output", "BYTES", [-1]),
    ("finish_reason", "BYTES", [-1]),
    ("cumulative_logprob", "FP32", [-1]),
    ("logprobs", "BYTES", [-1]),
    ("num_input_tokens", "UINT32", [1]),
    ("num_output_tokens", "UINT32", [1]),
]


def tensors(specs):
    return [{"name": name, "datatype": datatype, "shape": shape} for name, datatype, shape in specs]


async def test_the_server_introduces_itself():
    async with faces(ScriptedRunner()) as served:
        body = (await served.http.get("/v2")).json()
        told = await served.stub.ServerMetadata(pb.ServerMetadataRequest())
    assert (body["name"], body["version"]) == ("modelyard", "1.2.3")
    assert {"binary_tensor_data", "statistics", "model_repository"} < set(body["extensions"])
    assert (told.name, told.version, list(told.extensions)) == ("modelyard", "1.2.3", body["extensions"])


async def test_a_text_model_has_the_tensors_of_the_vllm_backend():
    async with serving(ScriptedRunner()) as server:
        plain = await server.get("/v2/models/orca")
        version = await server.get("/v2/models/orca/versions/1")
    expected = {
        "name": "orca",
        "versions": ["1"],
        "platform": "echo",
        "inputs": tensors(INPUTS),
        "outputs": tensors(OUTPUTS),
    }
    assert (plain.status, plain.json()) == (200, expected)
    assert version.json() == expected


async def test_a_model_of_vectors_takes_a_text_and_gives_numbers():
    runner = ScriptedRunner()
    runner.config = VECTOR_MODEL
    async with serving(runner) as server:
        body = (await server.get("/v2/models/orca")).json()
    assert body["inputs"] == tensors([("text_input", "BYTES", [1])])
    assert body["outputs"] == tensors([("embedding", "FP32", [3])])


async def test_metadata_lists_the_versions_that_are_ready():
    states = {1: "READY", 2: "LOADING", 3: "READY"}
    versions = tuple(VersionStatus(version=number, state=state) for number, state in states.items())
    runner = ScriptedRunner(models=[msgspec.structs.replace(READY, versions=versions)])
    async with faces(runner) as served:
        body = (await served.http.get("/v2/models/orca")).json()
        told = await served.stub.ModelMetadata(pb.ModelMetadataRequest(name="orca"))
        one = await served.stub.ModelMetadata(pb.ModelMetadataRequest(name="orca", version="1"))
    assert body["versions"] == list(told.versions) == ["1", "3"]
    assert list(one.versions) == ["1"]
    assert [(each.name, each.datatype, list(each.shape)) for each in told.inputs] == INPUTS


async def test_the_configuration_is_a_model_config_message():
    runner = ScriptedRunner()
    runner.config = msgspec.structs.replace(
        TEXT_MODEL, parameters={"temperature": 0.5}, options={"delay_s": 1}
    )
    async with faces(runner) as served:
        body = (await served.http.get("/v2/models/orca/config")).json()
        config = (await served.stub.ModelConfig(pb.ModelConfigRequest(name="orca"))).config
    assert (body["name"], body["backend"], body["max_batch_size"]) == ("orca", "echo", 0)
    assert body["model_transaction_policy"] == {"decoupled": True}
    assert body["version_policy"] == {"latest": {"num_versions": 1}}
    assert body["input"][0] == {
        "name": "text_input",
        "data_type": "TYPE_STRING",
        "format": "FORMAT_NONE",
        "dims": [1],
        "is_shape_tensor": False,
        "allow_ragged_batch": False,
        "optional": False,
        "is_non_linear_format_io": False,
    }
    assert body["parameters"]["parameters.temperature"] == {"string_value": "0.5"}
    assert [each.name for each in config.input] == [each["name"] for each in body["input"]]
    assert config.model_transaction_policy.decoupled
    assert config.instance_group[0].count == 1
    assert config.parameters["delay_s"].string_value == "1"


async def test_the_queues_are_told_in_the_words_of_the_dynamic_batcher():
    runner = ScriptedRunner()
    queues = (
        QueueInfo(max_queue_size=5),
        QueueInfo(max_queue_size=9, queue_timeout_s=1.5, timeout_action="delay"),
    )
    runner.config = msgspec.structs.replace(TEXT_MODEL, queues=queues, default_priority_level=2)
    async with faces(runner) as served:
        config = (await served.stub.ModelConfig(pb.ModelConfigRequest(name="orca"))).config
    batcher = config.dynamic_batching
    assert (batcher.priority_levels, batcher.default_priority_level) == (2, 2)
    second = batcher.priority_queue_policy[2]
    assert (second.max_queue_size, second.default_timeout_microseconds, second.timeout_action) == (
        9,
        1_500_000,
        1,
    )


STATS = ModelStats(
    model="orca",
    version=1,
    last_inference_ms=1_700_000_000_000,
    inference_count=3,
    execution_count=7,
    success=Tally(3, 900),
    fail=Tally(1, 50),
    queue=Tally(3, 30),
    compute_infer=Tally(3, 600),
    batches={2: Tally(7, 700)},
    memory_bytes=4096,
)


async def test_statistics_are_the_runners():
    runner = ScriptedRunner()
    runner.stats = [STATS, msgspec.structs.replace(STATS, model="whale", version=2)]
    async with faces(runner) as served:
        one = (await served.http.get("/v2/models/orca/stats")).json()["model_stats"]
        version = (await served.http.get("/v2/models/orca/versions/1/stats")).json()["model_stats"]
        everything = (await served.http.get("/v2/models/stats")).json()["model_stats"]
        told = await served.stub.ModelStatistics(pb.ModelStatisticsRequest(name="orca"))
        all_told = await served.stub.ModelStatistics(pb.ModelStatisticsRequest())
    assert one == version == everything[:1]
    assert [(each["name"], each["version"]) for each in everything] == [("orca", "1"), ("whale", "2")]
    stats = one[0]["inference_stats"]
    assert (stats["success"], stats["fail"], stats["queue"]) == (
        {"count": 3, "ns": 900},
        {"count": 1, "ns": 50},
        {"count": 3, "ns": 30},
    )
    assert set(stats) == {
        "success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss",
    }  # fmt: skip
    assert one[0]["batch_stats"][0]["batch_size"] == 2
    assert one[0]["memory_usage"] == [{"type": "CPU", "id": 0, "byte_size": 4096}]
    (row,) = told.model_stats
    assert (row.execution_count, row.inference_stats.success.ns, row.last_inference) == (
        7,
        900,
        1_700_000_000_000,
    )
    assert len(all_told.model_stats) == 2


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nope/stats", "requested model 'nope' is not available"),
        ("orca/versions/9/stats", "requested model version is not available for model 'orca'"),
    ],
)
async def test_statistics_of_what_is_not_there_are_refused(path, message):
    runner = ScriptedRunner()
    runner.stats = [STATS]
    async with serving(runner) as server:
        answer = await server.get(f"/v2/models/{path}")
    assert (answer.status, answer.json()) == (400, {"error": message})


# Names


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("nope", 404, "Request for unknown model: 'nope' is not found"),
        ("nope/config", 404, "Request for unknown model: 'nope' is not found"),
        ("nope/versions/3", 404, "Request for unknown model: 'nope' is not found"),
        ("orca/versions/abc", 404, "Not Found"),
        ("orca/versions/1x", 404, "Not Found"),
        ("orca/", 404, "Not Found"),
        ("orca/infer", 405, "Method Not Allowed"),
        ("orca/versions/1/generate", 405, "Method Not Allowed"),
    ],
)
async def test_what_is_not_there_is_told(path, status, message):
    async with serving(ScriptedRunner()) as server:
        answer = await server.get(f"/v2/models/{path}")
    assert (answer.status, answer.json()) == (status, {"error": message})


@pytest.mark.parametrize("path", ["/v2", "/v2/health/live", "/v2/models/orca", "/v2/models/orca/stats"])
async def test_a_wrong_verb_is_told(path):
    async with serving(ScriptedRunner()) as server:
        answer = await server.post(path, {})
    assert (answer.status, answer.json()) == (405, {"error": "Method Not Allowed"})


def one_model(*versions: VersionStatus, **fields) -> ScriptedRunner:
    return ScriptedRunner(models=[ModelStatus(name="orca", versions=versions, **fields)])


@pytest.mark.parametrize(
    ("runner", "error", "path", "status", "words"),
    [
        (one_model(VersionStatus(version=1, state="READY")), ModelNotFound("no version 9"), "versions/9/", 404,
            "Request for unknown model: 'orca' version 9 is not found"),
        (one_model(VersionStatus(version=1, state="UNAVAILABLE", reason="unloaded")), ModelNotLoaded("it is not"), "",
            404, "Request for unknown model: 'orca' has no available versions"),
        (one_model(VersionStatus(version=1, state="UNAVAILABLE", reason="unloaded")), ModelNotLoaded("it is not"),
            "versions/1/", 503, "Request for unknown model: 'orca' version 1 is not at ready state"),
        (one_model(VersionStatus(version=1, state="UNAVAILABLE", reason="not loaded")), ModelNotLoaded("it is not"), "",
            404, "Request for unknown model: 'orca' is not found"),
        (one_model(VersionStatus(version=1, state="LOADING")), ModelNotReady("still loading", retry_after_s=3.0), "",
            503, "still loading"),
        (one_model(VersionStatus(version=1, state="READY")), ModelNotReady("the other server does not answer now"), "",
            503, "the other server does not answer now"),
    ],
)  # fmt: skip
async def test_a_model_that_does_not_answer_is_told_in_tritons_words(runner, error, path, status, words):
    runner.config = error
    code = {404: "NOT_FOUND", 503: "UNAVAILABLE"}[status]
    version = path.removeprefix("versions/").removesuffix("/")
    async with faces(runner) as served:
        answer = await served.http.post(f"/v2/models/orca/{path}infer", {"inputs": [TEXT]})
        with pytest.raises(grpc.RpcError) as caught:
            await served.stub.ModelInfer(message(model_version=version))
    assert (answer.status, answer.json()) == (status, {"error": words})
    assert (caught.value.code().name, caught.value.details()) == (code, words)


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("abc", "failed to get model version from specified version string 'abc' (details: stol), version should be "
            "an integral value > 0"),
        ("1.5", "failed to get model version from specified version string '1.5'"),
        ("9" * 30, "(details: stol)"),
        ("-1", "invalid model version specified '-1' , version should be an integral value > 0"),
    ],
)  # fmt: skip
async def test_a_version_that_is_no_number_is_an_invalid_argument(version, words):
    async with faces(ScriptedRunner()) as served:
        for method, request in (
            ("ModelReady", pb.ModelReadyRequest(name="orca", version=version)),
            ("ModelMetadata", pb.ModelMetadataRequest(name="orca", version=version)),
            ("ModelStatistics", pb.ModelStatisticsRequest(name="orca", version=version)),
            ("ModelInfer", message(model_version=version)),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                await getattr(served.stub, method)(request)
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert words in caught.value.details()


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("orca/infer", "orca"),
        ("orca/versions/1/infer", "orca:1"),
        ("orca:1/infer", "orca:1"),
        ("whale/versions/1/infer", "whale:1"),
    ],
)
async def test_versions_and_aliases_reach_the_runner(path, asked):
    runner = ScriptedRunner()
    async with serving(runner) as server:
        answer = await server.post(f"/v2/models/{path}", {"inputs": [TEXT]})
    assert answer.json()["model_name"] == "orca"
    assert [name for name, _ in runner.asked] == [asked]


async def test_a_version_over_grpc_reaches_the_runner():
    runner = ScriptedRunner()
    async with faces(runner) as served:
        answer = await served.stub.ModelInfer(message(model="whale", model_version="01"))
    assert (answer.model_name, answer.model_version, text_of(answer)) == ("orca", "1", "HiHello there")
    assert [name for name, _ in runner.asked] == ["whale:1"]


async def test_inference_falls_back_where_the_runner_does_and_metadata_never():
    class Lenient(ScriptedRunner):
        def resolve_name(self, model, *, bearer=None):
            return "orca"

    runner = Lenient()
    async with serving(runner) as server:
        inferred = await server.post("/v2/models/anything/infer", {"inputs": [TEXT]})
        version = await server.post("/v2/models/anything/versions/1/infer", {"inputs": [TEXT]})
        metadata = await server.get("/v2/models/anything")
    assert (inferred.status, version.status, metadata.status) == (200, 200, 404)
    assert [name for name, _ in runner.asked] == ["orca", "orca:1"]


# Keys


@pytest.fixture
def keyed(tmp_path) -> AppSettings:
    file = tmp_path / "keys"
    file.write_text("boss role=admin\nuser\nother models=whale\nstranger models=krill\n")
    return AppSettings(api_key_file=file)


@pytest.mark.parametrize(
    ("key", "status", "code"),
    [
        (None, 401, "UNAUTHENTICATED"),
        ("wrong", 401, "UNAUTHENTICATED"),
        ("stranger", 403, "PERMISSION_DENIED"),
        ("other", 200, None),
        ("user", 200, None),
        ("boss", 200, None),
    ],
)
async def test_both_faces_ask_for_the_same_keys(keyed, key, status, code):
    headers = {"authorization": f"Bearer {key}"} if key else {}
    async with faces(ScriptedRunner(), keyed) as served:
        answer = await served.http.post("/v2/models/orca/infer", {"inputs": [TEXT]}, headers)
        try:
            await served.stub.ModelInfer(message(), metadata=list(headers.items()))
            told = None
        except grpc.RpcError as error:
            told = error.code().name
    assert (answer.status, told) == (status, code)


ADMINS = [
    ("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="orca")),
    ("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="orca")),
    ("LogSettings", pb.LogSettingsRequest(settings={"log_info": {"bool_param": True}})),
    ("TraceSetting", pb.TraceSettingRequest(settings={"trace_rate": {"value": ["1"]}})),
]


@pytest.mark.parametrize(("method", "request_"), ADMINS, ids=[name for name, _ in ADMINS])
async def test_what_changes_the_server_is_for_admins(keyed, method, request_):
    async with faces(ScriptedRunner(), keyed) as served:
        await getattr(served.stub, method)(request_, metadata=[("x-api-key", "boss")])
        with pytest.raises(grpc.RpcError) as caught:
            await getattr(served.stub, method)(request_, metadata=[("x-api-key", "user")])
    assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED


async def test_health_needs_no_key(keyed):
    async with faces(ScriptedRunner(), keyed) as served:
        assert (await served.stub.ServerReady(pb.ServerReadyRequest())).ready
        assert (await served.http.get("/v2/health/ready")).status == 200


async def test_a_key_sees_its_own_models_only(keyed):
    krill = ModelStatus(name="krill", versions=(VersionStatus(version=1, state="READY"),))
    runner = ScriptedRunner(models=[READY, krill])
    runner.stats = [STATS, msgspec.structs.replace(STATS, model="krill")]
    headers = [("authorization", "Bearer stranger")]
    async with faces(runner, keyed) as served:
        index = await served.stub.RepositoryIndex(pb.RepositoryIndexRequest(), metadata=headers)
        stats = await served.stub.ModelStatistics(pb.ModelStatisticsRequest(), metadata=headers)
        for method, request in (
            ("ModelReady", pb.ModelReadyRequest(name="orca")),
            ("ModelMetadata", pb.ModelMetadataRequest(name="orca")),
            ("ModelStatistics", pb.ModelStatisticsRequest(name="orca")),
            ("TraceSetting", pb.TraceSettingRequest(model_name="orca")),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                await getattr(served.stub, method)(request, metadata=headers)
            assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert [each.name for each in index.models] == ["krill"]
    assert [each.name for each in stats.model_stats] == ["krill"]


async def test_opaque_errors_are_opaque_over_grpc_too():
    runner = ScriptedRunner()
    runner.load_error = ModelNotReady("/secret/path is gone")
    async with faces(runner, AppSettings(opaque_errors=True)) as served:
        with pytest.raises(grpc.RpcError) as caught:
            await served.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="orca"))
    assert "secret" not in caught.value.details()


async def test_tritonclient_reads_metadata_configuration_and_statistics_over_http():
    def ask(url: str):
        with tritonclient.http.InferenceServerClient(url) as client:
            return (
                client.get_server_metadata(),
                client.get_model_metadata("orca", "1"),
                client.get_model_config("orca"),
                client.get_inference_statistics("orca"),
            )

    runner = ScriptedRunner()
    runner.stats = [STATS]
    async with faces(runner) as served:
        server, metadata, config, statistics = await asyncio.to_thread(ask, served.http_address)
    assert server["name"] == "modelyard"
    assert metadata["inputs"][0]["name"] == config["input"][0]["name"] == "text_input"
    assert statistics["model_stats"][0]["inference_count"] == 3


async def test_a_version_of_absurd_length_is_the_clients_mistake():
    async with serving(ScriptedRunner()) as server:
        answer = await server.get(f"/v2/models/orca/versions/{'9' * 5000}")
    assert answer.status == 400
    assert answer.json()["error"].startswith("failed to get model version from specified version string '999")
