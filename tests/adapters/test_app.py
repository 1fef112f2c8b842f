import asyncio
import gzip

import anthropic
import msgspec
import pytest
from msgspec.structs import replace

from adapters.settings import AppSettings
from runner.errors import ActionNotAllowed
from tests.adapters.support import READY, ScriptedRunner, ask_user, says, serving

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize("prefix", ["", "/v1", "/openai/v1"])
async def test_every_route_is_served_under_every_prefix(prefix):
    async with serving(ScriptedRunner()) as server:
        assert (await server.post(f"{prefix}/chat/completions", ask_user())).status == 200
        assert (await server.post(f"{prefix}/completions", {"prompt": "x"})).status == 200
        assert (await server.get(f"{prefix}/models")).status == 200
        assert (await server.get(f"{prefix}/models/orca")).status == 200


async def test_a_wrong_path_or_method_is_an_error_object():
    async with serving(ScriptedRunner()) as server:
        missing = await server.get("/v1/nothing")
        slash = await server.get("/v1/models/")
        wrong = await server.get(CHAT)
    assert missing.status == 404
    assert set(missing.json()["error"]) == {"message", "type", "param", "code"}
    assert "/v1/nothing" in missing.json()["error"]["message"]
    assert slash.status == 404
    assert wrong.status == 405
    assert wrong.json()["error"]["code"] == "method_not_allowed"
    assert wrong.headers["allow"] == "POST"


async def test_kserve_paths_have_kserves_errors():
    async with serving(ScriptedRunner()) as server:
        missing = await server.get("/v2/nothing")
        wrong = await server.get("/v2/repository/index")
    assert (missing.status, missing.json()) == (404, {"error": "Not Found"})
    assert (wrong.status, wrong.json()) == (405, {"error": "Method Not Allowed"})


async def test_every_answer_has_a_request_id():
    async with serving(ScriptedRunner()) as server:
        answers = [
            await server.get("/health"),
            await server.get("/nothing"),
            await server.post(CHAT, ask_user()),
            await server.post(CHAT, ask_user(stream=True)),
            await server.post(CHAT, ask_user(n=0)),
        ]
        own = await server.post(CHAT, ask_user(stream=True), {"x-request-id": "mine-1"})
        bad = await server.post(CHAT, ask_user(), {"x-request-id": "with spaces"})
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert len(set(ids)) == len(ids)
    assert own.headers["x-request-id"] == "mine-1"
    assert bad.headers["x-request-id"] != "with spaces"


async def test_a_body_over_the_limit_gets_a_413():
    async with serving(ScriptedRunner(), AppSettings(body_limit_bytes=2000)) as server:
        answer = await server.post(CHAT, ask_user("x" * 5000))
        huge = await server.post(CHAT, ask_user("x" * 7900))
        fine = await server.post(CHAT, ask_user("x" * 1000))
    assert (answer.status, answer.json()["error"]["code"]) == (413, "request_too_large")
    assert "2000" in answer.json()["error"]["message"]
    assert huge.status == 413
    assert fine.status == 200


async def test_a_body_that_does_not_arrive_gets_a_408():
    async with serving(ScriptedRunner(), AppSettings(body_timeout_s=0.01)) as server:
        reader, writer = await server.send("POST", CHAT, b'{"mess', {"content-length": "500"})
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"request_timeout" in answer


async def test_an_unexpected_exception_is_a_500_without_details(caplog):
    async with serving(ScriptedRunner(lambda request: [ZeroDivisionError("secret")])) as server:
        for stream in (False, True):
            answer = await server.post(CHAT, ask_user(stream=stream))
            assert answer.status == 500
            assert answer.json()["error"]["code"] == "internal_error"
            assert answer.headers["x-request-id"] in answer.json()["error"]["message"]
            assert b"secret" not in answer.body
    assert "secret" in caplog.text


async def test_with_keys_only_who_shows_one_is_let_in():
    runner = ScriptedRunner()
    async with serving(runner, AppSettings(api_keys=("one", "two"))) as server:
        without = await server.post(CHAT, ask_user())
        wrong = await server.post(CHAT, ask_user(), {"authorization": "Bearer three"})
        right = await server.post(CHAT, ask_user(), {"authorization": "Bearer two"})
        other = await server.post(CHAT, ask_user(), {"x-api-key": "one"})
        kserve = await server.post("/v2/repository/index", {})
        health = await server.get("/health")
        live = await server.get("/v2/health/live")
    assert (without.status, wrong.status, right.status, other.status) == (401, 401, 200, 200)
    assert without.headers["www-authenticate"] == "Bearer"
    assert without.json()["error"]["code"] == "invalid_api_key"
    assert (kserve.status, type(kserve.json()["error"])) == (401, str)
    assert (health.status, live.status) == (200, 200)
    assert runner.bearers == [None, None]  # a key is never taken for a model's name


async def test_models_are_listed_with_their_state():
    async with serving(ScriptedRunner()) as server, server.openai() as client:
        page = await client.models.list()
        one = await client.models.retrieve("orca")
        raw = (await server.get("/v1/models")).json()
    assert [model.id for model in page.data] == ["orca"]
    assert (one.id, one.object, one.created, one.owned_by) == ("orca", "model", 1_700_000_000, "modelyard")
    [entry] = raw["data"]
    assert entry["ready"] is True
    assert entry["versions"] == [{"version": 1, "state": "READY"}]
    assert entry["context_length"] == 4096


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("orca", 200),
        ("orca:1", 200),
        ("whale", 200),
        ("owner/repo", 200),
        ("owner%2Frepo", 200),
        ("orca:2", 404),
        ("nothing", 404),
    ],
)
async def test_a_model_is_found_by_name_alias_and_version_only(path, status):
    runner = ScriptedRunner(models=[READY, replace(READY, name="owner/repo", aliases=())])
    async with serving(runner) as server:
        answer = await server.get(f"/v1/models/{path}")
    assert answer.status == status
    if status == 404:
        assert answer.json()["error"]["code"] == "model_not_found"


async def test_health_version_metrics_and_page():
    runner = ScriptedRunner()
    async with serving(runner, AppSettings(version="9.9")) as server:
        health = await server.get("/health")
        version = await server.get("/version")
        metrics = await server.get("/metrics")
        page = await server.get("/")
        runner.is_serving = False
        stopping = await server.get("/health")
    assert (health.status, health.json()) == (200, {"status": "ok"})
    assert version.json() == {"name": "modelyard", "version": "9.9"}
    assert metrics.body == runner.metrics()
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert page.headers["content-type"].startswith("text/html")
    assert b"<title>Modelyard</title>" in page.body
    assert stopping.status == 503


async def test_the_access_log_has_one_line_per_request(caplog):
    caplog.set_level("INFO")
    asked, never = asyncio.Event(), asyncio.Event()

    def script(request):
        asked.set()
        yield never

    runner = ScriptedRunner(script)
    async with serving(runner, AppSettings(access_log=True)) as server:
        await server.get("/health")
        _, writer = await server.send("POST", CHAT, ask_user())
        await asked.wait()
        writer.close()
        await runner.closed.wait()
    logged = [record.fields for record in caplog.records if record.name == "modelyard.http"]
    assert [(entry["path"], entry["status"]) for entry in logged] == [("/health", 200), (CHAT, 499)]


async def test_an_error_of_the_runner_under_v2_is_a_flat_string():
    runner = ScriptedRunner(says("x"))
    runner.load_error = ActionNotAllowed()
    async with serving(runner) as server:
        answer = await server.post("/v2/repository/models/orca/unload", {})
    assert answer.status == 503
    assert answer.json() == {"error": "explicit model load / unload is not allowed if polling is enabled"}


async def test_a_page_reads_an_unexpected_error_too(caplog):
    settings = AppSettings(cors_origins=("https://page.example",))
    async with serving(ScriptedRunner(), settings) as server:
        answer = await server.ask("POST", "/reset_prefix_cache", None, {"origin": "https://page.example"})
    assert answer.status == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert answer.headers["access-control-allow-origin"] == "https://page.example"
    assert answer.headers["x-request-id"]


async def test_models_are_listed_for_anthropics_client_too():
    headers = {"anthropic-version": "2023-06-01"}
    async with serving(ScriptedRunner()) as server:
        answer = await server.get("/v1/models?limit=20&after_id=x", headers)
        body = answer.json()
        client = anthropic.AsyncAnthropic(
            base_url=f"http://127.0.0.1:{server.port}",
            api_key="none",
            max_retries=0,
            _strict_response_validation=True,
        )
        async with client:
            listed = [model async for model in client.models.list()]
            one = await client.models.retrieve("orca")
    assert (body["has_more"], body["first_id"], body["last_id"]) == (False, "orca", "orca")
    assert answer.headers["x-ignored-params"] == "after_id, limit"
    for model in (*listed, one):
        assert (model.id, model.type, model.display_name) == ("orca", "model", "orca")
        assert model.created_at.timestamp() == READY.created


async def test_a_wrong_model_name_is_not_repeated_at_length():
    async with serving(ScriptedRunner()) as server:
        answer = await server.get("/v1/models/" + "m" * 5000)
    assert answer.status == 404
    assert len(answer.body) < 1000


async def test_a_packed_body_is_refused_by_name():
    async with serving(ScriptedRunner()) as server:
        packed = gzip.compress(msgspec.json.encode(ask_user()))
        answer = await server.ask("POST", "/v1/chat/completions", packed, {"content-encoding": "gzip"})
    assert (answer.status, answer.json()["error"]["code"]) == (400, "invalid_content_encoding")
