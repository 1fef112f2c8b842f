"""Introduces the backend. Imported to list plugins, so the engine itself is named, not imported."""

from backends.contract import BackendSpec, PlainClaims

SPEC = BackendSpec(
    name="markov",
    aliases=("markov-chain",),
    engine="modelyard_markov.engine:MarkovEngine",
    claims=PlainClaims(names=("markov", "markov-chain")),
    options={
        "type": "object",
        "properties": {
            "order": {"type": "integer", "minimum": 1, "maximum": 16, "description": "Bytes it looks back."}
        },
    },
    summary="writes like corpus.txt, by a Markov chain over its bytes",
)
