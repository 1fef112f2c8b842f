"""An OpenVINO engine that checks no constraints, so that a wrong one breaks its pipeline in the middle of a step."""

from pathlib import Path

from backends.contract import EngineInfo, LoadRequest, Progress
from backends.openvino.checker import ConstraintChecker
from backends.openvino.engine import OpenVinoEngine


class Unchecked(ConstraintChecker):
    async def check(self, form: dict[str, str], *, param: str) -> None:
        pass


class UncheckedEngine(OpenVinoEngine):
    def load(self, request: LoadRequest, progress: Progress) -> EngineInfo:
        info = super().load(request, progress)
        self._checker = Unchecked(Path(request.weights), info.vocabulary)
        return info
