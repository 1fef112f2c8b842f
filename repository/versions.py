"""Which version a folder stands for, and which versions a policy selects. Pure."""

import re
from collections.abc import Collection

from msgspec import Struct

from repository.config import VersionPolicy

_VERSION = re.compile(r"[1-9][0-9]{0,17}\Z", re.ASCII)
_NEARLY_VERSION = re.compile(r"[vV]?[0-9][0-9.]*\Z", re.ASCII)


class Selection(Struct, frozen=True):
    """Version numbers in ascending order, and those that the policy names but that are not there."""

    versions: list[int]
    missing: list[int] = []


def select_versions(available: Collection[int], policy: VersionPolicy) -> Selection:
    """Which of the available versions are to be served."""
    present = sorted(set(available))
    if policy.specific is not None:
        wanted = sorted(set(policy.specific.versions))
        return Selection(
            [version for version in wanted if version in present],
            [version for version in wanted if version not in present],
        )
    if policy.all is not None or policy.latest is None:
        return Selection(present)
    return Selection(present[-policy.latest.num_versions :])


def parse_version_folder(name: str) -> int | None:
    """The version a folder's name stands for: a positive integer without leading zeros, else None."""
    return int(name) if _VERSION.match(name) else None


def looks_like_version(name: str) -> bool:
    """True for `01`, `v2` or `1.0`: surely meant as a version, though it is none."""
    return parse_version_folder(name) is None and _NEARLY_VERSION.match(name) is not None
