"""`HubError`: why something could not be had from a hub, as one sentence for a person."""

from typing import Literal

Kind = Literal["malformed", "missing", "gated", "ambiguous", "offline", "disk", "broken"]


class HubError(Exception):
    """One sentence that says what is wrong and what to do.

    `kind`: malformed (the reference), missing (repository, file or revision), gated (a licence or a token is
    needed), ambiguous (several models in one repository), offline (no connection, a hub that does not answer or
    asks to wait for long), disk (full, read-only), broken (what came is not what was promised).
    """

    def __init__(self, message: str, kind: Kind) -> None:
        super().__init__(message)
        self.kind = kind
