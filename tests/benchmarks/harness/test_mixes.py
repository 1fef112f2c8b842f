"""The work that the harness makes, before anything is sent."""

from pathlib import Path

import pytest

from benchmarks.harness.mixes import MIXES, MixError, from_file, sessions
from benchmarks.harness.run import Wanted, plan_work
from benchmarks.harness.work import Arrival, Session


def make(name: str, *, seed: int = 1, count: int = 6, ignore_eos: bool = True) -> list[Session]:
    mix = MIXES[name]
    return sessions(mix, mix.sizes, seed=seed, count=count, ignore_eos=ignore_eos)


@pytest.mark.parametrize("name", MIXES)
def test_a_seed_makes_the_same_work_and_another_seed_other_work(name: str) -> None:
    assert make(name) == make(name)
    assert make(name) != make(name, seed=2)


@pytest.mark.parametrize("name", ["chat", "long-prompt", "structured"])
def test_no_two_requests_have_a_prompt_in_common(name: str) -> None:
    asked = [one.calls[0].body["messages"][1]["content"].split()[:4] for one in make(name, count=20)]
    assert len({tuple(words) for words in asked}) == 20


def test_a_shared_prefix_is_the_same_for_all_and_what_follows_is_not() -> None:
    made = [one.calls[0].body["messages"] for one in make("shared-prefix")]
    assert len({messages[0]["content"] for messages in made}) == 1
    assert len({messages[1]["content"] for messages in made}) == len(made)


def test_exact_lengths_are_asked_for_only_where_the_server_can_keep_them() -> None:
    exact, free = make("chat")[0].calls[0], make("chat", ignore_eos=False)[0].calls[0]
    assert exact.tokens == exact.body["max_tokens"] and exact.body["ignore_eos"]
    assert free.tokens is None and "ignore_eos" not in free.body
    assert make("structured")[0].calls[0].tokens is None


def test_a_conversation_counts_every_turn_as_a_request() -> None:
    work = plan_work(Wanted(mix="multi-turn", requests=10, seed=3, arrival=Arrival(clients=2)))
    assert [len(one.calls) for one in work.sessions] == [4, 4, 4]
    assert work.plan.sessions == 3 and work.plan.seed == 3


def test_the_warm_up_is_other_work() -> None:
    work = plan_work(Wanted(seed=3, requests=4, warm_up=4))
    assert not {str(one) for one in work.warm_up} & {str(one) for one in work.sessions}


def test_a_file_of_requests_is_sent_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text('{"prompt": "a", "max_tokens": 3}\n\n{"messages": [], "seed": 1}\n{"input": "x"}\n')
    calls = [one.calls[0] for one in from_file(path)]
    assert [call.path for call in calls] == ["/completions", "/chat/completions", "/embeddings"]
    assert calls[0].body["max_tokens"] == 3 and calls[0].body["stream_options"] == {"include_usage": True}
    assert calls[2].body == {"input": "x", "stream": False}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no requests"),
        ('{"prompt": 1}\n[1]', "own.jsonl:2: not a JSON object"),
        ('{"text": "a"}', "own.jsonl:1: needs `messages`, `prompt` or `input`"),
    ],
)
def test_a_file_that_holds_no_requests_is_refused_with_its_line(
    tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text(text)
    with pytest.raises(MixError, match=words):
        from_file(path)


def test_an_unknown_mix_is_refused_with_those_there_are() -> None:
    with pytest.raises(MixError, match="no mix 'chatt' and no such file; there are chat, long-prompt"):
        plan_work(Wanted(mix="chatt"))
