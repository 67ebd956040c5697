"""One driver per run: an advisory lock on ``RUN/lock`` that the operating system releases when its holder dies.

Where the file system does not share such locks between hosts, the heartbeat decides: the holder touches the file every
few seconds, and a lock of another host that was touched lately is respected.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from data_io.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BEAT_SECONDS = 10.0
"""Time between two heartbeats."""
HOLDER_LETTERS = 200
"""Of what a lock says of its holder, so many letters are read."""
STALE_SECONDS = 60.0
"""Without a heartbeat for so long a lock of another host is taken over."""


@contextmanager
def only_driver(run_dir: Path, say: Callable[[str], None] = print) -> Iterator[None]:
    """Hold the run; BadInput names who holds it already, `say` gets a note about a lock that a dead driver left."""
    path = run_dir / "lock"
    try:
        file = path.open("a+", encoding="utf-8", errors="replace")
    except OSError as fault:
        raise BadInput(f"{run_dir}: cannot be written to ({fault.strerror}); give another folder with --out") from None
    with file:
        file.seek(0)
        holder = " ".join(file.read(HOLDER_LETTERS).split())
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadInput(_refusal(run_dir, holder)) from None
        if holder and not holder.startswith(f"{socket.gethostname()}/") and seconds_since_beat(path) < STALE_SECONDS:
            raise BadInput(f"{_refusal(run_dir, holder)}; if that machine has ended for good, delete {path}")
        if holder:
            say(f"note: the lock of {holder} is stale, its driver has ended; taken over")
        file.truncate(0)
        file.write(f"{socket.gethostname()}/{os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
        file.flush()
        over = threading.Event()
        heart = threading.Thread(target=_beat, args=(path, over), daemon=True)
        heart.start()
        try:
            yield
        finally:
            over.set()
            heart.join()
            file.truncate(0)


def seconds_since_beat(path: Path) -> float:
    """Age of a lock's last heartbeat by the clock of its file system, which all hosts share."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".lock.", suffix=".tmp") as now:
        return Path(now.name).stat().st_mtime - path.stat().st_mtime


def _beat(path: Path, over: threading.Event) -> None:
    while not over.wait(BEAT_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(path)


def _refusal(run_dir: Path, holder: str) -> str:
    return f"{run_dir}: locked by {holder or 'another search'}; wait for it or end it"
