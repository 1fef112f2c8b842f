"""Which device a configuration asks for, where PyTorch sees no GPU."""

import logging
from typing import Any

import pytest
import torch

from backends.contract import LoadError
from backends.torch_lanes.devices import choose_device
from tests.backends.support import load_request

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.mark.parametrize("given", [{}, {"main_gpu": ""}, {"main_gpu": "auto"}, {"main_gpu": "cpu"}])
def test_without_a_gpu_it_is_the_processor(given: dict[str, Any]) -> None:
    assert choose_device(load_request(options=given)).type == "cpu"


@pytest.mark.parametrize("named", [0, "0", 1, "cuda", "cuda.0", "cuda:1", "xpu"])
def test_a_gpu_that_is_not_there_is_refused_however_it_is_named(named: object) -> None:
    with pytest.raises(LoadError, match=r"PyTorch|GPU"):
        choose_device(load_request(options={"main_gpu": named}))


def test_a_number_of_layers_is_said_to_have_no_effect(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        choose_device(load_request(options={"gpu_layers": 20}))
    assert "gpu_layers has no effect" in caplog.text
