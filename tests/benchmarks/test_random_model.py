from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bare_loop import BareEngine, BareSettings, EngineError
from benchmarks.random_model import SHAPES, write
from benchmarks.words import NUM_PARTS, words
from benchmarks.workload import Load, Request, distinct

VOCABULARY = SHAPES["tiny"].vocabulary


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> Iterator[BareEngine]:
    settings = BareSettings(model=str(tiny_model), threads=1, kv_tokens=1024, max_batch_tokens=64)
    engine = BareEngine(settings, lanes=4)
    yield engine
    engine.close()


def tiny_load(*, clients: int, count: int, prompt_words: int = 20) -> Load:
    requests = distinct(count, prompt_words=prompt_words, max_tokens=8, seed=3, vocabulary=VOCABULARY)
    return Load(clients=clients, requests=requests)


def test_the_350m_shape_has_about_350_million_parameters():
    assert 340e6 < SHAPES["350m"].parameters < 360e6
    assert SHAPES["350m"].head_width == 64


def test_the_same_seed_gives_the_same_file(tiny_model: Path, tmp_path: Path):
    write(tmp_path / "again.gguf", SHAPES["tiny"], seed=7)
    write(tmp_path / "other.gguf", SHAPES["tiny"], seed=8)
    assert (tmp_path / "again.gguf").read_bytes() == tiny_model.read_bytes()
    assert (tmp_path / "other.gguf").read_bytes() != tiny_model.read_bytes()


def test_every_word_is_one_token(engine: BareEngine):
    text = words(300, seed=5, vocabulary=VOCABULARY)
    tokens = engine.tokenize("".join(text))
    assert len(tokens) == 300
    assert len(set(tokens)) == len(set(text)) > 200


def test_a_vocabulary_without_room_for_words_is_refused():
    with pytest.raises(ValueError, match="at least 1346 tokens"):
        words(1, seed=0, vocabulary=1000)


def test_decoding_gives_finite_logits_and_never_a_token_without_text(engine: BareEngine):
    engine.run(Load(clients=1, requests=[Request("".join(words(50, seed=1, vocabulary=VOCABULARY)), 1)]))
    logits = engine.logits(49)
    assert logits.shape == (VOCABULARY,)
    assert np.isfinite(logits).all()
    # Token 0 ends a text (its bias is the sampler's, not the logits'), then come single bytes and syllables.
    assert (logits[:NUM_PARTS] == 0).all()
    assert logits[NUM_PARTS:].max() > 0.5


def test_the_bare_loop_does_all_of_the_work(engine: BareEngine):
    load = tiny_load(clients=3, count=7)
    result = engine.run(load)
    assert result.prompt_tokens == 7 * 20
    assert result.completion_tokens == sum(request.max_tokens for request in load.requests)


def test_the_bare_loop_decodes_sequences_together_and_splits_long_prompts(engine: BareEngine):
    assert engine.run(tiny_load(clients=1, count=1)).steps == 8
    requests = tiny_load(clients=3, count=3).requests
    together = engine.run(Load(clients=3, requests=[Request(r.prompt, 8) for r in requests]))
    assert together.steps == 8
    long = "".join(words(130, seed=2, vocabulary=VOCABULARY))
    assert engine.run(Load(clients=1, requests=[Request(long, 4)])).steps == 6  # 64 + 64 + 2 tokens, then 3


def test_a_missing_model_is_named(tmp_path: Path):
    with pytest.raises(EngineError, match=r"none\.gguf: llama.cpp cannot load it"):
        BareEngine(BareSettings(model=str(tmp_path / "none.gguf")), lanes=1)
