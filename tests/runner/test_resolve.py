"""Which backend serves a model, with plugins of others among those asked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backends.contract import BackendSpec, PlainClaims
from backends.registry import Elsewhere, Registry
from repository.config import ModelConfig
from repository.weights import WeightsFacts
from runner.errors import LoadFailed
from runner.resolve import choose_backend
from runner.wire.description import DescribedBackend

TORCH = WeightsFacts(Path("markov.pt"), "pytorch", "MarkovLM")
GGUF = WeightsFacts(Path("model.gguf"), "gguf", "llama")


def registry_with(*specs: BackendSpec) -> Registry:
    return Registry((), elsewhere=[Elsewhere("environment sea", specs)])


def test_a_plugin_of_another_environment_is_inferred_by_the_formats_it_declares() -> None:
    claims = PlainClaims(names=("markov",), formats=("pytorch",), architectures=("MarkovLM",), score=90)
    registry = registry_with(DescribedBackend(name="markov", engine="m:Engine", claims=claims).spec)
    choice = choose_backend(TORCH, ModelConfig(), registry)
    assert (choice.spec.name, choice.scores["markov"]) == ("markov", 90)
    assert choose_backend(GGUF, ModelConfig(), registry).spec.name == "llamacpp"


def test_a_plugin_whose_claims_could_not_leave_its_environment_is_picked_by_name_or_alias() -> None:
    described = DescribedBackend(name="markov", engine="m:Engine", aliases=("chain",), claims=None)
    registry = registry_with(described.spec)
    for name in ("markov", "chain"):
        assert choose_backend(TORCH, ModelConfig(backend=name), registry).spec.name == "markov"
        assert choose_backend(None, ModelConfig(backend=name), registry).spec.name == "markov"
    assert choose_backend(GGUF, ModelConfig(), registry).scores["markov"] == 0


def fails(*_: Any) -> int:
    raise RuntimeError("no luck")


@pytest.mark.parametrize("claims", [fails, lambda *_: None, lambda *_: "many"])
def test_claims_that_fail_break_only_the_models_that_name_the_plugin(claims: Callable[..., Any]) -> None:
    registry = registry_with(BackendSpec(name="orca", engine="o:Engine", claims=claims))
    assert choose_backend(GGUF, ModelConfig(), registry).spec.name == "llamacpp"
    for facts in (GGUF, None):
        with pytest.raises(LoadFailed, match="the plugin of backend orca is broken: its claims fail with"):
            choose_backend(facts, ModelConfig(backend="orca"), registry)


def test_runners_up_are_those_that_could_do_it_the_best_first() -> None:
    specs = [
        BackendSpec(
            name=name, engine="x:Y", claims=PlainClaims(names=(name,), formats=("pytorch",), score=score)
        )
        for name, score in (("third", 201), ("first", 203), ("second", 202), ("none", 0))
    ]
    choice = choose_backend(TORCH, ModelConfig(), registry_with(*specs))
    assert choice.spec.name == "first"
    assert choice.runners_up[:2] == ["second", "third"]
    assert "none" not in choice.runners_up
