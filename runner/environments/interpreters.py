"""Which Python runs a model's worker: that of the environment its configuration names, of one that was made for its
backend, or the server's own where the engine is installed there.
"""

import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import msgspec

from backends.contract import BackendSpec, Probe
from runner.environments.describing import describe
from runner.environments.folder import Environments
from runner.environments.sets import requirement_sets
from runner.environments.values import Environment, EnvironmentProblem
from runner.errors import LoadFailed


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a backend runs. `environment` is empty for the server's own. `problem` says why it cannot and what
    to do."""

    backend: str
    environment: str = ""
    found: Probe = Probe()
    problem: str = ""


class Interpreters:
    """`own` is the server's interpreter. What it has of an engine is asked once, when it first matters."""

    def __init__(self, environments: Environments, *, own: str = sys.executable) -> None:
        self._environments = environments
        self._own = own
        self._sets = requirement_sets()
        self._found: dict[str, Probe] = {}
        self._asking = threading.Lock()

    def choose(self, spec: BackendSpec, named: str | None, *, others: Iterable[BackendSpec] = ()) -> str:
        """The interpreter for a worker of this backend; `named` is the environment that the configuration names, and
        `others` are backends that could do as well.

        Raises LoadFailed with the command that helps.
        """
        try:
            return self._python(spec, named)
        except EnvironmentProblem as error:
            able = next((other.name for other in others if self._is_able(other, named)), None)
            hint = f"; or set `backend: {able}`, which is installed and can load it too" if able else ""
            raise LoadFailed(f"{error}{hint}") from error

    def _is_able(self, spec: BackendSpec, named: str | None) -> bool:
        try:
            return bool(self._python(spec, named))
        except EnvironmentProblem:
            return False

    def _python(self, spec: BackendSpec, named: str | None) -> str:
        environment = self._environments.get(named) if named is not None else None
        environment = environment or self._environments.of_backend(spec.name)
        if environment is None:
            if problem := self._absence(spec):
                raise EnvironmentProblem(problem)
            return self._own
        if problem := self._environments.problem(environment) or self._stranger(spec, environment):
            raise EnvironmentProblem(problem)
        return str(environment.python)

    def places(self, specs: tuple[BackendSpec, ...]) -> tuple[Place, ...]:
        """Where each backend runs, for people. Starts a process where the server's own Python may have an engine."""
        elsewhere = {spec.name: self._environments.of_backend(spec.name) for spec in specs}
        self._ask([spec.name for spec in specs if elsewhere[spec.name] is None])
        return tuple(self._place(spec, elsewhere[spec.name]) for spec in specs)

    def _place(self, spec: BackendSpec, environment: Environment | None) -> Place:
        if environment is None:
            return Place(backend=spec.name, found=self._own_probe(spec.name), problem=self._absence(spec))
        found = environment.record.description.found(spec.name) if environment.record is not None else None
        return Place(
            backend=spec.name,
            environment=environment.name,
            found=found or Probe(),
            problem=self._environments.problem(environment),
        )

    def _absence(self, spec: BackendSpec) -> str:
        """Why the server's own Python cannot run it; those without a requirement set always run there."""
        found = self._own_probe(spec.name) if spec.name in self._sets else Probe()
        if found.engine or not found.problem:  # what is installed says by itself what it lacks
            return ""
        return f"backend {spec.name} is not installed here; run `modelyard env create {spec.name}`"

    def _stranger(self, spec: BackendSpec, environment: Environment) -> str:
        """Why an environment that was not made for a backend cannot run it."""
        if spec.name not in self._sets or environment.serves(spec.name) or environment.wanted is None:
            return ""
        words = " ".join(f"--backend {name}" for name in (*environment.wanted.backends, spec.name))
        return (
            f"environment {environment.name!r} was not made for backend {spec.name}; "
            f"run `{environment.remedy} {words}`"
        )

    def _own_probe(self, name: str) -> Probe:
        self._ask([name])
        return self._found[name]

    def _ask(self, names: list[str]) -> None:
        with self._asking:
            unknown = [name for name in names if name not in self._found]
            if not unknown:
                return
            try:
                description = describe(Path(self._own), unknown)
            except EnvironmentProblem as error:
                self._found |= dict.fromkeys(unknown, Probe(problem=str(error)))
                return
            nothing = Probe(problem="it is not installed")
            self._found |= {name: description.found(name) or nothing for name in unknown}
