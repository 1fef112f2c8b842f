"""Which Python a worker gets, and what a model says whose engine is nowhere."""

import sys
from pathlib import Path

import msgspec
import pytest

from backends.contract import BackendSpec, Probe
from backends.registry import Registry
from repository.scan import scan
from runner.environments.folder import Environments, write
from runner.environments.interpreters import Interpreters
from runner.environments.values import RECORD, REQUEST, Record, Wanted, WorkerHalf
from runner.errors import LoadFailed
from runner.gpus import Gpus
from runner.launch import plan_launch
from runner.wire.description import DescribedBackend, Description
from runner.wire.messages import PROTOCOL

ROOT = Path(__file__).parents[3]
REGISTRY = Registry(())
NOWHERE = "/nowhere/python"


def spec(name: str) -> BackendSpec:
    return REGISTRY.get(name)


def lay_out(state: Path, name: str, *backends: str, **given: object) -> Environments:
    """An environment on disk as it would be after making it, without its packages."""
    environments = Environments(state)
    folder = environments.folder / name
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    wanted = Wanted(backends=backends)
    found = tuple(
        DescribedBackend(
            name=each,
            engine=spec(each).engine,
            is_built_in=True,
            found=Probe(engine=f"{each} 1.0", devices=("cpu",)),
        )
        for each in backends
    )
    record = Record(
        wanted=wanted,
        half=WorkerHalf(folder=str(ROOT)),
        stamp="",
        description=Description(protocol=PROTOCOL, python="3.11", backends=found),
    )
    write(folder / REQUEST, wanted)
    write(folder / RECORD, msgspec.structs.replace(record, **given))
    return environments


def test_a_backend_without_a_requirement_set_runs_with_the_servers_own_python(tmp_path: Path) -> None:
    interpreters = Interpreters(Environments(tmp_path), own=NOWHERE)
    assert interpreters.choose(spec("echo"), None) == NOWHERE
    assert interpreters.choose(spec("llamacpp"), None) == NOWHERE


def test_an_environment_for_the_backend_comes_before_the_servers_own_python(tmp_path: Path) -> None:
    environments = lay_out(tmp_path, "big", "vllm", "echo")
    interpreters = Interpreters(environments, own=NOWHERE)
    assert interpreters.choose(spec("vllm"), None) == str(environments.folder / "big" / "bin" / "python")
    assert interpreters.choose(spec("echo"), None) == str(environments.folder / "big" / "bin" / "python")


def test_the_environment_of_the_backends_name_comes_before_others(tmp_path: Path) -> None:
    lay_out(tmp_path, "a", "vllm")
    environments = lay_out(tmp_path, "vllm", "vllm")
    assert Interpreters(environments).choose(spec("vllm"), None).endswith("/vllm/bin/python")


def test_the_environment_that_the_configuration_names_comes_first(tmp_path: Path) -> None:
    lay_out(tmp_path, "vllm", "vllm")
    environments = lay_out(tmp_path, "mine", "vllm")
    assert Interpreters(environments).choose(spec("vllm"), "mine").endswith("/mine/bin/python")
    assert Interpreters(environments).choose(spec("llamacpp"), "mine").endswith("/mine/bin/python")


@pytest.mark.parametrize(
    ("backend", "named", "words"),
    [
        ("vllm", None, "^backend vllm is not installed here; run `modelyard env create vllm`$"),
        ("echo", "orcas", "there is no environment 'orcas'; did you mean 'orca'"),
        ("echo", "x", "there is no environment 'x'; there are orca"),
        (
            "vllm",
            "orca",
            "'orca' was not made for backend vllm; "
            "run `modelyard env create orca --refresh --backend transformers --backend vllm`",
        ),
    ],
)
def test_an_engine_that_is_nowhere_is_told_with_the_command_that_helps(
    tmp_path: Path, backend: str, named: str | None, words: str
) -> None:
    interpreters = Interpreters(lay_out(tmp_path, "orca", "transformers"), own=NOWHERE)
    with pytest.raises(LoadFailed, match=words):
        interpreters.choose(spec(backend), named)


def test_a_backend_that_is_installed_and_could_do_as_well_is_named(tmp_path: Path) -> None:
    interpreters = Interpreters(lay_out(tmp_path, "vllm", "vllm"), own=NOWHERE)
    with pytest.raises(LoadFailed, match="env create gptq`; or set `backend: vllm`, which is installed"):
        interpreters.choose(spec("gptq"), None, others=[spec("rwkv"), spec("vllm")])
    with pytest.raises(LoadFailed, match=r"env create gptq`$"):
        interpreters.choose(spec("gptq"), None, others=[spec("rwkv")])


def test_another_workers_half_is_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:
    half = WorkerHalf(folder="/nowhere", stamp="tampered", version="0.0.1")
    interpreters = Interpreters(lay_out(tmp_path, "vllm", "vllm", half=half))
    for named in (None, "vllm"):
        with pytest.raises(
            LoadFailed, match=r"half of Modelyard 0\.0\.1.*run `modelyard env create vllm --refresh`"
        ):
            interpreters.choose(spec("vllm"), named)


def test_places_say_where_each_backend_runs_or_how_to_install_it(tmp_path: Path) -> None:
    interpreters = Interpreters(lay_out(tmp_path, "big", "vllm"))
    specs = (spec("echo"), spec("vllm"), spec("exllamav2"))
    echo, vllm, exllamav2 = interpreters.places(specs)
    assert (echo.environment, echo.problem, echo.found.problem) == ("", "", "")
    assert (vllm.environment, vllm.found.engine, vllm.problem) == ("big", "vllm 1.0", "")
    assert "modelyard env create exllamav2" in exllamav2.problem


def test_a_folder_for_which_no_backend_is_named_tells_which_installed_one_could_load_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "demo").symlink_to(ROOT / "examples" / "demo_model" / "hf")
    entry = scan(tmp_path / "models").models["demo"]
    with pytest.raises(LoadFailed, match="env create transformers`; or set `backend: vllm`"):
        plan_launch(
            entry,
            entry.versions[0],
            registry=REGISTRY,
            free_bytes=2**30,
            cores=2,
            live_threads=(),
            interpreters=Interpreters(lay_out(tmp_path, "vllm", "vllm"), own=NOWHERE),
            state_dir=tmp_path,
            gpus=Gpus(),
        )
