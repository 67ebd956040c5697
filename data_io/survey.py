"""Look at every annotation once before anything is written: sizes, values, and what kind of drawing it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from data_io import masks
from data_io.errors import BadInput
from data_io.readers.raw import DRAWN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from data_io.images import Plane
    from data_io.readers.raw import Drawn, RawField, RawFile

RENUMBER_FROM = 2**20
"""Labels this large would make per-label tables huge: they are renumbered."""


LOOK_CLOSER = 5
"""Frames of a field whose values are asked whether they are cells at all."""


@dataclass(frozen=True)
class Frame:
    """One frame of a field, ready to be stored."""

    source: str
    image: NDArray[Any]
    """`(C, Y, X)` grey values."""
    labels: NDArray[np.int32] | None
    """`(Y, X)`, 0 background, each positive value a cell; None where the frame is not annotated."""
    grey: bool
    """It was colour."""


@dataclass(frozen=True)
class Survey:
    """A field and what its annotation holds: `values` are the positive values in all of it."""

    raw: RawField
    values: frozenset[int]
    drawn: tuple[int | None, ...]
    """How many different values each frame's annotation has, 0 where it is empty, None where there is none."""
    scattered: bool = False
    """Some frame has a single value that has no main place: it lies in several."""
    beside_labels: bool = False
    """Cells of other fields of the source are drawn one by one."""
    split_touching: bool = False
    notes: tuple[str, ...] = ()
    """What the user is told about the annotation files."""

    @property
    def plane(self) -> Plane:
        """Size and channels, the same in all files of a field."""
        return self.raw.files[0].plane

    @property
    def dtype(self) -> str:
        """The smallest type that holds the grey values of all files."""
        return str(np.result_type(*{file.plane.dtype for file in self.raw.files}))

    def scale(self, name: str) -> float | None:
        """Return the `pixel_size_um` or `frame_interval_s` of the source, else what all headers agree on."""
        if (known := getattr(self.raw, name)) is not None:
            return float(known)
        told: set[float | None] = {getattr(file.plane, name) for file in self.raw.files}
        return told.pop() if len(told) == 1 else None

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels, `channel_1` ... where they are unknown."""
        names = self.raw.channels or self.plane.channel_names
        return names or tuple(f"channel_{i + 1}" for i in range(self.plane.channels))

    @property
    def sources(self) -> tuple[str, ...]:
        """The file of each frame."""
        return tuple(file.name for file in self.raw.files for _ in range(file.plane.frames))

    @property
    def annotated(self) -> tuple[bool, ...]:
        """Which frames are annotated, empty ones included."""
        return tuple(drawn is not None for drawn in self.drawn)

    @property
    def binary(self) -> bool:
        """The cells are drawn as one foreground, not one by one: one value in every frame, and it has many places."""
        if self._kinds - {DRAWN} or self.one_by_one or not self.values:
            return False
        as_ones = self.values == {1} and not self.beside_labels
        return self.values <= masks.FULL or as_ones or self.scattered

    @property
    def one_by_one(self) -> bool:
        """Some frame has cells of different numbers."""
        return any((count or 0) > 1 for count in self.drawn)

    @property
    def annotation(self) -> str:
        """Return how cells were drawn, in words."""
        if not any(self.annotated):
            return "none"
        if self.binary:
            return masks.WATERSHED if self.split_touching else masks.COMPONENTS
        return ", ".join(sorted(self._kinds))

    def labels(self, mask: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the instance labels of one annotation `(Y, X)` of this field."""
        if self.binary:
            return masks.split_touching(mask) if self.split_touching else masks.components(mask)
        if max(self.values, default=0) < RENUMBER_FROM:
            return mask
        return np.searchsorted(np.array([0, *sorted(self.values)]), mask).astype(np.int32)

    def frames(self) -> Iterator[Frame]:
        """Decode the field frame by frame.

        Raises
        ------
        BadInput
            An unreadable image, or a mask that is a copy of its image.
        """
        for file in self.raw.files:
            drawn = file.drawing.read()[0] if file.drawing is not None else [None] * file.plane.frames
            for (image, note), mask in zip(file.read(), drawn, strict=True):
                if mask is not None and mask.any() and len(image) == 1 and np.array_equal(image[0], mask):
                    raise BadInput(f"{_path(file)}: the same pixels as its image; save the label image here instead")
                labels = None if mask is None else self.labels(mask)
                yield Frame(file.name, image.astype(self.dtype, copy=False), labels, note is not None)

    @property
    def _kinds(self) -> set[str]:
        return {file.drawing.kind for file in self.raw.files if file.drawing is not None}


def survey(raw: RawField, *, split_touching: bool = False) -> Survey:
    """Return what the annotation of a field holds.

    Parameters
    ----------
    raw
        The field.
    split_touching
        Cells drawn as one foreground are told apart by a watershed instead of by connected components.

    Raises
    ------
    BadInput
        A mask of another size or length than its image, one that cannot be read, or one that is foreground all over.
    """
    found: set[int] = set()
    drawn: list[int | None] = []
    notes: list[str] = []
    scattered = False
    for file in raw.files:
        masks_of, told = _read(file)
        notes += [*file.plane.notes, *told]
        for mask in masks_of:
            values = masks.values(mask) if mask is not None else frozenset()
            if mask is not None and masks.is_full(mask):
                raise BadInput(f"{_path(file)}: every pixel is foreground; draw the cells on a background of 0")
            if mask is not None and file.drawing is not None and file.drawing.kind == DRAWN:
                scattered |= len(values) == 1 and masks.has_places(mask)
                if len(values) > 1 and len(drawn) < LOOK_CLOSER and masks.is_scattered(mask):
                    _refuse_scattered(file, mask, len(values))
            found |= values
            drawn.append(None if mask is None else len(values))
    return Survey(raw, frozenset(found), tuple(drawn), scattered, False, split_touching, tuple(dict.fromkeys(notes)))


def _refuse_scattered(file: RawFile, mask: NDArray[np.int32], n: int) -> NoReturn:
    if any(len(image) == 1 and np.array_equal(image[0], mask) for image, _ in file.read()):
        raise BadInput(f"{_path(file)}: the same pixels as its image; save the label image here instead")
    raise BadInput(
        f"{_path(file)}: {n} values that lie in many places each, as classes, smoothed edges or mosaic tiles do; "
        "save one number per cell, or one value for all cells, or give --tiles RxC"
    )


def _read(file: RawFile) -> tuple[Drawn, tuple[str, ...]]:
    if file.drawing is None:
        return [None] * file.plane.frames, ()
    return file.drawing.read()


def _path(file: RawFile) -> Path:
    return file.image if file.drawing is None else file.drawing.path
