"""From vLLM's exceptions to sentences."""

import pytest

from backends.contract import LoadError
from backends.vllm.failures import load_error


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "To serve at least one request with the model's max seq len (40960), (4.38 GiB KV cache is needed, which "
            "is larger than the available KV cache memory (1.0 GiB). Based on",
            "a sequence of 40960 tokens needs 4.38 GiB of KV cache, and there are 1.0 GiB",
        ),
        (
            "Free memory on device cuda:0 (10.5/139.8 GiB) on startup is less than desired GPU memory utilization "
            "(0.9, 125.8 GiB). Decrease",
            "gpu_memory_utilization 0.9 asks for 125.8 GiB of the GPU, and 10.5 GiB are free",
        ),
        ("CUDA out of memory. Tried to allocate 2.00 GiB", "the weights do not fit the memory"),
        (
            "Total number of attention heads (14) must be divisible by tensor parallel size (4).",
            "tensor_parallel_size 4 does not divide the model's 14 attention heads",
        ),
        ("something new\nin two lines", "vLLM cannot load the model: something new in two lines"),
        (
            "1 validation error for ModelConfig\n  Value error, it is odd [type=value_error, input_value=1]\n  For",
            "vLLM cannot load the model: it is odd",
        ),
    ],
)
def test_an_exception_becomes_a_sentence(text: str, sentence: str) -> None:
    assert str(load_error(ValueError(text))).startswith(sentence)


def test_the_reason_is_looked_for_among_the_causes() -> None:
    error = RuntimeError("Engine core initialization failed")
    error.__cause__ = ValueError("No available memory for the cache blocks.")
    assert "no memory for the KV cache" in str(load_error(error))


def test_a_sentence_of_our_own_stays_as_it_is() -> None:
    error = LoadError("so it is")
    assert load_error(error) is error
