"""Which weights are this plugin's, and what it says of itself."""

import sys
from typing import NamedTuple

import pytest

from backends.registry import Registry
from backends.rwkv import SPEC


class Facts(NamedTuple):
    format: str
    architecture: str | None = None
    quantisation: str | None = None


@pytest.mark.parametrize(
    ("facts", "backend", "score"),
    [
        (Facts("rwkv", "rwkv"), None, 100),
        (Facts("pytorch"), "rwkv", 60),
        (Facts("pytorch"), "rwkv.cpp", 60),
        (Facts("pytorch"), None, 0),
        (Facts("pytorch", "LlamaForCausalLM"), "rwkv", 0),
        (Facts("gguf", "rwkv7"), "rwkv", 0),
        (Facts("safetensors", "Rwkv7ForCausalLM"), None, 0),
    ],
)
def test_a_checkpoint_is_claimed_by_its_name_or_by_its_users_word(
    facts: Facts, backend: str | None, score: int
) -> None:
    assert SPEC.claims(facts, {"backend": backend}) == score


def test_the_plugin_answers_to_the_name_it_has_elsewhere() -> None:
    assert Registry(()).get("rwkv.cpp") == SPEC


def test_the_spec_needs_no_engine() -> None:
    assert SPEC.engine.startswith("backends.rwkv.engine:")
    assert "backends.rwkv.engine" not in sys.modules
