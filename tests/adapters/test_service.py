"""What the endpoints share."""

import threading

import pytest
from starlette.requests import Request

from adapters.openai.service import Service
from adapters.settings import AppSettings
from tests.adapters.support import ScriptedRunner, ask_user, serving


@pytest.mark.parametrize(("body_bytes", "is_aside"), [(1000, False), (1_000_000, True)])
async def test_what_is_made_of_a_large_body_is_made_on_another_thread(body_bytes: int, is_aside: bool):
    request = Request({"type": "http", "headers": [], "state": {"body_bytes": body_bytes}})
    thread = await Service(ScriptedRunner(), AppSettings()).aside(request, threading.current_thread)
    assert (thread is not threading.main_thread()) == is_aside


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", ask_user("x" * 200_000)),
        ("/v1/completions", {"prompt": ["x" * 100_000, "y" * 100_000]}),
        ("/v1/responses", {"input": [{"role": "user", "content": "x" * 200_000}]}),
        ("/v1/messages", {"max_tokens": 5, "messages": [{"role": "user", "content": "x" * 200_000}]}),
        ("/v1/embeddings", {"input": "x" * 200_000}),
        ("/v1/edits", {"input": "x" * 200_000, "instruction": "y"}),
        ("/v1/tokenize", {"prompt": "x" * 200_000}),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
async def test_large_bodies_are_read_whole_and_their_mistakes_told(path: str, body: dict[str, object]):
    async with serving(ScriptedRunner()) as server:
        fine = await server.post(path, body)
        wrong = await server.post(path, body | {"model": 5})
    assert fine.status == 200, fine.body[:300]
    assert (wrong.status, b"`model`" in wrong.body) == (400, True)
