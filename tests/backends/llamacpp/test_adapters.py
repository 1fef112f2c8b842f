"""LoRA adapters: what they compute is what merged weights compute, beside rows without them or with others."""

import os
from pathlib import Path

import pytest

from backends.contract import LoadError
from backends.llamacpp.adapters import listed_adapters
from backends.llamacpp.engine import LlamaCppEngine
from tests.backends.llamacpp.conftest import Load
from tests.backends.support import Driver, encode, run_greedy
from tests.lora_files import make_matrices, write_adapter, write_merged

DEMO = Path(__file__).parents[3] / "models" / "demo" / "1" / "model.gguf"
PROMPT = "<|im_start|>user\nWhat is a model version?<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    for seed, name in enumerate(("pirate", "poet")):
        matrices = make_matrices(DEMO, seed=seed)
        write_adapter(folder / f"{name}.gguf", matrices)
        write_merged(DEMO, folder / f"{name}-merged.gguf", matrices)
        write_merged(DEMO, folder / f"{name}-half.gguf", matrices, scale=0.5)
    (folder / "model.gguf").symlink_to(DEMO)
    return folder


def answer(engine: LlamaCppEngine) -> list[int]:
    return run_greedy(engine, [encode(engine, PROMPT)], 16)[0]


def answers_by_adapter(engine: LlamaCppEngine, *names: str | None) -> list[list[int]]:
    """The same prompt with each adapter, all of them in the same steps."""
    driver = Driver(engine)
    running = [driver.start(encode(engine, PROMPT), lane) for lane, _ in enumerate(names)]
    for _ in range(16):
        rows = [each.row(adapter=name) for each, name in zip(running, names, strict=True)]
        for each, row, result in zip(running, rows, driver.try_step(*rows).rows, strict=True):
            each.computed += len(row.tokens)
            each.tokens += result.tokens
    return [each.output for each in running]


def test_an_adapter_computes_what_merged_weights_do(load: Load, files: Path) -> None:
    base = answer(load(weights=DEMO))
    modules = {"pirate": "pirate.gguf", "poet": "poet.gguf"}
    engine = load(weights=files / "model.gguf", options={"lora_modules": modules})
    assert engine.info.adapters == ("pirate", "poet") and "adapters" in engine.info.capabilities
    own, pirate, poet, again = answers_by_adapter(engine, None, "pirate", "poet", "pirate")
    assert own == base and pirate == again
    assert pirate == answer(load(weights=files / "pirate-merged.gguf"))
    assert poet == answer(load(weights=files / "poet-merged.gguf"))
    assert len({tuple(base), tuple(pirate), tuple(poet)}) == 3


@pytest.mark.parametrize(
    ("options", "merged"),
    [
        ({"lora_adapter": "pirate.gguf"}, "pirate-merged.gguf"),
        ({"lora_adapters": ["poet.gguf"]}, "poet-merged.gguf"),
        ({"lora_adapter": "pirate.gguf", "lora_scale": 0.5}, "pirate-half.gguf"),
        ({"lora_adapters": ["pirate.gguf", "poet.gguf"], "lora_scales": [0, 0.5]}, "poet-half.gguf"),
    ],
)
def test_adapters_of_the_configuration_are_applied_to_every_request(
    load: Load, files: Path, options: dict[str, object], merged: str
) -> None:
    engine = load(weights=files / "model.gguf", options=options)
    assert not engine.info.adapters
    assert answer(engine) == answer(load(weights=files / merged))


def test_an_adapter_has_the_scale_it_is_given(load: Load, files: Path) -> None:
    modules = [{"name": "pirate", "path": "pirate.gguf", "scale": 0.5}]
    engine = load(weights=files / "model.gguf", options={"lora_modules": modules})
    assert answers_by_adapter(engine, "pirate") == [answer(load(weights=files / "pirate-half.gguf"))]


def test_a_row_with_an_unknown_adapter_fails_alone(load: Load, files: Path) -> None:
    engine = load(weights=files / "model.gguf", options={"lora_modules": ["pirate=pirate.gguf"]})
    driver = Driver(engine)
    good, bad = driver.start([1, 2, 3], 0), driver.start([1, 2, 3], 1)
    first, second = driver.try_step(good.row(adapter="pirate"), bad.row(adapter="parrot")).rows
    assert len(first.tokens) == 1
    assert "no adapter 'parrot'" in str(second.error)


def test_states_of_an_adapter_depend_on_its_file(
    load: Load, files: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MODELYARD_STATE", str(tmp_path))

    def stamp(**options: object) -> str:
        engine = load(weights=files / "model.gguf", options={"prompt_cache_path": "kept", **options})
        assert engine.info.prompt_cache is not None
        return engine.info.prompt_cache.stamp

    assert stamp() == stamp()
    assert stamp() != stamp(lora_adapter="pirate.gguf")
    before = stamp(lora_adapter="pirate.gguf")
    os.utime(files / "pirate.gguf", (1, 1))
    assert stamp(lora_adapter="pirate.gguf") != before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lora_modules": {"pirate": "parrot.gguf"}}, "there is no LoRA adapter"),
        ({"lora_modules": {"7": "pirate.gguf"}}, "cannot be called '7'"),
        ({"lora_modules": {"a:b": "pirate.gguf"}}, "cannot be called 'a:b'"),
        ({"lora_modules": ["a=pirate.gguf", "a=poet.gguf"]}, "two adapters are called 'a'"),
        ({"lora_adapters": ["pirate.gguf"], "lora_scales": [1, 2]}, "2 LoRA scales for 1 adapters"),
        ({"lora_adapters": ["pirate.gguf"], "lora_scale": 0.5}, "lora_scale is for lora_adapter"),
        ({"lora_adapter": "model.gguf"}, "cannot load the LoRA adapter"),
    ],
)
def test_what_cannot_be_applied_is_said(
    load: Load, files: Path, options: dict[str, object], words: str
) -> None:
    with pytest.raises(LoadError, match=words):
        load(weights=files / "model.gguf", options=options)


def test_paths_are_relative_to_the_weights() -> None:
    with pytest.raises(LoadError, match=r"/models/orca/1/pirate\.gguf"):
        listed_adapters({"lora_modules": {"pirate": "pirate.gguf"}}, Path("/models/orca/1"))


def test_each_adapter_has_the_scale_that_was_given_for_it(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).touch()
    listed = listed_adapters(
        {"lora_adapter": "a", "lora_adapters": ["b", "c"], "lora_scales": [0.5]}, tmp_path
    )
    assert [(each.path.name, each.scale) for each in listed] == [("a", 1.0), ("b", 0.5), ("c", 1.0)]
