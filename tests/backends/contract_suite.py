"""What every step engine owes the contract: facts about `load`, which loads the one under test.

`test_contract.py` runs them, and those of `contract_streams.py`, over its tables of engines.
"""

import contextlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from backends.contract import (
    EngineError,
    EngineInfo,
    ResultRow,
    Sampling,
    StepEngine,
    TokenLogprobs,
    UnsupportedError,
)
from backends.sampling import pack_mask
from tests.backends.support import GREEDY, PROMPTS, Driver, decode, encode, run, run_greedy

Load = Callable[..., StepEngine]

TEXTS = ("", "words", " leading and trailing \n", "naïve Ωμέγα 漢字", "🧑‍🚀 flies 🚀🚀", "tab\tand\x00nul")
# Drawn with a seed, a text shows any difference in the distributions, not only in the likeliest tokens.
HOT = Sampling(temperature=1.5, seed=7)
CLOSE = 1e-3  # batches of another shape round differently


def prompts_of(engine: StepEngine) -> list[list[int]]:
    return [encode(engine, text) for text in PROMPTS]


def only(engine: StepEngine, *tokens: int) -> bytes:
    allowed = np.zeros(engine.info.vocabulary, dtype=np.bool_)
    allowed[list(tokens)] = True
    return pack_mask(allowed)


def test_loading_reports_progress_and_sane_facts(load: Load) -> None:
    seen: list[float] = []
    engine = load(seen.append, lanes=5, running_lanes=3)
    info = engine.info
    assert isinstance(info, EngineInfo)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert seen[0] >= 0
    assert info.lanes == 5
    assert info.context_tokens == 512
    assert info.kv_tokens >= info.context_tokens
    assert info.eos_ids
    assert all(0 <= token < info.vocabulary for token in info.eos_ids)
    assert info.engine


@pytest.mark.parametrize("text", TEXTS)
def test_text_survives_tokenizing(load: Load, text: str) -> None:
    engine = load()
    assert decode(engine, engine.tokenize(text, special=False)) == text.encode()


def test_control_texts_are_tokens_only_when_parsed(load: Load) -> None:
    engine = load()
    assert engine.info.special_tokens
    for text in engine.info.special_tokens:
        plain, parsed = engine.tokenize(text, special=False), engine.tokenize(text, special=True)
        assert len(parsed) == 1
        assert parsed[0] not in plain
        assert decode(engine, plain) == text.encode()
        assert decode(engine, parsed) == b""
        assert decode(engine, parsed, special=True) == text.encode()


def test_a_batch_answers_as_each_sequence_alone(load: Load) -> None:
    engine = load()
    prompts = prompts_of(engine)
    alone = [run_greedy(engine, [prompt], 16)[0] for prompt in prompts]
    assert run_greedy(engine, prompts, 16) == alone


def test_a_prompt_in_chunks_answers_as_in_one_piece(load: Load) -> None:
    engine = load()
    prompts = prompts_of(engine)
    whole = run(engine, prompts, n=12, sampling=HOT)
    assert run(engine, prompts, n=12, sampling=HOT, chunk=3) == whole


def test_a_prompt_joins_running_sequences_without_changing_them(load: Load) -> None:
    engine = load()
    first, second, _ = prompts_of(engine)
    alone = [run(engine, [prompt], n=12, sampling=HOT)[0] for prompt in (first, second)]
    driver = Driver(engine)
    early = driver.start(first, 3, sampling=HOT)
    driver.run(early, n=4)
    late = driver.start(second, 1, sampling=HOT)
    assert driver.run(early, late, n=12, chunk=5) == alone


def test_a_forked_prefix_answers_as_a_computed_one(load: Load) -> None:
    engine = load()
    prompt = prompts_of(engine)[0]
    other = [*prompt, *encode(engine, "A version")]
    fresh = run(engine, [other], n=12, sampling=HOT)[0]
    driver = Driver(engine)
    source = driver.start(prompt, 0)
    driver.step(source)
    keep = len(prompt) if engine.info.prefix == "tip" else len(prompt) - 2
    assert engine.fork(0, 4, keep)
    target = driver.start(other, 4, sampling=HOT, computed=keep)
    assert driver.run(target, n=12) == [fresh]


def test_forking_from_a_running_lane_leaves_both_right(load: Load) -> None:
    engine = load()
    prompt = prompts_of(engine)[0]
    fresh = run(engine, [prompt], n=10, sampling=HOT)[0]
    branch = [*prompt, *fresh[:6]]
    fresh_branch = run(engine, [branch], n=10, sampling=HOT)[0]
    driver = Driver(engine)
    source = driver.start(prompt, 0, sampling=HOT)
    driver.run(source, n=6)
    assert engine.fork(0, 2, source.computed)
    target = driver.start(branch, 2, sampling=HOT, computed=source.computed)
    assert driver.run(source, target, n=10) == [fresh, fresh_branch]


def test_a_state_saved_in_parts_and_restored_elsewhere_answers_as_a_computed_one(load: Load) -> None:
    engine = load()
    prompt = prompts_of(engine)[0]
    fresh = run(engine, [prompt], n=12, sampling=HOT)[0]
    driver = Driver(engine)
    driver.step(driver.start(prompt, 0))
    keep = len(prompt) - 1
    parts = [(0, 2), (2, keep - 1), (keep - 1, keep)]
    states = [engine.save(0, start, stop) for start, stop in parts]
    if engine.info.prefix != "tokens":
        assert states == [None, None, None]
        return
    engine.truncate(0, 0)
    for (start, _), state in zip(parts, states, strict=True):
        assert state is not None and engine.restore(3, start, state)
    target = driver.start(prompt, 3, sampling=HOT, computed=keep)
    assert driver.run(target, n=12) == [fresh]


def test_a_whole_state_restored_elsewhere_answers_as_a_computed_one(load: Load) -> None:
    engine = load()
    prompt = prompts_of(engine)[0]
    fresh = run(engine, [prompt], n=12, sampling=HOT)[0]
    driver = Driver(engine)
    driver.step(driver.start(prompt[:-1], 0))
    state = engine.save(0, 0, len(prompt) - 1)
    if state is None:
        return  # a lane that cannot be taken out leaves only when it is dropped
    engine.truncate(0, 0)
    assert engine.restore(3, 0, state)
    target = driver.start(prompt, 3, sampling=HOT, computed=len(prompt) - 1)
    assert driver.run(target, n=12) == [fresh]


def test_saving_leaves_the_lane_as_it_was(load: Load) -> None:
    engine = load()
    prompt = prompts_of(engine)[0]
    fresh = run(engine, [prompt], n=10, sampling=HOT)[0]
    driver = Driver(engine)
    lane = driver.start(prompt, 0, sampling=HOT)
    driver.run(lane, n=4)
    engine.save(0, 1, lane.computed)
    assert driver.run(lane, n=10) == [fresh]


def test_a_truncated_lane_goes_on_as_a_fresh_one(load: Load) -> None:
    engine = load()
    prompt, other, _ = prompts_of(engine)
    keep = 3
    changed = [*prompt[:keep], *other]
    fresh = run(engine, [changed], n=12, sampling=HOT)[0]
    driver = Driver(engine)
    driver.run(driver.start(prompt, 0), n=5)
    kept = engine.truncate(0, keep)
    assert kept == (keep if engine.info.prefix == "tokens" else 0)
    assert driver.run(driver.start(changed, 0, sampling=HOT, computed=kept), n=12) == [fresh]


def test_truncating_beyond_the_end_keeps_all(load: Load) -> None:
    engine = load()
    driver = Driver(engine)
    running = driver.start(prompts_of(engine)[0], 0)
    driver.step(running)
    assert engine.truncate(0, running.computed) == running.computed
    assert engine.truncate(1, 0) == 0


def test_a_preempted_sequence_resumes_with_the_same_text(load: Load) -> None:
    engine = load()
    prompt = prompts_of(engine)[1]
    undisturbed = run(engine, [prompt], n=20, sampling=HOT)[0]
    driver = Driver(engine)
    running = driver.start(prompt, 0, sampling=HOT)
    driver.run(running, n=9)
    engine.truncate(0, 0)
    running.computed, running.lane = 0, 5
    assert driver.run(running, n=20, chunk=7) == [undisturbed]


def test_a_seed_reproduces_its_text_and_seeds_differ(load: Load) -> None:
    engine = load()
    prompt = prompts_of(engine)[1]
    texts = [
        run(engine, [prompt], n=16, sampling=Sampling(temperature=1.5, seed=seed))[0] for seed in (1, 2, 3, 1)
    ]
    assert texts[0] == texts[3]
    assert len({tuple(text) for text in texts}) > 1
    batch = run(engine, [prompt] * 3, n=16, sampling=Sampling(temperature=1.5, seed=1))
    assert batch == [texts[0]] * 3


def test_sequences_without_a_seed_differ(load: Load) -> None:
    engine = load()
    texts = run(engine, [prompts_of(engine)[1]] * 8, n=16, sampling=Sampling(temperature=2.0))
    assert len({tuple(text) for text in texts}) > 1


def test_top_k_of_one_is_greedy(load: Load) -> None:
    engine = load()
    prompts = prompts_of(engine)
    sharp = run(engine, prompts, n=8, sampling=Sampling(temperature=1.5, top_k=1, seed=1))
    assert sharp == run_greedy(engine, prompts, 8)


def test_a_bias_of_minus_infinity_bans_a_token(load: Load) -> None:
    engine = load()
    prompt = prompts_of(engine)[0]
    favourite = run_greedy(engine, [prompt], 1)[0][0]
    for temperature in (0.0, 1.5):
        sampling = Sampling(temperature=temperature, seed=3, logit_bias={favourite: -math.inf})
        assert favourite not in run(engine, [prompt], n=12, sampling=sampling)[0]


def test_a_large_bias_forces_a_token(load: Load) -> None:
    engine = load()
    token = encode(engine, "Z")[-1]
    sampling = Sampling(temperature=1.0, seed=3, logit_bias={token: 100.0})
    assert run(engine, [prompts_of(engine)[0]], n=4, sampling=sampling) == [[token] * 4]


def test_the_presence_penalty_counts_the_output_alone(load: Load) -> None:
    engine = load()
    prompt = prompts_of(engine)[1]
    # Greedy over a prompt that repeats a token: only what was drawn is punished.
    sampling = Sampling(temperature=0.0, presence_penalty=1000.0)
    output = run(engine, [prompt], n=20, sampling=sampling)[0]
    assert output[0] == run_greedy(engine, [prompt], 1)[0][0]
    assert len(set(output)) == len(output)


@pytest.mark.parametrize("sampling", [GREEDY, HOT, Sampling(temperature=1.0, top_p=0.1, repeat_penalty=1.3)])
def test_a_mask_is_absolute_and_lasts_one_row(load: Load, sampling: Sampling) -> None:
    engine = load()
    allowed = encode(engine, "Q")[-1]
    driver = Driver(engine)
    masked, free = (driver.start(prompts_of(engine)[0], lane, sampling=sampling) for lane in (0, 1))
    rows = (masked.row(mask=only(engine, allowed)), free.row())
    given = driver.try_step(*rows).rows
    assert given[0].tokens == (allowed,)
    assert given[1].tokens != (allowed,)


def test_the_mask_of_one_row_leaves_the_next_draw_alone(load: Load) -> None:
    engine = load()
    prompt = prompts_of(engine)[0]
    token = encode(engine, "Q")[-1]
    expected = run_greedy(engine, [[*prompt, token]], 6)[0]
    driver = Driver(engine)
    running = driver.start(prompt, 0)
    driver.step(running, mask=only(engine, token))
    assert driver.run(running, n=7) == [[token, *expected]]


def test_a_mask_that_forbids_all_fails_its_row_alone(load: Load) -> None:
    engine = load()
    prompts = prompts_of(engine)[:2]
    expected = run_greedy(engine, prompts, 1)
    driver = Driver(engine)
    masked, free = (driver.start(prompt, lane) for lane, prompt in enumerate(prompts))
    given = driver.try_step(masked.row(mask=only(engine)), free.row()).rows
    assert given[0].error
    assert not given[0].tokens
    assert given[1].error is None
    assert list(given[1].tokens) == expected[1]


def test_the_lane_of_a_failed_row_can_be_emptied_and_used_again(load: Load) -> None:
    engine = load()
    prompt = prompts_of(engine)[0]
    expected = run(engine, [prompt], n=6, sampling=HOT)
    driver = Driver(engine)
    failed = driver.start(prompt, 0)
    assert driver.try_step(failed.row(mask=only(engine))).rows[0].error
    driver.finish(failed)
    assert run(engine, [prompt], n=6, sampling=HOT) == expected


def one_row(engine: StepEngine, *, sampling: Sampling = GREEDY, **fields: Any) -> ResultRow:
    driver = Driver(engine)
    running = driver.start(prompts_of(engine)[0], 0, sampling=sampling)
    (row,) = driver.step(running, **fields)
    driver.finish(running)
    return row


def test_logprobs_are_a_sorted_distribution(load: Load) -> None:
    engine = load()
    (given,) = one_row(engine, logprobs=engine.info.vocabulary).logprobs
    values = [logprob for _, logprob in given.top]
    assert len(given.top) == engine.info.vocabulary
    assert values == sorted(values, reverse=True)
    assert all(value <= 0 for value in values)
    assert sum(map(math.exp, values)) == pytest.approx(1, abs=1e-3)
    assert given.top[0] == (given.token, given.logprob)


def test_logprobs_come_as_asked(load: Load) -> None:
    engine = load()
    assert one_row(engine).logprobs == ()
    (bare,) = one_row(engine, logprobs=0).logprobs
    assert bare.top == ()
    (some,) = one_row(engine, logprobs=5).logprobs
    assert len(some.top) == 5
    assert some.logprob == pytest.approx(bare.logprob, abs=CLOSE)


def test_logprobs_are_those_of_the_raw_distribution(load: Load) -> None:
    engine = load()
    (raw,) = one_row(engine, logprobs=engine.info.vocabulary).logprobs
    expected = dict(raw.top)
    unlikely = raw.top[-1][0]
    samplings = (
        Sampling(temperature=3.0, seed=1),
        Sampling(temperature=0.2, top_k=3, top_p=0.5, min_p=0.1, seed=1),
        Sampling(repeat_penalty=1.5, repeat_last_n=-1, frequency_penalty=1.0, presence_penalty=1.0, seed=1),
        Sampling(logit_bias={unlikely: 100.0}, seed=1),
    )
    for sampling in samplings:
        (given,) = one_row(engine, sampling=sampling, logprobs=4).logprobs
        assert given.logprob == pytest.approx(expected[given.token], abs=CLOSE)
        assert [token for token, _ in given.top] == [token for token, _ in raw.top[:4]]
    (masked,) = one_row(engine, logprobs=4, mask=only(engine, unlikely)).logprobs
    assert masked.token == unlikely
    assert masked.logprob == pytest.approx(expected[unlikely], abs=CLOSE)
    assert masked.top[0][0] == raw.top[0][0]


def test_prompt_logprobs_cover_all_but_the_first_token(load: Load) -> None:
    engine = load()
    prompt = prompts_of(engine)[0]
    driver = Driver(engine)
    (whole,) = driver.step(whole_run := driver.start(prompt, 0), prompt_logprobs=2)
    assert [one.token for one in whole.prompt_logprobs] == prompt[1:]
    assert all(len(one.top) == 2 for one in whole.prompt_logprobs)
    assert whole.tokens
    pieces: list[TokenLogprobs] = []
    running = driver.start(prompt, 1)
    while not running.output:
        (row,) = driver.step(running, chunk=4, prompt_logprobs=2)
        pieces += row.prompt_logprobs
    assert [one.token for one in pieces] == prompt[1:]
    values = [one.logprob for one in whole.prompt_logprobs]
    assert [one.logprob for one in pieces] == pytest.approx(values, abs=CLOSE)
    assert running.output == whole_run.output


def test_prompt_logprobs_agree_with_those_of_drawn_tokens(load: Load) -> None:
    engine = load()
    prompt = prompts_of(engine)[0]
    driver = Driver(engine)
    drawn = driver.start(prompt, 0)
    (row,) = driver.step(drawn, logprobs=3)
    read = driver.start(drawn.tokens, 1)
    (again,) = driver.step(read, prompt_logprobs=3)
    assert again.prompt_logprobs[-1].token == row.tokens[0]
    assert again.prompt_logprobs[-1].logprob == pytest.approx(row.logprobs[0].logprob, abs=CLOSE)


@pytest.mark.parametrize("sampling", [GREEDY, HOT, Sampling(temperature=1.0, seed=3, repeat_penalty=1.3)])
def test_drafts_change_nothing_but_the_number_of_steps(load: Load, sampling: Sampling) -> None:
    engine = load()
    prompt = prompts_of(engine)[0]
    fresh = run(engine, [prompt], n=12, sampling=sampling)[0]
    driver = Driver(engine)
    running = driver.start(prompt, 0, sampling=sampling)
    driver.step(running)
    right, wrong = fresh[1:5], [fresh[6], (fresh[7] + 1) % engine.info.vocabulary, fresh[8]]
    fields = {"sample": True, "logprobs": 1, "next_token": None}
    if not engine.info.draftable:
        rejected = running.row(tokens=[fresh[0], *right], drafts=4, **fields)
        with contextlib.suppress(EngineError):
            assert driver.try_step(rejected).rows[0].error
        return
    for drafts in (right, wrong):
        row = running.row(tokens=[running.tokens[-1], *drafts], drafts=len(drafts), **fields)
        (got,) = driver.try_step(row).rows
        running.tokens += got.tokens
        running.computed = len(running.tokens) - 1
        assert engine.truncate(0, running.computed) == running.computed
        assert [one.token for one in got.logprobs] == list(got.tokens)
    # All four and one more, then the first of three and what was drawn instead of the second.
    assert running.output == fresh[: 1 + 5 + 2]
    assert driver.run(running, n=12) == [fresh]


def test_a_step_that_does_not_fit_changes_nothing(load: Load) -> None:
    engine = load(context_tokens=256, kv_tokens=256, lanes=4, running_lanes=4, max_batch_tokens=512)
    prompt, other, _ = prompts_of(engine)
    fresh = run(engine, [prompt, other], n=8, sampling=HOT)
    driver = Driver(engine)
    running = driver.start(prompt, 0, sampling=HOT)
    driver.step(running)
    size = engine.info.kv_tokens - running.computed - 2
    filler = driver.start((other * size)[:size], 1)
    driver.step(filler)
    newcomer = driver.start(other, 2, sampling=HOT)
    assert not driver.try_step(newcomer.row(), running.row()).fit
    assert not driver.try_step(newcomer.row()).fit
    driver.finish(filler)
    assert driver.run(running, newcomer, n=8) == fresh


def test_closing_a_sequence_keeps_its_lane(load: Load) -> None:
    engine = load()
    prompt = prompts_of(engine)[0]
    fresh = run_greedy(engine, [prompt], 10)[0]
    driver = Driver(engine)
    running = driver.start(prompt, 0)
    driver.run(running, n=4)
    engine.close(running.seq)
    heir = driver.start(running.tokens, 0, computed=running.computed)
    assert driver.run(heir, n=6) == [fresh[4:]]


def test_embedding_unasked_is_refused_by_name(load: Load) -> None:
    engine = load()
    with pytest.raises(UnsupportedError, match="embeddings"):
        engine.embed([encode(engine, "hello")])


def test_embeddings_are_unit_vectors_and_the_same_in_any_batch(load: Load) -> None:
    engine = load(embeddings=True)
    batch = [encode(engine, text) for text in ("a yard", "of models", "and of trains, many of them")]
    vectors = engine.embed(batch)
    for tokens, vector in zip(batch, vectors, strict=True):
        assert len(vector) == engine.info.embedding_length
        assert math.hypot(*vector) == pytest.approx(1, abs=1e-3)
        assert engine.embed([tokens])[0] == pytest.approx(vector, abs=1e-3)
    assert vectors[0] != vectors[1]


def test_embedding_does_not_disturb_what_runs(load: Load) -> None:
    engine = load(embeddings=True)
    prompt = prompts_of(engine)[0]
    fresh = run(engine, [prompt], n=10, sampling=HOT)[0]
    driver = Driver(engine)
    running = driver.start(prompt, 0, sampling=HOT)
    driver.run(running, n=4)
    engine.embed([encode(engine, "in between")])
    assert driver.run(running, n=10) == [fresh]


def test_an_unloaded_model_can_be_loaded_anew(load: Load) -> None:
    engine = load()
    prompts = prompts_of(engine)
    before = run_greedy(engine, prompts, 4)
    engine.unload()
    assert run_greedy(load(), prompts, 4) == before
