"""Conversations and look-up figures, with a real server that serves the echo backend."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import prompt_lookup, servers
from benchmarks.client import Endpoint
from benchmarks.multi_turn import ANSWER_TOKENS, TURNS, conversations
from benchmarks.servers import Server
from benchmarks.sessions import run_sessions


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root: Path = tmp_path_factory.mktemp("sessions")
    (root / "models" / "echo" / "1").mkdir(parents=True)
    (root / "models" / "echo" / "config.yaml").write_text("backend: echo\n")
    with servers.modelyard(root / "models", ["echo"], logs=root / "logs") as running:
        yield running


def test_users_share_a_system_prompt_and_nothing_else() -> None:
    first, second = conversations(2, words_each=5, seed=3, shared_words=20, vocabulary=2048)
    opening, other = first.calls[0].body["messages"], second.calls[0].body["messages"]
    assert [message["role"] for message in opening] == ["system", "user"]
    assert opening[0] == other[0] and opening[1] != other[1]
    assert [len(call.body["messages"]) for call in first.calls] == [2] + [1] * (TURNS - 1)
    alone = conversations(2, words_each=5, seed=3, vocabulary=2048)
    assert [message["role"] for message in alone[0].calls[0].body["messages"]] == ["user"]


async def test_each_turn_is_sent_with_all_before_it_and_kept_with_its_session(server: Server) -> None:
    sessions = conversations(3, words_each=2, seed=5, vocabulary=2048)
    done = await run_sessions(server.endpoint("echo"), sessions, clients=2)
    assert [len(records) for records in done.sessions] == [TURNS] * 3
    assert all(record.error is None for record in done.load.records)
    assert {record.completion_tokens for record in done.load.records} == {ANSWER_TOKENS}
    for records in done.sessions:
        sizes = [record.prompt_tokens for record in records]
        assert all(later - earlier > ANSWER_TOKENS for earlier, later in itertools.pairwise(sizes))


async def test_a_request_that_fails_ends_its_conversation_and_is_counted(server: Server) -> None:
    sessions = conversations(1, words_each=2, seed=6, vocabulary=2048)
    gone = Endpoint(port=server.port, model="echo", prefix="/none")
    done = await run_sessions(gone, sessions, clients=1)
    assert [len(records) for records in done.sessions] == [1]
    assert "404" in str(done.load.records[0].error)


def test_a_loop_is_found_where_it_has_begun_and_goes_on() -> None:
    fresh = [str(number) for number in range(40)]
    round_ = ["a", "b", "c"] * 10
    assert prompt_lookup.loop_in([*fresh, *round_, *fresh], read=6, ahead=20) == 40 + 6
    assert prompt_lookup.loop_in([*fresh, *round_], read=6, ahead=24) == 40 + 6
    assert prompt_lookup.loop_in([*fresh, *round_], read=6, ahead=25) == 0
    assert prompt_lookup.loop_in(fresh, read=6, ahead=20) == 0


async def test_look_up_is_measured_with_and_without_on_the_same_prompts(server: Server) -> None:
    def prompts(repeat: int, clients: int) -> list[prompt_lookup.Session]:
        return [
            prompt_lookup.request(f"once more, {repeat} once more, {repeat} ", 40) for _ in range(clients)
        ]

    found = await prompt_lookup.measure_prompts(server, "echo", prompts, clients=2, repeats=1)
    assert (found.equal, found.answers) == (2, 2)
    assert 0 < found.right <= found.guessed
    with_, without = (found.samples[name][0] for name in (prompt_lookup.WITH, prompt_lookup.WITHOUT))
    assert with_.completion_tokens == without.completion_tokens == 80
    figure = prompt_lookup.figure_of("echo, 2 clients", found, clients=2)
    assert figure.ratio is not None
    assert figure.notes == [
        f"{found.guessed:.0f} tokens guessed, {found.right / found.guessed:.0%} of them right"
    ]


async def test_answers_that_differ_are_told(server: Server) -> None:
    found = prompt_lookup.Measured(
        samples={prompt_lookup.WITH: [], prompt_lookup.WITHOUT: []}, equal=1, answers=3
    )
    assert (
        "only 1 of 3 answers are the same with and without"
        in prompt_lookup.figure_of("x", found, clients=1).notes
    )
