"""What every run of the tests needs."""

import sys

import pytest


def pytest_unconfigure(config: pytest.Config) -> None:
    """llama_cpp opens /dev/null when it is imported, twice, and leaves that to the interpreter's end, which warns."""
    library = sys.modules.get("llama_cpp._utils")
    if library is not None:
        library.outnull_file.close()
        library.errnull_file.close()
