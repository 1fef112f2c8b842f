"""A folder of LocalAI's, with YAML files beside their weights, served by the command as it stands."""

import shutil
from collections.abc import Iterator

import openai
import pytest

from tests.serving import DEMO, ROOT, Served, serve

EXAMPLES = ROOT / "tests" / "repository" / "localai" / "examples"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("localai")
    repository = root / "models"
    repository.mkdir()
    for weights, example in (("orca-mini-3b.gguf", "orca.yaml"), ("file.gguf.bin", "llama.yaml")):
        shutil.copy(EXAMPLES / example, repository)
        (repository / weights).symlink_to(DEMO)
    (repository / "gpt.yaml").write_text("name: gpt-4\nalias: orca\n")
    (repository / "several.yaml").write_text(
        "- name: twice\n  backend: llama-cpp\n"
        "  parameters: {model: orca-mini-3b.gguf, n: 2, temperature: 0, logprobs: true, max_tokens: 4}\n"
        "- name: off\n  disabled: true\n  parameters: {model: orca-mini-3b.gguf}\n"
        '- name: bound\n  grammar: root ::= "yes"\n  parameters: {model: orca-mini-3b.gguf}\n'
    )
    (repository / "docker-compose.yaml").write_text("services: {web: {image: x}}\n")
    with serve(repository, root / "state") as running:
        yield running


def chat(served: Served, model: str, *, max_tokens: int = 8) -> openai.types.chat.ChatCompletion:
    return served.lenient_client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "What is a version?"}], max_tokens=max_tokens
    )


def test_the_models_are_those_of_the_files_and_nothing_else(served: Served) -> None:
    listed = {model.id for model in served.lenient_client.models.list()}
    assert listed == {"orca", "llama", "twice", "off", "bound"}


@pytest.mark.parametrize("model", ["orca", "llama", "orca-mini-3b"])
def test_an_example_answers(served: Served, model: str) -> None:
    answer = chat(served, model)
    assert answer.choices[0].message.content
    assert answer.model == ("llama" if model == "llama" else "orca")


def test_an_alias_answers_by_its_own_name(served: Served) -> None:
    assert chat(served, "gpt-4").model == "gpt-4"


def test_parameters_say_how_many_answers_there_are_and_what_comes_with_them(served: Served) -> None:
    answer = chat(served, "twice")
    assert len(answer.choices) == 2
    assert all(choice.logprobs is not None and choice.logprobs.content for choice in answer.choices)
    completion = served.lenient_client.completions.create(model="twice", prompt="A version is", n=1)
    assert len(completion.choices) == 1
    assert completion.usage is not None and completion.usage.completion_tokens == 4
    assert completion.choices[0].logprobs is not None


def test_a_grammar_of_the_file_binds_the_answer(served: Served) -> None:
    assert chat(served, "bound", max_tokens=80).choices[0].message.content == "yes"


def test_a_model_that_is_disabled_is_refused(served: Served) -> None:
    with pytest.raises(openai.PermissionDeniedError, match="disabled"):
        chat(served, "off")
