"""A run as the processes of any node find it: the folder that all share, or an object store and a folder of the node.

SEARCH_SCRATCH names a folder on the node's own disk, such as an NVMe mount: frames, and trials of a run in an object
store, are kept there while it runs. By default that is the system's temporary folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_io import files
from data_io.errors import BadInput
from search.storage import StorageLost
from search.stored_trial import TRIALS, StoredTrial
from search.weights import FOLDER, MANIFEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from search.storage import Storage

SCRATCH = "SEARCH_SCRATCH"
MARK = Path("cache") / "mark"
"""In the folder of a run: a word of the driver; a process that reads it sees the driver's folder."""
NOTICED_SECONDS = 20.0
"""After how long Ray has noticed that a node is gone."""
LATELY = 60.0
"""Seconds for which broken connections are put down to a node that was found lost."""
LIBRARIES = ("numpy", "torch")
"""Those with which a trial computes."""
CLEANING_SECONDS = 30.0
"""How long the nodes may take to delete what a run left on them."""


class NotShared(Exception):
    """A node cannot take part in the run: it sees neither its folder nor a storage of it, or lacks data or packages."""


@dataclass(frozen=True)
class Home:
    """Where a run is, for a process on any node.

    Attributes
    ----------
    run_dir, mark
        The driver's folder, and the word in it.
    name
        Name of the run on the nodes.
    store
        Storage of the run, None where all nodes share `run_dir`.
    packages
        Versions of the libraries that the driver computes with, none where they do not matter.
    """

    run_dir: Path
    mark: str
    name: str
    store: Storage | None = None
    packages: dict[str, str] = field(default_factory=dict)

    def refuse_other_packages(self) -> None:
        """Raise NotShared where this node computes with other libraries than the driver: numbers would differ."""
        here = packages()
        names = [name for name, version in self.packages.items() if here.get(name) != version]
        other = [f"{name} {here.get(name, 'missing')}, but {self.packages[name]} where the run began" for name in names]
        if other:
            raise NotShared(f"{socket.gethostname()}: {'; '.join(other)}; install the same there")

    @contextmanager
    def trial(self, trial: str, report: Callable[[Any], None]) -> Iterator[tuple[Path, Callable[[Any], None]]]:
        """Give the folder of a trial and what reports an epoch of it; a storage has what was reported.

        Raises
        ------
        NotShared
            This node cannot reach the run.
        StorageLost
            The storage does not answer.
        """
        folder = self.folder() / TRIALS / trial
        if self.store is None:
            yield folder, report
            return
        kept = StoredTrial(self.store, trial, folder)
        with of_this_node():
            kept.bring()

        def keep_and_report(row: Any) -> None:
            kept.put()
            report(row)

        _report_earlier(folder, report)
        try:
            yield folder, keep_and_report
        except StorageLost:  # what could not be stored stays for the next time
            raise
        except BaseException:
            self._leave(folder)
            raise
        self._leave(folder)

    def _leave(self, folder: Path) -> None:
        """Delete the folder of a trial on a node: what was reported is stored."""
        if folder.parent.parent != self.run_dir:
            shutil.rmtree(folder, ignore_errors=True)

    def folder(self) -> Path:
        """Return the folder of this node in which trials are trained."""
        seen = self._is_seen()
        if self.store is None:
            if not seen:
                raise NotShared(
                    f"{self.run_dir}: not seen from {socket.gethostname()}; give a folder that all nodes share, or an "
                    "object store, with --out"
                )
            return self.run_dir
        return self.run_dir if seen and not own_disk() else scratch(self.name)

    def encoders(self, *, needed: bool) -> Path:
        """Return the folder of the run's pretrained encoders on this node, brought from the storage where `needed`."""
        own = self.folder() / FOLDER
        if needed and self.store is not None and own.parent != self.run_dir:
            names = sorted(self.store.objects(FOLDER), key=lambda name: name.endswith(MANIFEST))
            for name in names:
                if not (own.parent / name).exists():
                    self.store.get(name, own.parent / name)
        return own

    def _is_seen(self) -> bool:
        try:
            return (self.run_dir / MARK).read_text() == self.mark
        except OSError:
            return False


def _report_earlier(folder: Path, report: Callable[[Any], None]) -> None:
    """Report the epochs before the newest checkpoint again: the ledger of a driver that was killed may lack the last
    ones, and knows those that it has.
    """
    from search import checkpoints
    from search.metrics import rows_until

    newest = checkpoints.newest(folder / "checkpoints")
    if newest is not None:
        for row in rows_until(checkpoints.epoch_of(newest) - 1, newest, folder):
            report(row)


@contextmanager
def of_this_node() -> Iterator[None]:
    """Put down to this node, and not to its trial, what keeps a trial from being begun here."""
    try:
        yield
    except StorageLost as fault:
        raise StorageLost(f"{fault} (asked by {socket.gethostname()})") from fault
    except (BadInput, ImportError) as fault:
        raise NotShared(f"{socket.gethostname()}: {fault}") from fault


def packages() -> dict[str, str]:
    """Return the versions of the libraries that trials compute with; builds for other processors count as the same."""
    found = {}
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name).partition("+")[0]
    return found


class Losses:
    """Nodes that a cluster has lost since this was made: a broken connection to one is told before its loss is."""

    def __init__(self) -> None:
        self.found = dict.fromkeys(_nodes()[1], float("-inf"))
        """When it was found out, by node."""

    def lately(self) -> bool:
        """Whether a node was lost a short while ago; where there are several, wait until Ray may know."""
        end = time.monotonic() + NOTICED_SECONDS
        while True:
            now, (living, gone) = time.monotonic(), _nodes()
            self.found |= {node: now for node in gone if node not in self.found}
            if any(now - when < LATELY for when in self.found.values()):
                return True
            if now > end or len(living) == 1:
                return False
            time.sleep(0.5)


def _nodes() -> tuple[list[str], list[str]]:
    """Ids of the nodes that live, and of those that are gone."""
    import ray

    nodes = ray.nodes()
    return [node["NodeID"] for node in nodes if node["Alive"]], [n["NodeID"] for n in nodes if not n["Alive"]]


def name_of(run_dir: Path) -> str:
    """Return the name of a run on the nodes, another one for each folder.

    >>> name_of(Path("/shared/runs/0001"))
    '0001-76182940'
    """
    path = str(run_dir.resolve())
    return f"{files.slug(run_dir.name)}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"


def own_disk() -> bool:
    """Whether this node was given a disk of its own for what it keeps while it works."""
    return bool(os.environ.get(SCRATCH))


def scratch(run: str) -> Path:
    """Return this node's own folder for a run, which nobody else may enter.

    Raises
    ------
    NotShared
        Someone else has made a folder of that name.
    """
    folder = _scratch(run)
    parent = folder.parent
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if parent.stat().st_uid != os.getuid() or parent.is_symlink():
        raise NotShared(f"{parent}: belongs to someone else; set {SCRATCH} to a folder of your own on each node")
    folder.mkdir(exist_ok=True)
    return folder


def _scratch(run: str) -> Path:
    return Path(os.environ.get(SCRATCH) or tempfile.gettempdir()) / f"cellsearch-{os.getuid()}" / run


def mark(run_dir: Path) -> str:
    """Leave a new word in the folder of a run, by which its nodes know whether they see it."""
    word = os.urandom(8).hex()
    (run_dir / MARK).parent.mkdir(parents=True, exist_ok=True)
    files.write_text(run_dir / MARK, word)
    return word


def clean(run: str) -> None:
    """Delete what a run left on the nodes that are still there; a node that does not answer is left as it is."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    living, _ = _nodes()
    if len(living) == 1:
        _remove(run)
        return
    remove = ray.remote(_remove)
    asked = [
        remove.options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False), max_retries=0
        ).remote(run)
        for node in living
    ]
    ray.wait(asked, num_returns=len(asked), timeout=CLEANING_SECONDS)


def _remove(run: str) -> None:
    shutil.rmtree(_scratch(run), ignore_errors=True)
