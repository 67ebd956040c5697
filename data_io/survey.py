"""Look at every mask once before anything is written: sizes, values, and what kind of drawing it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from data_io import images, masks
from data_io.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from data_io.readers import RawField, RawFile

RENUMBER_FROM = 2**20
"""Labels this large would make per-label tables huge: they are renumbered."""


@dataclass(frozen=True)
class Frame:
    """One frame of a field, ready to be stored."""

    source: str
    image: NDArray[Any]
    """`(C, Y, X)` grey values."""
    labels: NDArray[np.int32] | None
    """`(Y, X)`, 0 background, each positive value a cell; None where there is no mask."""
    grey: bool
    """It was colour."""


@dataclass(frozen=True)
class Survey:
    """A field and what its masks hold: `values` are the positive values of all of them."""

    raw: RawField
    values: frozenset[int]
    drawn: tuple[int, ...]
    """How many different values each frame's mask has; 0 where it is empty or missing."""

    @property
    def plane(self) -> images.Plane:
        """Size and channels, the same in all files of a field."""
        return self.raw.files[0].plane

    @property
    def dtype(self) -> str:
        """The smallest type that holds the grey values of all files."""
        return str(np.result_type(*{file.plane.dtype for file in self.raw.files}))

    def scale(self, name: str) -> float | None:
        """Return the `pixel_size_um` or `frame_interval_s` that the headers of all files agree on."""
        told: set[float | None] = {getattr(file.plane, name) for file in self.raw.files}
        return told.pop() if len(told) == 1 else None

    @property
    def sources(self) -> tuple[str, ...]:
        """The file of each frame."""
        return tuple(file.image.name for file in self.raw.files for _ in range(file.plane.frames))

    @property
    def annotated(self) -> tuple[bool, ...]:
        """Which frames have a mask, empty ones included."""
        return tuple(file.mask is not None for file in self.raw.files for _ in range(file.plane.frames))

    @property
    def annotation(self) -> str:
        """Return how cells were drawn, in words."""
        if not any(self.annotated):
            return "none"
        return masks.COMPONENTS if masks.is_binary(self.values) else masks.LABELS

    def labels(self, mask: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the instance labels of one mask `(Y, X)` of this field."""
        if masks.is_binary(self.values):
            return masks.components(mask)
        if max(self.values, default=0) < RENUMBER_FROM:
            return mask
        return np.searchsorted(np.array([0, *sorted(self.values)]), mask).astype(np.int32)

    def frames(self) -> Iterator[Frame]:
        """Decode the field frame by frame; one file is in memory at a time.

        Raises
        ------
        BadInput
            An unreadable image, or a mask that is a copy of its image.
        """
        for file in self.raw.files:
            stack, note = images.read(file.image)
            drawn = masks.read(file.mask) if file.mask is not None else [None] * len(stack)
            for image, mask in zip(stack, drawn, strict=True):
                if mask is not None and mask.any() and len(image) == 1 and np.array_equal(image[0], mask):
                    raise BadInput(f"{file.mask}: the same pixels as its image; save the label image here instead")
                labels = None if mask is None else self.labels(mask)
                yield Frame(file.image.name, image.astype(self.dtype, copy=False), labels, note is not None)


def survey(raw: RawField) -> Survey:
    """Return what the masks of a field hold.

    Raises
    ------
    BadInput
        A mask of another size or length than its image, one that cannot be read, or one that is foreground all over.
    """
    found: set[int] = set()
    drawn: list[int] = []
    full: Path | None = None
    for file in raw.files:
        if file.mask is None:
            drawn += [0] * file.plane.frames
            continue
        mask = masks.read(file.mask)
        _check_size(file, mask)
        values = [masks.values(frame) for frame in mask]
        found = found.union(*values)
        drawn += map(len, values)
        full = file.mask if mask.all() else full
    if full is not None and masks.is_binary(found):
        raise BadInput(f"{full}: every pixel is foreground; draw the cells on a background of 0")
    return Survey(raw, frozenset(found), tuple(drawn))


def _check_size(file: RawFile, mask: NDArray[np.int32]) -> None:
    plane = file.plane
    if mask.shape[1:] != plane.shape:
        sizes = f"{mask.shape[1]} x {mask.shape[2]} px, its image {file.image.name} {plane.shape[0]} x {plane.shape[1]}"
        raise BadInput(f"{file.mask}: {sizes}; export both at the same size")
    if len(mask) != plane.frames:
        counts = f"{len(mask)} frames, its image {file.image.name} {plane.frames}"
        raise BadInput(f"{file.mask}: {counts}; export as many mask pages as image pages")
