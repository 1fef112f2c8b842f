"""What of a request does nothing: listed in a header of the answer, or refused where the policy is strict. Some of it
only the model's worker knows, and tells when it accepts the request.
"""

from collections.abc import Mapping, Sequence

from adapters.openai.errors import unknown_field, unsupported
from adapters.settings import UnknownFields
from runner.errors import UnsupportedFeature
from runner.wire.requests import Accepted

_HEADER_LIMIT = 1000


class Ignored:
    """`unknown`: fields that nobody knows; `idle`: those which are known but do nothing. `depends`: by field, what the
    worker may say that the model has no use for; where it says so of all of it, the field is idle.

    Raises ApiError 400 where the policy is strict and there is such a field.
    """

    def __init__(
        self,
        policy: UnknownFields,
        unknown: Sequence[str],
        idle: Sequence[str] = (),
        depends: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        if policy == "strict" and unknown:
            raise unknown_field(unknown[0])
        if policy == "strict" and idle:
            raise unsupported(idle[0])
        self._policy = policy
        self._names = [*unknown, *idle]
        self._depends = depends or {}
        self._unused: list[str] = []

    def hear(self, accepted: Accepted) -> None:
        """Raises UnsupportedFeature where the policy is strict and the model has no use for a field."""
        useless = set(accepted.idle)
        self._unused = [
            field for field, needs in self._depends.items() if needs and useless.issuperset(needs)
        ]
        if self._unused and self._policy == "strict":
            name = self._unused[0]
            raise UnsupportedFeature(f"`{name}`: this model has no use for it; leave it out", param=name)

    @property
    def headers(self) -> dict[str, str]:
        """For the answer, once the request is accepted."""
        return ignored_header([*self._names, *self._unused]) if self._policy == "warn" else {}


def ignored_header(names: Sequence[str]) -> dict[str, str]:
    """The `X-Ignored-Params` header for those fields; empty without any."""
    if not names:
        return {}
    text = ", ".join(name[:_HEADER_LIMIT] for name in names[:_HEADER_LIMIT])[:_HEADER_LIMIT]
    spelled = text.encode("ascii", "backslashreplace").decode()[:_HEADER_LIMIT]
    return {"x-ignored-params": "".join(c if c.isprintable() else "?" for c in spelled)}
