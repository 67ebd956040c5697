"""A trial that hangs: its process ends itself when no epoch is completed for long, and leaves a note of where it stood.

The clock is one of the C library (`faulthandler`), so that it also ends a process whose Python code cannot run.
"""

from __future__ import annotations

import faulthandler
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

NOTE = "hung.txt"
"""In the folder of a trial: the stacks of all threads of the process that hung."""


class Watchdog:
    """Ends this process `seconds` after the last `wake`; use it as a context manager.

    Parameters
    ----------
    seconds
        Longest time between two calls of `wake`; None never ends the process.
    folder
        Where the note goes; it is only there when a process hung.
    """

    def __init__(self, seconds: float | None, folder: Path) -> None:
        self.seconds = seconds
        self.note = folder / NOTE

    def __enter__(self) -> Self:
        """Begin to watch."""
        if self.seconds is not None:
            self.note.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.note.open("w", encoding="utf-8")
            self.wake()
        return self

    def wake(self) -> None:
        """Begin to count anew."""
        if self.seconds is not None:
            faulthandler.dump_traceback_later(self.seconds, exit=True, file=self._file)

    def rest(self) -> None:
        """Do not count until the next `wake`."""
        if self.seconds is not None:
            faulthandler.cancel_dump_traceback_later()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop watching."""
        if self.seconds is not None:
            self.rest()
            self._file.close()
            self.note.unlink(missing_ok=True)


def has_hung(folder: Path) -> bool:
    """Whether the last process of a trial ended because it hung."""
    note = folder / NOTE
    return note.is_file() and note.stat().st_size > 0


def remove_empty_notes(trials: Path) -> None:
    """Take away the notes of processes that were ended in another way than by hanging."""
    for note in trials.glob(f"*/{NOTE}"):
        if not note.stat().st_size:
            note.unlink()
