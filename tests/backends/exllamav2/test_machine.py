"""What exllamav2 finds out of its machine before it is imported."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from backends.contract import LoadError
from backends.exllamav2 import machine
from backends.exllamav2.machine import Gpu, build_environment, only_gpu, paging
from backends.exllamav2.probe import probe

H200 = Gpu("NVIDIA H200", (9, 0), 0)
T4 = Gpu("Tesla T4", (7, 5), 0)


@pytest.mark.parametrize(
    ("flash_attn", "gpus", "why_not"),
    [
        ("2.8.3", (H200, H200), ""),
        ("2.5.7", (H200,), ""),
        ("2.7.4.post1", (H200,), ""),
        ("2.5.6", (H200,), "flash-attn 2.5.6 is older than 2.5.7"),
        ("2.8.3", (H200, T4), "flash-attn does not run on Tesla T4"),
        (None, (H200,), "flash-attn 2.5.7 or newer is not installed"),
    ],
)
def test_many_sequences_at_once_need_flash_attn(
    flash_attn: str | None, gpus: tuple[Gpu, ...], why_not: str
) -> None:
    found = paging(flash_attn, gpus)
    assert (found.is_there, found.why_not) == (not why_not, why_not)


@pytest.mark.parametrize(("visible", "only"), [(None, "1"), ("4,5", "5"), ("GPU-8f2c, GPU-77aa", "GPU-77aa")])
def test_one_gpu_is_picked_of_those_that_are_visible(visible: str | None, only: str) -> None:
    assert only_gpu(1, visible=visible) == only


def test_the_extension_is_kept_in_its_environment(tmp_path: Path) -> None:
    for name in ("nvidia/cu13/include", "nvidia/cu12/include"):
        (tmp_path / name).mkdir(parents=True)
    added = build_environment({"PATH": "/usr/bin"}, prefix=Path("/env"), packages=tmp_path)
    assert added == {
        "TORCH_EXTENSIONS_DIR": "/env/torch_extensions",
        "PATH": "/env/bin:/usr/bin",
        "CPATH": f"{tmp_path}/nvidia/cu12/include:{tmp_path}/nvidia/cu13/include",
    }


def test_what_the_user_has_set_is_kept(tmp_path: Path) -> None:
    (tmp_path / "nvidia/cu13/include").mkdir(parents=True)
    known = {"TORCH_EXTENSIONS_DIR": "/fast", "PATH": "/env/bin:/usr/bin", "CPATH": "/opt/include"}
    added = build_environment(known, prefix=Path("/env"), packages=tmp_path)
    assert added == {"CPATH": f"/opt/include:{tmp_path}/nvidia/cu13/include"}


def test_a_dead_process_holds_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "exllamav2_ext"
    folder.mkdir()
    (folder / "lock").touch()  # what PyTorch leaves behind when it is killed
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setattr(machine, "require_extension", lambda: None)
    with machine.compiling():
        assert not (folder / "lock").exists()


def test_others_wait_for_the_one_that_compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setattr(machine, "require_extension", lambda: None)
    asking = f"""
import fcntl
with open({str(tmp_path / "exllamav2_ext.lock")!r}, "w") as file:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
"""
    with machine.compiling():
        other = subprocess.run([sys.executable, "-c", asking], capture_output=True, text=True, check=False)
        assert "BlockingIOError" in other.stderr
    subprocess.run([sys.executable, "-c", asking], check=True)


def test_without_a_cuda_toolkit_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.utils import cpp_extension

    monkeypatch.setattr(cpp_extension, "CUDA_HOME", None)
    with pytest.raises(LoadError, match=r"there is no CUDA toolkit.*set CUDA_HOME"):
        machine.require_extension()
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", "/usr/local/cuda")
    monkeypatch.setenv("CXX", "/no/such/compiler -O2")
    with pytest.raises(LoadError, match=r"install g\+\+"):
        machine.require_extension()


@pytest.mark.skipif(torch.version.cuda is not None, reason="this PyTorch is built for CUDA")
def test_a_pytorch_for_cpus_is_refused() -> None:
    with pytest.raises(LoadError, match=r"NVIDIA GPUs only, and PyTorch .* is not built for them"):
        machine.import_torch()


def test_the_probe_says_how_to_install_it() -> None:
    found = probe()
    assert found.problem.startswith("exllamav2 is not installed")
    assert "modelyard env create exllamav2 --device cuda" in found.problem
