"""What a path and its headers say: which model, which version, and whose request it is."""

from starlette.requests import Request

from adapters.asgi import ApiError
from adapters.keys import ApiKey, key_of
from adapters.kserve.naming import version_number

_VERBS = ("infer", "generate", "generate_stream", "ready", "config", "stats")


def model_of(request: Request) -> str:
    """The model that the path names. Its name may hold slashes, so what comes here may be another path of this
    protocol with a wrong verb, or none at all: ApiError 405 or 404 then."""
    name: str = request.path_params["model"]
    parts = name.split("/")
    if parts[-1] in _VERBS and len(parts) > 1:
        raise ApiError(405, "Method Not Allowed")
    if "" in parts or "versions" in parts[1:]:
        raise ApiError(404, "Not Found")
    return name


def version_of(request: Request) -> int | None:
    """The version that the path names, if it names one. Raises KServeError where no version has such a number."""
    version: str = request.path_params.get("version", "")
    return version_number(version)


def whose(request: Request) -> ApiKey | None:
    return key_of(request)
