"""How cores are shared among workers."""

import pytest

from runner.cores import share_cores


@pytest.mark.parametrize(
    ("live", "wanted", "policy"),
    [
        ([], None, "active"),
        ([1], None, "passive"),  # more threads than cores
        ([1], "active", "active"),
        ([], "passive", "passive"),
    ],
)
def test_threads_spin_unless_they_are_too_many_or_the_model_says_otherwise(
    live: list[int], wanted: str | None, policy: str
) -> None:
    share = share_cores(2, cores=2, live_threads=live, wait_policy=wanted)
    assert share.threads == 2
    assert share.environment["OMP_WAIT_POLICY"] == policy
    assert (share.environment["GOMP_SPINCOUNT"] == "0") == (policy == "passive")
