"""Decoded frames on every node: once for all its trials, from where every node can read the data set.

A trial on the driver's machine, or on a node that shares the run's folder, maps the frames that the driver decoded. A
node with a disk of its own (`search.nodes.scratch`), or one that does not see them, decodes them once: the first trial
does it, under a lock, while the others wait.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from data_io.location import located
from search.nodes import own_disk, scratch
from search.storage import PATIENCE, patiently

if TYPE_CHECKING:
    from pathlib import Path

    from data_io.store import Dataset

DECODES = "decodes.jsonl"
"""On a node: one line for each time that its frames were decoded."""


@dataclass(frozen=True)
class Source:
    """What a node needs to decode the frames of a run.

    Attributes
    ----------
    run
        Name of the run on the nodes.
    dataset, content
        Where every node finds the data set, and the hash of what is in it.
    fold
        Fold of the data set, None for the plain split.
    memory
        Bytes that decoded training frames may take, the same on all nodes: it decides the order of crops.
    patience
        Seconds for which an object store that does not answer is asked again.
    """

    run: str
    dataset: str
    content: str
    fold: int | None
    memory: int
    patience: float = PATIENCE


@dataclass(frozen=True)
class Banks:
    """Folders of the training and validation frames, shared read-only by all trials of a node; see `data_io.stream`.

    `source` says where other nodes get them from; without it these folders are all there is.
    """

    train: Path
    val: Path
    source: Source | None = None

    def of_fold(self, fold: int | None) -> Banks:
        """Return the folders of a fold of a confirmation, these for the plain split."""
        if fold is None:
            return self
        folder = self.train.parent / f"fold_{fold}"  # where `prepare.decode_frames` puts it
        return Banks(folder / "train", folder / "val", self.source and replace(self.source, fold=fold))

    def here(self) -> Banks:
        """Return the folders of this node; its frames are decoded if that has not been done."""
        return self if self.source is None else Banks(*on_this_node(self.train, self.val, self.source), self.source)


def decode(dataset: Dataset, memory: int, cache: Path) -> tuple[Path, Path]:
    """Decode training and validation frames into two folders below `cache`, or the index of a stream where they do not
    fit into `memory` bytes; what is there already stays. Return the folders.
    """
    from data_io import stream
    from data_io.crops import FrameBank

    train, val = cache / "train", cache / "val"
    stream.open_frames([dataset], [dataset.frames("train")], train, memory)
    FrameBank.build(dataset, dataset.frames("val"), val)
    return train.resolve(), val.resolve()


def on_this_node(train: Path, val: Path, source: Source) -> tuple[Path, Path]:
    """Return the folders of the frames on this node: those of the driver where they are seen, else the node's own.

    Raises
    ------
    BadInput
        The data set is not where every node should find it, or another one lies there.
    StorageLost
        It is in an object store that does not answer.
    """
    if not own_disk() and _is_seen(train, source) and val.is_dir():
        return train, val
    fold = "frames" if source.fold is None else f"frames-fold{source.fold}"
    cache = scratch(source.run) / f"{fold}-{source.content[:16]}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when its holder ends, however it ends
        if not (cache / "val").is_dir():
            patiently(source.dataset, source.patience, lambda: _decode_here(source, cache))
    return cache / "train", cache / "val"


def _decode_here(source: Source, cache: Path) -> None:
    from data_io.errors import BadInput
    from data_io.store import Dataset

    began = time.time()
    dataset = Dataset.open(located(source.dataset))
    if dataset.content_hash != source.content:
        raise BadInput(f"{source.dataset}: not the data set that this run was begun with; put that one back")
    decode(dataset if source.fold is None else dataset.in_fold(source.fold), source.memory, cache)
    facts = {"host": socket.gethostname(), "pid": os.getpid(), "seconds": round(time.time() - began, 3)}
    with (cache / DECODES).open("a") as file:
        file.write(json.dumps(facts) + "\n")


def _is_seen(folder: Path, source: Source) -> bool:
    """Whether a folder that this node sees holds the frames of the data set."""
    from data_io import crops, stream

    for index in (crops.INDEX, stream.INDEX):
        try:
            return bool(json.loads((folder / index).read_text())["content"] == [source.content])
        except (OSError, ValueError, KeyError):
            continue
    return False
