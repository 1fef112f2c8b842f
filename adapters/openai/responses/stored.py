"""Responses that are kept: got, deleted, and their input listed."""

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request

from adapters.asgi import ApiError, JsonResponse
from adapters.keys import key_of
from adapters.openai.errors import invalid, unsupported
from adapters.openai.ignored import ignored_header
from adapters.openai.responses.items import Item
from adapters.openai.responses.store import Kept, ResponseStore

NO_STORE = "this server keeps no responses; start it with --response-store PATH"

_PAGE = 20
_MAX_PAGE = 100


class StoredEndpoint:
    """`store` None: no response is kept, and none can be found."""

    def __init__(self, store: ResponseStore | None) -> None:
        self._store = store

    async def get(self, request: Request) -> JsonResponse:
        query = request.query_params
        if query.get("stream") == "true" or "starting_after" in query:
            name = "starting_after" if "starting_after" in query else "stream"
            raise unsupported(name, f"`{name}`: a response that is kept is not streamed; leave it out.")
        kept = await self._find(request)
        return JsonResponse(kept.response, headers=_ignored(query, "stream"))

    async def input_items(self, request: Request) -> JsonResponse:
        """What the response was asked with, without what it went on with."""
        kept = await self._find(request)
        page = items_page(kept.input, request.query_params)
        return JsonResponse(page, headers=_ignored(request.query_params, "after", "limit", "order"))

    async def delete(self, request: Request) -> JsonResponse:
        id = request.path_params["response_id"]
        if not await self._open().delete(id, owner=owner_of(request)):
            raise _unknown(id)
        return JsonResponse({"id": id, "object": "response", "deleted": True})

    async def cancel(self, request: Request) -> JsonResponse:
        await self._find(request)
        raise ApiError(
            400,
            "Only a response made with `background: true` can be cancelled, and this version of Modelyard makes none "
            "in the background; close the connection to cancel one that is being made.",
            code="unsupported_endpoint",
        )

    async def compact(self, request: Request) -> JsonResponse:
        raise ApiError(
            400,
            "/responses/compact is not supported by this version of Modelyard.",
            code="unsupported_endpoint",
        )

    def _open(self) -> ResponseStore:
        if self._store is None:
            raise ApiError(404, f"There is no such response: {NO_STORE}.", code="response_store_off")
        return self._store

    async def _find(self, request: Request) -> Kept:
        id = request.path_params["response_id"]
        kept = await self._open().get(id, owner=owner_of(request))
        if kept is None:
            raise _unknown(id)
        return kept


def owner_of(request: Request) -> str:
    """Whose the responses of this request are: its key's, everybody's where there are no keys."""
    key = key_of(request)
    return key.owner if key is not None else ""


def items_page(items: Sequence[Item], query: Mapping[str, str]) -> dict[str, Any]:
    """A page of items, the last ones first unless `order` is "asc". Raises ApiError 400."""
    order, after = query.get("order", "desc"), query.get("after")
    if order not in ("asc", "desc"):
        raise invalid("order", '`order` must be "asc" or "desc".')
    limit = query.get("limit", str(_PAGE))
    if not (limit.isascii() and limit.isdecimal() and len(limit) < 4 and 1 <= int(limit) <= _MAX_PAGE):
        raise invalid("limit", f"`limit` must be a number from 1 to {_MAX_PAGE}.")
    listed = list(items if order == "asc" else reversed(items))
    if after is not None:
        at = next((i for i, item in enumerate(listed) if item.id == after), None)
        if at is None:
            raise invalid("after", f'`after`: no item of this response has the id "{after[:80]}".')
        listed = listed[at + 1 :]
    shown = listed[: int(limit)]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0].id if shown else None,
        "last_id": shown[-1].id if shown else None,
        "has_more": len(listed) > len(shown),
    }


def _ignored(query: Mapping[str, str], *known: str) -> dict[str, str]:
    return ignored_header(sorted(name for name in query if name not in known))


def _unknown(id: str) -> ApiError:
    return ApiError(
        404,
        f'There is no response "{id[:80]}", or it is kept no longer.',
        code="response_not_found",
        param="id",
    )
