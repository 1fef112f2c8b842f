"""Finding plugins by name and alias, and what a broken one may not break."""

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from backends.contract import BackendSpec, PlainClaims
from backends.registry import BackendBrokenError, BackendError, BackendNotFoundError, Elsewhere, Registry

GOOD = """
from backends.contract import BackendSpec
SPEC = BackendSpec(name="{name}", engine="nowhere:Engine", claims=lambda *_: 0, aliases=("{name}-alias",))
NUMBER = 4
"""


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose modules can be imported for the length of a test."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("plugin_"):
            del sys.modules[name]


def point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, Registry.GROUP)


def good(plugins: Path, name: str) -> EntryPoint:
    (plugins / f"plugin_{name}.py").write_text(GOOD.format(name=name))
    return point(name, f"plugin_{name}:SPEC")


def test_built_in_backends_are_known_without_entry_points() -> None:
    registry = Registry(())
    assert registry.names() == tuple(Registry.BUILT_IN)
    assert [registry.get(name).name for name in registry.names()] == list(registry.names())
    assert registry.broken() == {}


def test_installed_entry_points_are_the_default() -> None:
    assert set(Registry.BUILT_IN) <= set(Registry().names())


def test_modelyards_own_entry_points_are_not_listed_twice() -> None:
    own = [point(name, value) for name, value in Registry.BUILT_IN.items()]
    registry = Registry(own)
    assert registry.names() == tuple(Registry.BUILT_IN)
    assert registry.broken() == {}


def test_a_third_party_backend_is_found_by_name_and_alias(plugins: Path) -> None:
    registry = Registry([good(plugins, "orca")])
    assert registry.get("orca").name == "orca"
    assert registry.get("orca-alias") is registry.get("orca")
    assert "orca" in [spec.name for spec in registry.specs()]


def test_aliases_of_built_in_backends_are_known() -> None:
    assert Registry(()).get("llama.cpp").name == "llamacpp"


def test_listing_and_asking_by_name_import_only_what_is_asked_for(plugins: Path) -> None:
    registry = Registry([good(plugins, "one"), good(plugins, "two")])
    assert registry.names()[-2:] == ("one", "two")
    assert "plugin_one" not in sys.modules
    registry.get("one")
    assert "plugin_one" in sys.modules
    assert "plugin_two" not in sys.modules


def test_a_plugin_is_imported_once(plugins: Path) -> None:
    (plugins / "plugin_count.py").write_text(
        "from pathlib import Path\nwith (Path(__file__).parent / 'count').open('a') as f: f.write('x')\n"
        "raise ImportError('no such library')\n"
    )
    registry = Registry([point("count", "plugin_count:SPEC")])
    for _ in range(3):
        with pytest.raises(BackendBrokenError):
            registry.get("count")
        assert "count" in registry.broken()
    assert (plugins / "count").read_text() == "x"


@pytest.mark.parametrize(
    ("source", "attribute", "reason"),
    [
        ("import no_such_library", "SPEC", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("raise SystemExit(3)", "SPEC", "SystemExit: 3"),
        ("this is no python", "SPEC", "SyntaxError"),
        (GOOD.format(name="bad"), "NUMBER", "a int, not a BackendSpec"),
        (GOOD.format(name="bad"), "MISSING", "AttributeError"),
        (GOOD.format(name="other"), "SPEC", "calls itself 'other', not 'bad'"),
        (
            GOOD.format(name="bad") + "SPEC.options['properties'] = 5",
            "SPEC",
            "are no JSON Schema of an object",
        ),
    ],
)
def test_a_broken_plugin_breaks_only_itself(plugins: Path, source: str, attribute: str, reason: str) -> None:
    (plugins / "plugin_bad.py").write_text(source)
    registry = Registry([point("bad", f"plugin_bad:{attribute}"), good(plugins, "orca")])
    with pytest.raises(BackendBrokenError, match="'bad' is broken") as caught:
        registry.get("bad")
    assert reason in caught.value.reason
    assert reason in registry.broken()["bad"]
    assert registry.get("orca-alias").name == "orca"
    assert [spec.name for spec in registry.specs()] == [*Registry.BUILT_IN, "orca"]


def test_a_taken_name_is_reported_and_the_first_owner_keeps_it(plugins: Path) -> None:
    (plugins / "plugin_echo.py").write_text(GOOD.format(name="echo"))
    registry = Registry([point("echo", "plugin_echo:SPEC")])
    assert registry.get("echo").engine == "backends.echo.engine:EchoEngine"
    assert registry.broken() == {"echo (plugin_echo:SPEC)": "the name is taken by backends.echo:SPEC"}


def test_an_unknown_name_brings_close_ones(plugins: Path) -> None:
    registry = Registry([good(plugins, "orca")])
    with pytest.raises(BackendNotFoundError, match="did you mean 'orca-alias'") as caught:
        registry.get("orca-alia")
    assert caught.value.close[0] == "orca-alias"
    assert isinstance(caught.value, BackendError)
    with pytest.raises(BackendNotFoundError, match="there are llamacpp, transformers"):
        registry.get("zzz")


def foreign(name: str, engine: str = "elsewhere:Engine") -> BackendSpec:
    return BackendSpec(
        name=name, engine=engine, claims=PlainClaims(names=(name,)), aliases=(f"{name}-alias",)
    )


def test_a_plugin_of_another_environment_is_found_by_name_and_alias() -> None:
    registry = Registry((), elsewhere=[Elsewhere("environment sea", (foreign("orca"),))])
    assert registry.names() == (*Registry.BUILT_IN, "orca")
    assert registry.get("orca") is registry.get("orca-alias") is registry.specs()[-1]
    assert registry.broken() == {}


def test_a_plugin_that_is_broken_elsewhere_says_so_to_whoever_names_it() -> None:
    registry = Registry(
        (), elsewhere=[Elsewhere("environment sea", broken={"orca": "ImportError: no water"})]
    )
    assert registry.broken() == {"orca": "ImportError: no water"}
    with pytest.raises(BackendBrokenError, match="'orca' is broken: ImportError: no water"):
        registry.get("orca")


@pytest.mark.parametrize(
    ("first", "second", "broken"),
    [
        (foreign("orca"), foreign("orca"), {}),
        (foreign("orca"), foreign("orca", "other:Engine"), {"orca (b)": "the name is taken by a"}),
        (foreign("orca"), foreign("echo"), {"echo (b)": "the name is taken by backends.echo:SPEC"}),
    ],
)
def test_a_name_that_two_environments_have_belongs_to_the_first(
    first: BackendSpec, second: BackendSpec, broken: dict[str, str]
) -> None:
    registry = Registry((), elsewhere=[Elsewhere("a", (first,)), Elsewhere("b", (second,))])
    assert registry.get("orca") is first
    assert registry.get("echo").engine == "backends.echo.engine:EchoEngine"
    assert registry.broken() == broken


def test_a_plugin_that_works_in_one_environment_is_not_broken_by_another() -> None:
    registry = Registry(
        (), elsewhere=[Elsewhere("a", broken={"orca": "x"}), Elsewhere("b", (foreign("orca"),))]
    )
    assert registry.get("orca").name == "orca"
    assert registry.broken() == {}


def test_a_plugin_beside_the_server_comes_before_one_elsewhere(plugins: Path) -> None:
    registry = Registry(
        [good(plugins, "orca")], elsewhere=[Elsewhere("a", (foreign("orca"),), {"orca": "x"})]
    )
    assert registry.get("orca").engine == "nowhere:Engine"
    assert registry.broken() == {}


def test_built_in_specs_import_no_engine() -> None:
    code = (
        "import sys; from backends.registry import Registry; Registry(()).specs(); "
        "print([name for name in sys.modules if name in ('llama_cpp', 'numpy') or name.endswith('.engine')])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
