"""What is particular to the transformers plugin: models of many kinds in one batch, against transformers itself.

The engine runs in its own environment; what it is compared with is computed here, unbatched, by `generate()`.
"""

import json
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from backends.contract import Constraint, LoadError, LoadRequest, Sampling
from backends.registry import Registry
from runner.errors import GenerationFailed, WorkerCrashed
from runner.runner import Runner
from runner.settings import RunnerSettings
from runner.wire.messages import SchedulerLimits
from runner.wire.requests import ChatPrompt, TokenPrompt
from runner.worker.scheduler import Scheduler
from tests.backends.support import Driver
from tests.engines.engine_process import EngineProcess, StepEngineAway
from tests.engines.environments import DEMO_FOLDER, STATE, interpreter
from tests.engines.making import breaking_transformers
from tests.runner.asking import ask, endless
from tests.support import make_sequence, step

transformers = pytest.importorskip("transformers", reason="the extra `demo` is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")

from tests.engines.making.transformers_models import KINDS, write_model  # noqa: E402

pytestmark = [pytest.mark.timeout(600), pytest.mark.filterwarnings("default")]

ENGINE = "backends.transformers.engine:TransformersEngine"
PACKED = ("llama", "llama-mha", "qwen2", "qwen3", "mistral", "gpt2", "gemma2", "gemma3", "gpt-oss")
SINGLY = ("bloom", "mamba")
NEW_TOKENS = 24

MakeModel = Callable[..., Path]
Load = Callable[..., StepEngineAway]


@pytest.fixture(scope="module")
def process() -> Iterator[EngineProcess]:
    running = EngineProcess(interpreter("transformers"))
    yield running
    running.close()


@pytest.fixture
def load(process: EngineProcess) -> Iterator[Load]:
    engines: list[StepEngineAway] = []

    def make(folder: Path, *, options: dict[str, Any] | None = None, **limits: Any) -> StepEngineAway:
        engine = StepEngineAway(process, ENGINE)
        engines.append(engine)
        fields = {"context_tokens": 128, "lanes": 8, "running_lanes": 4, "threads": 1, **limits}
        request = LoadRequest(model="test", weights=str(folder), options=options or {}, **fields)
        engine.load(request, lambda _: None)
        return engine

    yield make
    for engine in engines:
        engine.unload()


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> MakeModel:
    made: dict[str, Path] = {}

    def make(kind: str, **changes: Any) -> Path:
        key = json.dumps([kind, changes])
        if key not in made:
            made[key] = write_model(tmp_path_factory.mktemp(kind) / "model", kind, **changes)
        return made[key]

    return make


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def prompts_of(count: int, *, longest: int = 40) -> list[list[int]]:
    """Of different lengths, the first two with a beginning in common."""
    prompts = [
        [1 + (7 * index + 3 * at) % 256 for at in range(5 + index * 9 % longest)] for index in range(count)
    ]
    prompts[1] = [*prompts[0], *prompts[1]]
    return prompts


def generate(folder: Path, prompts: list[list[int]], *, tokens: int = NEW_TOKENS) -> list[list[int]]:
    """What transformers gives to each prompt alone, greedily and without an end."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None  # given as an argument, None means the model's own
    outputs = []
    for prompt in prompts:
        given = model.generate(
            torch.tensor([prompt]),
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=False,
        )
        outputs.append(given[0, len(prompt) :].tolist())
    return outputs


def run_staggered(
    engine: StepEngineAway, prompts: list[list[int]], *, lengths: list[int], **limits: Any
) -> list[list[int]]:
    """The outputs under Modelyard's scheduler, a newcomer every third step while the others run on."""
    fields: dict[str, Any] = {"max_lanes": 4, "cached_lanes": 4, "max_batch_tokens": 16, **limits}
    scheduler = Scheduler(engine, engine.info, SchedulerLimits(**fields))
    scheduler.engine = engine  # type: ignore[attr-defined]
    waiting = [
        make_sequence(number, prompt, max_tokens=length)
        for number, (prompt, length) in enumerate(zip(prompts, lengths, strict=True), start=1)
    ]
    outputs: dict[int, list[int]] = {}
    turn = 0
    while waiting or scheduler.has_work:
        if turn % 3 == 0 and waiting:
            scheduler.add(waiting.pop(0))
        turn += 1
        for output in step(scheduler)[1]:
            assert output.error is None, output.error
            outputs.setdefault(output.seq.id, []).extend(output.tokens)
    return [outputs[number] for number in sorted(outputs)]


@pytest.mark.parametrize("kind", PACKED)
def test_sequences_that_come_and_go_get_what_generate_gives_each_alone(
    load: Load, make_model: MakeModel, kind: str
) -> None:
    folder = make_model(kind)
    prompts = prompts_of(7)
    lengths = [NEW_TOKENS - 3 * index for index in range(7)]
    engine = load(folder, max_batch_tokens=16)
    assert engine.info.prefix == "tokens"
    expected = [own[:length] for own, length in zip(generate(folder, prompts), lengths, strict=True)]
    assert run_staggered(engine, prompts, lengths=lengths) == expected


@pytest.mark.parametrize("kind", SINGLY)
def test_a_model_with_a_state_of_its_own_runs_one_sequence_after_the_other(
    load: Load, make_model: MakeModel, kind: str
) -> None:
    folder = make_model(kind)
    prompts = prompts_of(4)
    engine = load(folder, max_batch_tokens=16)
    assert engine.info.prefix == "tip"
    expected = generate(folder, prompts, tokens=12)
    assert run_staggered(engine, prompts, lengths=[12] * 4) == expected


@pytest.mark.parametrize("kind", SINGLY)
def test_a_state_of_its_own_is_saved_and_copied_whole(load: Load, make_model: MakeModel, kind: str) -> None:
    engine = load(make_model(kind))
    driver = Driver(engine)
    first = driver.start(list(range(1, 12)), 0)
    driver.run(first, n=4)
    state = engine.save(0, 0, first.computed)
    assert state is not None
    assert engine.save(0, 0, first.computed - 1) is None
    assert engine.fork(0, 1, first.computed)
    assert not engine.fork(0, 2, first.computed - 1)
    assert engine.restore(2, 0, state)
    heirs = [driver.start(first.tokens, lane, computed=first.computed) for lane in (1, 2)]
    driver.run(first, n=12)
    assert driver.run(*heirs, n=8) == [first.output[4:]] * 2


def test_a_small_pool_preempts_and_changes_no_text(load: Load, make_model: MakeModel) -> None:
    folder = make_model("llama")
    prompts = prompts_of(6)
    engine = load(folder, kv_tokens=128, context_tokens=128, max_batch_tokens=16)
    assert run_staggered(engine, prompts, lengths=[NEW_TOKENS] * 6) == generate(folder, prompts)


@pytest.mark.parametrize(
    ("options", "pool"),
    [({}, "mean"), ({"pooling": "cls"}, "cls"), ({"pooling": "last"}, "last")],
)
def test_an_encoder_s_vectors_are_those_of_transformers(
    load: Load, make_model: MakeModel, options: dict[str, Any], pool: str
) -> None:
    folder = make_model("bert")
    engine = load(folder, options=options)
    assert not engine.info.generates
    texts = [engine.tokenize(text, special=False) for text in ("a yard", "of models and trains", "x")]
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    for tokens, vector in zip(texts, engine.embed(texts), strict=True):
        with torch.no_grad():
            hidden = model(torch.tensor([[257, *tokens, 258]])).last_hidden_state[0]
        own = {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}[pool]
        assert vector == pytest.approx(torch.nn.functional.normalize(own, dim=0).tolist(), abs=1e-5)


def test_a_generating_model_s_vectors_are_those_of_transformers(load: Load, make_model: MakeModel) -> None:
    folder = make_model("mistral")
    engine = load(folder, embeddings=True)
    texts = [engine.tokenize(text, special=False) for text in ("a yard", "of models and of trains", "x")]
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    for tokens, vector in zip(texts, engine.embed(texts), strict=True):
        with torch.no_grad():
            own = model(torch.tensor([tokens])).last_hidden_state[0].mean(0)
        assert vector == pytest.approx(torch.nn.functional.normalize(own, dim=0).tolist(), abs=1e-5)


def test_a_folder_of_sentence_transformers_says_how_to_pool(
    load: Load, make_model: MakeModel, tmp_path: Path
) -> None:
    folder = tmp_path / "sentences"
    shutil.copytree(make_model("bert"), folder)
    (folder / "1_Pooling").mkdir()
    settings = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    texts = [[5, 6, 7], [8]]
    assert load(folder).embed(texts) == load(make_model("bert"), options={"pooling": "cls"}).embed(texts)
    (folder / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.Dense"}]))
    with pytest.raises(LoadError, match="Dense"):
        load(folder)


@pytest.mark.parametrize("quantization", ["bnb_8bit", "bnb_4bit"])
def test_bitsandbytes_variants_stay_close(load: Load, quantization: str) -> None:
    whole, small = load(DEMO_FOLDER), load(DEMO_FOLDER, options={"quantization": quantization})
    assert small.info.weights_bytes < 0.6 * whole.info.weights_bytes
    text = "<|im_start|>user\nWhat is Modelyard?<|im_end|>\n<|im_start|>assistant\n"
    prompt = whole.tokenize(text, special=True)
    expected = generate(DEMO_FOLDER, [prompt], tokens=16)
    assert run_staggered(whole, [prompt], lengths=[16]) == expected
    assert run_staggered(small, [prompt], lengths=[16]) == expected


def test_f16_halves_weights_and_pool(load: Load) -> None:
    whole, half = load(DEMO_FOLDER), load(DEMO_FOLDER, options={"f16": True})
    assert half.info.weights_bytes == pytest.approx(whole.info.weights_bytes / 2, rel=0.01)
    assert half.info.kv_bytes == whole.info.kv_bytes / 2


def test_a_seed_gives_the_same_text_in_any_company(load: Load, make_model: MakeModel) -> None:
    engine = load(make_model("llama"), max_batch_tokens=16)
    hot = Sampling(temperature=1.3, seed=5, top_p=0.95, repeat_penalty=1.1, repeat_last_n=-1)
    scheduler = Scheduler(engine, engine.info, SchedulerLimits(max_lanes=4, max_batch_tokens=16))
    scheduler.engine = engine  # type: ignore[attr-defined]
    for number in (1, 2, 3):
        own = Sampling(temperature=1.5, seed=number) if number == 2 else hot
        scheduler.add(make_sequence(number, list(range(1, 12)), max_tokens=16, sampling=own))
    outputs: dict[int, list[int]] = {}
    while scheduler.has_work:
        for output in step(scheduler)[1]:
            outputs.setdefault(output.seq.id, []).extend(output.tokens)
    assert outputs[1] == outputs[3] != outputs[2]


def without(source: Path, target: Path, *names: str) -> Path:
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*names))
    return target


def changed(source: Path, target: Path, **settings: Any) -> Path:
    shutil.copytree(source, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, **settings}))
    return target


def broken(kind: str, make_model: MakeModel, target: Path) -> Path:
    llama = make_model("llama")
    match kind:
        case "no tokenizer":
            return without(llama, target, "tokenizer*")
        case "no weights":
            return without(llama, target, "*.safetensors")
        case "no config":
            return without(llama, target, "config.json")
        case "too few weights":
            return changed(llama, target, num_hidden_layers=4, layer_types=None)
        case "another width":
            return changed(llama, target, intermediate_size=96)
        case "unknown architecture":
            return changed(llama, target, model_type="llama9", architectures=["Llama9ForCausalLM"])
        case "cut short":
            shutil.copytree(llama, target)
            weights = target / "model.safetensors"
            weights.write_bytes(weights.read_bytes()[:5000])
            return target
        case "encoder-decoder":
            return make_model("t5")
    raise AssertionError(kind)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("no tokenizer", "tokenizer"),
        ("no weights", "no weights"),
        ("no config", "no config.json"),
        ("too few weights", "lack model.layers.3"),
        ("another width", "another shape"),
        ("unknown architecture", "architecture"),
        ("cut short", "damaged or not complete"),
        ("encoder-decoder", "encoder-decoder"),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_a_sentence(
    load: Load, make_model: MakeModel, tmp_path: Path, kind: str, words: str
) -> None:
    with pytest.raises(LoadError, match=words) as caught:
        load(broken(kind, make_model, tmp_path / "broken"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"options": {"main_gpu": "cuda.7"}}, "GPU"),
        ({"device": "gpu"}, "GPU"),
        ({"options": {"quantization": "xpu_4bit"}}, "Intel GPU"),
        ({"options": {"quantization": "xpu_8bit", "main_gpu": "cpu"}}, "Intel GPU"),
        ({"options": {"main_gpu": "tpu:pod"}}, "names no device"),
        ({"memory_bytes": 1000}, "take"),
        ({"memory_bytes": 1_000_000, "context_tokens": 200_000}, "context"),
    ],
)
def test_what_this_machine_lacks_is_said(
    load: Load, make_model: MakeModel, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(LoadError, match=words):
        load(make_model("llama"), **fields)


def test_a_context_past_the_last_learned_position_is_refused(load: Load, make_model: MakeModel) -> None:
    with pytest.raises(LoadError, match="more than the 256 positions"):
        load(make_model("gpt2"), context_tokens=257)
    assert load(make_model("llama"), context_tokens=300).info.context_tokens == 300


def test_the_kinds_that_are_tried_are_all_there() -> None:
    assert {*PACKED, *SINGLY, "bert", "t5", "llama-79m"} == set(KINDS)


# In a server


@pytest.fixture
async def runner(tmp_path: Path) -> AsyncIterator[Runner]:
    """Serves `demo`, and `breaking`, whose engine can be broken."""
    for name, backend in (("demo", "transformers"), ("breaking", "breaking-transformers")):
        version = tmp_path / "models" / name / "1"
        shutil.copytree(DEMO_FOLDER, version)
        config = {"backend": backend, "environment": "transformers", "threads": 1}
        (version.parent / "config.yaml").write_text(yaml.safe_dump(config))
    settings = RunnerSettings(repository=tmp_path / "models", state_dir=STATE, poll_s=0.05, drain_s=10.0)
    breaking = EntryPoint("breaking-transformers", f"{breaking_transformers.__name__}:SPEC", Registry.GROUP)
    async with Runner(settings, Registry([breaking])) as running:
        yield running


async def test_a_killed_worker_fails_its_streams_and_is_started_again(runner: Runner) -> None:
    before = (await ask(runner, model="demo", max_tokens=8)).text
    (worker,) = [one for one in psutil.Process().children() if "runner.worker" in one.cmdline()]
    with pytest.raises(WorkerCrashed):
        await ask(runner, model="demo", on_delta=lambda _: os.kill(worker.pid, signal.SIGKILL), **endless())
    assert (await ask(runner, model="demo", max_tokens=8)).text == before


async def test_an_engine_that_breaks_in_a_step_fails_its_requests_and_is_started_again(
    runner: Runner,
) -> None:
    before = (await ask(runner, model="breaking", max_tokens=8)).text
    with pytest.raises(GenerationFailed, match="the engine failed"):
        prompt = TokenPrompt((5, breaking_transformers.BREAKING_TOKEN))
        await ask(runner, prompt, model="breaking", max_tokens=4)
    assert (await ask(runner, model="breaking", max_tokens=8)).text == before


async def test_the_next_turn_of_a_chat_computes_only_what_is_new(runner: Runner) -> None:
    first = await ask(runner, "What is a version?", model="demo", max_tokens=16)
    turns = (
        {"role": "user", "content": "What is a version?"},
        {"role": "assistant", "content": first.text},
        {"role": "user", "content": "And now?"},
    )
    second = await ask(runner, ChatPrompt(messages=turns), model="demo", max_tokens=4)
    assert first.accepted is not None and second.finished is not None
    assert second.finished.usage.cached_tokens >= first.accepted.prompt_tokens


async def test_structured_output_comes_through(runner: Runner) -> None:
    form = Constraint("regex", "[0-9]{2}")
    assert re.fullmatch("[0-9]{2}", (await ask(runner, model="demo", constraint=form)).text)
