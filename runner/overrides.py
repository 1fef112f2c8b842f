"""What a load request gives in place of a model's configuration and files, laid out in the state folder.

Nothing else is ever written there, and it goes when the last version that was loaded from it has gone.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import psutil

from repository.config import ModelConfig
from repository.config_file import OVERRIDES, override_config
from repository.entries import overridden_entry
from repository.options import Schemas
from repository.overlay import lay_out, overlay_problem
from repository.problem import Problem
from repository.snapshot import ModelEntry
from runner.errors import InvalidRequest, LoadFailed

logger = logging.getLogger(__name__)


class Override:
    """A model as a load request wants it. Its folder, if it has one, lives as long as somebody holds it."""

    def __init__(self, entry: ModelEntry, folder: Path | None) -> None:
        self.entry = entry
        self._folder = folder
        self._holders = 0

    def hold(self) -> None:
        self._holders += 1

    def release(self) -> None:
        self._holders -= 1
        if self._holders == 0 and self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


class Overrides:
    """Makes overrides. Their folders are in one of this process's own below `state_dir`, made when first needed."""

    def __init__(self, state_dir: Path, *, repository: Path, schemas: Schemas) -> None:
        self._parent = state_dir / "overrides"
        self._repository = repository
        self._schemas = schemas
        self._root: Path | None = None

    async def make(
        self, name: str, entry: ModelEntry | None, config: str | None, files: Mapping[str, bytes]
    ) -> Override:
        """The override of `entry`, which is None where the repository has no such model.

        Raises InvalidRequest for the name of a file, LoadFailed for the configuration; nothing is kept then.
        """
        if problem := overlay_problem(files):
            raise InvalidRequest(problem, param="parameters")
        return await asyncio.to_thread(self._make, name, entry, config, files)

    def close(self) -> None:
        """Remove what this process has laid out, whoever holds it."""
        if self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)
            with contextlib.suppress(OSError):
                self._parent.rmdir()  # unless another server uses it

    def _make(
        self, name: str, entry: ModelEntry | None, config: str | None, files: Mapping[str, bytes]
    ) -> Override:
        path, item = (entry.config_path, entry.config_item) if entry is not None else (None, None)
        loaded = override_config(path, config or "{}", self._schemas, root=self._repository, item=item)
        if loaded.problems:
            raise LoadFailed("; ".join(map(str, loaded.problems)))
        folder = None
        try:
            if files:
                folder = self._new_folder()
                lay_out(folder, entry, files)
            base = entry or ModelEntry(name, folder or self._repository, "folder")
            changed = overridden_entry(base, loaded, path=folder or base.path, root=self._repository)
            if changed.problems:
                raise LoadFailed("; ".join(map(str, changed.problems)))
        except OSError as error:
            self._drop(folder)
            raise LoadFailed(
                f"the files given with the load cannot be laid out: {error.strerror or error}"
            ) from None
        except BaseException:
            self._drop(folder)
            raise
        return Override(changed, folder)

    def _new_folder(self) -> Path:
        if self._root is None:
            self._parent.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()
            self._root = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=self._parent))
        return Path(tempfile.mkdtemp(dir=self._root))

    def _remove_leftovers(self) -> None:
        """Folders of servers that were killed."""
        for child in self._parent.iterdir():
            pid = child.name.partition("-")[0]
            if pid.isdecimal() and not psutil.pid_exists(int(pid)):
                shutil.rmtree(child, ignore_errors=True)

    def _drop(self, folder: Path | None) -> None:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def absent(name: str) -> ModelEntry:
    """What is on disk of a model that came with a load request: nothing."""
    problem = Problem(name, 0, 0, f"the repository has no such model; it came with {OVERRIDES}")
    return ModelEntry(name, Path(name), "folder", ModelConfig(), problems=(problem,))
