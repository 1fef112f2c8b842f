"""Which GPU a configuration names."""

import pytest

from backends.contract import LoadError
from backends.gpus import check_gpu, gpu_number


@pytest.mark.parametrize(
    ("written", "number"),
    [
        (2, 2),
        ("2", 2),
        ("cuda:2", 2),
        ("cuda.2", 2),
        ("CUDA:2", 2),
        ("gpu2", 2),
        ("cuda", 0),
        ("", 0),
        (None, 0),
        ("cpu", None),
    ],
)
def test_a_gpu_is_named_in_many_ways(written: object, number: int | None) -> None:
    assert gpu_number(written) == number


@pytest.mark.parametrize("written", ["AUTO:-CPU", "cuda:", "-1", -1, "1,2", "two"])
def test_what_names_none_is_refused(written: object) -> None:
    with pytest.raises(LoadError, match=r"main_gpu: .* names no device"):
        gpu_number(written)


@pytest.mark.parametrize(
    ("there", "words"),
    [
        (0, "main_gpu: there is no GPU 2; no GPU can be seen here"),
        (1, "main_gpu: there is no GPU 2; the only GPU here is number 0"),
        (2, "main_gpu: there is no GPU 2; the GPUs here are numbered 0 to 1"),
    ],
)
def test_a_gpu_that_is_not_there_is_refused(there: int, words: str) -> None:
    with pytest.raises(LoadError) as error:
        check_gpu(2, there=there)
    assert str(error.value) == words
    check_gpu(2, there=3)
