"""An RWKV engine that breaks in the step that computes token 255, which no text has."""

from backends.contract import BackendSpec, StepPlan, StepResult
from backends.rwkv import SPEC as RWKV
from backends.rwkv.engine import RwkvEngine

BREAKING_TOKEN = 255

SPEC = BackendSpec(
    name="breaking-rwkv",
    engine="tests.engines.making.breaking_rwkv:BreakingEngine",
    claims=lambda facts, config: 1000 * (config.get("backend") == "breaking-rwkv"),
    options=RWKV.options,
)


class BreakingEngine(RwkvEngine):
    def step(self, plan: StepPlan) -> StepResult:
        if any(BREAKING_TOKEN in row.tokens for row in plan.rows):
            raise RuntimeError("it breaks here because the test wants it")
        return super().step(plan)
