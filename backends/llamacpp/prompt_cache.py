"""The `prompt_cache_*` keys of a configuration: whether states of prompts are kept on disk, where, and what such a
state depends on. Keeping them is the scheduler's matter.
"""

import hashlib
import logging
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import msgspec

from backends.contract import LoadError, LoadRequest, PromptCache

STATE = "MODELYARD_STATE"
FOLDER = "prompt-caches"
MOST_BYTES = 4 * 2**30

KEYS = ("prompt_cache_path", "prompt_cache_all", "prompt_cache_ro", "prompt_cache_bytes")


def prompt_cache(
    request: LoadRequest, *, files: Iterable[Path], engine: str, context: tuple[int | str, ...]
) -> PromptCache | None:
    """What the options ask for, None where they ask for nothing. `files`: weights and adapters; `context`: what the
    options do not tell of the context. Raises LoadError."""
    options = request.options
    given = options.get("prompt_cache_path")
    if given is None:
        if idle := [key for key in KEYS if key in options]:
            logging.getLogger(__name__).warning("%s: no effect without prompt_cache_path", ", ".join(idle))
        return None
    state = os.environ.get(STATE)
    if not state:
        raise LoadError(f"{STATE} is not set, so there is nowhere to keep the prompt cache {given!r}")
    return PromptCache(
        folder=str(Path(state) / FOLDER / request.model.replace("/", "--") / _relative(given)),
        stamp=_stamp(request, files, engine=engine, context=context),
        most_bytes=options.get("prompt_cache_bytes", MOST_BYTES),
        whole_texts=options.get("prompt_cache_all", False),
        is_read_only=options.get("prompt_cache_ro", False),
    )


def _relative(given: str) -> PurePosixPath:
    """A configuration may come with the weights from anywhere: it does not say where on this machine is written."""
    path = PurePosixPath(given)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise LoadError(
            f"prompt_cache_path: {given!r} is not a name below the state folder, where prompt caches are kept; "
            "take one such as `cache`, and move them all with --state-dir"
        )
    return path


def _stamp(
    request: LoadRequest, files: Iterable[Path], *, engine: str, context: tuple[int | str, ...]
) -> str:
    """Other weights, another engine, another setting of any kind: another stamp."""
    options = {key: value for key, value in sorted(request.options.items()) if key not in KEYS}
    stats = [(path.name, stat.st_size, stat.st_mtime_ns) for path in files if (stat := path.stat())]
    described = msgspec.msgpack.encode((engine, stats, options, context))
    return hashlib.blake2b(described, digest_size=8).hexdigest()
