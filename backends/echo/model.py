"""What echo answers: a function of the tokens in a lane and of nothing else, so that wrong bookkeeping shows.

In a chat (the lane holds <|im_start|>) the open turn repeats the last user turn, token for token, then ends.
Other text goes on with its own shortest period ("abc" gives "abc") and ends once that stands there twice.
Every other token's logit is noise from a hash over the whole lane. Owns no lanes, no memory, no sampling.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from backends.echo.tokenizer import ByteTokenizer


class Context:
    """The tokens of one lane, with what `likeliest` and `digest` need kept up incrementally."""

    def __init__(self, tokens: Iterable[int] = ()) -> None:
        self.tokens: list[int] = []
        self._marks: list[int] = []  # positions of turn marks
        self._borders: list[int] = []  # per prefix, the longest text that both begins and ends it
        self._digests: list[int] = []
        self._turn: tuple[int, int, int] | None = (
            None  # where the user's text starts, ends, and the reply starts
        )
        self.extend(tokens)

    def __len__(self) -> int:
        return len(self.tokens)

    def extend(self, tokens: Iterable[int]) -> None:
        position = len(self.tokens)
        self.tokens.extend(tokens)
        for index in range(position, len(self.tokens)):
            if self.tokens[index] in (ByteTokenizer.IM_START, ByteTokenizer.IM_END):
                self._marks.append(index)
                self._turn = None

    def truncate(self, keep: int) -> None:
        """Forget all but the first `keep` tokens."""
        for derived in (self.tokens, self._borders, self._digests):
            del derived[keep:]
        while self._marks and self._marks[-1] >= keep:
            self._marks.pop()
        self._turn = None

    def copy(self, keep: int) -> "Context":
        """A context of its own that holds the first `keep` tokens."""
        return Context(self.tokens[:keep])

    def likeliest(self) -> tuple[int, ...]:
        """The next token, and where that one ends the text, the token that would go on, second."""
        in_chat = bool(self._marks) and self.tokens[self._marks[0]] == ByteTokenizer.IM_START
        return self._next_in_chat() if in_chat else self._next_in_text()

    def digest(self) -> int:
        """64 bits that depend on every token and its place."""
        digests = self._digests
        value = digests[-1] if digests else 0
        for token in self.tokens[len(digests) :]:
            value = (value * 6364136223846793005 + token + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
            digests.append(value)
        return value

    def _next_in_chat(self) -> tuple[int, ...]:
        if self._turn is None:
            self._turn = self._find_turn()
        start, end, reply = self._turn or (0, 0, 0)
        size = end - start
        if size == 0:
            return (ByteTokenizer.IM_END, ord("\n"))
        written = len(self.tokens) - reply
        following = self.tokens[start + written % size]
        return (following,) if written < size else (ByteTokenizer.IM_END, following)

    def _find_turn(self) -> tuple[int, int, int] | None:
        tokens, marks = self.tokens, self._marks
        if tokens[marks[-1]] != ByteTokenizer.IM_START:
            return None
        try:
            reply = tokens.index(ord("\n"), marks[-1]) + 1
        except ValueError:  # still in the header
            return None
        header = [ByteTokenizer.IM_START, *b"user\n"]
        for begin, end in zip(marks[-3::-1], marks[-2:0:-1], strict=False):
            if tokens[begin : begin + len(header)] == header and tokens[end] == ByteTokenizer.IM_END:
                return begin + len(header), end, reply
        return reply, reply, reply

    def _next_in_text(self) -> tuple[int, ...]:
        tokens, borders = self.tokens, self._borders
        first = 1 if tokens[:1] == [ByteTokenizer.BOS] else 0
        size = len(tokens) - first
        if size == 0:
            return (ByteTokenizer.IM_END, ord("\n"))
        # The prefix function of Knuth, Morris and Pratt, over the text after BOS; BOS itself holds a place.
        borders += [0] * (first + 1 - len(borders))
        for index in range(len(borders), len(tokens)):
            border = borders[-1]
            while border and tokens[index] != tokens[first + border]:
                border = borders[first + border - 1]
            borders.append(border + (tokens[index] == tokens[first + border]))
        period = size - borders[-1]
        following = tokens[len(tokens) - period]
        return (ByteTokenizer.IM_END, following) if size >= 2 * period else (following,)


class EchoModel:
    """Logits for a context: 8 for the likeliest token, 6 for the second, noise below 4 for printable
    ASCII and below -2 for all others."""

    def __init__(self) -> None:
        tokens = np.arange(ByteTokenizer.VOCABULARY, dtype=np.uint64)
        self._salt = (tokens + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        self._base = np.where((tokens >= ord(" ")) & (tokens <= ord("~")), 0.0, -6.0)

    def logits(self, context: Context) -> NDArray[np.float64]:
        mixed = self._salt ^ np.uint64(context.digest())
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(31)
        mixed *= np.uint64(0x94D049BB133111EB)
        logits: NDArray[np.float64] = self._base + (mixed >> np.uint64(11)) * (4.0 / 2**53)
        first, *second = context.likeliest()
        for token in second:
            logits[token] = 6.0
        logits[first] = 8.0
        return logits
