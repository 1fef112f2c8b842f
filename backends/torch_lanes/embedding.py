"""Embeddings: the last layer's vectors of a text's tokens, made one vector of length 1."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from backends.contract import EngineError, LoadError
from backends.torch_lanes.folder import read_json

Tensor = Any
Pooling = Literal["mean", "cls", "last"]
Hidden = Callable[[Sequence[Sequence[int]]], list[Tensor]]

GROUP_TOKENS = 4096
"""Padded tokens of one forward, as long as one text has not more alone."""

_POOLING_FLAGS: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}
_POOLING_NAMES: dict[str, Pooling] = {"mean": "mean", "cls": "cls", "lasttoken": "last"}
_KNOWN_MODULES = ("Transformer", "Pooling", "Normalize")


def read_pooling(folder: Path, options: Mapping[str, Any]) -> Pooling:
    """The option `pooling`, else what a sentence-transformers folder says, else mean. Raises LoadError where the folder
    asks for more than pooling."""
    asked: Pooling | None = options.get("pooling")
    if asked is not None:
        return asked
    where = "1_Pooling"
    modules = folder / "modules.json"
    if modules.is_file():
        for module in _modules(modules):
            kind = str(module.get("type", "")).rpartition(".")[2]
            if kind not in _KNOWN_MODULES:
                raise LoadError(
                    f"{modules} has a {kind} module, which is not applied here; set `pooling` to leave it out"
                )
            if kind == "Pooling":
                where = str(module.get("path", where))
    settings = read_json(folder / where / "config.json")
    named = settings.get("pooling_mode")
    wanted = [named] if isinstance(named, str) else [key for key, on in settings.items() if on is True]
    kinds = [one for one in wanted if one.startswith("pooling_mode_") or one == named]
    if not kinds:
        return "mean"
    found = {**_POOLING_FLAGS, **_POOLING_NAMES}.get(kinds[0])
    if found is None or len(kinds) > 1:
        raise LoadError(
            f"{folder / where / 'config.json'} asks for {' and '.join(kinds)}; set `pooling` to mean, cls or last"
        )
    return found


def _modules(path: Path) -> list[dict[str, Any]]:
    import msgspec

    try:
        return msgspec.json.decode(path.read_bytes(), type=list[dict[str, Any]])
    except (OSError, msgspec.DecodeError) as error:
        raise LoadError(f"{path} cannot be read: {error}; copy or download it again") from error


class Embedder:
    """Turns token lists into vectors. `hidden` gives the last layer's vectors of several texts, [token, width] each."""

    def __init__(self, hidden: Hidden, *, pooling: Pooling, longest: int) -> None:
        self._hidden = hidden
        self._pooling = pooling
        self.longest = longest
        """Tokens of the longest text."""

    def embed(self, texts: Sequence[Sequence[int]]) -> list[list[float]]:
        """One vector of length 1 per token list. Raises EngineError for an empty or too long one."""
        for tokens in texts:
            if not tokens:
                raise EngineError("an empty text has no embedding")
            if len(tokens) > self.longest:
                raise EngineError(
                    f"a text of {len(tokens)} tokens is longer than the {self.longest} of the model"
                )
        vectors: dict[int, list[float]] = {}
        for group in _groups(texts):
            found = [self._pool(one) for one in self._hidden([texts[index] for index in group])]
            pooled = torch.nn.functional.normalize(torch.stack(found).double(), dim=-1)
            vectors.update(zip(group, pooled.tolist(), strict=True))
        return [vectors[index] for index in range(len(texts))]

    def _pool(self, hidden: Tensor) -> Tensor:
        match self._pooling:
            case "mean":
                return hidden.double().mean(dim=0)
            case "cls":
                return hidden[0]
            case "last":
                return hidden[-1]


class PaddedForward:
    """The forward of a model with its own attention, for texts of different lengths."""

    def __init__(self, model: Any, *, padding_id: int) -> None:
        self._model = model
        self._padding_id = padding_id

    def __call__(self, texts: Sequence[Sequence[int]]) -> list[Tensor]:
        longest = max(map(len, texts))
        padded = [[*text, *[self._padding_id] * (longest - len(text))] for text in texts]
        seen = [[1] * len(text) + [0] * (longest - len(text)) for text in texts]
        device = self._model.device
        answer = self._model(
            input_ids=torch.tensor(padded, device=device), attention_mask=torch.tensor(seen, device=device)
        )
        hidden = answer.last_hidden_state
        return [hidden[index, : len(text)] for index, text in enumerate(texts)]


def _groups(texts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Indices of texts to compute together: alike in length, so that little is padded."""
    groups: list[list[int]] = []
    for index in sorted(range(len(texts)), key=lambda index: len(texts[index])):
        # They grow in length: the newcomer is the longest of its group.
        if groups and (len(groups[-1]) + 1) * len(texts[index]) <= GROUP_TOKENS:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups
