"""What a person sees of a download, on stderr: bars and a question in a terminal, else a line for each file."""

import sys
from collections.abc import Sequence
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import (
    Progress as Bars,
)
from rich.prompt import Prompt
from rich.table import Table
from rich.text import Text

from repository.hub.choose import show_bytes
from repository.hub.pull import Telling
from repository.hub.values import Progress, Quantisation


class PullConsole:
    """A context manager; `close` ends the bars of one model, before something else is said."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            redirect_stdout=False,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._told: set[str] = set()
        self.telling = Telling(self._show, self._say)
        self.ask = self._ask if self._console.is_terminal and sys.stdin.isatty() else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._bars.stop()
        for task in self._tasks.values():
            self._bars.remove_task(task)
        self._tasks.clear()
        self._told.clear()

    def _say(self, text: str) -> None:
        self._console.print(Text(text))

    def _show(self, progress: Progress) -> None:
        if not self._console.is_terminal:
            self._tell(progress)
            return
        if progress.file not in self._tasks:
            self._bars.start()
            self._tasks[progress.file] = self._bars.add_task(progress.file, total=progress.file_total_bytes)
        self._bars.update(self._tasks[progress.file], completed=progress.file_done_bytes)

    def _tell(self, progress: Progress) -> None:
        """One line where a file is whole, and one for each tenth of a large one."""
        is_whole = progress.file_done_bytes == progress.file_total_bytes
        tenth = 10 * progress.file_done_bytes // max(progress.file_total_bytes, 1)
        mark = progress.file if is_whole else f"{progress.file} {tenth}"
        if mark in self._told or (not is_whole and (not tenth or progress.file_total_bytes < _LARGE_BYTES)):
            return
        self._told.add(mark)
        size = show_bytes(progress.file_total_bytes)
        self._say(f"{progress.file}: {size}" if is_whole else f"{progress.file}: {tenth}0 % of {size}")

    def _ask(self, among: Sequence[Quantisation], suggested: str) -> str:
        table = Table("Quantisation", "Size", box=None, header_style="dim")
        table.columns[1].justify = "right"
        for each in among:
            table.add_row(
                Text(each.label, style="bold" if each.label == suggested else ""), show_bytes(each.size)
            )
        self._console.print(table)
        labels = [each.label for each in among]
        return Prompt.ask(
            "Which one",
            choices=labels,
            default=suggested,
            show_choices=False,
            case_sensitive=False,
            console=self._console,
        )


_LARGE_BYTES = 1 << 30
