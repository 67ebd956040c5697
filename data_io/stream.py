"""Crops from data sets that are larger than the memory given to them.

Frames are decoded window by window through Dask, each at most once in an epoch; every crop that lies in a frame is cut
while it is there. The frames of an epoch are dealt to a fixed number of lanes, and batch k comes from lane k % lanes:
so loading workers that serve whole lanes never decode a frame twice, and the order of crops does not depend on how
many workers there are or where an interrupted epoch begins again.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from data_io.buffers import Buffers
from data_io.crops import FrameBank, contents, holds, lay, middles
from data_io.errors import BadInput
from data_io.files import building, write_json
from data_io.location import located
from data_io.normalise import CLIP
from data_io.store import Dataset, FrameRef

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from data_io.crops import Crops
    from data_io.direct import Reader

INDEX = "stream.json"
LANES = 4
"""Lanes of an epoch; 1, 2 or 4 loading workers share them evenly."""
LONGEST_WINDOW = 16
"""Frames of a lane that are in memory together, at most: more would mix an epoch no better."""
SHARE = 0.25
"""Part of the free memory that decoded training frames may take when nothing else is said."""


@dataclass(eq=False)
class FrameStream:
    """Annotated frames of one or several data sets, decoded while they are needed.

    Frame i has `shapes[i]` (Y, X) px and `channels` channels; `cells_of[i]` are the middles of its cells.
    """

    path: Path
    """Folder with the index; another process opens the stream from there."""
    datasets: tuple[Dataset, ...]
    refs: tuple[tuple[int, FrameRef], ...]
    """The data set of each frame, by its number, and the frame in it."""
    shapes: tuple[tuple[int, int], ...]
    channels: int
    cells: NDArray[np.int32]
    """`(N, 3)`: frame, y and x of the middle of every cell."""
    window: int
    """Frames of a lane in memory together."""
    decoded: int = 0
    """Frames decoded so far."""
    held: int = 0
    """Bytes of the frames in memory now."""
    most_held: int = 0
    """Largest value of `held` so far."""
    _frames: dict[int, Held] = field(default_factory=dict)
    _buffers: Buffers = field(default_factory=Buffers)
    _batches: Buffers = field(default_factory=Buffers)

    @classmethod
    def build(
        cls, datasets: Sequence[Dataset], refs: Sequence[Sequence[FrameRef]], folder: Path | str, budget: int
    ) -> FrameStream:
        """Write the index of a stream: where cells lie and how many frames fit; or open what is there if it is that.

        Parameters
        ----------
        datasets, refs
            Data sets, and of each the annotated frames that are trained on.
        folder
            Where the index goes.
        budget
            Bytes of decoded frames that may be in memory together.

        Raises
        ------
        BadInput
            No frames, different numbers of channels, or `LANES` frames do not fit into the budget.
        """
        folder = Path(folder)
        every = [(k, ref) for k, own in enumerate(refs) for ref in own]
        if not every:
            raise BadInput(f"{datasets[0].path}: no frames to train on; annotate some frames")
        if len({dataset.channels for dataset in datasets}) > 1:
            raise BadInput(
                f"{datasets[1].path}: another number of channels than {datasets[0].path}; choose with channels"
            )
        largest = max(frame_bytes(datasets[k], ref) for k, ref in every)
        lanes = _lanes(len(every))
        window = min(budget // (largest * lanes), LONGEST_WINDOW)
        if window < 1:
            need = f"{lanes} frames of {largest / 1e6:.0f} MB"
            raise BadInput(
                f"{folder}: {need} do not fit into {budget / 1e6:.0f} MB; give them more memory (data.memory_gb)"
            )
        wanted = _contents(datasets, refs) | {"window": int(window)}
        if not _holds(folder, wanted):
            with building(folder) as partial:
                partial.mkdir()
                np.save(partial / "cells.npy", _middles(datasets, every))
                write_json(partial / INDEX, wanted)
                shutil.rmtree(folder, ignore_errors=True)
        return cls.open(folder, datasets)

    @classmethod
    def open(cls, folder: Path | str, datasets: Sequence[Dataset] | None = None) -> FrameStream:
        """Open a stream by its index; the data sets are opened again unless they are given."""
        folder = Path(folder).resolve()
        if not (folder / INDEX).is_file():
            raise BadInput(f"{folder}: no index of a stream; build it from a data set first")
        index = json.loads((folder / INDEX).read_text())
        opened = tuple(datasets or (Dataset.open(located(path)) for path in index["datasets"]))
        refs = tuple((k, FrameRef(name, frame)) for k, name, frame in index["refs"])
        shapes = tuple(opened[k].fields[ref.field].shape for k, ref in refs)
        return cls(folder, opened, refs, shapes, opened[0].channels, np.load(folder / "cells.npy"), index["window"])

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process as a path."""
        return FrameStream.open, (self.path,)

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.refs)

    @cached_property
    def cells_of(self) -> list[NDArray[np.int32]]:
        """Return, per frame, `(N, 2)`: y and x of its cells."""
        return [self.cells[self.cells[:, 0] == i, 1:] for i in range(len(self))]

    @cached_property
    def _readers(self) -> list[Reader]:
        from data_io.direct import Reader

        return [Reader(dataset) for dataset in self.datasets]

    @property
    def lanes(self) -> int:
        """Lanes of an epoch."""
        return _lanes(len(self))

    def crops(
        self, *, seed: int, epoch: int, n: int, size: int, batch: int, foreground: float,
        worker: int = 0, workers: int = 1, first: int = 0,
    ) -> Iterator[tuple[int, Crops]]:  # fmt: skip
        """Yield (k, crops of batch k) of an epoch for every batch of this worker from `first` on.

        Raises
        ------
        BadInput
            The number of workers does not divide the number of lanes.
        """
        if self.lanes % workers:
            few = " or ".join(str(n) for n in range(1, self.lanes + 1) if self.lanes % n == 0)
            raise BadInput(f"{workers} loading workers: frames are streamed in {self.lanes} lanes; use {few} workers")
        lanes = plan_lanes(self, seed=seed, epoch=epoch, n=n, size=size, batch=batch, foreground=foreground)
        current = [-1] * self.lanes
        try:
            for k in range(first, n // batch):
                if k % workers != worker:
                    continue
                part = slice(k // self.lanes * batch, (k // self.lanes + 1) * batch)
                yield k, self._cut(lanes[k % self.lanes], part, current, size)
        finally:
            self._frames.clear()
            self._buffers, self._batches = Buffers(), Buffers()
            self.held = 0

    def _cut(self, lane: Lane, part: slice, current: list[int], size: int) -> Crops:
        """Return the crops of one batch; a window is let go before the next one of its lane is decoded."""
        places, windows = lane.places[part].tolist(), lane.windows[part].tolist()
        images = self._batches.take((len(places), self.channels, size, size), np.float32)
        labels = self._batches.take((len(places), size, size), np.int32)
        for i, ((frame, y, x), window) in enumerate(zip(places, windows, strict=True)):
            if window != current[lane.number]:
                self._turn(lane.frames.get(current[lane.number], ()), lane.frames[window])
                current[lane.number] = window
            cut_into(images[i], labels[i], self._frames[frame], (y, x))
        return images, labels

    def _turn(self, old: Sequence[int], new: Sequence[int]) -> None:
        """Let the frames of one window go and decode those of another."""
        from dask.threaded import get

        for frame in old:
            self.held -= self._frames.pop(frame).nbytes
        graph = {}
        for frame in new:
            k, ref = self.refs[frame]
            one = self.datasets[k].fields[ref.field]
            image = self._buffers.take((self.channels, *one.shape), one.dtype)
            drawn = self._buffers.take(one.shape, np.int32)
            graph["image", frame] = (self._readers[k].image, ref, image)
            graph["labels", frame] = (self._readers[k].labels, ref, drawn)
            self._frames[frame] = Held.of(image, drawn, self.datasets[k].limits(ref))
            self.held += self._frames[frame].nbytes
            del image, drawn
        get(graph, list(graph))
        self.decoded += len(new)
        self.most_held = max(self.most_held, self.held)


class Held(NamedTuple):
    """A decoded frame."""

    image: NDArray[Any]
    """`(C, Y, X)` grey values as stored."""
    labels: NDArray[np.int32]
    """`(Y, X)`."""
    low: NDArray[np.float32]
    """`(C,)`: the grey values that become 0."""
    scale: NDArray[np.float32]
    """`(C,)`: what a step of one grey value becomes."""

    @classmethod
    def of(cls, image: NDArray[Any], labels: NDArray[np.int32], limits: NDArray[np.float64]) -> Held:
        """Return a frame with its `(C, 2)` limits."""
        low, high = limits.T
        return cls(image, labels, low.astype(np.float32), (1 / (high - low)).astype(np.float32))

    @property
    def nbytes(self) -> int:
        """Bytes of image and labels."""
        return self.image.nbytes + self.labels.nbytes


@dataclass(frozen=True, eq=False)
class Lane:
    """The crops of one lane in an epoch, in order."""

    number: int
    places: NDArray[np.int64]
    """`(m, 3)`: frame, y and x of the upper left corner of each crop."""
    windows: NDArray[np.int64]
    """`(m,)`: the window each crop lies in; it never falls."""
    frames: dict[int, tuple[int, ...]]
    """The frames of each window."""


def plan_lanes(
    stream: FrameStream, *, seed: int, epoch: int, n: int, size: int, batch: int, foreground: float
) -> list[Lane]:
    """Return the lanes of an epoch.

    A pure function of its arguments. Frames are dealt to lanes at random; in a lane each gets its share of the crops by
    area, and the crops of a window are mixed.
    """
    rng = np.random.default_rng([seed, epoch, n, size])
    dealt = rng.permutation(len(stream))
    area = np.array([y * x for y, x in stream.shapes], np.float64)
    plans = []
    for lane in range(stream.lanes):
        frames = dealt[lane :: stream.lanes]
        count = batch * len(range(lane, n // batch, stream.lanes))
        share = np.cumsum(area[frames])
        at = np.searchsorted(share / share[-1], (np.arange(count) + rng.random()) / max(count, 1), side="right")
        at = np.minimum(at, len(frames) - 1)
        windows = at // stream.window
        mixed = np.lexsort([rng.random(count), windows])
        at, windows = at[mixed], windows[mixed]
        used = {int(w): tuple(frames[np.unique(at[windows == w])].tolist()) for w in np.unique(windows)}
        places = lay(stream, frames[at], rng, size, foreground)
        plans.append(Lane(lane, places, windows, used))
    return plans


def cut_into(
    image_out: NDArray[np.float32], labels_out: NDArray[np.int32], frame: Held, corner: tuple[int, int]
) -> None:
    """Write the normalised crop at a corner (y, x) px into `(C, S, S)` and `(S, S)`; what lacks is mirrored."""
    from data_io.crop_kernel import fill

    size, (y, x) = labels_out.shape[0], corner
    image, labels = frame.image, frame.labels
    missing = (y + size - labels.shape[0], x + size - labels.shape[1])
    if max(missing) > 0:
        edges = [(0, max(0, missing[0])), (0, max(0, missing[1]))]
        labels = np.pad(labels[y : y + size, x : x + size], edges, "symmetric")
        image = np.pad(image[:, y : y + size, x : x + size], [(0, 0), *edges], "symmetric")
        y = x = 0
    fill(image_out, labels_out, image, labels, (y, x), frame.low, frame.scale, CLIP)


def frame_bytes(dataset: Dataset, ref: FrameRef) -> int:
    """Return the bytes of a decoded frame with its labels."""
    one = dataset.fields[ref.field]
    return one.shape[0] * one.shape[1] * (len(one.channels) * np.dtype(one.dtype).itemsize + 4)


def bank_bytes(dataset: Dataset, refs: Sequence[FrameRef]) -> int:
    """Return the bytes that frames take when all of them are decoded and normalised."""
    shapes = [dataset.fields[ref.field].shape for ref in refs]
    return sum(y * x for y, x in shapes) * 4 * (dataset.channels + 1)


def free_bytes() -> int:
    """Return how much memory this machine, or the container this process is in, has left."""
    told = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = 1024 * int(told["MemAvailable"].split()[0])
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    try:
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    except (OSError, ValueError):  # no such files, or "max"
        return free
    return max(free, 0)


def open_frames(
    datasets: Sequence[Dataset],
    refs: Sequence[Sequence[FrameRef]],
    folder: Path | str,
    budget: int | None = None,
) -> FrameBank | FrameStream:
    """Return frames decoded once and shared by all who map them if they fit into the budget, else a stream.

    Parameters
    ----------
    datasets, refs
        Data sets, and of each the annotated frames that are trained on.
    folder
        Where the decoded frames or the index go.
    budget
        Bytes; None takes a quarter of the free memory, unless the folder holds these frames already: then it stays as
        it is, so that a run that goes on another day has the same crops.
    """
    if budget is None and (
        holds(Path(folder), contents(datasets, refs)) or _holds(Path(folder), _contents(datasets, refs))
    ):
        return reopen(folder)
    budget = int(SHARE * free_bytes()) if budget is None else budget
    total = sum(bank_bytes(dataset, own) for dataset, own in zip(datasets, refs, strict=True))
    if total <= budget:
        return FrameBank.build_all(datasets, refs, folder)
    return FrameStream.build(datasets, refs, folder, budget)


def reopen(folder: Path | str) -> FrameBank | FrameStream:
    """Open what `open_frames` made in a folder."""
    return FrameStream.open(folder) if (Path(folder) / INDEX).is_file() else FrameBank.open(folder)


def _lanes(frames: int) -> int:
    """Return how many lanes there are for so many frames: each lane has one at least."""
    return next(lanes for lanes in (LANES, LANES // 2, 1) if frames >= lanes)


def _middles(datasets: Sequence[Dataset], every: Sequence[tuple[int, FrameRef]]) -> NDArray[np.int32]:
    """Return `(N, 3)`: frame, y and x of the middle of every cell, from one pass over the labels."""
    from dask.base import compute
    from dask.delayed import delayed

    def of_frame(i: int, k: int, ref: FrameRef) -> NDArray[np.int32]:
        found = middles(datasets[k].labels(ref))
        return np.column_stack([np.full(len(found), i, np.int32), found])

    tasks = [delayed(of_frame)(i, k, ref) for i, (k, ref) in enumerate(every)]
    return np.concatenate(compute(*tasks, scheduler="threads"))  # type: ignore[no-untyped-call]  # dask is untyped


def _contents(datasets: Sequence[Dataset], refs: Sequence[Sequence[FrameRef]]) -> dict[str, Any]:
    """Return what the index of a stream says of these frames, but for the window."""
    return {
        "datasets": [str(dataset.path) for dataset in datasets],
        "content": [dataset.content_hash for dataset in datasets],
        "refs": [[k, ref.field, ref.frame] for k, own in enumerate(refs) for ref in own],
    }


def _holds(folder: Path, wanted: dict[str, Any]) -> bool:
    try:
        index = json.loads((folder / INDEX).read_text())
    except (OSError, ValueError):
        return False
    return all(index.get(key) == value for key, value in wanted.items())
