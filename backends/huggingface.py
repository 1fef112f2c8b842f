"""What a Hugging Face model folder says of text: its tokenizer, special tokens, chat template, generation defaults.

For plugins whose weights lie in such a folder. Needs only the `tokenizers` library, so that an environment without
transformers can use it. Knows no engine, and nothing of the weights.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from tokenizers import Tokenizer

from backends.contract import LoadError
from backends.pieces import piece_reader

_DEFAULTS = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "repetition_penalty": "repeat_penalty",
}
"""From the names of `generation_config.json` to those of `Sampling`."""


class HuggingFaceText:
    """The text half of the model in `folder`. Safe to use from any thread.

    `tokenizer` stands in for `tokenizer.json` where the folder has none that the `tokenizers` library reads. Raises
    LoadError with a sentence to act on.
    """

    def __init__(self, folder: Path, tokenizer: Tokenizer | None = None) -> None:
        self._folder = folder
        self._config = self._read("config.json")
        self._settings = {**self._read("special_tokens_map.json"), **self._read("tokenizer_config.json")}
        self._generation = self._read("generation_config.json")
        self._parsing = self._load() if tokenizer is None else tokenizer
        self._plain = Tokenizer.from_str(self._parsing.to_str())
        for one in (self._parsing, self._plain):
            one.no_truncation()  # a prompt that is too long is refused, never cut
            one.no_padding()
        self._plain.encode_special_tokens = True  # a switch of the whole tokenizer: hence two of them
        added = self._parsing.get_added_tokens_decoder()
        self._special = {number: str(token.content) for number, token in added.items() if token.special}
        self._literal = {number: str(token.content) for number, token in added.items() if not token.special}
        self._read_piece = piece_reader(self._parsing)
        self._pieces: dict[int, bytes] = {}
        self._before, self._after = self._frame()

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Token ids without BOS. Texts of special tokens become those tokens only if `special`; those of other added
        tokens always do."""
        tokenizer = self._parsing if special else self._plain
        # A lone surrogate has no UTF-8, which is what the library is written for.
        clean = text.encode("utf-8", "replace").decode()
        ids: list[int] = tokenizer.encode(clean, add_special_tokens=False).ids
        return ids

    def token_bytes(self, token: int, *, special: bool = False) -> bytes:
        """The UTF-8 bytes that `token` adds; special tokens give none unless `special`."""
        if token in self._special:
            return self._special[token].encode() if special else b""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._render(token)
        return piece

    def framed(self, tokens: Sequence[int]) -> list[int]:
        """`tokens` with what the tokenizer puts around a whole text, such as CLS and SEP, where it is not there yet."""
        before = () if tuple(tokens[: len(self._before)]) == self._before else self._before
        after = () if tuple(tokens[len(tokens) - len(self._after) :]) == self._after else self._after
        return [*before, *tokens, *after]

    def info_fields(self) -> dict[str, Any]:
        """The fields of `EngineInfo` that the folder's text files decide. `vocabulary` is that of the weights, as
        `config.json` has it."""
        return {
            "vocabulary": self.vocabulary,
            "eos_ids": self.eos_ids,
            "bos_id": self.bos_id,
            "adds_bos": self.bos_id is not None and self._before[:1] == (self.bos_id,),
            "bos_token": self._token_text("bos_token"),
            "eos_token": self._token_text("eos_token"),
            "pad_token": self._token_text("pad_token"),
            "chat_template": self.chat_template,
            "special_tokens": tuple(self._special.values()),
            "generation_defaults": self.generation_defaults,
        }

    @property
    def vocabulary(self) -> int:
        """Entries of the output layer, which may be padded past the tokenizer's last token."""
        nested = self._config.get("text_config")
        config = {**self._config, **nested} if isinstance(nested, dict) else self._config
        size = config.get("vocab_size")
        return size if isinstance(size, int) else int(self._parsing.get_vocab_size())

    @property
    def bos_id(self) -> int | None:
        found = self._token_id("bos_token")
        return found if found is not None else next(iter(_ids(self._config.get("bos_token_id"))), None)

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Every token that ends a generation: those of the generation config, of the config, and the tokenizer's."""
        own = self._token_id("eos_token")
        found = {
            **dict.fromkeys(_ids(self._generation.get("eos_token_id"))),
            **dict.fromkeys(_ids(self._config.get("eos_token_id"))),
            **dict.fromkeys(() if own is None else (own,)),
        }
        return tuple(found)

    @property
    def generation_defaults(self) -> dict[str, Any]:
        """What the model's makers recommend, under the request's names."""
        given = self._generation
        return {ours: given[theirs] for theirs, ours in _DEFAULTS.items() if given.get(theirs) is not None}

    @property
    def chat_template(self) -> str | None:
        """The Jinja2 text; of several named ones the default."""
        try:
            return (self._folder / "chat_template.jinja").read_text("utf-8")
        except OSError:
            pass
        found = self._settings.get("chat_template") or self._read("chat_template.json").get("chat_template")
        if isinstance(found, list):
            named = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
            found = named.get("default") or next(iter(named.values()), None)
        return found if isinstance(found, str) else None

    def _load(self) -> Tokenizer:
        path = self._folder / "tokenizer.json"
        if not path.is_file():
            raise LoadError(
                f"{self._folder} has no tokenizer.json; copy the model's tokenizer beside its weights"
            )
        try:
            return Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise LoadError(f"{path} cannot be read: {error}; copy or download it again") from error

    def _read(self, name: str) -> dict[str, Any]:
        path = self._folder / name
        try:
            value = msgspec.json.decode(path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
            raise LoadError(f"{path} cannot be read: {error}; copy or download it again") from error
        if not isinstance(value, dict):
            raise LoadError(f"{path} does not hold a JSON object; copy or download it again")
        return value

    def _token_text(self, key: str) -> str:
        value = self._settings.get(key)
        if isinstance(value, dict):
            value = value.get("content")
        return value if isinstance(value, str) else ""

    def _token_id(self, key: str) -> int | None:
        text = self._token_text(key)
        found: int | None = self._parsing.token_to_id(text) if text else None
        return found

    def _render(self, token: int) -> bytes:
        if token in self._literal:
            return self._literal[token].encode()
        text: str | None = self._parsing.id_to_token(token) if token >= 0 else None
        return self._read_piece(text) if text is not None else b""

    def _frame(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What comes before and after a text that is encoded whole."""
        encoding = self._parsing.encode("a", add_special_tokens=True)
        marks = encoding.special_tokens_mask
        inner = [at for at, is_mark in enumerate(marks) if not is_mark]
        if not inner:
            return (), ()
        return tuple(encoding.ids[: inner[0]]), tuple(encoding.ids[inner[-1] + 1 :])


def _ids(value: object) -> tuple[int, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(one for one in values if isinstance(one, int) and not isinstance(one, bool))
