"""States of prompts on disk, which outlive the worker: the tier below main memory.

Found by their tokens as those in main memory are, and held in the same pieces: a file holds the state of some tokens
and tells all that come before them, so that the files alone are the tree. What was kept under another stamp counts as
used longest ago. Prompts with a cache salt never come here. Only this module touches the folder.
"""

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from backends.contract import EngineError
from backends.contract import PromptCache as Wish
from runner.worker.prefix_index import Key
from runner.worker.prefix_store import Block, PrefixStore, Save, State, Stored
from runner.worker.snapshot_store import SnapshotStore
from runner.worker.state_file import (
    SUFFIX,
    BadState,
    Origin,
    StateFile,
    file_name,
    is_abandoned,
    packed,
    read_origin,
    write_state,
)

logger = logging.getLogger(__name__)

BACKLOG_BYTES = 64 * 2**20
"""States that wait to be written take no more memory than about this."""

WORTH_TOKENS = 16
"""A text shorter than this is computed sooner than found."""


class PromptCache:
    """The folder of one model. One thread calls its methods; another one writes and deletes."""

    def __init__(self, wish: Wish, *, takes_snapshots: bool, caught_up: Callable[[], None]) -> None:
        """Finds what is there. `caught_up` is called by the writing thread whenever it has written all it was given."""
        self.whole_texts = wish.whole_texts
        self.is_read_only = wish.is_read_only
        self._folder = Path(wish.folder)
        self._stamp = wish.stamp
        self._most_bytes = wish.most_bytes
        self._caught_up = caught_up
        self._store = (SnapshotStore if takes_snapshots else PrefixStore)(2**62)
        self._foreign: list[tuple[int, int, Path]] = []  # time and size, youngest first
        self._foreign_bytes = 0
        self._waiting_bytes = 0
        self._room = threading.Condition()
        self._is_failing = False
        self._acts: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="prompt-cache", daemon=True)
        self._open()
        self._thread.start()

    def __len__(self) -> int:
        return len(self._store)

    @property
    def used_bytes(self) -> int:
        return self._store.used_bytes

    @property
    def _is_writing(self) -> bool:
        return not self.is_read_only and not self._is_failing

    @property
    def takes_more(self) -> bool:
        """False where nothing is to be written, or nothing now."""
        return self._is_writing and self._waiting_bytes < BACKLOG_BYTES

    def wait_for_room(self, timeout_s: float) -> bool:
        """Wait until more may be given; False where that is not so in time, or will never be."""
        with self._room:
            self._room.wait_for(lambda: self.takes_more or not self._is_writing, max(0.0, timeout_s))
            return self.takes_more

    def match(self, key: Key, tokens: Sequence[int]) -> Stored:
        """The longest beginning of `tokens` that is there."""
        return self._store.match(key, tokens)

    def touch(self, blocks: Sequence[Block]) -> None:
        """Mark them as used."""
        self._store.touch(blocks)

    def add(self, key: Key, tokens: Sequence[int], save: Save) -> None:
        """Keep the state of `tokens`, asking `save` for what is not here yet; it is written later. What the disk would
        be too far behind with is left out, the end first."""
        if not self._is_writing or len(tokens) < WORTH_TOKENS:
            return

        def park(start: int, stop: int) -> State | None:
            if not self.takes_more:
                return None
            state = save(start, stop)
            return None if state is None else self._park(key, tokens[:stop], start, state)

        self._store.add(key, tokens, park)
        self._make_room()

    def remove(self, block: Block) -> None:
        """Forget one whose state is lost, with all that follow it."""
        self._store.remove(block)

    def clear(self) -> None:
        """Forget everything; a folder that is only read stays as it is."""
        self._store.clear()

    def close(self, timeout_s: float) -> None:
        """Write what waits, as far as there is time."""
        self._acts.put(None)
        self._thread.join(timeout_s)

    def check_integrity(self) -> None:
        """Raise AssertionError unless what is known of the files agrees."""
        self._store.check_integrity()

    def _open(self) -> None:
        """Take up the files that were kept under this stamp; those that cannot be are deleted. Raises EngineError."""
        try:
            if not self.is_read_only:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            paths = list(self._folder.iterdir()) if self._folder.is_dir() else []
        except OSError as error:
            raise EngineError(f"the prompt cache {self._folder} cannot be used: {error.strerror}") from error
        own: list[tuple[int, Origin, Path]] = []
        for path in paths:
            try:
                stat = path.stat()
                if path.suffix != SUFFIX:
                    if is_abandoned(path):
                        self._delete(path)
                elif path.name.startswith(self._stamp):
                    own.append((stat.st_mtime_ns, read_origin(path, stamp=self._stamp), path))
                else:
                    self._foreign.append((stat.st_mtime_ns, stat.st_size, path))
            except (BadState, OSError) as error:
                logger.warning("prompt cache: %s is passed over: %s", path, error)
                self._delete(path)
        self._foreign.sort(reverse=True)
        self._foreign_bytes = sum(size for _, size, _ in self._foreign)
        for _, origin, path in sorted(own, key=lambda found: len(found[1].tokens)):
            self._adopt(origin, path)
        for _, origin, _ in sorted(own, key=lambda found: found[0]):
            self._store.touch(self._store.match((origin.adapter, None), origin.ids).blocks)
        self._make_room()
        logger.info("prompt cache: %d states, %d bytes in %s", len(self), self.used_bytes, self._folder)

    def _adopt(self, origin: Origin, path: Path) -> None:
        """Put a file into the tree, if what comes before it is there."""
        file = StateFile(path, origin.state_bytes, discard=self._discard, is_read_only=self.is_read_only)
        ids = origin.ids
        is_taken = False

        def give(start: int, stop: int) -> State | None:
            nonlocal is_taken
            is_taken = (start, stop) == (origin.start, len(ids))
            return file if is_taken else None

        self._store.add((origin.adapter, None), ids, give)
        if not is_taken:
            self._delete(path)

    def _park(self, key: Key, tokens: Sequence[int], start: int, state: State) -> StateFile:
        """The file that `state` will be."""
        assert isinstance(state, memoryview) and key[1] is None
        origin = Origin(self._stamp, key[0], start, packed(tokens), state.nbytes)
        file = StateFile(
            self._folder / file_name(origin), state.nbytes, discard=self._discard, unwritten=state
        )
        with self._room:
            self._waiting_bytes += state.nbytes
        self._acts.put(lambda: self._write(file, origin, state))
        return file

    def _write(self, file: StateFile, origin: Origin, state: memoryview) -> None:
        try:
            if not self._is_failing:
                write_state(file.path, origin, state)
        except OSError as error:
            self._is_failing = True
            logger.warning("prompt cache: nothing more is kept until the model is loaded anew: %s", error)
        finally:
            file.written()
            with self._room:
                self._waiting_bytes -= state.nbytes
                self._room.notify_all()

    def _make_room(self) -> None:
        """Delete what others kept, oldest first, then what is used least, until all of it fits."""
        if self.is_read_only:
            return
        while self._foreign and self.used_bytes + self._foreign_bytes > self._most_bytes:
            _, size, path = self._foreign.pop()
            self._foreign_bytes -= size
            self._discard(path)
        self._store.most_bytes = self._most_bytes
        self._store.trim()

    def _discard(self, path: Path) -> None:
        self._acts.put(lambda: self._delete(path))

    def _delete(self, path: Path) -> None:
        if not self.is_read_only:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _work(self) -> None:
        while (act := self._acts.get()) is not None:
            act()
            if self._acts.empty():
                self._caught_up()
