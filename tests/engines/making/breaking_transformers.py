"""A transformers engine that breaks in the step that computes the token of "<tool_call>", which no other text has."""

from backends.contract import BackendSpec, StepPlan, StepResult
from backends.transformers import SPEC as TRANSFORMERS
from backends.transformers.engine import TransformersEngine

BREAKING_TOKEN = 2046

SPEC = BackendSpec(
    name="breaking-transformers",
    engine="tests.engines.making.breaking_transformers:BreakingEngine",
    claims=lambda facts, config: 1000 * (config.get("backend") == "breaking-transformers"),
    options=TRANSFORMERS.options,
)


class BreakingEngine(TransformersEngine):
    def step(self, plan: StepPlan) -> StepResult:
        if any(BREAKING_TOKEN in row.tokens for row in plan.rows):
            raise RuntimeError("it breaks here because the test wants it")
        return super().step(plan)
