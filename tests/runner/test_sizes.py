"""How memory is shared out between weights, KV pool and what is kept outside of it."""

from pathlib import Path

from backends.contract import OVERHEAD_BYTES
from repository.config import ModelConfig, SchedulerConfig
from repository.weights import WeightsFacts
from runner.launch import STATE_SHARE, Sizes, plan_sizes

MIB = 2**20
RECURRENT = WeightsFacts(Path("rwkv.pth"), "rwkv", size_bytes=800 * MIB)
TRANSFORMER = WeightsFacts(
    Path("m"), "safetensors", size_bytes=100 * MIB, context_tokens=2**20, kv_bytes_per_token=4096
)


def sizes(free_bytes: int, **scheduler: int) -> Sizes:
    config = ModelConfig(scheduler=SchedulerConfig(**scheduler))  # type: ignore[arg-type]
    return plan_sizes(config, RECURRENT, free_bytes)


def test_states_that_do_not_grow_may_take_a_part_of_what_the_weights_take() -> None:
    found = sizes(10_000 * MIB)
    assert found.offload_bytes == 800 * MIB // STATE_SHARE
    assert found.estimate_bytes == 1000 * MIB + OVERHEAD_BYTES


def test_they_get_what_is_free_and_what_the_configuration_says() -> None:
    assert sizes(810 * MIB + OVERHEAD_BYTES).offload_bytes == 10 * MIB
    assert sizes(10_000 * MIB, offload_bytes=5).offload_bytes == 5


def test_what_an_engine_takes_for_itself_is_left_out_of_the_pool() -> None:
    lean, heavy = (
        plan_sizes(ModelConfig(), TRANSFORMER, 1000 * MIB, overhead_bytes=overhead * MIB)
        for overhead in (100, 800)
    )
    assert lean.estimate_bytes <= 1000 * MIB and heavy.estimate_bytes <= 1000 * MIB
    assert (lean.context_tokens or 0) > (heavy.context_tokens or 0)
