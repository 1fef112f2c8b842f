"""How memory is shared out between weights, KV pool and what is kept outside of it."""

from pathlib import Path

from repository.config import ModelConfig, SchedulerConfig
from repository.weights import WeightsFacts
from runner.launch import OVERHEAD_BYTES, STATE_SHARE, Sizes, plan_sizes

MIB = 2**20
RECURRENT = WeightsFacts(Path("rwkv.pth"), "rwkv", size_bytes=800 * MIB)


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
