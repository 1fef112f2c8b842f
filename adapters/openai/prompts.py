"""Prompts as the API gives them: a text, several, token ids, or several lists of those."""

from collections.abc import Sequence

from adapters.openai.decode import refuse_nul
from adapters.openai.errors import invalid
from runner.wire.requests import TextPrompt, TokenPrompt

MAX_CHOICES = 2048
"""Prompts times samples that one request may ask for, and items of an embedding's input."""


def text_or_token_prompts(
    given: str | Sequence[str | int | list[int]], param: str
) -> list[TextPrompt | TokenPrompt]:
    """The prompts of the field `param`, in order. Raises ApiError 400."""
    if isinstance(given, str):
        refuse_nul(given, param)
        return [TextPrompt(given)]
    if not given:
        raise invalid(param, f"`{param}` is an empty list; give at least one item.")
    texts = [item for item in given if isinstance(item, str)]
    ids = [item for item in given if isinstance(item, int)]
    lists = [item for item in given if isinstance(item, list)]
    if len(ids) == len(given):
        return [TokenPrompt(tuple(ids))]
    if len(given) > MAX_CHOICES:
        raise invalid(param, f"`{param}` has {len(given)} items; at most {MAX_CHOICES} are allowed.")
    if len(texts) == len(given):
        for i, text in enumerate(texts):
            refuse_nul(text, f"{param}[{i}]")
        return [TextPrompt(text) for text in texts]
    if len(lists) != len(given):
        raise invalid(param, f"`{param}` mixes texts, token ids and lists; give one kind.")
    for i, tokens in enumerate(lists):
        if not tokens:
            raise invalid(f"{param}[{i}]", f"`{param}[{i}]` has no tokens; give at least one.")
    return [TokenPrompt(tuple(tokens)) for tokens in lists]


def check_choices(n: int, prompts: int) -> None:
    """Raises ApiError 400 where `n` samples of so many prompts are too many choices."""
    if n * prompts > MAX_CHOICES:
        raise invalid(
            "n", f"`n` times the number of prompts is {n * prompts}; at most {MAX_CHOICES} is allowed."
        )
