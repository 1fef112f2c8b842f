"""The shipped fake: repeats what the prompt says, for tests, plugin authors and overhead measurements.

Declares the two specs, one per engine shape; `model.py` defines what it answers. Needs no weights.
"""

from collections.abc import Mapping
from typing import Any

from backends.contract import BackendSpec, Claims, Facts


def _claims_when_named(name: str) -> Claims:
    def claims(facts: Facts, config: Mapping[str, Any]) -> int:
        return int(config.get("backend") == name)

    return claims


OPTIONS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "delay_s": {"type": "number", "minimum": 0, "description": "Seconds that every step takes."},
        "tokens_per_s": {
            "type": "number",
            "exclusiveMinimum": 0,
            "description": "Computes no faster than this, prompt tokens included.",
        },
        "load_s": {"type": "number", "minimum": 0, "description": "Seconds that loading takes."},
        "add_bos": {"type": "boolean", "description": "Prompts begin with <|bos|>."},
        "prefix": {
            "enum": ["tokens", "tip", "none"],
            "description": "How lanes can be reused: cut anywhere, copied whole, or not at all.",
        },
        "shares_kv": {
            "type": "boolean",
            "description": "Whether a forked prefix costs no memory of its own.",
        },
        "fail": {
            "type": "object",
            "additionalProperties": False,
            "description": "Failures on purpose. A text is looked for in what the sequence holds so far.",
            "properties": {
                "load": {"type": "string", "description": "Loading fails with this message."},
                "row": {"type": "string", "description": "This text in a sequence fails that sequence."},
                "step": {"type": "string", "description": "This text in a sequence breaks the engine."},
                "exit": {"type": "string", "description": "This text in a sequence ends the process."},
                "hang": {"type": "string", "description": "This text in a sequence blocks for `hang_s`."},
                "hang_s": {"type": "number", "minimum": 0, "description": "Seconds; default 3600."},
                "after_tokens": {
                    "type": "integer",
                    "minimum": 0,
                    "description": "Fail only once the sequence has this many output tokens.",
                },
            },
        },
    },
}

SPEC = BackendSpec(
    name="echo",
    engine="backends.echo.engine:EchoEngine",
    claims=_claims_when_named("echo"),
    options=OPTIONS,
    summary="repeats the prompt; for tests and measurements",
)

STREAM_SPEC = BackendSpec(
    name="echo-stream",
    engine="backends.echo.stream:EchoStreamEngine",
    claims=_claims_when_named("echo-stream"),
    shape="stream",
    options=OPTIONS,
    summary="echo as an engine that batches by itself",
)
