"""What clients of both faces notice of versions that come and go, of names and of queues: the whole server."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import tritonclient.grpc.aio as grpc
import yaml

from tests.serving import Served, free_port, serve

FAST = ("--poll-seconds", "0.1")


def write_model(repository: Path, name: str, *versions: int, **config: Any) -> Path:
    folder = repository / name
    for version in versions or (1,):
        (folder / str(version)).mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"backend": "echo", **config}))
    return folder


def text_tensor(text: str) -> grpc.InferInput:
    tensor = grpc.InferInput("text_input", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode()], dtype=np.object_))
    return tensor


def flag_tensor(name: str) -> grpc.InferInput:
    tensor = grpc.InferInput(name, [1], "BOOL")
    tensor.set_data_from_numpy(np.array([True]))
    return tensor


class Clients:
    """Clients of every face. What they answer is the version that ran, where the face tells it."""

    def __init__(self, served: Served) -> None:
        self.openai = served.async_client
        self.http = httpx.AsyncClient(base_url=served.url, timeout=60)
        self.grpc = grpc.InferenceServerClient(served.grpc_url.removeprefix("grpc://"))

    async def __aenter__(self) -> "Clients":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.openai.close()
        await self.http.aclose()
        await self.grpc.close()

    async def chat(self, model: str = "orca", **given: Any) -> str:
        messages = [{"role": "user", "content": "hello there"}]
        answer = await self.openai.chat.completions.create(model=model, messages=messages, **given)
        return answer.choices[0].message.content or ""

    async def stream(self, model: str = "orca") -> str:
        messages: Any = [{"role": "user", "content": "hello there"}]
        chunks = await self.openai.chat.completions.create(model=model, messages=messages, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks if chunk.choices])

    async def infer(self, model: str = "orca") -> httpx.Response:
        tensor = {"name": "text_input", "shape": [1], "datatype": "BYTES", "data": ["hello there"]}
        return await self.http.post(f"/v2/models/{model}/infer", json={"inputs": [tensor]})

    async def version(self, model: str = "orca") -> int:
        answer = await self.infer(model)
        assert answer.status_code == 200, answer.text
        return int(answer.json()["model_version"])

    async def generated(self, model: str = "orca") -> int:
        """The version that streams over HTTP."""
        body = {"text_input": "hello there", "stream": True}
        answer = await self.http.post(f"/v2/models/{model}/generate_stream", json=body)
        events = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n") if line]
        assert (
            answer.status_code == 200 and "".join(event["text_output"] for event in events) == "hello there"
        )
        (version,) = {event["model_version"] for event in events}
        return int(version)

    async def inferred(self, model: str = "orca") -> int:
        """The version that answers over gRPC."""
        return int((await self.grpc.infer(model, [text_tensor("hello there")])).get_response().model_version)

    async def streamed(self, model: str = "orca") -> int:
        """The version that streams over gRPC."""

        async def request() -> AsyncIterator[dict[str, Any]]:
            yield {"model_name": model, "inputs": [text_tensor("hello there"), flag_tensor("stream")]}

        versions, text = set(), ""
        async for result, error in self.grpc.stream_infer(request()):
            assert error is None, error
            versions.add(result.get_response().model_version)
            text += result.as_numpy("text_output")[0].decode()
        assert text == "hello there"
        (version,) = versions
        return int(version)

    async def served(self, model: str, version: int) -> int:
        """How many requests a version has answered."""
        text = (await self.http.get("/metrics")).text
        labels = re.escape(f'{{model="{model}",version="{version}"}}')
        found = re.search(rf"^nv_inference_request_success{labels} (\d+)$", text, re.M)
        return int(found[1]) if found else 0


async def test_versions_take_over_under_load_and_no_client_notices(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "models", "orca", 1, delay_s=0.002)
    with serve(tmp_path / "models", tmp_path / "state", *FAST, "--grpc-port", str(free_port())) as served:
        async with Clients(served) as clients:
            await clients.chat()
            is_done = asyncio.Event()
            versions: list[list[int]] = []  # of each client, in order

            async def keep_asking(ask: Callable[[], Awaitable[int]]) -> None:
                versions.append(seen := [1])
                while not is_done.is_set():
                    seen.append(await ask())

            async def keep_talking(ask: Callable[[], Awaitable[str]]) -> None:
                while not is_done.is_set():
                    assert await ask() == "hello there"

            async with asyncio.TaskGroup() as group:
                asking = (clients.version, clients.generated, clients.inferred, clients.streamed)
                for ask in asking * 2:
                    group.create_task(keep_asking(ask))
                for talk in (clients.chat, clients.stream):
                    group.create_task(keep_talking(talk))
                for version in (2, 3, 4):
                    (folder / str(version)).mkdir()
                    while len(versions) < 8 or not all(seen.count(version) > 2 for seen in versions):
                        await asyncio.sleep(0.01)
                is_done.set()
            assert all(seen == sorted(seen) for seen in versions), "an old version came back"
            assert all(set(seen) == {1, 2, 3, 4} for seen in versions)
            rows = (await clients.http.get("/v2/models/orca/stats")).json()["model_stats"]
            assert [(row["version"], row["inference_stats"]["fail"]["count"]) for row in rows] == [("4", 0)]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("faces")
    models = root / "models"
    write_model(
        models,
        "split",
        1,
        2,
        preload=True,
        version_policy={"all": {}},
        default_version={"weights": {"1": 1, "2": 1}},
    )
    write_model(models, "named", aliases=["nickname", "acme/nick"])
    write_model(models, "off", disabled=True)
    write_model(models, "cold", warmup=["explode"], fail={"row": "explode"})
    one_lane = {"max_lanes": 1, "max_queue_size": 0}
    write_model(models, "busy", delay_s=0.01, scheduler=one_lane)
    write_model(models, "levels", scheduler={"priority_levels": 3})
    with serve(models, root / "state", "--grpc-port", str(free_port())) as running:
        yield running


async def test_every_face_shares_requests_out_between_versions(served: Served) -> None:
    async with Clients(served) as clients:
        await clients.chat("split:1")
        await clients.chat("split:2")
        for ask in (clients.version, clients.generated, clients.inferred, clients.streamed):
            assert {await ask("split") for _ in range(40)} == {1, 2}
        before = [await clients.served("split", version) for version in (1, 2)]
        for _ in range(60):
            await clients.chat("split", max_tokens=1)
        after = [await clients.served("split", version) for version in (1, 2)]
    gained = [new - old for old, new in zip(before, after, strict=True)]
    assert sum(gained) == 60 and min(gained) > 0


async def test_one_user_stays_with_one_version(served: Served) -> None:
    async with Clients(served) as clients:
        before = [await clients.served("split", version) for version in (1, 2)]
        for _ in range(20):
            await clients.chat("split", max_tokens=1, user="alice")
        after = [await clients.served("split", version) for version in (1, 2)]
    assert sorted(new - old for old, new in zip(before, after, strict=True)) == [0, 20]


@pytest.mark.parametrize("name", ["named", "nickname", "acme/nick", "nickname:1"])
async def test_an_alias_is_the_model_on_both_faces(served: Served, name: str) -> None:
    async with Clients(served) as clients:
        assert await clients.chat(name) == "hello there"
        answer = await clients.infer(name.replace(":", "/versions/"))
    assert (answer.status_code, answer.json()["model_name"]) == (200, "named")


@pytest.mark.parametrize(
    ("model", "status", "kserve_status", "words"),
    [
        ("off", 403, 403, "disabled in its config.yaml"),
        ("cold", 503, 400, "the warm-up request failed: echo fails this sequence"),
    ],
)
async def test_what_cannot_be_served_says_why_on_both_faces(
    served: Served, model: str, status: int, kserve_status: int, words: str
) -> None:
    async with Clients(served) as clients:
        with pytest.raises(openai.APIStatusError, match=words) as caught:
            await clients.chat(model)
        answer = await clients.infer(model)
        ready = await clients.http.get(f"/v2/models/{model}/ready")
    assert caught.value.status_code == status
    assert (answer.status_code, ready.status_code) == (kserve_status, 400)
    assert words in answer.json()["error"]


async def test_a_full_queue_is_told_in_each_faces_words(served: Served) -> None:
    async with Clients(served) as clients:
        messages: Any = [{"role": "user", "content": "on and on"}]
        extra = {"ignore_eos": True}
        stream = await clients.openai.chat.completions.create(
            model="busy", messages=messages, stream=True, max_tokens=3000, extra_body=extra
        )
        await anext(aiter(stream))
        with pytest.raises(openai.RateLimitError, match="max_queue_size is 0") as caught:
            await clients.chat("busy")
        answer = await clients.infer("busy")
        await stream.close()
    assert caught.value.code == "queue_full" and int(caught.value.response.headers["retry-after"]) >= 1
    assert answer.status_code == 503 and answer.json()["error"].endswith("Exceeds maximum queue size")


@pytest.mark.parametrize(
    ("asked", "used"),
    [("auto", "default"), ("default", "default"), ("flex", "flex"), ("priority", "priority")],
)
async def test_the_service_tier_that_was_used_is_told(served: Served, asked: Any, used: str) -> None:
    messages: Any = [{"role": "user", "content": "hello"}]
    async with served.async_client as client:
        answer = await client.chat.completions.create(model="levels", messages=messages, service_tier=asked)
    assert answer.service_tier == used


async def test_a_priority_that_is_no_level_is_refused_by_name(served: Served) -> None:
    async with Clients(served) as clients:
        assert await clients.chat("levels", extra_body={"priority": 3}) == "hello there"
        with pytest.raises(openai.BadRequestError, match=r"levels 1 .* to 3") as caught:
            await clients.chat("levels", extra_body={"priority": 4})
    assert caught.value.param == "priority"
