"""A trial kept in an object store by the process that trains it, whichever node that is on.

    trials/<id>/metrics.csv ...                     after every epoch
    trials/<id>/checkpoints/epoch_000012/           its files first, the manifest last; then older ones go

Before a trial begins, what the store knows better is brought; after each epoch what it wrote is stored, and only then
the epoch is reported. So the store always holds a complete checkpoint of every epoch that was reported with one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from search import checkpoints
from search.watchdog import NOTE

if TYPE_CHECKING:
    from pathlib import Path

    from search.storage import Storage

TRIALS = "trials"
CHECKPOINTS = "checkpoints"


class StoredTrial:
    """The folder of a trial on this node, and what the store has of it.

    Parameters
    ----------
    store
        The storage of the run.
    trial
        Its id.
    folder
        Where it is trained.
    """

    def __init__(self, store: Storage, trial: str, folder: Path) -> None:
        self.store = store
        self.under = f"{TRIALS}/{trial}"
        self.folder = folder
        self.stored: dict[str, tuple[int, int]] = {}
        """Size and time of each file as it was when it was stored, by its name in the store."""
        self.there: set[str] = set()

    def bring(self) -> bool:
        """Bring the trial here if the store has a newer checkpoint; say whether it had."""
        self.there = set(self.store.objects(self.under))
        newest = checkpoints.newest(self.folder / CHECKPOINTS)
        if _newest(self.there) <= (checkpoints.epoch_of(newest) if newest else 0):
            return False
        sealed = _epochs(self.there)
        wanted = {name for name in self.there if _epoch(name) in {None, *sealed}}
        for name in sorted(wanted, key=lambda name: name.endswith(checkpoints.MANIFEST)):
            self.store.get(name, self._file(name))
        checkpoints.prune(self.folder / CHECKPOINTS, sealed)  # those of an earlier stay on this node
        self.stored = {name: _stat(self._file(name)) for name in wanted}
        return True

    def put(self) -> None:
        """Store what changed: checkpoints after all else, each manifest after its files; then delete what went."""
        here = self._files()
        for name in sorted(here, key=_order):
            if self.stored.get(name) != here[name]:
                self.store.put(self._file(name), name)
                self.stored[name] = here[name]
                self.there.add(name)
        gone = {n for n in self.there if n.startswith(f"{self.under}/{CHECKPOINTS}/") and n not in here}
        self.store.delete(sorted(gone, key=lambda name: (not name.endswith(checkpoints.MANIFEST), name)))
        self.there -= gone

    def _files(self) -> dict[str, tuple[int, int]]:
        """Size and time of the files to be stored; those of a checkpoint without a manifest are none."""
        found = {}
        for file in sorted(self.folder.rglob("*")):
            within = file.relative_to(self.folder).parts
            half = within[0] == CHECKPOINTS and not (file.parent / checkpoints.MANIFEST).exists()
            passing = file.name == NOTE or file.name.endswith((".tmp", ".partial"))
            if file.is_file() and not half and not passing:
                found["/".join([self.under, *within])] = _stat(file)
        return found

    def _file(self, name: str) -> Path:
        return self.folder / name.removeprefix(f"{self.under}/")


def bring_curves(store: Storage, trial: str, folder: Path) -> None:
    """Have the files of a trial in a folder that are not there, its checkpoints left out."""
    for name in store.objects(f"{TRIALS}/{trial}"):
        file = folder / name.removeprefix(f"{TRIALS}/{trial}/")
        if not file.exists() and f"/{CHECKPOINTS}/" not in name:
            store.get(name, file)


def bring_trial(store: Storage, trial: str, folder: Path) -> None:
    """Have a trial in a folder as far as the store knows more of it."""
    StoredTrial(store, trial, folder).bring()


def _newest(names: set[str]) -> int:
    """Newest epoch with a manifest; 0 for none."""
    return max(_epochs(names), default=0)


def _epochs(names: set[str]) -> set[int]:
    """Epochs that have a manifest."""
    return {epoch for n in names if n.endswith(f"/{checkpoints.MANIFEST}") and (epoch := _epoch(n)) is not None}


def _epoch(name: str) -> int | None:
    """Epoch of the checkpoint that a file is part of, None for other files."""
    found = re.search(rf"/{CHECKPOINTS}/epoch_(\d+)/", name)
    return int(found[1]) if found else None


def _order(name: str) -> tuple[bool, bool, str]:
    return f"/{CHECKPOINTS}/" in name, name.endswith(checkpoints.MANIFEST), name


def _stat(file: Path) -> tuple[int, int]:
    facts = file.stat()
    return facts.st_size, facts.st_mtime_ns
