"""Responses that are kept: the file by itself, and what clients can ask of it."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest

from adapters.openai.responses.items import InputText, Item, MessageItem, OutputText
from adapters.openai.responses.store import ResponseStore, StoreError
from adapters.settings import AppSettings
from runner.errors import WorkerCrashed
from runner.wire.requests import ChatPrompt, Delta
from tests.adapters.support import Script, ScriptedRunner, accepted, finished, parse_answer, says, serving

DAY = 86400.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "responses.db"


def open_store(path: Path, clock: Clock, *, max_count: int = 1000) -> ResponseStore:
    return ResponseStore(path, max_age_s=30 * DAY, max_count=max_count, clock=clock)


def asked(text: str) -> MessageItem:
    return MessageItem(id=f"in_{text}", status="completed", role="user", content=[InputText(text=text)])


def said(text: str) -> MessageItem:
    return MessageItem(
        id=f"out_{text}", status="completed", role="assistant", content=[OutputText(text=text)]
    )


async def put(store: ResponseStore, id: str, previous: str | None = None, *, owner: str = "") -> None:
    response = msgspec.json.encode({"id": id, "output": [said(id)]})
    await store.put(id, owner=owner, previous=previous, response=response, given=[asked(id)])


async def told(store: ResponseStore, id: str, *, owner: str = "") -> list[Any] | None:
    """The texts of the conversation up to this response."""
    items = await store.conversation(id, owner=owner)
    return None if items is None else [text(item) for item in items]


def text(item: Item) -> str:
    assert isinstance(item, MessageItem)
    assert not isinstance(item.content, str)
    [part] = item.content
    assert isinstance(part, (InputText, OutputText))
    return f"{item.role}: {part.text}"


def rows(path: Path) -> set[str]:
    database = sqlite3.connect(path)
    try:
        return {id for (id,) in database.execute("SELECT id FROM responses")}
    finally:
        database.close()


async def test_a_response_is_found_after_a_restart(path, clock):
    async with open_store(path, clock) as store:
        await put(store, "a")
    async with open_store(path, clock) as store:
        kept = await store.get("a", owner="")
        assert kept is not None
        assert msgspec.json.decode(kept.response)["id"] == "a"
        assert kept.input == [asked("a")]
        assert await store.get("b", owner="") is None


async def test_a_conversation_is_told_from_its_beginning(path, clock):
    async with open_store(path, clock) as store:
        await put(store, "a")
        await put(store, "b", "a")
        await put(store, "other", "a")
        await put(store, "c", "b")
        assert await told(store, "c") == [
            "user: a",
            "assistant: a",
            "user: b",
            "assistant: b",
            "user: c",
            "assistant: c",
        ]


async def test_a_deleted_response_stays_for_those_that_build_on_it_only(path, clock):
    async with open_store(path, clock) as store:
        await put(store, "a")
        await put(store, "b", "a")
        assert await store.delete("a", owner="")
        assert await store.get("a", owner="") is None
        assert await told(store, "a") is None
        assert not await store.delete("a", owner="")
        assert await told(store, "b") == ["user: a", "assistant: a", "user: b", "assistant: b"]
        assert rows(path) == {"a", "b"}
        assert await store.delete("b", owner="")
    assert rows(path) == set()


async def test_a_conversation_whose_beginning_is_gone_is_not_told(path, clock):
    async with open_store(path, clock) as store:
        await put(store, "a")
        await store.delete("a", owner="")
        await put(store, "b", "a")  # as one does that was being made meanwhile
        assert await store.get("b", owner="") is not None
        assert await told(store, "b") is None


async def test_old_responses_are_forgotten_and_live_conversations_keep_their_beginning(path, clock):
    async with open_store(path, clock) as store:
        await put(store, "old")
        await put(store, "root")
        clock.now += 20 * DAY
        await put(store, "leaf", "root")
        clock.now += 11 * DAY
        assert await store.get("old", owner="") is None
        assert await store.get("root", owner="") is None
        assert await told(store, "leaf") == ["user: root", "assistant: root", "user: leaf", "assistant: leaf"]
    async with open_store(path, clock):
        assert rows(path) == {"root", "leaf"}
    clock.now += 20 * DAY
    async with open_store(path, clock):
        assert rows(path) == set()


async def test_no_more_than_so_many_are_kept(path, clock):
    async with open_store(path, clock, max_count=10) as store:
        for number in range(64):
            await put(store, f"r{number}")
        assert rows(path) == {f"r{number}" for number in range(54, 64)}


async def test_nobody_finds_the_response_of_another(path, clock):
    async with open_store(path, clock) as store:
        await put(store, "a", owner="alice")
        assert await store.get("a", owner="bob") is None
        assert await told(store, "a", owner="bob") is None
        assert not await store.delete("a", owner="bob")
        assert await told(store, "a", owner="alice") == ["user: a", "assistant: a"]


async def test_many_at_once_do_not_get_in_each_others_way(path, clock):
    async with open_store(path, clock) as store:
        await put(store, "root")
        await asyncio.gather(*(put(store, f"r{number}", "root") for number in range(50)))
        found = await asyncio.gather(*(told(store, f"r{number}") for number in range(50)))
    assert [texts and texts[2] for texts in found] == [f"user: r{number}" for number in range(50)]


async def test_a_put_that_is_cancelled_is_done_all_the_same(path, clock):
    async with open_store(path, clock) as store:
        with locked(path):
            putting = asyncio.create_task(put(store, "a"))
            await asyncio.sleep(0)
            putting.cancel()
            await asyncio.wait([putting])
    assert rows(path) == {"a"}


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """While another process writes to the file."""
    database = sqlite3.connect(path)
    database.execute("BEGIN IMMEDIATE")
    yield
    database.rollback()
    database.close()


async def test_the_server_goes_on_while_the_file_is_locked(path, clock):
    runner = ScriptedRunner(says("a"))
    async with open_store(path, clock) as store, serving(runner, store=store) as server:
        with locked(path):
            keeping = asyncio.create_task(server.post("/v1/responses", {"input": "Hi"}))
            await runner.closed.wait()  # all is said; what remains is to keep it
            for _ in range(3):
                assert (await server.get("/health")).status == 200
            assert not keeping.done()
        answer = (await keeping).json()
    assert rows(path) == {answer["id"]}


@pytest.mark.parametrize("content", [None, b"not a database at all, but long enough to be read as one" * 20])
def test_a_file_that_cannot_be_used_is_told(tmp_path, clock, content):
    path = tmp_path / "missing" / "x.db" if content is None else tmp_path / "x.db"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StoreError, match=r"x\.db cannot be used to keep responses"):
        open_store(path, clock)


async def test_only_its_owner_can_read_the_file(path, clock):
    async with open_store(path, clock) as store:
        await put(store, "a")
        assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}


def test_a_file_of_a_later_version_is_left_alone(path, clock):
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(StoreError, match="layout 99"):
        open_store(path, clock)


async def test_a_response_goes_on_with_the_one_before_and_without_its_instructions(path, clock):
    runner = ScriptedRunner(says("Hello", "!"))
    async with (
        open_store(path, clock) as store,
        serving(runner, store=store) as server,
        server.openai() as client,
    ):
        first = await client.responses.create(model="orca", input="Hi", instructions="Be brief.")
        second = await client.responses.create(
            model="orca", input="And?", previous_response_id=first.id, instructions="Be kind."
        )
        counted = await client.responses.input_tokens.count(
            model="orca", input="And?", previous_response_id=first.id
        )
    prompt = runner.request.prompt
    assert isinstance(prompt, ChatPrompt)
    assert list(prompt.messages) == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "And?"},
    ]
    assert second.previous_response_id == first.id
    assert counted.input_tokens == len("<user>Hi<assistant>Hello!<user>And?")


@pytest.mark.parametrize("stream", [False, True])
async def test_what_was_answered_is_what_is_kept(path, clock, stream):
    async with (
        open_store(path, clock) as store,
        serving(ScriptedRunner(says("a", "b")), store=store) as server,
        server.openai() as client,
    ):
        if stream:
            async with client.responses.stream(model="orca", input="Hi") as events:
                async for event in events:
                    if event.type == "response.completed":  # it is there as soon as this is
                        kept = await client.responses.retrieve(event.response.id)
                answer = await events.get_final_response()
        else:
            answer = await client.responses.create(model="orca", input="Hi")
            kept = await client.responses.retrieve(answer.id)
        assert kept.output_text == answer.output_text == "ab"
        assert kept.output[0].id == answer.output[0].id
        assert kept.usage == answer.usage
        assert (kept.model_extra or {})["store"] is True
        await client.responses.delete(answer.id)
        with pytest.raises(openai.NotFoundError, match=answer.id):
            await client.responses.retrieve(answer.id)


async def test_a_response_is_not_kept_where_the_client_says_so(path, clock):
    async with (
        open_store(path, clock) as store,
        serving(ScriptedRunner(says("a")), store=store) as server,
        server.openai() as client,
    ):
        answer = await client.responses.create(model="orca", input="Hi", store=False)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(answer.id)
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(model="orca", input="And?", previous_response_id=answer.id)
    assert (caught.value.code, caught.value.param) == ("previous_response_not_found", "previous_response_id")
    assert rows(path) == set()


async def test_input_items_are_listed_in_pages(path, clock):
    given = [{"role": "user", "content": f"number {number}"} for number in range(5)]
    given.append({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"})
    given.append({"type": "function_call_output", "call_id": "c", "output": "done"})
    given.append({"role": "assistant", "content": "So."})
    async with (
        open_store(path, clock) as store,
        serving(ScriptedRunner(says("a")), store=store) as server,
        server.openai() as client,
    ):
        answer = await client.responses.create(model="orca", input=given)
        items = client.responses.input_items
        page = await items.list(answer.id, limit=3)
        everything = [item async for item in items.list(answer.id, limit=3)]
        forward = [item async for item in items.list(answer.id, limit=3, order="asc")]
        raw = (await server.get(f"/v1/responses/{answer.id}/input_items?limit=3")).json()
    assert [item.type for item in page.data] == ["message", "function_call_output", "function_call"]
    assert [item.id for item in everything] == [item.id for item in reversed(forward)]
    assert len(forward) == 8
    assert (raw["has_more"], raw["first_id"], raw["last_id"]) == (True, page.data[0].id, page.data[2].id)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("order=up", "order"),
        ("after=x", "after"),
    ],
)
async def test_a_page_that_cannot_be_is_refused(path, clock, query, param):
    async with (
        open_store(path, clock) as store,
        serving(ScriptedRunner(says("a")), store=store) as server,
    ):
        made = (await server.post("/v1/responses", {"input": "Hi"})).json()
        answer = await server.get(f"/v1/responses/{made['id']}/input_items?{query}")
    assert (answer.status, answer.json()["error"]["param"]) == (400, param)


async def test_a_kept_response_is_neither_streamed_nor_cancelled(path, clock):
    async with (
        open_store(path, clock) as store,
        serving(ScriptedRunner(says("a")), store=store) as server,
        server.openai() as client,
    ):
        answer = await client.responses.create(model="orca", input="Hi")
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.retrieve(answer.id, stream=True)
        assert caught.value.param == "stream"
        with pytest.raises(openai.BadRequestError, match="background"):
            await client.responses.cancel(answer.id)


@pytest.mark.parametrize("other", ["name=bob", ""])
async def test_a_response_belongs_to_the_name_of_the_key_that_made_it(path, clock, tmp_path, other):
    keys = tmp_path / "keys"
    keys.write_text(f"one name=alice\ntwo {other}\nthree name=alice\n")
    async with (
        open_store(path, clock) as store,
        serving(ScriptedRunner(says("a")), AppSettings(api_key_file=keys), store=store) as server,
        server.openai("one") as alice,
        server.openai("two") as bob,
        server.openai("three") as alice_again,
    ):
        answer = await alice.responses.create(model="orca", input="Hi")
        with pytest.raises(openai.NotFoundError):
            await bob.responses.retrieve(answer.id)
        with pytest.raises(openai.BadRequestError):
            await bob.responses.create(model="orca", input="x", previous_response_id=answer.id)
        assert (await alice_again.responses.retrieve(answer.id)).id == answer.id


async def test_a_key_without_a_name_keeps_its_responses_when_lines_change_places(path, clock, tmp_path):
    keys = tmp_path / "keys"
    settings = AppSettings(api_key_file=keys)
    keys.write_text("one\ntwo\n")
    async with open_store(path, clock) as store:
        async with (
            serving(ScriptedRunner(says("a")), settings, store=store) as server,
            server.openai("one") as one,
        ):
            answer = await one.responses.create(model="orca", input="Hi")
        keys.write_text("two\none\n")
        async with (
            serving(ScriptedRunner(says("a")), settings, store=store) as server,
            server.openai("one") as one,
            server.openai("two") as two,
        ):
            assert (await one.responses.retrieve(answer.id)).id == answer.id
            with pytest.raises(openai.NotFoundError):
                await two.responses.retrieve(answer.id)


async def test_a_response_that_cannot_be_kept_is_an_error(path, clock, caplog):
    def script(request):
        yield accepted()
        yield Delta(0, "a", (1,))
        yield sent
        yield Delta(0, "b", (2,), finish="stop")
        yield finished(2)

    sent = asyncio.Event()
    async with open_store(path, clock) as store, serving(ScriptedRunner(script), store=store) as server:
        database = sqlite3.connect(path)
        database.execute("DROP TABLE responses")
        database.close()
        reader, writer = await server.send("POST", "/v1/responses", {"input": "Hi", "stream": True})
        await reader.readuntil(b"output_text.delta")
        sent.set()
        streamed = await reader.read()
        writer.close()
        plain = await server.post("/v1/responses", {"input": "Hi"})
    assert b"event: response.failed" in streamed
    assert b"response.completed" not in streamed
    assert (plain.status, plain.json()["error"]["code"]) == (500, "internal_error")
    assert "no such table" in caplog.text


def interrupted(*rest: Any) -> Script:
    def script(request: Any) -> Any:
        yield accepted()
        yield Delta(0, "a", (1,))
        yield from rest

    return script


async def test_a_response_that_failed_is_kept_as_its_client_saw_it(path, clock):
    sent = asyncio.Event()
    runner = ScriptedRunner(interrupted(sent, WorkerCrashed("it died")))
    async with open_store(path, clock) as store, serving(runner, store=store) as server:
        reader, writer = await server.send("POST", "/v1/responses", {"input": "Hi", "stream": True})
        begun = await reader.readuntil(b"output_text.delta")
        sent.set()
        *_, last = parse_answer(begun + await reader.read()).body.strip().split(b"\n\n")
        writer.close()
        failed = msgspec.json.decode(last.split(b"data: ")[1])
        kept = (await server.get(f"/v1/responses/{failed['response']['id']}")).json()
        plain = await server.post("/v1/responses", {"input": "Hi"})
    assert failed["type"] == "response.failed"
    assert kept == failed["response"]
    assert (kept["status"], kept["error"]["message"]) == ("failed", "it died")
    assert plain.status == 500
    assert len(rows(path)) == 1  # what failed before its client knew of it is not


async def test_a_response_whose_client_left_is_kept_as_cancelled(path, clock):
    never = asyncio.Event()
    runner = ScriptedRunner(interrupted(never))
    async with open_store(path, clock) as store, serving(runner, store=store) as server:
        reader, writer = await server.send("POST", "/v1/responses", {"input": "Hi", "stream": True})
        told = await reader.readuntil(b"output_text.delta")
        writer.close()
        await runner.closed.wait()
        id = told.split(b'"id":"resp_')[1].split(b'"')[0].decode()
        while (answer := await server.get(f"/v1/responses/resp_{id}")).status == 404:
            await asyncio.sleep(0.01)
    assert answer.json()["status"] == "cancelled"


async def test_a_stream_that_failed_before_its_first_token_keeps_nothing(path, clock):
    runner = ScriptedRunner(lambda request: [accepted(), WorkerCrashed("it died")])
    async with open_store(path, clock) as store, serving(runner, store=store) as server:
        answer = await server.post("/v1/responses", {"input": "Hi", "stream": True})
    assert answer.status == 500
    assert rows(path) == set()
