"""The frames in memory maps, and the crops a network is trained on.

Frames are decoded once, through a Dask graph, into two flat `.npy` files. Every trial on the machine maps the same
files read-only, so they share one copy in the page cache, and a crop costs little more than its copy.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_io.augment import augment
from data_io.buffers import Buffers
from data_io.errors import BadInput
from data_io.files import building, write_json
from data_io.store import FrameRef

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from data_io.augment import Augmentation
    from data_io.store import Dataset
    from data_io.stream import FrameStream

INDEX = "index.json"
FILES = ("pixels.npy", "drawn.npy", "cells.npy")
Crops = tuple["NDArray[np.float32]", "NDArray[np.int32]"]


@dataclass(frozen=True, eq=False)
class FrameBank:
    """Decoded, normalised, annotated frames in memory maps.

    Frame i has `shapes[i]` (Y, X) px and `channels` channels; its cells are the rows of `cells` that begin with i.
    """

    path: Path
    refs: tuple[FrameRef, ...]
    shapes: tuple[tuple[int, int], ...]
    channels: int
    pixels: NDArray[np.float32]
    """All images, flat, one after the other."""
    drawn: NDArray[np.int32]
    """All label images, likewise."""
    cells: NDArray[np.int32]
    """`(N, 3)`: frame, y and x of the middle of every cell."""

    @classmethod
    def build(cls, dataset: Dataset, refs: Sequence[FrameRef], cache_dir: Path | str) -> FrameBank:
        """Decode annotated frames into `cache_dir`, or open what is there if it is just that.

        Raises
        ------
        BadInput
            No frames, or one of them is not annotated.
        """
        return cls.build_all([dataset], [refs], cache_dir)

    @classmethod
    def build_all(
        cls, datasets: Sequence[Dataset], refs: Sequence[Sequence[FrameRef]], cache_dir: Path | str
    ) -> FrameBank:
        """Decode annotated frames of several data sets, as `build` does those of one.

        Raises
        ------
        BadInput
            No frames, one of them is not annotated, or the data sets have different numbers of channels.
        """
        cache_dir = Path(cache_dir)
        every = [(dataset, ref) for dataset, own in zip(datasets, refs, strict=True) for ref in own]
        if not every:
            raise BadInput(f"{datasets[0].path}: no frames to train on; annotate some frames")
        if len({dataset.channels for dataset in datasets}) > 1:
            raise BadInput(
                f"{datasets[1].path}: another number of channels than {datasets[0].path}; choose with channels"
            )
        wanted = contents(datasets, refs)
        if not holds(cache_dir, wanted):
            try:
                with building(cache_dir) as partial:
                    _decode(every, partial, wanted)
                    if not holds(cache_dir, wanted):
                        shutil.rmtree(cache_dir, ignore_errors=True)
            except OSError:  # another process was faster with the same frames: theirs will do
                if not holds(cache_dir, wanted):
                    raise
        return cls.open(cache_dir)

    @classmethod
    def open(cls, cache_dir: Path | str) -> FrameBank:
        """Map a complete bank read-only; raises BadInput where there is none."""
        cache_dir = Path(cache_dir).resolve()
        if not (cache_dir / INDEX).is_file():
            raise BadInput(f"{cache_dir}: no complete frame bank; build it from a data set first")
        index = json.loads((cache_dir / INDEX).read_text())
        pixels, drawn, cells = (np.load(cache_dir / name, mmap_mode="r") for name in FILES)
        refs = tuple(FrameRef(field, frame) for field, frame in index["refs"])
        shapes = tuple((y, x) for y, x in index["shapes"])
        return cls(cache_dir, refs, shapes, index["channels"], pixels, drawn, np.asarray(cells))

    def image(self, i: int) -> NDArray[np.float32]:
        """Return frame i as a read-only view: `(C, Y, X)` float32."""
        return self._images[i]

    def labels(self, i: int) -> NDArray[np.int32]:
        """Return the labels of frame i as a read-only view: `(Y, X)` int32."""
        return self._labels[i]

    def crops(
        self, *, seed: int, epoch: int, n: int, size: int, batch: int, foreground: float,
        worker: int = 0, workers: int = 1, first: int = 0,
    ) -> Iterator[tuple[int, Crops]]:  # fmt: skip
        """Yield (k, crops of batch k) of an epoch for every batch of this worker from `first` on."""
        order, buffers = plan(self, seed=seed, epoch=epoch, n=n, size=size, foreground=foreground), Buffers()
        for k in range(first, n // batch):
            if k % workers == worker:
                images = buffers.take((batch, self.channels, size, size), np.float32)
                labels = buffers.take((batch, size, size), np.int32)
                _cut_into(images, labels, self, order[k * batch : (k + 1) * batch])
                yield k, (images, labels)
                del images, labels

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process as a path: it maps the same files instead of getting a copy."""
        return FrameBank.open, (self.path,)

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.refs)

    @cached_property
    def _images(self) -> list[NDArray[np.float32]]:
        flat, starts = np.asarray(self.pixels), self._starts
        return [
            flat[self.channels * a : self.channels * b].reshape(self.channels, *shape)
            for a, b, shape in zip(starts, starts[1:], self.shapes, strict=False)
        ]

    @cached_property
    def _labels(self) -> list[NDArray[np.int32]]:
        flat, starts = np.asarray(self.drawn), self._starts
        return [flat[a:b].reshape(shape) for a, b, shape in zip(starts, starts[1:], self.shapes, strict=False)]

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *np.cumsum([y * x for y, x in self.shapes]).tolist()]

    @cached_property
    def cells_of(self) -> list[NDArray[np.int32]]:
        """Return, per frame, `(N, 2)`: y and x of its cells."""
        return [self.cells[self.cells[:, 0] == i, 1:] for i in range(len(self))]


def plan(bank: FrameBank, *, seed: int, epoch: int, n: int, size: int, foreground: float = 0.7) -> NDArray[np.int64]:
    """Return `(n, 3)` int64: frame, y and x of the upper left corner of each crop; a pure function of its arguments.

    Every frame gets its share by area. A crop is laid around a random cell with probability `foreground`, anywhere
    otherwise; a frame without cells is sampled anywhere.
    """
    rng = np.random.default_rng([seed, epoch, n, size])
    area = np.cumsum([y * x for y, x in bank.shapes], dtype=np.float64)
    frames = np.searchsorted(area / area[-1], (np.arange(n) + rng.random()) / n, side="right")
    return lay(bank, rng.permutation(np.minimum(frames, len(bank) - 1)), rng, size, foreground)


def lay(
    bank: FrameBank | FrameStream,
    frames: NDArray[np.integer],
    rng: np.random.Generator,
    size: int,
    foreground: float,
) -> NDArray[np.int64]:
    """Return `(n, 3)` int64: the given frames `(n,)`, each with the corner (y, x) of a crop laid in it at random."""
    n = len(frames)
    room = np.maximum(np.array(bank.shapes)[frames] - size, 0)
    corners = np.floor(rng.random((n, 2)) * (room + 1)).astype(np.int64)
    around = rng.random(n) < foreground
    which, within = rng.random(n), rng.integers(0, size, (n, 2))
    for i in np.flatnonzero(around):
        cells = bank.cells_of[frames[i]]
        if len(cells):
            corners[i] = np.clip(cells[int(which[i] * len(cells))] - within[i], 0, room[i])
    return np.column_stack([frames, corners])


def cut(bank: FrameBank, plan: NDArray[np.integer], size: int) -> Crops:
    """Return `(n, C, size, size)` float32 images and `(n, size, size)` int32 labels, fresh copies.

    A frame smaller than the crop is mirrored at its lower and right edges, image and labels alike.
    """
    images = np.empty((len(plan), bank.channels, size, size), np.float32)
    labels = np.empty((len(plan), size, size), np.int32)
    _cut_into(images, labels, bank, plan)
    return images, labels


def _cut_into(
    images: NDArray[np.float32], labels: NDArray[np.int32], bank: FrameBank, plan: NDArray[np.integer]
) -> None:
    size = labels.shape[-1]
    for i, (frame, y, x) in enumerate(plan.tolist()):
        image = bank.image(frame)[:, y : y + size, x : x + size]
        label = bank.labels(frame)[y : y + size, x : x + size]
        missing = (size - label.shape[0], size - label.shape[1])
        if any(missing):
            edges = [(0, missing[0]), (0, missing[1])]
            image, label = np.pad(image, [(0, 0), *edges], "symmetric"), np.pad(label, edges, "symmetric")
        images[i] = image
        labels[i] = label


def batches(
    bank: FrameBank | FrameStream, *, seed: int, epoch: int, n: int, size: int, batch: int,
    strength: float | Augmentation, foreground: float = 0.7, worker: int = 0, workers: int = 1, first: int = 0,
) -> Iterator[Crops]:  # fmt: skip
    """Yield an epoch of `n` augmented crops in batches; an incomplete last batch is dropped.

    Worker w of W gets the batches w, w + W, ... from `first` on. The k-th batch is a pure function of seed, epoch, n,
    size, batch, strength and foreground, whoever asks for it and after whatever interruption.
    """
    cut_crops = bank.crops(
        seed=seed, epoch=epoch, n=n, size=size, batch=batch, foreground=foreground,
        worker=worker, workers=workers, first=first,
    )  # fmt: skip
    for k, (images, labels) in cut_crops:
        yield augment(images, labels, np.random.default_rng([seed, epoch, k]), strength)


def tiles(bank: FrameBank, *, size: int, limit: int) -> Crops:
    """Return at most `limit` fixed crops that are spread evenly over all frames, for validation."""
    shapes = enumerate(bank.shapes)
    grid = [(i, y, x) for i, shape in shapes for y in _steps(shape[0], size) for x in _steps(shape[1], size)]
    chosen = np.unique(np.linspace(0, len(grid) - 1, min(limit, len(grid))).round().astype(int))
    return cut(bank, np.array(grid)[chosen], size)


def _steps(length: int, size: int) -> list[int]:
    """Return where tiles start so that they cover a length with the least overlap."""
    n = max(1, -(-length // size))
    return [round(step) for step in np.linspace(0, max(0, length - size), n)]


def _decode(every: Sequence[tuple[Dataset, FrameRef]], folder: Path, wanted: dict[str, Any]) -> None:
    """Write the files of a bank, each frame decoded by one Dask task; the index is written last."""
    from dask.base import compute
    from dask.delayed import delayed

    folder.mkdir()
    shapes = [dataset.fields[ref.field].shape for dataset, ref in every]
    channels = every[0][0].channels
    starts = [0, *np.cumsum([y * x for y, x in shapes]).tolist()]
    memmap = np.lib.format.open_memmap
    pixels = memmap(folder / "pixels.npy", "w+", np.dtype(np.float32), (channels * starts[-1],))
    drawn = memmap(folder / "drawn.npy", "w+", np.dtype(np.int32), (starts[-1],))

    def decode(i: int, dataset: Dataset, ref: FrameRef) -> NDArray[np.int32]:
        labels = dataset.labels(ref)
        drawn[starts[i] : starts[i + 1]] = labels.ravel()
        pixels[channels * starts[i] : channels * starts[i + 1]] = dataset.normalised(ref).ravel()
        found = middles(labels)
        return np.column_stack([np.full(len(found), i, np.int32), found])

    tasks = [delayed(decode)(i, dataset, ref) for i, (dataset, ref) in enumerate(every)]
    cells = compute(*tasks, scheduler="threads")  # type: ignore[no-untyped-call]  # dask is untyped
    np.save(folder / "cells.npy", np.concatenate(cells))
    pixels.flush()
    drawn.flush()
    write_json(folder / INDEX, wanted | {"shapes": shapes, "channels": channels})


def middles(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return `(N, 2)` int32: the mean y and x of each cell."""
    y, x = np.nonzero(labels)
    present, which, area = np.unique(labels[y, x], return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(which, along, len(present)) for along in (y, x)], axis=1)
    return np.rint(sums / area[:, None]).astype(np.int32)


def contents(datasets: Sequence[Dataset], refs: Sequence[Sequence[FrameRef]]) -> dict[str, Any]:
    """Return what a bank of these frames is known by."""
    return {
        "content": [dataset.content_hash for dataset in datasets],
        "refs": [[ref.field, ref.frame] for own in refs for ref in own],
        "frames": [len(own) for own in refs],
    }


def holds(cache_dir: Path, wanted: dict[str, Any]) -> bool:
    """Say whether a complete bank of just these frames is there."""
    try:
        index = json.loads((cache_dir / INDEX).read_text())
    except (OSError, ValueError):
        return False
    return all(index.get(key) == value for key, value in wanted.items())
