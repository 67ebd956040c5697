"""How far a long command is: one line that renews itself on a terminal, a line every ten seconds in a log."""

from __future__ import annotations

import sys
import time

PAUSE_S = 10.0
_last: dict[str, float] = {}
"""When a line was last written of each thing that is going on."""


def show(doing: str, done: int, total: int, of: str) -> None:
    """Show on stderr that `done` of `total` things are done; `doing` and `of` are words: "reading", "frames".

    What takes less than ten seconds leaves no line in a log.
    """
    line = f"{doing} {done}/{total} {of}"
    if sys.stderr.isatty():
        print(f"\r\x1b[K{line}", end="" if done < total else "\n", file=sys.stderr, flush=True)
        return
    now = time.monotonic()
    if done <= 1 or doing not in _last:
        _last[doing] = now
    if now - _last[doing] >= PAUSE_S:
        _last[doing] = now
        print(line, file=sys.stderr, flush=True)
