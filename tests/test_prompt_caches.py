"""Prompts that outlive the server on disk: with the demo model in llama.cpp, in real worker processes."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from backends.registry import Registry
from runner.errors import LoadFailed
from runner.runner import Runner
from runner.settings import RunnerSettings
from runner.wire.requests import TextPrompt
from tests.runner.asking import Answer, ask

GGUF = Path(__file__).parents[1] / "models" / "demo" / "1" / "model.gguf"
PROMPT = "A model is a folder of the repository, and each version of it a folder with a number. " * 12

Start = Callable[..., AbstractAsyncContextManager[Runner]]


@pytest.fixture
def caches(tmp_path: Path) -> Path:
    return tmp_path / "state" / "prompt-caches" / "tiny"


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts a runner on the demo model with a prompt cache; `config` adds keys to that."""

    @asynccontextmanager
    async def starting(**config: Any) -> AsyncIterator[Runner]:
        folder = tmp_path / "models" / "tiny"
        weights = folder / "1" / "model.gguf"
        if not weights.exists():
            weights.parent.mkdir(parents=True)
            weights.symlink_to(GGUF)
        settings = {
            "context_size": 1024,
            "threads": 1,
            "scheduler": {"max_lanes": 2},
            "prompt_cache_path": "kept",
        }
        (folder / "config.yaml").write_text(yaml.safe_dump({**settings, **config}))
        chosen = RunnerSettings(repository=tmp_path / "models", state_dir=tmp_path / "state", poll_s=0.05)
        async with Runner(chosen, Registry(())) as runner:
            yield runner

    return starting


async def said(runner: Runner, prompt: str = PROMPT, **given: Any) -> Answer:
    return await ask(runner, TextPrompt(prompt), model="tiny", **{"max_tokens": 24, **given})


def cached(answer: Answer) -> int:
    assert answer.finished is not None
    return answer.finished.usage.cached_tokens


def prompt_tokens(answer: Answer) -> int:
    assert answer.finished is not None
    return answer.finished.usage.prompt_tokens


def states(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*.state")}


async def test_the_first_request_after_a_restart_has_its_prompt_cached(start: Start, caches: Path) -> None:
    async with start() as runner:
        before = await said(runner)
        assert cached(before) == 0
    assert len(states(caches / "kept")) == -(-prompt_tokens(before) // 128)
    async with start() as runner:
        after = await said(runner)
    assert cached(after) == prompt_tokens(before) - 1
    assert after.text == before.text


@pytest.mark.parametrize(("keeps_answers", "is_cached"), [(False, False), (True, True)])
async def test_answers_are_kept_only_where_that_is_asked_for(
    start: Start, keeps_answers: bool, is_cached: bool
) -> None:
    async with start(prompt_cache_all=keeps_answers) as runner:
        first = await said(runner)
    async with start(prompt_cache_all=keeps_answers) as runner:
        after = await said(runner, PROMPT + first.text + " And then?")
    assert (cached(after) > prompt_tokens(first)) is is_cached
    assert cached(after) >= prompt_tokens(first) - 2  # where the answer begins other tokens may meet


async def test_a_cache_that_is_only_read_is_never_written(start: Start, caches: Path) -> None:
    async with start() as runner:
        await said(runner)
    before = states(caches)
    async with start(prompt_cache_ro=True) as runner:
        assert cached(await said(runner)) > 0
        await said(runner, "Something else altogether, which is long enough to be kept. " * 4)
    assert before and states(caches) == before


async def test_a_prompt_with_a_salt_never_comes_to_the_disk(start: Start, caches: Path) -> None:
    async with start() as runner:
        assert cached(await said(runner, cache_salt="mine")) == 0
        assert cached(await said(runner, cache_salt="mine")) > 0
    assert not states(caches)


async def test_other_settings_find_nothing(start: Start) -> None:
    async with start() as runner:
        await said(runner)
    async with start(cache_type_k="f32") as runner:
        assert cached(await said(runner)) == 0
    async with start() as runner:
        assert cached(await said(runner)) > 0


async def test_a_damaged_file_costs_only_what_it_held(start: Start, caches: Path) -> None:
    async with start() as runner:
        before = await said(runner)
    largest = max(caches.rglob("*.state"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    data = bytearray(largest.read_bytes())
    data[-100] ^= 0xFF
    largest.write_bytes(data)
    async with start() as runner:
        after = await said(runner)
    assert 0 < cached(after) < prompt_tokens(before) - 1
    assert after.text == before.text


async def test_a_worker_that_is_killed_leaves_whole_files(start: Start, caches: Path) -> None:
    async with start(prompt_cache_all=True) as runner:
        before = await said(runner)
        (worker,) = [each for each in psutil.Process().children() if "runner.worker" in each.cmdline()]
        worker.kill()
    async with start(prompt_cache_all=True) as runner:
        after = await said(runner)
    assert after.text == before.text
    assert not list(caches.rglob("*.part"))


async def test_forgetting_prefixes_deletes_them(start: Start, caches: Path) -> None:
    async with start() as runner:
        await said(runner)
        await runner.reset_cache("tiny")
        assert cached(await said(runner, "Something short")) == 0
    async with start() as runner:
        assert cached(await said(runner)) == 0


@pytest.mark.parametrize("path", ["/tmp/elsewhere", "../elsewhere"])
async def test_a_cache_lies_in_the_state_folder_only(start: Start, path: str) -> None:
    async with start(prompt_cache_path=path) as runner:
        with pytest.raises(LoadFailed, match="below the state folder"):
            await said(runner)
