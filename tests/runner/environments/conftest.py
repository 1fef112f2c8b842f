"""One real environment, made once: the worker's half and the example plugin."""

from pathlib import Path

import pytest

from runner.environments.folder import Environments
from runner.environments.making import make
from runner.environments.uv import Uv
from runner.environments.values import Environment, Wanted

PLUGIN = Path(__file__).parents[3] / "examples" / "plugin_markov"


class Made:
    """A state folder with the environment `markov`, and what was said while it was made."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.said: list[str] = []
        self.environments = Environments(state)
        wanted = Wanted(packages=(str(PLUGIN),))
        self.environment: Environment = make(
            self.environments, "markov", wanted, uv=Uv(self.said.append), say=self.said.append
        )


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("state"))
