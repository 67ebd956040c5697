"""One driver per run: an advisory lock on ``RUN/lock`` that the operating system releases when its holder dies."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from data_io.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def only_driver(run_dir: Path) -> Iterator[None]:
    """Hold the run; BadInput names who holds it already."""
    path = run_dir / "lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise BadInput(
                f"{run_dir}: locked by {file.read().strip() or 'another search'}; wait for it or end it"
            ) from None
        file.truncate(0)
        file.write(f"{socket.gethostname()}/{os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
        file.flush()
        yield
        file.truncate(0)
