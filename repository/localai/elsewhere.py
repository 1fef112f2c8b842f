"""Fields of LocalAI's that one backend takes and that others may be given: they ask how to compute, never what."""

from collections.abc import Mapping
from types import MappingProxyType

from repository.localai.fields import FIELDS

ELSEWHERE: Mapping[str, str] = MappingProxyType(
    {field.to or key: field.only for key, field in FIELDS.items() if field.only is not None}
)
"""Top-level key -> the backend that takes it. On any other it has no effect, which is told, and the model is served."""
