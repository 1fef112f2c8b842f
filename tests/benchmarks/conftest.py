from pathlib import Path

import pytest

from benchmarks.random_model import SHAPES, write


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "model.gguf"
    write(path, SHAPES["tiny"], seed=7)
    return path
