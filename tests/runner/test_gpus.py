"""Which GPUs each instance sees."""

from pathlib import Path

import pytest

from repository.config import InstanceGroup
from runner.errors import LoadFailed
from runner.gpus import ORDER, VISIBLE, Gpus, gpu_environment


def seen(group: InstanceGroup, gpus: Gpus = Gpus()) -> list[str | None]:  # noqa: B008  (a value, never changed)
    return [gpu_environment(group, i, gpus).get(VISIBLE) for i in range(group.count)]


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        (InstanceGroup(count=2), [None, None]),
        (InstanceGroup(kind="gpu"), [None]),
        (InstanceGroup(kind="cpu", count=2), ["", ""]),
        (InstanceGroup(gpus=(0, 1)), ["0,1"]),
        (InstanceGroup(count=2, gpus=(0, 1)), ["0", "1"]),
        (InstanceGroup(count=2, gpus=(3, 1, 0, 2)), ["3,1", "0,2"]),
        (InstanceGroup(count=3, gpus=(0, 2)), ["0", "2", "0"]),
    ],
)
def test_gpus_are_dealt_out(group: InstanceGroup, expected: list[str | None]) -> None:
    assert seen(group) == expected


def test_gpus_are_counted_as_the_server_sees_them() -> None:
    shown = Gpus(visible="4,5,GPU-8f2c", there=8)
    assert seen(InstanceGroup(count=2, gpus=(0, 2)), shown) == ["4", "GPU-8f2c"]


@pytest.mark.parametrize(
    ("gpus", "words"),
    [
        (Gpus(visible="4,5", there=8), "CUDA_VISIBLE_DEVICES shows this server 2, numbered from 0"),
        (Gpus(visible=""), "CUDA_VISIBLE_DEVICES shows this server none"),
        (Gpus(there=0), "this machine has none of NVIDIA's"),
        (Gpus(there=1), "this machine has one"),
        (Gpus(there=2), "this machine has 2 of NVIDIA's, numbered from 0"),
    ],
)
def test_a_gpu_that_is_not_there_is_refused(gpus: Gpus, words: str) -> None:
    with pytest.raises(LoadFailed, match=f"instance_group.gpus: there is no GPU 2; {words}"):
        seen(InstanceGroup(gpus=(2,)), gpus)


def test_they_have_the_numbers_of_nvidia_smi_unless_somebody_says_otherwise() -> None:
    assert gpu_environment(InstanceGroup(), 0, Gpus())[ORDER] == "PCI_BUS_ID"
    fastest = Gpus.here({ORDER: "FASTEST_FIRST"})
    assert gpu_environment(InstanceGroup(), 0, fastest)[ORDER] == "FASTEST_FIRST"


@pytest.mark.parametrize(
    ("nodes", "there"),
    [
        ((), 0),
        (("nvidiactl", "nvidia-uvm", "nvidia0", "nvidia1"), 2),
        (("nvidiactl", "nvidia0", "kfd"), None),
        (("dxg",), None),
    ],
)
def test_they_are_counted_by_their_device_files(
    tmp_path: Path, nodes: tuple[str, ...], there: int | None
) -> None:
    for node in nodes:
        (tmp_path / node).touch()
    found = Gpus.here({VISIBLE: "1"}, tmp_path)
    assert (found.visible, found.there) == ("1", there)
