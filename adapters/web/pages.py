"""`/health`, `/version`, `/metrics` and the page at `/`."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from adapters.about import DISTRIBUTION
from adapters.asgi import JsonResponse
from adapters.settings import AppSettings
from runner.api import RunnerApi

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class WebEndpoints:
    def __init__(self, runner: RunnerApi, settings: AppSettings) -> None:
        self._runner = runner
        self._settings = settings
        self._page = Path(__file__).with_name("index.html").read_text(encoding="utf-8")

    async def health(self, request: Request) -> Response:
        """200 as long as this server can take requests, whatever its models do."""
        is_live = self._runner.is_live()
        return JsonResponse({"status": "ok" if is_live else "stopping"}, status_code=200 if is_live else 503)

    async def version(self, request: Request) -> Response:
        return JsonResponse({"name": DISTRIBUTION, "version": self._settings.version})

    async def metrics(self, request: Request) -> Response:
        return Response(self._runner.metrics(), media_type=_METRICS_TYPE)

    async def page(self, request: Request) -> Response:
        return HTMLResponse(self._page)
