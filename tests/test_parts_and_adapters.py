"""Split weights and LoRA adapters on every face, with the demo model in llama.cpp behind the real server."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from repository.weights import read_facts
from tests.lora_files import make_matrices, write_adapter, write_merged
from tests.serving import DEMO, Served, serve
from tests.split_files import split_gguf

QUESTION = "What is a version?"
CONFIG = "context_size: 512\nthreads: 1\nscheduler: {max_lanes: 4}\n"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`whole`, and the same in parts in a version's folder, loose, and named; one without a part; and with adapters."""
    root = tmp_path_factory.mktemp("yard")
    models = root / "models"
    for name in ("whole", "folded", "named", "broken", "lora", "merged"):
        (models / name / "1").mkdir(parents=True)
        (models / name / "config.yaml").write_text(CONFIG)
    (models / "whole" / "1" / "model.gguf").symlink_to(DEMO)
    split_gguf(DEMO, models / "folded" / "1")
    split_gguf(DEMO, models, name="loose")
    first, *_ = split_gguf(DEMO, models / "named" / "1", name="weights")
    (models / "named" / "1" / "other.gguf").symlink_to(DEMO)
    (models / "named" / "config.yaml").write_text(f"{CONFIG}parameters: {{model: {first.name}}}\n")
    split_gguf(DEMO, models / "broken" / "1")[1].unlink()
    matrices = make_matrices(DEMO, seed=0)
    (models / "lora" / "1" / "model.gguf").symlink_to(DEMO)
    write_adapter(models / "lora" / "1" / "pirate.lora", matrices)
    (models / "lora" / "config.yaml").write_text(f"{CONFIG}lora_modules: {{pirate: pirate.lora}}\n")
    write_merged(DEMO, models / "merged" / "1" / "model.gguf", matrices)
    with serve(models, root / "state") as running:
        yield running


def say(client: openai.OpenAI, model: str) -> str:
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": QUESTION}], temperature=0, max_tokens=24
    )
    return answer.choices[0].message.content or ""


def post(served: Served, path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        served.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


@pytest.mark.parametrize("model", ["folded", "loose", "named"])
def test_a_model_in_parts_answers_as_the_whole_one(served: Served, model: str) -> None:
    assert say(served.client, model) == say(served.client, "whole") != ""


def test_a_missing_part_is_told_in_a_sentence(served: Served) -> None:
    with pytest.raises(openai.APIStatusError, match=r"incomplete: model-00002-of-00003\.gguf missing"):
        say(served.client, "broken")


def test_memory_is_planned_for_all_parts(tmp_path: Path) -> None:
    first, *others = split_gguf(DEMO, tmp_path)
    whole, parts = read_facts(DEMO), read_facts(first)
    assert parts.size_bytes == sum(path.stat().st_size for path in (first, *others)) > whole.size_bytes
    assert parts.kv_bytes_per_token == whole.kv_bytes_per_token and parts.parameters == whole.parameters


def test_an_adapter_answers_as_merged_weights_on_every_face(served: Served) -> None:
    merged = say(served.client, "merged")
    assert say(served.client, "lora") == say(served.client, "whole") != merged
    assert say(served.client, "lora:pirate") == say(served.client, "lora:1:pirate") == merged
    messages = [{"role": "user", "content": QUESTION}]
    said = {"model": "lora:pirate", "temperature": 0}
    anthropic = post(served, "/v1/messages", {**said, "messages": messages, "max_tokens": 24})
    assert anthropic["content"][0]["text"] == merged
    response = post(served, "/v1/responses", {**said, "input": QUESTION, "max_output_tokens": 24})
    assert response["output"][-1]["content"][0]["text"] == merged
    generate = {"text_input": QUESTION, "parameters": {"temperature": 0, "max_tokens": 24}}
    own = post(served, "/v2/models/whole/generate", generate)["text_output"]
    theirs = post(served, "/v2/models/lora:pirate/generate", generate)["text_output"]
    assert theirs == post(served, "/v2/models/merged/generate", generate)["text_output"] != own


def test_prefixes_are_not_shared_between_adapters(served: Served) -> None:
    prompt = "Every adapter computes keys and values of its own from the same words. " * 4

    def cached(model: str) -> int:
        answer = served.client.completions.create(model=model, prompt=prompt, max_tokens=1, temperature=0)
        assert answer.usage is not None and answer.usage.prompt_tokens_details is not None
        return answer.usage.prompt_tokens_details.cached_tokens or 0

    assert [cached("lora"), cached("lora:pirate")] == [0, 0]
    assert cached("lora") > 0 and cached("lora:pirate") > 0


def test_an_unknown_adapter_is_not_there(served: Served) -> None:
    with pytest.raises(openai.NotFoundError, match=r"no adapter 'parrot'; those it has: 'pirate'"):
        say(served.client, "lora:parrot")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        post(served, "/v2/models/lora:parrot/generate", {"text_input": "hello"})
