"""The core budget: how many threads a worker gets, and how they wait for one another."""

from collections.abc import Iterable

import msgspec

from repository.config import WaitPolicy

SPIN_COUNT = 1000
"""Spins of a GNU OpenMP thread before it sleeps, where front end and engine share the cores: long enough to
bridge the gap between two operators of a step, short enough to leave the core to whoever needs it. Measured
against the default and against waiting passively in benchmarks/LOG.md."""


class CoreShare(msgspec.Struct, frozen=True):
    """Threads of one worker, and the environment variables that make them wait the right way."""

    threads: int
    environment: dict[str, str]


def share_cores(
    requested: int | None,
    *,
    cores: int,
    live_threads: Iterable[int],
    count: int = 1,
    wait_policy: WaitPolicy | None = None,
) -> CoreShare:
    """What each of `count` new workers gets beside workers that run `live_threads`. All cores, unless the model
    asks for another number; where the sum is over the cores, the newcomers' threads do not spin, unless it says how
    they are to wait."""
    threads = requested or cores
    if wait_policy is None:
        wait_policy = "passive" if sum(live_threads) + count * threads > cores else "active"
    spin = 0 if wait_policy == "passive" else SPIN_COUNT
    return CoreShare(
        threads,
        {
            "OMP_NUM_THREADS": str(threads),
            "GOMP_SPINCOUNT": str(spin),
            "OMP_WAIT_POLICY": wait_policy,
        },
    )
