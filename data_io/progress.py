"""How far a long command is: one line that renews itself on a terminal, a line every tenth in a log."""

from __future__ import annotations

import sys


def show(doing: str, done: int, total: int, of: str) -> None:
    """Show on stderr that `done` of `total` things are done; `doing` and `of` are words: "reading", "frames"."""
    line = f"{doing} {done}/{total} {of}"
    if sys.stderr.isatty():
        print(f"\r\x1b[K{line}", end="" if done < total else "\n", file=sys.stderr, flush=True)
    elif done == total or done % max(1, total // 10) == 0:
        print(line, file=sys.stderr, flush=True)
