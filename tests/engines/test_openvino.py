"""What is particular to the openvino plugin: conversion, devices, its constraints, vectors, a pipeline that breaks.

The engine runs in its own environment; what it is compared with is computed here by transformers. Conversions are kept
in the state folder, so that only the first run makes them.
"""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from backends.contract import (
    BackendSpec,
    Constraint,
    EngineError,
    EngineRequest,
    LoadError,
    Sampling,
    UnsupportedError,
)
from backends.openvino import SPEC
from backends.registry import Elsewhere, Registry
from runner.errors import GenerationFailed, UnsupportedFeature, WorkerCrashed
from runner.runner import Runner
from runner.settings import RunnerSettings
from runner.wire.requests import TextPrompt
from tests.backends.support import PROMPTS, decode, load_request
from tests.engines.engine_process import EngineProcess, StreamEngineAway
from tests.engines.environments import DEMO_FOLDER, STATE, interpreter
from tests.runner.asking import ask, endless, metric, until

transformers = pytest.importorskip("transformers", reason="the extra `demo` is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")

pytest.register_assert_rewrite("tests.backends.contract_streams")

from tests.backends.contract_streams import ask as request_of  # noqa: E402
from tests.backends.contract_streams import collect, tokens_of  # noqa: E402
from tests.engines.making.transformers_models import write_model  # noqa: E402

pytestmark = [pytest.mark.timeout(600), pytest.mark.filterwarnings("default")]

ENVIRONMENT = "openvino"
EXACT = {"type": "OVModelForCausalLM", "f16": False}
HARD = "((a{1,200}){1,200}){1,200}"
NAMED = {
    "type": "object",
    "properties": {"name": {"enum": ["a", "b"]}, "n": {"type": "boolean"}},
    "required": ["name", "n"],
    "additionalProperties": False,
}

Load = Callable[..., StreamEngineAway]


@pytest.fixture(scope="module")
def process() -> Iterator[EngineProcess]:
    running = EngineProcess(interpreter(ENVIRONMENT))
    yield running
    running.close()


@pytest.fixture
def load(process: EngineProcess) -> Iterator[Load]:
    engines: list[StreamEngineAway] = []

    def make(folder: Path = DEMO_FOLDER, options: dict[str, Any] = EXACT, **limits: Any) -> StreamEngineAway:
        engine = StreamEngineAway(process, SPEC.engine)
        engines.append(engine)
        engine.load(load_request(str(folder), options=options, **limits), lambda _: None)
        return engine

    yield make
    for engine in engines:
        engine.unload()


@pytest.fixture(scope="module")
def converted(process: EngineProcess) -> Path:
    """The demo model in OpenVINO's format."""
    engine = StreamEngineAway(process, SPEC.engine)
    engine.load(load_request(str(DEMO_FOLDER), options=EXACT), lambda _: None)
    engine.unload()
    found = [path.parent for path in (STATE / "openvino").glob("*/openvino_model.xml")]
    return next(
        path for path in found if json.loads((path / "config.json").read_text())["hidden_size"] == 256
    )


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("bert") / "model", "bert")


async def text_of(engine: StreamEngineAway, request: EngineRequest) -> str:
    return decode(engine, tokens_of(await collect(engine, request))).decode(errors="replace")


def bound(engine: StreamEngineAway, kind: Any, source: str = "", **fields: Any) -> EngineRequest:
    constraint = Constraint(kind, source)
    return request_of(engine, constraint=constraint, **{"max_tokens": 60, **fields})


# Text


async def test_greedy_text_is_that_of_transformers_alone_and_together(load: Load) -> None:
    engine = load()
    model = transformers.AutoModelForCausalLM.from_pretrained(DEMO_FOLDER, dtype=torch.float32).eval()
    requests = [request_of(engine, text, max_tokens=48) for text in PROMPTS]
    expected = []
    for request in requests:
        with torch.no_grad():
            given = model.generate(torch.tensor([request.prompt]), max_new_tokens=48, do_sample=False)
        expected.append(given[0, len(request.prompt) :].tolist())
    assert [tokens_of(await collect(engine, request)) for request in requests] == expected
    together = await asyncio.gather(*(collect(engine, request) for request in requests))
    assert [tokens_of(chunks) for chunks in together] == expected


async def test_a_sequence_that_joins_others_changes_none_of_them(load: Load) -> None:
    engine = load(max_batch_tokens=16)
    early = [request_of(engine, text, max_tokens=40, ignore_eos=True) for text in PROMPTS[:2]]
    late = request_of(engine, PROMPTS[2] * 4, max_tokens=20, ignore_eos=True)
    alone = [tokens_of(await collect(engine, request)) for request in (*early, late)]
    running = [engine.generate(request) for request in early]
    begun = [[await anext(stream) for _ in range(5)] for stream in running]
    joined = await collect(engine, late)
    rest = [[chunk async for chunk in stream] for stream in running]
    whole = [tokens_of([*first, *then]) for first, then in zip(begun, rest, strict=True)]
    assert [*whole, tokens_of(joined)] == alone


CANCELLING = """
import asyncio, sys
import openvino_genai as genai
from backends.openvino.batcher import TURNS, Batcher

scheduler = genai.SchedulerConfig()
scheduler.num_kv_blocks = 64
pipeline = genai.ContinuousBatchingPipeline(sys.argv[1], scheduler, "CPU")
batcher = Batcher(pipeline)

async def main():
    stream = batcher.stream([5, 6, 7], genai.GenerationConfig(max_new_tokens=1500, ignore_eos=True))
    await anext(stream)
    await stream.aclose()
    for _ in range(3 * TURNS):
        await asyncio.sleep(0)
    print(pipeline.has_non_finished_requests(), batcher._is_driving)

asyncio.run(main())
"""


def test_a_cancelled_sequence_is_gone_with_the_next_step(converted: Path) -> None:
    words = [interpreter(ENVIRONMENT), "-I", "-c", CANCELLING, str(converted)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


async def test_more_than_the_pool_holds_takes_turns_in_it(load: Load) -> None:
    engine = load(kv_tokens=512, running_lanes=4)
    asked = [request_of(engine, prompt=(20 + n,) * 300, max_tokens=60, ignore_eos=True) for n in range(4)]
    alone = [tokens_of(await collect(engine, request)) for request in asked]
    together = await asyncio.gather(*(collect(engine, request) for request in asked))
    assert [tokens_of(chunks) for chunks in together] == alone


@pytest.mark.parametrize(
    "penalty", [{"presence_penalty": 2.0}, {"frequency_penalty": 2.0}, {"repeat_penalty": 3.0}]
)
async def test_penalties_change_what_repeats_itself(load: Load, penalty: dict[str, float]) -> None:
    engine = load()
    endless_text = {"max_tokens": 150, "ignore_eos": True}
    plain = tokens_of(await collect(engine, request_of(engine, **endless_text)))
    sampling = Sampling(temperature=0.0, **penalty)
    repelled = tokens_of(await collect(engine, request_of(engine, sampling=sampling, **endless_text)))
    assert len(set(repelled)) > len(set(plain))


async def test_the_likeliest_of_one_token_is_greedy(load: Load) -> None:
    engine = load()
    plain = tokens_of(await collect(engine, request_of(engine)))
    for sampling in (
        Sampling(temperature=1.5, top_k=1),
        Sampling(temperature=1.5, top_p=0.0),
        Sampling(temperature=1.5, min_p=1.0),
    ):
        assert tokens_of(await collect(engine, request_of(engine, sampling=sampling))) == plain


# Constraints


@pytest.mark.parametrize(
    ("kind", "source", "pattern"),
    [
        ("regex", "[0-9]{3}-[abc]{2}", r"[0-9]{3}-[abc]{2}"),
        ("choice", '["yes", "né \\"b\\""]', 'yes|né "b"'),
        ("gbnf", 'root ::= "(" [0-9]{1,4} ")"', r"\([0-9]{1,4}\)"),
        ("json_schema", json.dumps(NAMED), None),
    ],
)
async def test_output_has_the_form_that_was_asked_for(
    load: Load, kind: str, source: str, pattern: str | None
) -> None:
    engine = load()
    assert "constraint" in engine.info.capabilities
    text = await text_of(engine, bound(engine, kind, source))
    if pattern is None:
        assert json.loads(text).keys() == NAMED["properties"].keys()  # type: ignore[attr-defined]
    else:
        assert re.fullmatch(pattern, text), text


async def test_a_json_object_begins_as_one(load: Load) -> None:
    engine = load()
    assert (await text_of(engine, bound(engine, "json_object"))).startswith("{")


@pytest.mark.parametrize(
    ("kind", "source", "words"),
    [
        ("json_schema", '{"type": 5}', "Type should be a string"),
        ("json_schema", "{nope", "Failed to parse JSON"),
        ("regex", "[a-", "Unclosed"),
        ("gbnf", "root ::= nothing", "not defined"),
        ("regex", HARD, "longer than 2 seconds"),
        ("gbnf", f'root ::= {"(" * 20_000}"a"{")" * 20_000}', "nested too deeply"),
        ("lark", "start: A", "Lark"),
    ],
)
async def test_a_constraint_that_cannot_be_used_is_refused_and_the_others_go_on(
    load: Load, kind: str, source: str, words: str
) -> None:
    engine = load()
    other = asyncio.create_task(collect(engine, request_of(engine, max_tokens=300, ignore_eos=True)))
    with pytest.raises(UnsupportedError, match=words):
        await collect(engine, bound(engine, kind, source))
    assert len(tokens_of(await other)) == 300
    assert re.fullmatch("[ab]+", await text_of(engine, bound(engine, "regex", "[ab]{1,5}")))


# Vectors


@pytest.mark.parametrize(
    ("options", "pool"), [({}, "mean"), ({"pooling": "cls"}, "cls"), ({"pooling": "last"}, "last")]
)
def test_vectors_are_those_of_transformers(
    load: Load, bert: Path, options: dict[str, Any], pool: str
) -> None:
    engine = load(bert, {"type": "OVModelForFeatureExtraction", "f16": False, **options}, context_tokens=None)
    assert not engine.info.generates
    assert (engine.info.embedding_length, engine.info.embedding_tokens) == (64, 62)
    texts = [engine.tokenize(text, special=False) for text in ("a yard", "of models and trains", "x")]
    model = transformers.AutoModel.from_pretrained(bert, dtype=torch.float32).eval()
    for tokens, vector in zip(texts, engine.embed(texts), strict=True):
        with torch.no_grad():
            hidden = model(torch.tensor([[257, *tokens, 258]])).last_hidden_state[0]
        own = {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}[pool]
        assert vector == pytest.approx(torch.nn.functional.normalize(own, dim=0).tolist(), abs=1e-3)


def test_a_folder_of_sentence_transformers_says_how_to_pool(load: Load, bert: Path, tmp_path: Path) -> None:
    folder, embeds = tmp_path / "sentences", {"type": "OVModelForFeatureExtraction"}
    shutil.copytree(bert, folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    texts = [[5, 6, 7], [8]]
    assert load(folder, embeds).embed(texts) == load(bert, {**embeds, "pooling": "cls"}).embed(texts)
    (folder / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.Dense"}]))
    with pytest.raises(LoadError, match="Dense"):
        load(folder, embeds)


def test_an_empty_text_has_no_vector(load: Load, bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "unframed"
    shutil.copytree(bert, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**tokenizer, "post_processor": None}))
    engine = load(folder, {"type": "OVModelForFeatureExtraction"})
    with pytest.raises(EngineError, match="empty text"):
        engine.embed([[]])


# Weights


async def test_a_folder_in_openvino_s_format_is_served_as_it_is(load: Load, converted: Path) -> None:
    engine, other = load(converted, {"f16": False}), load()
    assert engine.info.generates and engine.info.weights_bytes == other.info.weights_bytes
    one, two = request_of(engine), request_of(other)
    assert tokens_of(await collect(engine, one)) == tokens_of(await collect(other, two))


async def test_without_openvino_s_tokenizer_there_is_text_but_no_structured_output(
    load: Load, converted: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "bare"
    shutil.copytree(converted, folder, ignore=shutil.ignore_patterns("openvino_*tokenizer.*"))
    engine = load(folder, {"f16": False})
    assert "constraint" not in engine.info.capabilities
    expected = tokens_of(await collect(load(), request_of(engine)))
    assert tokens_of(await collect(engine, request_of(engine))) == expected


@pytest.mark.parametrize(("quantization", "share"), [("int8", 0.6), ("int4", 0.45)])
async def test_weights_are_quantised_when_they_are_converted(
    load: Load, converted: Path, quantization: str, share: float
) -> None:
    engine = load(options={**EXACT, "quantization": quantization})
    assert engine.info.weights_bytes < share * (converted / "openvino_model.bin").stat().st_size
    assert tokens_of(await collect(engine, request_of(engine)))


def broken(tmp_path: Path, converted: Path, name: str) -> Path:
    """The demo model in OpenVINO's format, with something wrong."""
    folder = tmp_path / name
    shutil.copytree(converted, folder)
    match name:
        case "no config":
            (folder / "config.json").unlink()
        case "no weights":
            (folder / "openvino_model.bin").unlink()
        case "cut weights":
            os.truncate(folder / "openvino_model.bin", 1000)
        case "no model":
            (folder / "openvino_model.xml").write_text("<net")
        case "no tokenizer":
            (folder / "tokenizer.json").unlink()
        case "another kind":
            (folder / "config.json").write_text(json.dumps({"architectures": ["BertModel"]}))
    return folder


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no config", "no config.json"),
        ("no weights", "no openvino_model.bin"),
        ("cut weights", "OpenVINO cannot load"),
        ("no model", "OpenVINO cannot load"),
        ("no tokenizer", "no tokenizer.json"),
        ("another kind", "makes no embeddings of text"),
    ],
)
def test_a_folder_that_cannot_be_loaded_is_refused_with_a_sentence(
    load: Load, converted: Path, tmp_path: Path, name: str, words: str
) -> None:
    with pytest.raises(LoadError, match=words):
        load(broken(tmp_path, converted, name), {"f16": False})


@pytest.mark.parametrize(
    ("options", "limits", "words"),
    [
        ({"main_gpu": "GPU.1"}, {}, r"OpenVINO has no device GPU\.1 here; it has CPU"),
        ({"main_gpu": "AUTO:-CPU"}, {}, "leaves no device: OpenVINO has CPU here"),
        ({}, {"device": "gpu"}, r"instance_group\.kind is gpu, but OpenVINO has CPU here"),
        ({"quantization": "int8"}, {}, "is in OpenVINO's format already"),
        ({}, {"embeddings": True}, "makes text, no embeddings"),
        ({}, {"memory_bytes": 2**23}, "a context of 512 tokens needs"),
        ({"ov_config": {"NO_SUCH": 1}}, {}, "OpenVINO cannot load"),
    ],
)
def test_what_this_machine_or_model_lacks_is_said(
    load: Load, converted: Path, options: dict[str, Any], limits: dict[str, Any], words: str
) -> None:
    with pytest.raises(LoadError, match=words):
        load(converted, options, **limits)


def test_weights_that_optimum_cannot_convert_are_refused_with_its_reason(load: Load, tmp_path: Path) -> None:
    folder = tmp_path / "unknown"
    shutil.copytree(DEMO_FOLDER, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "nobody-knows"}))
    with pytest.raises(LoadError, match=r"optimum-intel cannot convert .*nobody-knows"):
        load(folder)


def test_a_probe_names_version_and_devices() -> None:
    code = "from backends.openvino.probe import probe; print(probe())"
    found = subprocess.run(
        [interpreter(ENVIRONMENT), "-I", "-c", code], capture_output=True, text=True, check=True
    )
    assert "openvino-genai 2026" in found.stdout and "CPU" in found.stdout


# In a server


@pytest.fixture
async def runner(tmp_path: Path, converted: Path) -> AsyncIterator[Runner]:
    """Serves `demo`, and `unchecked`, whose engine can be broken."""
    models = {
        "demo": {"backend": "transformers", "type": "OVModelForCausalLM"},
        "unchecked": {"backend": "unchecked", "environment": ENVIRONMENT, "f16": False},
    }
    for name, config in models.items():
        version = tmp_path / "models" / name / "1"
        shutil.copytree(DEMO_FOLDER if name == "demo" else converted, version)
        config = {**config, "threads": 1}
        (version.parent / "config.yaml").write_text(yaml.safe_dump(config))
    unchecked = BackendSpec(
        name="unchecked",
        engine="tests.engines.making.unchecked_openvino:UncheckedEngine",
        claims=lambda facts, config: 1000 * (config.get("backend") == "unchecked"),
        shape="stream",
        options=SPEC.options,
    )
    registry = Registry((), elsewhere=[Elsewhere("the tests", (unchecked,))])
    settings = RunnerSettings(repository=tmp_path / "models", state_dir=STATE, poll_s=0.05, drain_s=10.0)
    async with Runner(settings, registry) as running:
        yield running


async def test_a_worker_answers_others_while_it_steps(runner: Runner) -> None:
    await ask(runner, model="demo", max_tokens=1)
    streams = [asyncio.create_task(ask(runner, model="demo", **endless())) for _ in range(4)]
    await until(lambda: metric(runner, "running_sequences") == 4)
    tokens = (await runner.tokenize("demo", TextPrompt("a few words"))).tokens
    assert tokens
    assert not any(stream.done() for stream in streams)
    for stream in streams:
        stream.cancel()
    await until(lambda: metric(runner, "running_sequences") == 0)


async def test_structured_output_comes_through(runner: Runner) -> None:
    form = Constraint("regex", "[0-9]{2}")
    assert re.fullmatch("[0-9]{2}", (await ask(runner, model="demo", constraint=form)).text)


async def test_a_request_for_what_is_lacking_is_refused_by_name(runner: Runner) -> None:
    for given, words in (
        ({"sampling": {"logit_bias": {"5": 1.0}}}, "logit_bias"),
        ({"sampling": {"typical_p": 0.5}}, "typical_p"),
        ({"logprobs": 4}, "top_logprobs"),
        ({"prompt_logprobs": 0}, "echo with logprobs"),
        ({"constraint": Constraint("regex", "[a-", "guided_regex")}, "`guided_regex` cannot be used"),
    ):
        with pytest.raises(UnsupportedFeature, match=words):
            await ask(runner, model="demo", max_tokens=4, **given)


async def test_a_killed_worker_ends_its_streams_and_is_started_again(runner: Runner) -> None:
    before = (await ask(runner, model="demo", max_tokens=8)).text
    (worker,) = [one for one in psutil.Process().children() if "runner.worker" in one.cmdline()]
    with pytest.raises(WorkerCrashed):
        await ask(runner, model="demo", on_delta=lambda _: os.kill(worker.pid, signal.SIGKILL), **endless())
    assert (await ask(runner, model="demo", max_tokens=8)).text == before


async def test_a_pipeline_that_breaks_in_a_step_fails_its_requests_and_is_started_again(
    runner: Runner,
) -> None:
    before = (await ask(runner, model="unchecked", max_tokens=8)).text
    with pytest.raises(GenerationFailed, match="the engine failed"):
        await ask(runner, model="unchecked", max_tokens=4, constraint=Constraint("regex", "[a-"))
    assert (await ask(runner, model="unchecked", max_tokens=8)).text == before
