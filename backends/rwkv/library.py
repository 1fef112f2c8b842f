"""The rwkv package: imported for the one generation that it then serves, and its model with the weights prepared.

It decides at its import, by environment variables, so a process serves one model. Prints go to the worker's log.
"""

import contextlib
import os
import sys
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from backends.contract import LoadError
from backends.rwkv.checkpoint import SUFFIX, Checkpoint
from backends.rwkv.dove import DoveForward
from backends.rwkv.eagle import EagleForward, FinchForward
from backends.rwkv.forward import BatchedForward, Forward, Piece, Tensor
from backends.rwkv.goose import GooseForward
from backends.rwkv.states import States
from backends.rwkv.strategy import Strategy

FORWARDS: dict[int, type[BatchedForward]] = {
    4: DoveForward,
    5: EagleForward,
    6: FinchForward,
    7: GooseForward,
}
LOWEST = -1e30
"""The largest exponent of a version 4 state that has seen nothing."""


class Library:
    """A loaded model of the package."""

    def __init__(self, model: Any, checkpoint: Checkpoint, strategy: Strategy) -> None:
        self.model = model
        self._checkpoint = checkpoint
        self._strategy = strategy

    def forward(self) -> Forward:
        """Over all lanes at once, where the weights are in one place and of one kind."""
        if not self._strategy.is_plain:
            return LoopedForward(self.model)
        generation = self._checkpoint.generation
        return FORWARDS[generation](
            self.model.z if generation == 7 else self.model.w,
            layers=self._checkpoint.layers,
            halves_every=0 if generation == 7 else self.model.RESCALE_LAYER,
        )

    def blank_state(self) -> list[Tensor]:
        """The state that no token has changed yet, part by part."""
        with torch.inference_mode():
            _, used = self.model.forward([0], None)
        blank = [torch.zeros(one.shape, dtype=one.dtype, device=one.device) for one in used]
        match self._checkpoint.generation:
            case 4:
                for most in blank[3 :: DoveForward.parts]:
                    most.fill_(LOWEST)
            case 5 | 6:
                for layer, matrix in enumerate(blank[1 :: EagleForward.parts]):
                    tuned = self.model.w.get(f"blocks.{layer}.att.time_state")
                    if tuned is not None:  # a model may be trained to begin with something in mind
                        matrix.copy_(tuned.transpose(1, 2))
        return blank


class LoopedForward:
    """The package's own forward, a lane at a time: each costs as much as all lanes do elsewhere."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def run(self, pieces: Sequence[Piece], states: States, *, every: bool = False) -> Tensor:
        logits = []
        with torch.inference_mode():
            for piece in pieces:
                tokens = list(piece.tokens)
                # It changes the list that it is given, and its tensors too.
                out, state = self._model.forward(tokens, states.read(piece.lane), full_output=every)
                states.write(piece.lane, state, held=states.held[piece.lane])
                logits.append(out.view(-1, out.shape[-1]))
        return torch.cat(logits).float().cpu()


def world_vocabulary() -> Path:
    """The package's file of the World vocabulary. Raises LoadError where the package is not installed."""
    spec = find_spec("rwkv")
    if spec is None or not spec.submodule_search_locations:
        raise LoadError(
            "the rwkv package is not installed in this model's environment; run `modelyard env create rwkv`"
        )
    return Path(spec.submodule_search_locations[0]) / "rwkv_vocab_v20230424.txt"


def load_library(checkpoint: Checkpoint, strategy: Strategy) -> Library:
    """Load the weights. Raises LoadError with the package's reason where it cannot."""
    wanted = "1" if checkpoint.generation == 7 else "0"
    if "rwkv.model" in sys.modules and os.environ.get("RWKV_V7_ON") != wanted:
        raise LoadError("the rwkv package serves either version 7 or those before it in one process")
    os.environ["RWKV_V7_ON"] = wanted
    os.environ.setdefault("RWKV_JIT_ON", "0")
    os.environ.setdefault("RWKV_CUDA_ON", "0")
    path = str(checkpoint.path)
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")  # of torch's script compiler, which the package uses
        from rwkv.model import RWKV

        try:
            model = RWKV(model=path.removesuffix(SUFFIX), strategy=str(strategy))
        except (RuntimeError, MemoryError) as error:
            reason = str(error).partition("\n")[0]
            raise LoadError(f'{path} cannot be loaded with strategy "{strategy}": {reason}') from error
        except (KeyError, AssertionError, AttributeError) as error:
            raise LoadError(
                f"{path} looks like RWKV-{checkpoint.generation}, but the rwkv package cannot read it "
                f"({type(error).__name__}: {error}); a newer one may"
            ) from error
    return Library(model, checkpoint, strategy)
