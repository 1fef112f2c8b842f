"""What this distribution calls itself."""

from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "modelyard"


def distribution_version() -> str:
    """The installed version, or "0+unknown" in a tree that was never installed."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "0+unknown"
