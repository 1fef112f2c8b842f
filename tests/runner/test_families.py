"""What a configuration that names a backend may say, where another of its family may serve it."""

from typing import Any

from backends.contract import BackendSpec
from backends.registry import Elsewhere, Registry
from runner.resolve import option_schemas


def spec(name: str, families: tuple[str, ...] = (), **properties: Any) -> BackendSpec:
    return BackendSpec(
        name=name,
        aliases=(f"{name}-alias",),
        families=families,
        engine="nowhere:Engine",
        claims=lambda facts, config: 0,
        options={"type": "object", "properties": properties},
    )


def schemas(*specs: BackendSpec) -> dict[str, Any]:
    return option_schemas(Registry((), elsewhere=[Elsewhere("the tests", specs)]))


def test_a_family_s_options_are_those_of_all_its_members() -> None:
    head = spec("head", type={"enum": ["A"]}, depth={"type": "integer"}, same={"type": "string"})
    member = spec(
        "member",
        ("head",),
        type={"enum": ["B", "A"]},
        depth={"type": "string"},
        same={"type": "string"},
        own={"type": "boolean"},
    )
    made = schemas(head, member)
    assert made["head"]["properties"] == {
        "type": {"enum": ["A", "B"]},
        "depth": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        "same": {"type": "string"},
        "own": {"type": "boolean"},
    }
    assert made["head-alias"] == made["head"]
    assert made["member"] == member.options


def test_transformers_may_be_told_what_openvino_takes() -> None:
    made = option_schemas(Registry(()))
    assert "OVModelForCausalLM" in made["transformers"]["properties"]["type"]["enum"]
    assert "precision" in made["transformers"]["properties"]
    assert "precision" not in made["vllm"]["properties"]
