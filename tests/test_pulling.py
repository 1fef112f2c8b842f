"""Models that requests name as a hub has them, over every face, while clients wait for the download."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anthropic
import psutil
import pytest

from adapters.settings import AppSettings
from backends.registry import Registry
from runner.runner import Runner
from runner.settings import RunnerSettings
from tests.adapters.support import Server, serving
from tests.hub_server import ROOT, Fault, HubServer
from tests.repository.gguf_files import write_gguf
from tests.runner.asking import until
from tests.serving import serve

DEMO = ROOT / "models/demo/1/model.gguf"
NAME = "acme/demo-GGUF"
MESSAGES = [{"role": "user", "content": "Hello"}]
STREAMS = {
    "/v1/chat/completions": {"messages": MESSAGES, "max_tokens": 4},
    "/v1/completions": {"prompt": "Hello", "max_tokens": 4},
    "/v1/responses": {"input": "Hello", "max_output_tokens": 16},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 4},
}

ENDS = {
    "/v1/chat/completions": b"data: [DONE]",
    "/v1/completions": b"data: [DONE]",
    "/v1/responses": b"event: response.incomplete",
    "/v1/messages": b"event: message_stop",
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add_demo(NAME)
        for name, value in hub.environment(tmp_path / "hf").items():
            monkeypatch.setenv(name, value)
        yield hub


@contextlib.asynccontextmanager
async def yard(tmp_path: Path, *, keys: str = "", **given: object) -> AsyncIterator[tuple[Server, Runner]]:
    """A server with one model of its own, that may pull."""
    (tmp_path / "models" / "echo" / "1").mkdir(parents=True)
    (tmp_path / "models" / "echo" / "config.yaml").write_text("backend: echo\n")
    fields = {"allow_pull": True, "keep_free_bytes": 1, **given}
    chosen = RunnerSettings(repository=tmp_path / "models", state_dir=tmp_path / "state", **fields)
    settings = AppSettings(keepalive_s=0.05)
    if keys:
        (tmp_path / "keys").write_text(keys)
        settings = AppSettings(keepalive_s=0.05, api_key_file=tmp_path / "keys")
    async with Runner(chosen, Registry()) as runner, serving(runner, settings) as server:
        yield server, runner


def is_downloading(runner: Runner, name: str = NAME) -> bool:
    rows = [row for row in runner.index() if row.name == name]
    return any(" % (" in version.reason for row in rows for version in row.versions)


@pytest.mark.parametrize("path", STREAMS)
async def test_a_stream_that_waits_for_a_download_hears_of_it(
    tmp_path: Path, hub: HubServer, path: str
) -> None:
    hub.faults.append(Fault(kind="stall", after=4 << 20))
    async with yard(tmp_path) as (server, _):
        reader, writer = await server.send("POST", path, {"model": NAME, "stream": True, **STREAMS[path]})
        await reader.readuntil(b": downloading 24 % (4.2 of 16.9 MB)\n\n")
        hub.closing.set()
        rest = await reader.read()
        writer.close()
    assert ENDS[path] in rest


async def test_official_clients_read_such_streams(tmp_path: Path, hub: HubServer) -> None:
    hub.faults.append(Fault(kind="stall", after=4 << 20))
    async with yard(tmp_path) as (server, runner), asyncio.TaskGroup() as group:
        tasks = [group.create_task(read(server)) for read in (chat, response, message)]
        await until(lambda: is_downloading(runner))
        hub.closing.set()
    assert all(task.result() for task in tasks)


async def chat(server: Server) -> str:
    async with server.openai() as client:
        stream = await client.chat.completions.create(
            model=NAME, messages=MESSAGES, max_tokens=4, stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


async def response(server: Server) -> str:
    async with server.openai(strict=False) as client:
        stream = await client.responses.create(model=NAME, input="Hello", max_output_tokens=16, stream=True)
        return "".join([event.delta async for event in stream if event.type == "response.output_text.delta"])


async def message(server: Server) -> str:
    async with (
        anthropic.AsyncAnthropic(
            base_url=f"http://127.0.0.1:{server.port}", api_key="none", max_retries=0
        ) as client,
        client.messages.stream(model=NAME, messages=MESSAGES, max_tokens=4) as stream,
    ):
        return "".join([text async for text in stream.text_stream])


async def test_what_the_hub_does_not_have_is_404_on_every_face(tmp_path: Path, hub: HubServer) -> None:
    body = {"model": "acme/none", "messages": MESSAGES, "max_tokens": 4}
    async with yard(tmp_path) as (server, _):
        answers = [
            await server.post("/v1/chat/completions", body),
            await server.post("/v1/messages", body),
            await server.post("/v2/models/acme/none/generate", {"text_input": "Hello"}),
        ]
    assert [answer.status for answer in answers] == [404, 404, 404]
    assert all(b"there is no acme/none at http" in answer.body for answer in answers)


async def test_kserve_pulls_too_and_says_how_where_it_may_not(tmp_path: Path, hub: HubServer) -> None:
    path, body = f"/v2/models/{NAME}/generate", {"text_input": "Hello", "parameters": {"max_tokens": 2}}
    async with yard(tmp_path / "with") as (server, _):
        assert (await server.post(path, body)).json()["model_name"] == NAME
    asked = len(hub.requests)
    async with yard(tmp_path / "without", allow_pull=False, single_model_fallback="never") as (server, _):
        refused = await server.post(path, body)
        assert (refused.status, "--allow-pull" in refused.json()["error"]) == (404, True)
        openai = await server.post("/v1/chat/completions", {"model": NAME, "messages": MESSAGES})
        assert (openai.status, "--allow-pull" in openai.json()["error"]["message"]) == (404, True)
        load = await server.post(f"/v2/repository/models/{NAME}/load", {})
        assert load.status == 500
    assert len(hub.requests) == asked


async def test_a_key_for_other_models_fetches_nothing(tmp_path: Path, hub: HubServer) -> None:
    keys = f"sk-one models=echo\nsk-two models={NAME}\nsk-three\n"
    body = {"model": NAME, "messages": MESSAGES, "max_tokens": 2}
    async with yard(tmp_path, keys=keys) as (server, _):

        async def ask(key: str, path: str = "/v1/chat/completions") -> int:
            return (await server.post(path, body, {"authorization": f"Bearer {key}"})).status

        assert await ask("sk-one") == 403
        assert await ask("sk-one", f"/v2/models/{NAME}/generate") in (401, 403)
        assert await ask("sk-three", f"/v2/repository/models/{NAME}/load") == 403, "loading is for admins"
        assert not hub.requests
        assert await ask("sk-two") == 200


async def test_a_server_that_is_killed_takes_its_download_along(tmp_path: Path, hub: HubServer) -> None:
    hub.faults.append(Fault(kind="stall", after=4 << 20))
    (tmp_path / "models" / "m").mkdir(parents=True)
    (tmp_path / "models" / "m" / "config.yaml").write_text(f"parameters: {{model: {NAME}}}\npreload: true\n")
    with serve(tmp_path / "models", tmp_path / "state", "--grpc-port", "0") as served:
        await until(hub.stalled.is_set)
        [child] = psutil.Process(served.process.pid).children()
        assert "repository.remote" in child.cmdline()
        served.process.kill()
        served.process.wait()
        await until(lambda: not child.is_running())


async def test_a_stream_hears_again_when_there_is_news(tmp_path: Path, hub: HubServer) -> None:
    (tmp_path / "tiny").mkdir()
    weights = write_gguf(tmp_path / "tiny" / "w.gguf").read_bytes()
    hub.add("acme/slow", {"w.gguf": weights + bytes((8 << 20) - len(weights))})
    hub.faults += [Fault(kind="stall", after=2 << 20), Fault(kind="cut", after=2 << 20, times=None)]
    async with yard(tmp_path) as (server, _):
        reader, writer = await server.send(
            "POST", "/v1/chat/completions", {"model": "acme/slow", "stream": True, "messages": MESSAGES}
        )
        await reader.readuntil(b": downloading 25 %")
        hub.closing.set()
        await reader.readuntil(b": downloading 50 %")
        writer.close()
