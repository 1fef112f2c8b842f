"""`main_gpu` as an OpenVINO device string."""

import pytest

from backends.contract import LoadError
from backends.openvino.devices import pick_device

CPU = ("CPU",)
ONE = ("CPU", "GPU", "NPU")
TWO = ("CPU", "GPU.0", "GPU.1")


@pytest.mark.parametrize(
    ("main_gpu", "available", "device"),
    [
        (None, TWO, "CPU"),
        ("", TWO, "CPU"),
        ("cpu", CPU, "CPU"),
        ("GPU", ONE, "GPU"),
        ("GPU.0", ONE, "GPU.0"),
        ("GPU", TWO, "GPU"),
        ("gpu.1", TWO, "GPU.1"),
        (1, TWO, "GPU.1"),
        ("1", TWO, "GPU.1"),
        ("AUTO", CPU, "CPU"),
        ("AUTO", ONE, "GPU"),
        ("AUTO:-CPU", TWO, "GPU.0"),
        ("AUTO:-GPU.0", TWO, "GPU.1"),
        ("AUTO:-GPU", TWO, "CPU"),
        ("AUTO:GPU,CPU", CPU, "CPU"),
        ("AUTO:CPU,GPU", ONE, "CPU"),
        ("HETERO:GPU.0,GPU.1", TWO, "HETERO:GPU.0,GPU.1"),
        ("BATCH:GPU(16)", ONE, "BATCH:GPU(16)"),
    ],
)
def test_a_device_string_picks_a_device(
    main_gpu: int | str | None, available: tuple[str, ...], device: str
) -> None:
    assert pick_device(main_gpu, available) == device


@pytest.mark.parametrize(
    ("main_gpu", "words"),
    [
        ("GPU.1", "OpenVINO has no device GPU.1 here; it has CPU"),
        (0, "OpenVINO has no device GPU.0 here; it has CPU"),
        ("AUTO:-CPU", "main_gpu AUTO:-CPU leaves no device: OpenVINO has CPU here"),
        ("HETERO:GPU,CPU", "OpenVINO has no device GPU here; it has CPU"),
        ("cuda:0", "OpenVINO has no device CUDA:0 here; it has CPU"),
    ],
)
def test_a_device_that_is_not_there_is_named_with_those_that_are(main_gpu: int | str, words: str) -> None:
    with pytest.raises(LoadError, match=words):
        pick_device(main_gpu, CPU)


def test_an_instance_group_of_gpus_takes_the_first_gpu() -> None:
    assert pick_device(None, TWO, kind="gpu") == "GPU.0"
    with pytest.raises(LoadError, match=r"instance_group\.kind is gpu, but OpenVINO has CPU here"):
        pick_device(None, CPU, kind="gpu")
    with pytest.raises(LoadError, match="main_gpu is CPU"):
        pick_device("CPU", TWO, kind="gpu")


def test_an_instance_group_of_cpus_takes_no_gpu() -> None:
    assert pick_device("AUTO", TWO, kind="cpu") == "CPU"
    with pytest.raises(LoadError, match=r"main_gpu is GPU\.1"):
        pick_device("GPU.1", TWO, kind="cpu")
