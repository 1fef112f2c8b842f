import pytest

from runner.api import ModelStatus, VersionStatus
from runner.errors import ActionNotAllowed, LoadFailed, ModelNotFound
from tests.adapters.support import READY, ScriptedRunner, serving


async def test_health_is_200_without_a_body_or_400():
    runner = ScriptedRunner()
    async with serving(runner) as server:
        for path in ("live", "ready"):
            answer = await server.get(f"/v2/health/{path}")
            assert (answer.status, answer.body) == (200, b"")
        runner.is_serving = False
        assert (await server.get("/v2/health/ready")).status == 400


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("orca/ready", 200),
        ("orca/versions/1/ready", 200),
        ("orca/versions/2/ready", 400),
        ("nothing/ready", 400),
        ("orca/versions/x/ready", 400),
    ],
)
async def test_a_models_readiness(path, status):
    async with serving(ScriptedRunner()) as server:
        answer = await server.get(f"/v2/models/{path}")
    assert answer.status == status
    if status == 400:
        assert answer.json() == {"error": "Model version not ready"}


def yard():
    return [
        READY,
        ModelStatus(
            name="fresh", versions=(VersionStatus(version=1, state="UNAVAILABLE", reason="not loaded"),)
        ),
        ModelStatus(
            name="two",
            versions=(
                VersionStatus(version=1, state="UNAVAILABLE", reason="unloaded"),
                VersionStatus(version=2, state="LOADING", progress=0.5),
            ),
        ),
        ModelStatus(name="wrong", versions=(), reason="config.yaml:1:1: not a mapping"),
    ]


async def test_the_index_lists_versions_states_and_reasons():
    async with serving(ScriptedRunner(models=yard())) as server:
        everything = await server.ask("POST", "/v2/repository/index", b"")
        same = await server.post("/v2/repository/index", {})
        ready = await server.post("/v2/repository/index", {"ready": True})
    assert everything.json() == [
        {"name": "orca", "version": "1", "state": "READY"},
        {"name": "fresh"},
        {"name": "two", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"},
        {"name": "two", "version": "2", "state": "LOADING"},
        {"name": "wrong", "version": "", "state": "UNAVAILABLE", "reason": "config.yaml:1:1: not a mapping"},
    ]
    assert same.json() == everything.json()
    assert ready.json() == [{"name": "orca", "version": "1", "state": "READY"}]


async def test_a_wrong_index_body_is_told():
    async with serving(ScriptedRunner()) as server:
        broken = await server.ask("POST", "/v2/repository/index", b"{")
        wrong = await server.post("/v2/repository/index", {"ready": "yes"})
    assert broken.status == 500
    assert broken.json()["error"].startswith("failed to parse the request JSON buffer")
    assert (wrong.status, wrong.json()) == (400, {"error": "`ready` must be true or false"})


async def test_load_and_unload_answer_200_without_a_body():
    runner = ScriptedRunner()
    async with serving(runner) as server:
        load = await server.ask("POST", "/v2/repository/models/orca/load", b"")
        unload = await server.post(
            "/v2/repository/models/owner/repo/unload", {"parameters": {"unload_dependents": True}}
        )
    assert [(answer.status, answer.body) for answer in (load, unload)] == [(200, b"")] * 2
    assert (runner.loaded, runner.unloaded) == (["orca"], ["owner/repo"])


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ModelNotFound("x"), 500, "failed to load 'wild', failed to poll from model repository"),
        (LoadFailed("bad weights"), 400, "load failed for model 'wild': bad weights"),
        (ActionNotAllowed(), 503, "explicit model load / unload is not allowed if polling is enabled"),
    ],
)
async def test_a_load_that_fails_is_told_in_tritons_words(error, status, message):
    runner = ScriptedRunner()
    runner.load_error = error
    async with serving(runner) as server:
        answer = await server.post("/v2/repository/models/wild/load", {})
    assert (answer.status, answer.json()) == (status, {"error": message})


async def test_a_failed_load_names_the_version():
    failed = VersionStatus(version=3, state="UNAVAILABLE", reason="bad weights")
    runner = ScriptedRunner(models=[ModelStatus(name="wild", versions=(failed,))])
    runner.load_error = LoadFailed("bad weights")
    async with serving(runner) as server:
        answer = await server.post("/v2/repository/models/wild/load", {})
    assert answer.json() == {
        "error": "load failed for model 'wild': version 3 is at UNAVAILABLE state: bad weights;"
    }


async def test_unloading_what_is_not_there_is_fine():
    runner = ScriptedRunner()
    runner.load_error = ModelNotFound("x")
    async with serving(runner) as server:
        assert (await server.post("/v2/repository/models/wild/unload", {})).status == 200


@pytest.mark.parametrize(
    ("parameters", "status", "message"),
    [
        ({"foo": 1}, 500, "unrecognized load parameter 'foo'."),
        ({"config": "{}"}, 501, "load parameter 'config' is not supported by this version of Modelyard"),
        ([], 400, "`parameters` must be an object"),
    ],
)
async def test_parameters_of_a_load_are_not_dropped(parameters, status, message):
    runner = ScriptedRunner()
    async with serving(runner) as server:
        answer = await server.post("/v2/repository/models/orca/load", {"parameters": parameters})
    assert (answer.status, answer.json()) == (status, {"error": message})
    assert runner.loaded == []
