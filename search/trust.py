"""Whom a run is believed: a folder that only its owner can have filled, read by libraries that may not unpickle.

Nothing of a run is ever unpickled; a folder that others may write to could still hold weights, settings or numbers that
are not the user's own. So it is refused, and a run makes its files for its owner alone to write.
"""

from __future__ import annotations

import os
import pwd
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from data_io.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator

FORCED = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
NOT_FOR_OTHERS = stat.S_IWGRP | stat.S_IWOTH
DEPTH = 4
"""Folders of a run down to those of the checkpoints of a trial, whose files are looked at."""


def write_for_owner_only() -> None:
    """Have what this process makes from now on writable by its owner alone, whatever its umask was; readers stay."""
    os.umask(os.umask(0) | NOT_FOR_OTHERS)


def refuse_forced_pickles() -> None:
    """Refuse to work where PyTorch is told to unpickle files: whoever wrote one could run code here.

    Raises
    ------
    BadInput
        The variable `FORCED` is set.
    """
    if os.environ.get(FORCED):
        raise BadInput(f"{FORCED}: set, which lets a file run code when it is loaded; run `unset {FORCED}` first")


def refuse_foreign(run_dir: Path) -> None:
    """Refuse to go on with a run that someone else owns or may write to; nothing there is no such run.

    Looks at the folder, what lies in it, and its folders down to the checkpoints. What a new folder there looks like
    says who the user is for this file system, and whether it keeps permissions at all; some network and Windows drives
    do not, and then they are not asked.

    Raises
    ------
    BadInput
        With the first such path, and how to make the run one's own.
    """
    if not run_dir.is_dir():
        return
    mine, private = _made_there(run_dir)
    for path, facts in _looked_at(run_dir):
        if facts.st_uid != mine:
            copied = f"cp -r {run_dir} {run_dir.name}-mine"
            raise BadInput(f"{path}: belongs to {_name(facts.st_uid)}; if you trust them, go on in a copy: `{copied}`")
        if private and facts.st_mode & NOT_FOR_OTHERS:
            who = "everyone" if facts.st_mode & stat.S_IWOTH else "its group"
            raise BadInput(f"{path}: {who} may write to it; if its content is yours, run `chmod -R go-w {run_dir}`")


def _made_there(folder: Path) -> tuple[int, bool]:
    """Return the owner of a new folder in `folder`, and whether it can be kept from others."""
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".permissions.", suffix=".tmp") as made:
            Path(made).chmod(stat.S_IRWXU)
            facts = Path(made).stat()
    except OSError:  # nothing can be made there, so it is not the user's
        return os.geteuid(), True
    return facts.st_uid, not facts.st_mode & NOT_FOR_OTHERS


def _looked_at(run_dir: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield a run's folder, its files, and its folders to a depth, with what is known of each; a link is its target.

    What is inside the frames, which have a manifest of their own, and the caches that a run makes anew is left out.
    """
    yield run_dir, run_dir.stat()
    folders = [(run_dir, 0)]
    while folders:
        folder, depth = folders.pop()
        with suppress(FileNotFoundError), os.scandir(folder) as entries:  # another driver may be at work there
            for entry in entries:
                if entry.name in ("cache", "synthetic"):
                    continue
                with suppress(FileNotFoundError):
                    yield Path(entry.path), entry.stat()
                    if entry.is_dir() and depth < DEPTH and not entry.name.endswith(".zarr"):
                        folders.append((Path(entry.path), depth + 1))


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
