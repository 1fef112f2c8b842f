"""Converted weights: made once, kept by content, never half. The exporter is a shell script that only pretends."""

import multiprocessing
from pathlib import Path

import pytest

from backends.contract import LoadError
from backends.openvino.conversion import MODEL, Conversion, Converter

EXPORTER = """#!/bin/sh
echo run >> "{log}"
target=$(printf %s "$3" | sed 's/.*"target": "\\([^"]*\\)".*/\\1/')
{work}
"""
WORKS = f"sleep 0.2; echo '<net/>' > \"$target/{MODEL}\"; echo noise; echo '{{}}'"


class Yard:
    """A state folder with an exporter, and weights."""

    def __init__(self, root: Path) -> None:
        self.state = root / "state"
        self.log = root / "runs"
        self.weights = root / "weights"
        self.weights.mkdir()
        (self.weights / "config.json").write_text("{}")
        (self.weights / "model.safetensors").write_bytes(b"weights")

    def install(self, work: str = WORKS) -> None:
        python = self.state / "environments" / "openvino-export" / "bin" / "python"
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text(EXPORTER.format(log=self.log, work=work))
        python.chmod(0o755)

    def convert(self, weights: Path | None = None, quantization: str = "none") -> Path:
        wanted = Conversion(
            source=str(weights or self.weights),
            type="OVModelForCausalLM",
            quantization=quantization,
            trust_remote_code=False,
        )
        return Converter(self.state).find_or_make(wanted, lambda _: None)

    @property
    def num_runs(self) -> int:
        return len(self.log.read_text().splitlines())

    @property
    def leftovers(self) -> list[Path]:
        return list((self.state / "openvino").glob("*.part"))


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


def test_equal_weights_are_converted_once_wherever_they_lie(yard: Yard, tmp_path: Path) -> None:
    yard.install()
    first = yard.convert()
    assert (first / MODEL).is_file()
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in yard.weights.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / "README.md").write_text("changes nothing")
    assert yard.convert() == yard.convert(copy) == first
    assert yard.num_runs == 1


def test_other_weights_and_another_quantisation_are_other_models(yard: Yard) -> None:
    yard.install()
    folders = {yard.convert(), yard.convert(quantization="int8")}
    (yard.weights / "model.safetensors").write_bytes(b"Weights")
    folders.add(yard.convert())
    assert len(folders) == yard.num_runs == 3


def test_two_workers_that_ask_at_once_share_one_conversion(yard: Yard) -> None:
    yard.install()
    asking = [multiprocessing.get_context("fork").Process(target=yard.convert) for _ in range(3)]
    for process in asking:
        process.start()
    for process in asking:
        process.join()
    assert [process.exitcode for process in asking] == [0, 0, 0]
    assert yard.num_runs == 1


@pytest.mark.parametrize(
    ("work", "words"),
    [
        ("""echo '{"refusal": "ValueError: no such architecture"}'; exit 1""", "no such architecture"),
        ("echo '{}'", f"it wrote no {MODEL}"),
        ("exit 3", "status 3"),
        ("kill -9 $$", "signal 9"),
    ],
)
def test_a_conversion_that_fails_says_why_and_leaves_nothing(yard: Yard, work: str, words: str) -> None:
    yard.install(work)
    with pytest.raises(LoadError, match=words):
        yard.convert()
    assert not yard.leftovers


def test_what_a_killed_worker_left_is_no_model(yard: Yard) -> None:
    yard.install("kill -9 $PPID")
    dying = multiprocessing.get_context("fork").Process(target=yard.convert)
    dying.start()
    dying.join()
    assert yard.leftovers
    yard.install()
    assert (yard.convert() / MODEL).is_file()
    assert not yard.leftovers


def test_without_its_environment_the_command_that_makes_it_is_named(yard: Yard) -> None:
    with pytest.raises(LoadError, match="modelyard env create openvino-export"):
        yard.convert()
