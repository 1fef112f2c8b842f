import pytest
from hypothesis import given
from hypothesis import strategies as st

from repository.config import All, Latest, Specific, VersionPolicy
from repository.names import name_problem
from repository.versions import looks_like_version, parse_version_folder, select_versions

numbers = st.lists(st.integers(1, 50), unique=True)
policies = st.one_of(
    st.builds(lambda n: VersionPolicy(latest=Latest(n)), st.integers(1, 60)),
    st.just(VersionPolicy(all=All())),
    st.builds(
        lambda some: VersionPolicy(specific=Specific(tuple(some))), st.lists(st.integers(1, 50), min_size=1)
    ),
)


@given(numbers, policies)
def test_a_selection_is_ascending_and_available(available: list[int], policy: VersionPolicy) -> None:
    chosen = select_versions(available, policy)
    assert chosen.versions == sorted(set(chosen.versions))
    assert set(chosen.versions) <= set(available)
    assert set(chosen.missing).isdisjoint(available)


@given(numbers, policies, st.randoms())
def test_a_selection_does_not_depend_on_order(available: list[int], policy: VersionPolicy, random) -> None:
    shuffled = random.sample(available, len(available))
    assert select_versions(shuffled, policy) == select_versions(available, policy)


@given(numbers, st.integers(1, 60))
def test_latest_takes_the_highest(available: list[int], count: int) -> None:
    chosen = select_versions(available, VersionPolicy(latest=Latest(count))).versions
    assert len(chosen) == min(count, len(available))
    assert all(left < kept for kept in chosen for left in set(available) - set(chosen))


@given(numbers)
def test_all_takes_all(available: list[int]) -> None:
    assert select_versions(available, VersionPolicy(all=All())).versions == sorted(available)


@given(numbers, st.lists(st.integers(1, 50), min_size=1))
def test_specific_takes_the_named_and_tells_the_missing(available: list[int], named: list[int]) -> None:
    chosen = select_versions(available, VersionPolicy(specific=Specific(tuple(named))))
    assert sorted([*chosen.versions, *chosen.missing]) == sorted(set(named))


@pytest.mark.parametrize(
    ("name", "version"),
    [("1", 1), ("42", 42), ("999999999", 999999999)],
)
def test_version_folders_are_positive_integers(name: str, version: int) -> None:
    assert parse_version_folder(name) == version


@pytest.mark.parametrize(
    "name", ["0", "01", "-1", "+1", "1.0", "v1", "", " 1", "1\n", "٣", "²", "1" * 30, "one"]
)
def test_other_folders_are_no_versions(name: str) -> None:
    assert parse_version_folder(name) is None


@pytest.mark.parametrize(
    ("name", "nearly"), [("01", True), ("v2", True), ("1.0", True), ("1", False), ("onnx", False)]
)
def test_near_versions_are_recognised(name: str, nearly: bool) -> None:
    assert looks_like_version(name) is nearly


@pytest.mark.parametrize("name", ["orca", "owner/repo", "Qwen2.5-0.5B", "modell-größe", "7"])
def test_names_that_can_be_served(name: str) -> None:
    assert name_problem(name) is None


@pytest.mark.parametrize("name", ["a:b", "", " a", "a\n", "a//b", "../a", "/a", "a/.", "a\x00b", "b\udcff"])
def test_names_that_cannot_be_served(name: str) -> None:
    assert name_problem(name)
