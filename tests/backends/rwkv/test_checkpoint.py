"""What a file is told to be without loading it, and what is said of one that is something else."""

from pathlib import Path
from typing import Any

import pytest
import torch

from backends.contract import LoadError
from backends.rwkv.checkpoint import find_file, read_checkpoint
from tests.engines.making.rwkv import VERSIONS, write_rwkv


@pytest.mark.parametrize("version", VERSIONS)
def test_the_version_is_told_from_the_names_of_the_tensors(tmp_path: Path, version: str) -> None:
    found = read_checkpoint(write_rwkv(tmp_path / "rwkv.pth", version, layers=2))
    assert (found.version, found.layers, found.width, found.vocabulary) == (float(version), 2, 128, 320)


def saved(path: Path, value: Any) -> Path:
    torch.save(value, path)
    return path


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_what_is_no_rwkv_model_is_said_in_a_sentence(tmp_path: Path) -> None:
    other = saved(tmp_path / "other.pth", {"model.embed": torch.zeros(2)})
    with pytest.raises(
        LoadError, match=r"not an RWKV model; it has no emb.weight and blocks.0, but model.embed"
    ):
        read_checkpoint(other)
    with pytest.raises(LoadError, match="holds a list"):
        read_checkpoint(saved(tmp_path / "list.pth", [1]))
    with pytest.raises(LoadError, match="not a PyTorch checkpoint, or is damaged"):
        read_checkpoint(written(tmp_path / "noise.pth", b"noise" * 100))


def test_files_of_other_kinds_are_named(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"rwkv.cpp or llama.cpp"):
        find_file(str(written(tmp_path / "rwkv.bin", b"fmgg" + bytes(100))))
    with pytest.raises(LoadError, match="git lfs pull"):
        find_file(str(written(tmp_path / "rwkv.pth", b"version https://git-lfs")))
    with pytest.raises(LoadError, match=r"is no .pth file"):
        find_file(str(written(tmp_path / "rwkv.pt", b"PK")))
    with pytest.raises(LoadError, match="cannot read"):
        find_file(str(tmp_path / "gone.pth"))


def test_a_folder_must_hold_one_model(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="found: none"):
        find_file(str(tmp_path))
    written(tmp_path / "a.pth", b"PK")
    assert find_file(str(tmp_path)).name == "a.pth"
    written(tmp_path / "b.pth", b"PK")
    with pytest.raises(LoadError, match=r"found: a.pth, b.pth"):
        find_file(str(tmp_path))


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    with pytest.raises(LoadError, match="not a PyTorch checkpoint"):
        read_checkpoint(saved(tmp_path / "rwkv.pth", {"emb.weight": Hostile()}))
    assert not (tmp_path / "ran").exists()
