"""Text and tokens of RWKV models: the World vocabulary, or a file of the tokenizers library beside the weights."""

import ast
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from backends.contract import LoadError

WORLD = "world"
WORLD_SIZE = 65_536
"""Rows of the output layer of a model with the World vocabulary, which has some tokens less."""

FOLDERS_ABOVE = 4

END_ID = 0
END_TEXT = "<|endoftext|>"

CHAT_TEMPLATE = (
    "{% set names = {'system': 'System', 'developer': 'System', 'user': 'User', 'assistant': 'Assistant'} %}"
    "{% for message in messages %}"
    "{% if message.role not in names %}"
    "{{ raise_exception('this model has no turns of the role ' + message.role) }}"
    "{% endif %}"
    "{{ names[message.role] + ': ' + (message.content or '') | trim + '\\n\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""The turns that World models are trained on."""

CHAT_STOPS = ("\n\nUser:", "\n\nSystem:")
"""With which such a model would begin the next turn itself."""


class Text(Protocol):
    """A tokenizer. Its methods may be called from any thread."""

    special_tokens: tuple[str, ...]
    end_ids: tuple[int, ...]

    def tokenize(self, text: str, *, special: bool) -> list[int]: ...
    def token_bytes(self, token: int, *, special: bool = False) -> bytes: ...


class WorldText:
    """Tokens are byte strings; a text is cut into the longest ones from its beginning on. Id 0 ends a text."""

    special_tokens: tuple[str, ...] = (END_TEXT,)
    end_ids: tuple[int, ...] = (END_ID,)

    def __init__(self, vocabulary: Iterable[str]) -> None:
        """`vocabulary`: lines of an id, a Python literal and its length in bytes, in the order of the ids."""
        self._data = dict(map(_entry, vocabulary))
        self._ids = {data: token for token, data in self._data.items()}
        lengths: dict[bytes, set[int]] = {}
        for data in self._ids:
            if len(data) > 1:
                lengths.setdefault(data[:2], set()).add(len(data))
        # By the first two bytes, the lengths that a longer token can have, longest first.
        self._lengths = {head: tuple(sorted(found, reverse=True)) for head, found in lengths.items()}

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        if not special:
            return self._tokens_of(text.encode(errors="replace"))
        tokens: list[int] = []
        for part in re.split(f"({re.escape(END_TEXT)})", text):
            tokens += [END_ID] if part == END_TEXT else self._tokens_of(part.encode(errors="replace"))
        return tokens

    def token_bytes(self, token: int, *, special: bool = False) -> bytes:
        if token == END_ID:
            return END_TEXT.encode() if special else b""
        return self._data.get(token, b"")

    def _tokens_of(self, data: bytes) -> list[int]:
        tokens = []
        at = 0
        while at < len(data):
            token, size = self._longest(data, at)
            tokens.append(token)
            at += size
        return tokens

    def _longest(self, data: bytes, at: int) -> tuple[int, int]:
        for size in self._lengths.get(data[at : at + 2], ()):
            token = self._ids.get(data[at : at + size])
            if token is not None:
                return token, size
        return self._ids[data[at : at + 1]], 1


class FileText:
    """A tokenizer of the tokenizers library, such as that of the models trained on the Pile."""

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer

        from backends.huggingface import HuggingFaceText

        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise LoadError(f"{path} cannot be read: {error}; copy or download it again") from error
        self._text = HuggingFaceText(path.parent, tokenizer)
        self.special_tokens: tuple[str, ...] = self._text.info_fields()["special_tokens"]
        self.end_ids: tuple[int, ...] = (tokenizer.token_to_id(END_TEXT) or END_ID,)

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        return self._text.tokenize(text, special=special)

    def token_bytes(self, token: int, *, special: bool = False) -> bytes:
        return self._text.token_bytes(token, special=special)


def find_text(weights: Path, wanted: str | None, *, vocabulary: int, world_file: Path) -> Text:
    """The tokenizer of the model in `weights`, with `vocabulary` rows of logits. `wanted` is the option of that name.
    Raises LoadError."""
    if wanted is None:
        beside = next(filter(Path.is_file, _usual_names(weights)), None)
        if beside is not None:
            return FileText(beside)
        if vocabulary != WORLD_SIZE:
            raise LoadError(
                f"{weights.name} has a vocabulary of {vocabulary} tokens, which is not that of the World models "
                f"({WORLD_SIZE}); put its tokenizer beside it as {_usual_names(weights)[0].name}"
            )
        wanted = WORLD
    if wanted == WORLD:
        with world_file.open(encoding="utf-8") as lines:
            return WorldText(lines)
    # Beside the weights, or relative to a folder above them: the version's, the model's, the repository.
    places = [folder / wanted for folder in weights.parents[:FOLDERS_ABOVE]]
    path = next(filter(Path.is_file, places), None)
    if path is None:
        raise LoadError(f"there is no tokenizer {places[0]}; correct `tokenizer` in the model's config.yaml")
    return FileText(path)


def _usual_names(weights: Path) -> Sequence[Path]:
    return [weights.with_name(f"{name}.tokenizer.json") for name in (weights.stem, weights.name)]


def _entry(line: str) -> tuple[int, bytes]:
    number, _, rest = line.partition(" ")
    literal = ast.literal_eval(rest.rpartition(" ")[0].strip())
    return int(number), literal.encode() if isinstance(literal, str) else literal
