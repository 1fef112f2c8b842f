"""Hugging Face weights as an OpenVINO model: found in the state folder, or made there once and kept.

What is kept is named by the content of the weights and by how they were converted, so that equal weights are
converted once, wherever they lie and however many workers ask. The conversion itself is `exporting.py`, in an
environment of its own.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from backends.contract import LoadError, Progress

logger = logging.getLogger(__name__)

MODEL = "openvino_model.xml"
ENVIRONMENT = "openvino-export"
FORMAT = "1"
"""Raised when models have to be converted anew."""

IGNORED = (".md", ".gguf", ".png", ".jpg", ".onnx", ".h5", ".msgpack", ".lock")


class Conversion(msgspec.Struct, frozen=True, kw_only=True):
    """What is made of the weights in `source`."""

    source: str
    type: str
    quantization: str
    trust_remote_code: bool


class Converter:
    """Owns the folder of converted models under `state`. Safe for several processes at once."""

    def __init__(self, state: Path) -> None:
        self._folder = state / "openvino"
        self._interpreter = state / "environments" / ENVIRONMENT / "bin" / "python"

    def find_or_make(self, wanted: Conversion, progress: Progress) -> Path:
        """The folder of the converted model. Raises LoadError where it cannot be made."""
        kept = self._folder / self._key(wanted)
        if (kept / MODEL).is_file():
            return kept
        if not self._interpreter.is_file():
            raise LoadError(
                f"{wanted.source} has to be converted to OpenVINO's format, which needs the environment "
                f"{ENVIRONMENT}; run `modelyard env create {ENVIRONMENT}`"
            )
        with _lock(kept.with_suffix(".lock")):
            if not (kept / MODEL).is_file():  # another worker may have made it meanwhile
                progress(0.05)
                self._make(wanted, kept)
        return kept

    def _make(self, wanted: Conversion, kept: Path) -> None:
        part = kept.with_suffix(".part")  # a worker that was killed may have left one
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        logger.info("converting %s to OpenVINO's format", wanted.source)
        try:
            refusal = self._export({**msgspec.to_builtins(wanted), "target": str(part)})
            if refusal is None and not (part / MODEL).is_file():
                refusal = f"it wrote no {MODEL}"
            if refusal is not None:
                raise LoadError(f"optimum-intel cannot convert {wanted.source}: {refusal}")
            part.rename(kept)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _export(self, asked: dict[str, Any]) -> str | None:
        """Run the exporter; returns why it could not, or None. It ends with this process's group."""
        script = Path(__file__).with_name("exporting.py")
        done = subprocess.run(
            [str(self._interpreter), "-I", str(script), json.dumps(asked)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
            check=False,
        )
        if done.returncode < 0:
            return f"it was ended by signal {-done.returncode}; there may be too little memory"
        lines = done.stdout.decode(errors="replace").splitlines()
        with contextlib.suppress(msgspec.DecodeError, IndexError):
            answer = msgspec.json.decode(lines[-1], type=dict[str, str])
            return answer.get("refusal")
        return f"it ended with status {done.returncode}; the worker's log says more"

    def _key(self, wanted: Conversion) -> str:
        files = _files(Path(wanted.source))
        made_how = (FORMAT, wanted.type, wanted.quantization)
        return hashlib.blake2b(
            "\n".join([*made_how, *(f"{file.name} {self._digest(file)}" for file in files)]).encode(),
            digest_size=16,
        ).hexdigest()

    def _digest(self, file: Path) -> str:
        """The digest of a file's content, remembered for as long as its size and time stay as they are."""
        stat = file.stat()
        seen = f"{file.resolve()}\n{stat.st_size}\n{stat.st_mtime_ns}\n{stat.st_ino}"
        memo = self._folder / "digests" / hashlib.blake2b(seen.encode(), digest_size=16).hexdigest()
        with contextlib.suppress(OSError):
            if digest := memo.read_text():
                return digest
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "blake2b").hexdigest()
        try:
            memo.parent.mkdir(parents=True, exist_ok=True)
            memo.write_text(digest)
        except OSError as error:
            raise LoadError(f"{memo.parent} cannot be written: {error.strerror}") from error
        return digest


def _files(folder: Path) -> list[Path]:
    try:
        found = sorted(
            file
            for file in folder.iterdir()
            if file.is_file() and not file.name.startswith(".") and file.suffix not in IGNORED
        )
    except OSError as error:
        raise LoadError(f"{folder} cannot be read: {error.strerror}") from error
    return found


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Held by one process at a time, and given up with the process."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
