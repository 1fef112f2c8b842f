"""What the check of GPUs does where there is none, and what it makes of outcomes."""

import stat
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from benchmarks import gpu_check
from benchmarks.gpu_check import Gpu, Outcome, Place, main, render, run, verdict
from benchmarks.gpu_models import Check, Model, checks

GPU = Gpu("NVIDIA H200", "580.1", 512)
DEMO = Model(
    name="demo", label="demo", config={"backend": "llamacpp", "threads": 1}, weights="gguf", at_least=20
)


def nvidia_smi(folder: Path, answer: str, *, status: int = 0) -> None:
    """A program of that name in `folder`."""
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\nprintf '{answer}'\nexit {status}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_without_a_gpu_it_says_so_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([]) == 1
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert err.startswith("There is no NVIDIA GPU here")


@pytest.mark.parametrize(
    ("answer", "status", "gpus"),
    [
        (r"NVIDIA H200, 580.1, 512\nNVIDIA H200, 580.1, 0\n", 0, [GPU, Gpu("NVIDIA H200", "580.1", 0)]),
        ("No devices were found", 6, []),
        ("", 0, []),
    ],
)
def test_gpus_are_those_that_the_driver_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, status: int, gpus: list[Gpu]
) -> None:
    nvidia_smi(tmp_path, answer, status=status)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list(gpu_check.list_gpus()) == gpus


@pytest.mark.timeout(300)
def test_a_failing_engine_is_shown_and_the_rest_still_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_check, "questions", lambda: ("What is a version?", "What is a lane?"))
    broken = Model(name="broken", label="broken", config={"backend": "echo", "fail": {"load": "no room"}})
    refused = Model(
        name="refused",
        label="refused",
        config={"backend": "echo", "fail": {"load": "no GPU 9"}},
        refused="no GPU 9",
    )
    chosen = [Check(name="first", models=(broken, refused)), Check(name="second", models=(DEMO,))]
    place = Place(state=tmp_path / "state", work=tmp_path)
    outcomes = run(chosen, place, say=lambda _: None)
    assert [one.failure for one in outcomes][1:] == ["", ""]
    assert "no room" in outcomes[0].failure
    assert outcomes[2].one_client > 0 and outcomes[2].all_clients > 0
    assert len(outcomes[2].answers) == 2
    text = render(outcomes, [GPU], when=datetime(2026, 11, 23, 18, tzinfo=UTC))
    assert "## 2026-11-23 18:00 UTC, on GPUs" in text
    assert "| broken | - | - | - | - | - | - | FAILED:" in text
    assert "| refused | - | - | - | - | - | - | refused, as it should be |" in text


def test_an_environment_that_cannot_be_made_fails_its_check_alone(tmp_path: Path) -> None:
    check = Check(name="none", models=(DEMO,), environment="no-such-set")
    (outcome,) = run([check], Place(state=tmp_path / "state", work=tmp_path), say=lambda _: None)
    assert outcome.failure.startswith("the environment could not be made: ")


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, ""),
        ({"answers": ("a", "x", "x")}, "only 1 answers are those of the first row"),
        ({"gpu_mib": 0}, "no GPU memory was taken: it did not compute on one"),
        ({"failure": "it broke"}, "it broke"),
        ({"failure": "it has not been built for GPUs here"}, ""),
    ],
)
def test_an_outcome_is_judged(given: dict[str, object], problem: str) -> None:
    model = msgspec.structs.replace(DEMO, at_least=2, left_out="not been built")
    outcome = Outcome(**{"model": model, "answers": ("a", "b", "x"), "gpu_mib": 300, **given})  # type: ignore[arg-type]
    assert verdict(outcome, ("a", "b", "c")) == problem


def test_every_model_has_a_name_of_its_own() -> None:
    names = [model.name for check in checks(2) for model in check.models]
    assert len(set(names)) == len(names)
