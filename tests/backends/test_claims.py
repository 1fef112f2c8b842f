"""Claims as data."""

from typing import NamedTuple

import pytest

from backends.contract import PlainClaims


class Weights(NamedTuple):
    format: str
    architecture: str | None = None
    quantisation: str | None = None


NONE, TORCH, GGUF = Weights("none"), Weights("pytorch", "MarkovLM"), Weights("gguf", "llama")
NAMED = {"backend": "markov-chain"}


@pytest.mark.parametrize(
    ("claims", "facts", "config", "score"),
    [
        (PlainClaims(names=("markov", "markov-chain")), NONE, NAMED, 1),
        (PlainClaims(names=("markov", "markov-chain")), GGUF, NAMED, 1),
        (PlainClaims(names=("markov",)), NONE, {"backend": "echo"}, 0),
        (PlainClaims(names=("markov",)), GGUF, {}, 0),
        (PlainClaims(names=("markov",), formats=("pytorch",), score=60), TORCH, {}, 60),
        (PlainClaims(names=("markov",), formats=("pytorch",)), GGUF, {}, 0),
        (PlainClaims(names=("markov-chain",), formats=("pytorch",)), GGUF, NAMED, 0),
        (PlainClaims(names=("markov-chain",), formats=("pytorch",)), NONE, NAMED, 1),
        (PlainClaims(names=("m",), formats=("pytorch",), architectures=("MarkovLM",)), TORCH, {}, 50),
        (PlainClaims(names=("m",), formats=("pytorch",), architectures=("OtherLM",)), TORCH, {}, 0),
        (PlainClaims(names=("m",), formats=("gguf",), architectures=("llama",)), Weights("gguf"), {}, 0),
    ],
)
def test_claims_as_data_go_by_name_and_by_what_the_weights_are(
    claims: PlainClaims, facts: Weights, config: dict[str, str], score: int
) -> None:
    assert claims(facts, config) == score
