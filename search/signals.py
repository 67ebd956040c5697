"""SIGINT and SIGTERM: while trials run, a request to stop after the events at hand; at any other time, the end.

Ray installs handlers of its own when it starts, so `Signals.install` is called again after that.
"""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from data_io import errors

if TYPE_CHECKING:
    from collections.abc import Iterator

CODES = {signal.SIGTERM: errors.PREEMPTED, signal.SIGINT: errors.INTERRUPTED}


class Ended(BaseException):
    """The process was asked to end; `code` is its exit code. Everything up to the last epoch is on disk."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = CODES[signal.Signals(number)]


class Halted(Exception):
    """The search cannot go on on this machine, for the reason that is its text; what was done is on disk."""


class Signals:
    """What the process was asked; use `patiently` around work that ends by itself when `received` is set."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.patient = False

    def install(self) -> None:
        """Take over both signals."""
        for number in CODES:
            signal.signal(number, self._handle)

    def ignore(self) -> None:
        """Let neither disturb the process any more: it ends."""
        for number in CODES:
            signal.signal(number, signal.SIG_IGN)

    def _handle(self, number: int, frame: object) -> None:
        asked_before, self.received = self.received is not None, number
        if not self.patient or asked_before:
            raise Ended(number)

    @contextmanager
    def patiently(self) -> Iterator[None]:
        """Let the block finish on its own; a second signal raises at once, the first one afterwards."""
        self.patient = True
        try:
            yield
        finally:
            self.patient = False
        if self.received is not None:
            raise Ended(self.received)
