"""What is particular to the GPTQ plugin: checkpoints in the form of today and of AutoGPTQ, and what it refuses.

The demo model is quantised by `making/gptq.py`, once, into the state folder.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.contract import LoadError
from tests.backends.support import load_request, run_greedy
from tests.engines.engine_process import EngineProcess, StepEngineAway
from tests.engines.environments import DEMO_FOLDER, STATE, interpreter
from tests.engines.making.gptq import quantised_demo

pytestmark = pytest.mark.timeout(1800)

GPTQ = "backends.gptq.engine:GptqEngine"
TRANSFORMERS = "backends.transformers.engine:TransformersEngine"
QUESTIONS = (
    "What is Modelyard?",
    "How do I add a model?",
    "What is a version?",
    "Which port does Modelyard use?",
)
OLD_NAME = "orca-4bit-64g"

Load = Callable[..., StepEngineAway]


@pytest.fixture(scope="module")
def process() -> Iterator[EngineProcess]:
    running = EngineProcess(interpreter("transformers"))
    yield running
    running.close()


@pytest.fixture(scope="module")
def demo() -> Path:
    return quantised_demo(STATE, interpreter("transformers"))


@pytest.fixture
def load(process: EngineProcess) -> Iterator[Load]:
    engines: list[StepEngineAway] = []

    def make(
        folder: Path, *, engine: str = GPTQ, options: dict[str, Any] | None = None, **limits: Any
    ) -> StepEngineAway:
        made = StepEngineAway(process, engine)
        engines.append(made)
        made.load(load_request(str(folder), options=options or {}, **limits), lambda _: None)
        return made

    yield make
    for engine in engines:
        engine.unload()


@pytest.fixture
def old_demo(demo: Path, tmp_path: Path) -> Path:
    """As AutoGPTQ wrote it: weights under a name of their own, the settings in a file of theirs."""
    folder = tmp_path / "old"
    shutil.copytree(demo, folder)
    (folder / "model.safetensors").rename(folder / f"{OLD_NAME}.safetensors")
    config = json.loads((folder / "config.json").read_text())
    settings = config.pop("quantization_config")
    del settings["quant_method"]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "quantize_config.json").write_text(json.dumps(settings))
    return folder


def prompts_for(engine: StepEngineAway) -> list[list[int]]:
    turns = [f"<|im_start|>user\n{one}<|im_end|>\n<|im_start|>assistant\n" for one in QUESTIONS]
    return [engine.tokenize(turn, special=True) for turn in turns]


def test_four_bits_answer_as_the_whole_weights_do(load: Load, demo: Path) -> None:
    whole, small = load(DEMO_FOLDER, engine=TRANSFORMERS), load(demo)
    assert small.info.prefix == "tokens"
    assert small.info.weights_bytes < 0.5 * whole.info.weights_bytes
    expected = run_greedy(whole, prompts_for(whole), 12)
    given = run_greedy(small, prompts_for(small), 12)
    assert sum(one == other for one, other in zip(given, expected, strict=True)) >= 3


def test_a_batch_answers_as_each_alone(load: Load, demo: Path) -> None:
    engine = load(demo)
    prompts = prompts_for(engine)
    assert run_greedy(engine, prompts, 12) == [run_greedy(engine, [prompt], 12)[0] for prompt in prompts]


@pytest.mark.parametrize(
    "options", [{"model_base_name": OLD_NAME}, {"autogptq": {"model_base_name": OLD_NAME}}, {}]
)
def test_a_checkpoint_of_autogptq_s_time_is_read(
    load: Load, demo: Path, old_demo: Path, options: dict[str, Any]
) -> None:
    new, old = load(demo), load(old_demo, options=options)
    assert run_greedy(old, prompts_for(old), 8) == run_greedy(new, prompts_for(new), 8)


def test_of_several_weight_files_one_must_be_named(load: Load, old_demo: Path) -> None:
    shutil.copyfile(old_demo / f"{OLD_NAME}.safetensors", old_demo / "other.safetensors")
    with pytest.raises(LoadError, match="set model_base_name"):
        load(old_demo)
    with pytest.raises(LoadError, match=f"there are {OLD_NAME}, other"):
        load(old_demo, options={"model_base_name": "orca-3bit"})
    load(old_demo, options={"model_base_name": OLD_NAME})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"use_triton": True}, "use_triton needs a CUDA GPU"),
        ({"autogptq": {"triton": True}}, "use_triton needs a CUDA GPU"),
        ({"device": "cuda:0"}, "GPU"),
        ({"device": "cuda:0", "main_gpu": "cpu"}, ""),
    ],
)
def test_a_gpu_that_is_not_there_is_said(load: Load, demo: Path, options: dict[str, Any], words: str) -> None:
    if not words:  # main_gpu is the common key, and wins
        load(demo, options=options)
        return
    with pytest.raises(LoadError, match=words):
        load(demo, options=options)


def test_whole_weights_are_refused(load: Load) -> None:
    with pytest.raises(LoadError, match="is not quantised"):
        load(DEMO_FOLDER)


def test_another_quantisation_is_refused(load: Load, old_demo: Path) -> None:
    settings = json.loads((old_demo / "quantize_config.json").read_text())
    (old_demo / "quantize_config.json").write_text(json.dumps({**settings, "quant_method": "awq"}))
    with pytest.raises(LoadError, match="by awq, not by GPTQ"):
        load(old_demo)
