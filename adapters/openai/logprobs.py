"""Log-probabilities in the API's two shapes: chat's list of objects, the parallel arrays of completions."""

import codecs
from collections.abc import Iterable
from typing import Any, NamedTuple

from runner.wire.requests import TokenText

_FLOOR = -9999.0  # JSON has no -inf


def chat_logprobs(tokens: Iterable[TokenText]) -> list[dict[str, Any]]:
    """One object per token. `bytes` is exact where `token` shows a part of a character as U+FFFD."""
    return [
        _token(token.data, token.logprobs.logprob)
        | {
            "top_logprobs": [
                _token(data, logprob)
                for (_, logprob), data in zip(token.logprobs.top, token.top_data, strict=True)
            ]
        }
        for token in tokens
    ]


class FirstToken(NamedTuple):
    """The first token of a prompt, which has no log-probability. `in_text`: its bytes are a part of the text."""

    data: bytes = b""
    in_text: bool = True


class LegacyLogprobs:
    """The parallel arrays of one choice, fed in pieces; `text_offset` counts characters from its start."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0

    def feed(self, tokens: Iterable[TokenText | FirstToken]) -> dict[str, list[Any]]:
        """The arrays of these tokens."""
        names: list[str] = []
        logprobs: list[float | None] = []
        tops: list[dict[str, float] | None] = []
        offsets: list[int] = []
        for token in tokens:
            names.append(_name(token.data))
            offsets.append(self._offset)
            if isinstance(token, TokenText) or token.in_text:
                self._offset += len(self._decoder.decode(token.data))
            if isinstance(token, FirstToken):
                logprobs.append(None)
                tops.append(None)
                continue
            logprob = max(token.logprobs.logprob, _FLOOR)
            logprobs.append(logprob)
            top: dict[str, float] = {}
            for (_, other), other_data in zip(token.logprobs.top, token.top_data, strict=True):
                top.setdefault(_name(other_data), max(other, _FLOOR))
            top.setdefault(_name(token.data), logprob)
            tops.append(top)
        return {"tokens": names, "token_logprobs": logprobs, "top_logprobs": tops, "text_offset": offsets}


def prompt_logprobs(tokens: Iterable[TokenText | None]) -> list[dict[str, dict[str, Any]] | None]:
    """Each token of a prompt as a map from token ids: its own and the likeliest. `rank` is null where it is lower than
    those; a token without any log-probability, such as the first, is null."""
    return [None if token is None else _ranked(token) for token in tokens]


def _ranked(token: TokenText) -> dict[str, dict[str, Any]]:
    own = token.logprobs
    ranked = {str(own.token): _entry(own.logprob, None, token.data)}
    for rank, ((other, logprob), data) in enumerate(zip(own.top, token.top_data, strict=True), 1):
        ranked[str(other)] = _entry(logprob, rank, data)
    return ranked


def _entry(logprob: float, rank: int | None, data: bytes) -> dict[str, Any]:
    return {"logprob": max(logprob, _FLOOR), "rank": rank, "decoded_token": data.decode("utf-8", "replace")}


def _token(data: bytes, logprob: float) -> dict[str, Any]:
    return {"token": data.decode("utf-8", "replace"), "logprob": max(logprob, _FLOOR), "bytes": list(data)}


def _name(data: bytes) -> str:
    """The token's text; parts of characters are spelt as bytes, so that different tokens differ."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
