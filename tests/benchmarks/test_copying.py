"""What the copying model is asked, and the file that its weights are written to."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from benchmarks.bare_loop import BareEngine, BareSettings
from benchmarks.copying import NEW, OLD, REPLACED, VOCABULARY, exercise
from benchmarks.words import text_of
from benchmarks.workload import Load, Request

torch = pytest.importorskip("torch")


def test_a_text_is_repeated_word_for_word() -> None:
    prompt, answer = exercise(np.random.default_rng(1), words=60, corrects=False)
    assert prompt[1:-1] == answer
    assert len(set(answer)) == 60
    assert not any(OLD <= token < NEW + REPLACED for token in answer)


def test_a_text_with_old_words_comes_back_with_the_new_ones() -> None:
    prompt, answer = exercise(np.random.default_rng(1), words=60, corrects=True)
    changed = [(old, new) for old, new in zip(prompt[1:-1], answer, strict=True) if old != new]
    assert len(changed) == 5
    assert all(OLD <= old < NEW and new == old + REPLACED for old, new in changed)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model that was not trained, as it is and padded; its two heads find most words as they are."""
    from benchmarks.copying_model import SMALL, new_model, weights_of, write

    torch.manual_seed(0)
    weights = weights_of(new_model())
    folder = tmp_path_factory.mktemp("copying")
    large = msgspec.structs.replace(SMALL, layers=4, width=256, heads=8, kv_heads=2, ffn=512)
    write(folder / "small.gguf", weights, SMALL, name="small")
    write(folder / "large.gguf", weights, large, name="large")
    return folder / "small.gguf", folder / "large.gguf"


def test_the_padded_model_computes_the_same(files: tuple[Path, Path]) -> None:
    prompt, _ = exercise(np.random.default_rng(3), words=40, corrects=False)
    found = []
    for path in files:
        engine = BareEngine(BareSettings(model=str(path), threads=1, kv_tokens=256), lanes=1)
        engine.run(Load(clients=1, requests=[Request(text_of(prompt, vocabulary=VOCABULARY), 1)]))
        found.append(engine.logits(len(prompt) - 1).copy())
        engine.close()
    assert np.abs(found[0]).max() > 5
    assert np.allclose(found[0], found[1], atol=0.3)


def test_training_starts_from_a_model_that_finds_most_words() -> None:
    from benchmarks.copying_model import new_model

    torch.manual_seed(0)
    model = new_model()
    prompt, answer = exercise(np.random.default_rng(3), words=100, corrects=True)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([*prompt, *answer])[None]).logits[0, len(prompt) - 1 : -1]
    right = (logits.argmax(-1) == torch.tensor(answer)).float().mean().item()
    assert right > 0.9
