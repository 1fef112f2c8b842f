"""What a configuration cuts from every answer, as the answer is written: the same text, however it comes in pieces.

Stages follow one another: what `cutstrings` match goes, then only what `extract_regex` match stays, then prefixes and
suffixes go together with the space around. Each holds back what it may still cut, and nothing else.
"""

from collections.abc import Sequence

from runner.wire.messages import CleanUp, Pattern
from runner.worker.output.finder import Finder
from runner.worker.output.parts import TextFilter
from runner.worker.text import overlap


class Cleaner:
    """One text after the other: `flush` ends one, and what is fed then belongs to the next."""

    def __init__(self, clean_up: CleanUp) -> None:
        self._clean_up = clean_up
        self._stages = _stages(clean_up)

    def feed(self, text: str) -> str:
        """What may be told of the answer now."""
        for stage in self._stages:
            if not text:
                return ""
            text = stage.feed(text)
        return text

    def flush(self) -> str:
        """The rest of it."""
        text = ""
        for stage in self._stages:
            text = (stage.feed(text) if text else "") + stage.flush()
        self._stages = _stages(self._clean_up)
        return text


def _stages(clean_up: CleanUp) -> list[TextFilter]:
    stages: list[TextFilter] = [Cut(pattern) for pattern in clean_up.cutstrings]
    if clean_up.extract_regex:
        stages.append(Extract(clean_up.extract_regex))
    stages += map(TrimPrefix, clean_up.trimspace)
    stages += map(TrimSuffix, clean_up.trimsuffix)
    return stages


class Cut:
    """All but the matches of a pattern."""

    def __init__(self, pattern: Pattern) -> None:
        self._finder = Finder(pattern)

    def feed(self, text: str) -> str:
        return "".join([part.text for part in self._finder.feed(text) if not part.is_match])

    def flush(self) -> str:
        return "".join([part.text for part in self._finder.flush() if not part.is_match])


class Extract:
    """The first match of each pattern, one after the other; all of the text where nothing matches."""

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self._finders: list[Finder | None] = [Finder(pattern) for pattern in patterns]
        self._firsts: list[str | None] = [None] * len(patterns)
        self._num_told = 0
        self._is_whole = True  # nothing of a match was told yet
        self._whole: list[str] = []

    def feed(self, text: str) -> str:
        if self._is_whole:
            self._whole.append(text)
        for number, finder in enumerate(self._finders):
            if finder is not None:
                self._look(number, finder, text)
        return self._tell()

    def flush(self) -> str:
        for number, finder in enumerate(self._finders):
            if finder is not None:
                self._look(number, finder, None)
                self._firsts[number] = self._firsts[number] or ""
        told = self._tell()
        return "".join(self._whole) if self._is_whole else told

    def _look(self, number: int, finder: Finder, text: str | None) -> None:
        for part in finder.flush() if text is None else finder.feed(text):
            if part.is_match:
                self._firsts[number], self._finders[number] = part.text, None
                return

    def _tell(self) -> str:
        """Matches that none before them is missing from."""
        told = ""
        while self._num_told < len(self._firsts) and (first := self._firsts[self._num_told]) is not None:
            told += first
            self._num_told += 1
        if told:
            self._is_whole = False
            self._whole.clear()
        return told


class TrimPrefix:
    """The text without a prefix, then without space around."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._is_at_start = True
        self._has_begun = False
        self._held = ""

    def feed(self, text: str) -> str:
        self._held += text
        if self._is_at_start:
            if len(self._held) < len(self._prefix) and self._prefix.startswith(self._held):
                return ""
            self._is_at_start = False
            self._held = self._held.removeprefix(self._prefix)
        told = self._held.rstrip()
        self._held = self._held[len(told) :]
        if not self._has_begun:
            told = told.lstrip()
            self._has_begun = bool(told)
        return told

    def flush(self) -> str:
        if not self._is_at_start:
            return ""
        return self._held.removeprefix(self._prefix).strip()


class TrimSuffix:
    """The text without a suffix, then without space around."""

    def __init__(self, suffix: str) -> None:
        self._suffix = suffix
        self._has_begun = False
        self._held = ""

    def feed(self, text: str) -> str:
        self._held += text
        whole = len(self._suffix) if self._suffix and self._held.endswith(self._suffix) else 0
        cut = len(self._held) - max(whole, overlap(self._held, self._suffix))
        told = self._held[:cut].rstrip()
        if not self._has_begun:
            if not told.strip():
                return ""  # the suffix may begin with space that stands here
            told_end, told = len(told), told.lstrip()
            self._held = self._held[told_end:]
            self._has_begun = True
            return told
        self._held = self._held[len(told) :]
        return told

    def flush(self) -> str:
        rest = self._held.removesuffix(self._suffix).rstrip()
        return rest if self._has_begun else rest.lstrip()
