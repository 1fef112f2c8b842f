"""What LocalAI's fields set, seen to act on a worker: defaults of requests, concurrency groups, limits."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runner.api import RunnerApi
from runner.errors import InsufficientMemory, LoadFailed, Overloaded
from runner.wire.requests import ChatPrompt, GenerateRequest, TextPrompt
from tests.runner.asking import ask, endless
from tests.runner.conftest import MakeRunner, Yard

SHOUT = "{% if loud %}LOUD {% endif %}{% for message in messages %}{{ message.content }}{% endfor %}"


def write(yard: Yard, name: str, text: str) -> Path:
    path = yard.root / name
    path.write_text(text)
    return path


@contextlib.asynccontextmanager
async def busy(runner: RunnerApi, model: str) -> AsyncIterator[None]:
    """A request of the model that runs on and on."""
    events = runner.generate(model, GenerateRequest(**endless()))
    async with contextlib.aclosing(events):  # type: ignore[type-var]
        await anext(events)
        yield


async def test_a_file_at_the_root_is_served(yard: Yard, make_runner: MakeRunner) -> None:
    write(yard, "parrot.yaml", "name: polly\nbackend: echo\nparameters: {max_tokens: 2}\n")
    async with make_runner() as runner:
        answer = await ask(runner, TextPrompt("one two three"), model="polly")
    assert answer.finished is not None and answer.finished.usage.completion_tokens == 2


async def test_models_of_a_list_are_served(yard: Yard, make_runner: MakeRunner) -> None:
    write(yard, "all.yaml", "- {name: a, backend: echo}\n- {name: b, backend: echo, disabled: true}\n")
    async with make_runner() as runner:
        assert (await ask(runner, model="a")).text
        assert {row.name: row.disabled for row in runner.index()} == {"a": False, "b": True}


async def test_an_answer_by_an_alias_is_named_by_it_and_the_next_by_what_it_stands_for_then(
    yard: Yard, make_runner: MakeRunner
) -> None:
    write(yard, "a.yaml", "backend: echo\naliases: [b]\n")
    write(yard, "gpt.yaml", "name: gpt-4\nalias: a\n")
    async with make_runner() as runner:
        answers = [await ask(runner, model=name) for name in ("gpt-4", "a", "b")]
    assert [each.accepted.model for each in answers if each.accepted] == ["gpt-4", "a", "a"]


async def test_variables_of_the_configuration_reach_the_template_until_a_request_gives_its_own(
    yard: Yard, make_runner: MakeRunner
) -> None:
    yard.model(template={"chat": SHOUT}, chat_template_kwargs={"loud": True})
    said = ({"role": "user", "content": "word"},)
    async with make_runner() as runner:
        loud = await runner.tokenize("echo", ChatPrompt(messages=said))
        soft = await runner.tokenize("echo", ChatPrompt(messages=said, template_kwargs={"loud": False}))
    assert (loud.text, soft.text) == ("LOUD word", "word")


async def test_a_grammar_of_the_configuration_binds_answers(yard: Yard, make_runner: MakeRunner) -> None:
    yard.model(grammar='root ::= "yes" | "no"')
    async with make_runner() as runner:
        answer = await ask(runner, TextPrompt("what do you say to that"))
    assert answer.text in ("yes", "no")


async def test_a_load_may_give_other_values_and_files_than_the_file(
    yard: Yard, make_runner: MakeRunner
) -> None:
    two = "{name: b, backend: echo, options: [parallel:3], parameters: {max_tokens: 1}}"
    write(yard, "all.yaml", f"- {{name: a, backend: echo}}\n- {two}\n")
    async with make_runner() as runner:
        await runner.load("b", config='{"parameters": {"max_tokens": 2}}', files={"1/note.txt": b"x"})
        answer = await ask(runner, TextPrompt("one two three"), model="b")
        config = await runner.model_config("b")
    assert answer.finished is not None and answer.finished.usage.completion_tokens == 2
    assert config.max_lanes == 3


async def test_models_of_one_group_are_not_loaded_together(yard: Yard, make_runner: MakeRunner) -> None:
    for name, group in (("a", "big"), ("b", "big"), ("c", "small")):
        write(yard, f"{name}.yaml", f"backend: echo\nconcurrency_groups: [{group}]\n")
    async with make_runner() as runner:
        for name in ("a", "c", "b"):
            await ask(runner, model=name)
        ready = {row.name for row in runner.index() if any(each.state == "READY" for each in row.versions)}
    assert ready == {"b", "c"}


async def test_a_busy_model_is_not_evicted_for_another_of_its_group(
    yard: Yard, make_runner: MakeRunner
) -> None:
    write(yard, "a.yaml", "backend: echo\nconcurrency_groups: [big]\ndelay_s: 0.01\n")
    write(yard, "b.yaml", "backend: echo\nconcurrency_groups: [big]\n")
    async with make_runner() as runner, busy(runner, "a"):
        with pytest.raises(InsufficientMemory, match="b shares a concurrency group with a"):
            await ask(runner, model="b")


async def test_who_is_turned_away_is_told_when_to_come_back(yard: Yard, make_runner: MakeRunner) -> None:
    text = "backend: echo\ndelay_s: 0.01\nlimits: {max_concurrent: 1, retry_after_seconds: 7}\n"
    write(yard, "a.yaml", text)
    async with make_runner() as runner, busy(runner, "a"):
        with pytest.raises(Overloaded) as caught:
            await ask(runner, model="a")
    assert caught.value.retry_after_s == 7


async def test_options_of_another_backend_do_not_reach_the_engine(
    yard: Yard, make_runner: MakeRunner
) -> None:
    write(yard, "a.yaml", "backend: echo\nmmap: true\nnuma: true\ncuda: false\n")
    async with make_runner() as runner:
        assert (await ask(runner, model="a")).text


async def test_remote_code_needs_the_servers_leave_where_there_can_be_any(
    yard: Yard, make_runner: MakeRunner
) -> None:
    write(yard, "a.yaml", "backend: echo\ntrust_remote_code: true\n")
    async with make_runner() as runner:
        with pytest.raises(LoadFailed, match="--allow-remote-code"):
            await ask(runner, model="a")


async def test_a_configuration_says_what_answers_are_like(yard: Yard, make_runner: MakeRunner) -> None:
    write(yard, "a.yaml", "backend: echo\nparameters: {n: 2, echo: true}\n")
    async with make_runner() as runner:
        assert runner.request_defaults("a") == {"n": 2, "echo": True}
        assert runner.request_defaults("nobody") == {}
