"""How long a context may be and how many tokens all lanes hold together, for the memory there is. Arithmetic only."""

import logging

import msgspec

from backends.contract import LoadError, LoadRequest

STEP_TOKENS = 16
SMALLEST_CONTEXT_TOKENS = 256
UNKNOWN_CONTEXT_TOKENS = 2048
ADVICE = "lower context_size, set f16 or a quantization, or give the model more memory"

logger = logging.getLogger(__name__)


class Sizes(msgspec.Struct, frozen=True):
    """The longest that one sequence may be, and the tokens of all sequences."""

    context_tokens: int
    kv_tokens: int


def plan_sizes(
    request: LoadRequest,
    *,
    trained_tokens: int,
    token_bytes: int,
    room_bytes: int | None,
    on_gpu: bool = False,
) -> Sizes:
    """What was asked for, or between one and `running_lanes` full contexts, as the memory beside the weights allows
    (`room_bytes`; None: not known). A token takes `token_bytes`. On a GPU the room is what there is, whatever
    was asked for. Raises LoadError where an asked context does not fit."""
    context = request.context_tokens or trained_tokens or UNKNOWN_CONTEXT_TOKENS
    most = request.kv_tokens or context * request.running_lanes
    context = min(context, most)
    is_free = room_bytes is None or not token_bytes or (request.kv_tokens is not None and not on_gpu)
    room = most if is_free else (room_bytes or 0) // token_bytes // STEP_TOKENS * STEP_TOKENS
    if room < context:
        needs = (
            f"a context of {context} tokens takes {mib(context * token_bytes)} of keys and values, and "
            f"{mib(room_bytes or 0)} are left beside the weights"
        )
        is_asked = request.context_tokens is not None and not on_gpu
        if is_asked or room < SMALLEST_CONTEXT_TOKENS:
            raise LoadError(f"{needs}; {ADVICE}")
        logger.warning("%s: context cut to %d tokens; %s", needs, room, ADVICE)
        context = room
    return Sizes(context, max(context, min(most, room)))


def mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
