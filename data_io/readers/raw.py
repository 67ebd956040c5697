"""What a reader hands on: fields of frames, each frame decoded only when it is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from data_io.images import Plane

    Picture = tuple[NDArray[Any], str | None]
    """One frame `(C, Y, X)` in its stored dtype, and a note if its colour was turned to grey."""
    Drawn = Sequence[NDArray[np.int32] | None]
    """Per frame `(Y, X)` int32 as drawn, 0 background; None where the frame is not annotated."""

DRAWN = "labels"


@dataclass(frozen=True)
class Drawing:
    """The annotation of the frames of one `RawFile`."""

    path: Path
    """The file that is named when something is wrong with it."""
    read: Callable[[], tuple[Drawn, tuple[str, ...]]]
    """Decode it: one entry per frame, and notes for the user."""
    kind: str = DRAWN
    """"labels" for label images and binary masks; anything else is how the cells were drawn, in words."""


@dataclass(frozen=True)
class RawFile:
    """Consecutive frames that are read together: one file of them, or one file per channel."""

    name: str
    plane: Plane
    paths: tuple[Path, ...]
    """Every image file read for them, the main one first."""
    read: Callable[[], Iterator[Picture]]
    drawing: Drawing | None = None

    @property
    def image(self) -> Path:
        """The file that is named when something is wrong with the image."""
        return self.paths[0]


@dataclass(frozen=True)
class RawField:
    """One field as found: its files in time order, all of one size."""

    name: str
    files: tuple[RawFile, ...]
    groups: dict[str, str] = field(default_factory=dict)
    """plate, well, patient, condition, ... as far as known."""
    channels: tuple[str, ...] = ()
    """Names of the channels, empty when unknown."""
    pixel_size_um: float | None = None
    """Where the source says it elsewhere than in the files' headers."""
    frame_interval_s: float | None = None
    tracked: bool = False
    """The source says that a cell keeps its label over time."""
    lineage: tuple[tuple[int, int, int, int], ...] = ()
    """(track, first frame, last frame, parent or 0), where the source has it."""
    part: str = ""
    """train, val or test, where the user wrote it down."""


@dataclass(frozen=True)
class Found:
    """All that a source holds; `facts` comes from the marker of a synthetic set."""

    reader: str
    fields: tuple[RawField, ...]
    facts: dict[str, Any]
    warnings: tuple[str, ...] = ()

    def paths(self) -> list[Path]:
        """Return every file read, images and annotations, in order and once each."""
        found: dict[Path, None] = {}
        for file in (f for one in self.fields for f in one.files):
            found |= dict.fromkeys(file.paths)
            if file.drawing is not None and file.drawing.path not in found and file.drawing.path.is_file():
                found[file.drawing.path] = None
        return list(found)


@dataclass(frozen=True)
class Options:
    """What the user may tell a reader; a doubt that one of these would settle is refused, never guessed."""

    reader: str = "auto"
    """The reader's name, or auto: the first that knows the source."""
    z: str | None = None
    """How a stack in depth becomes one plane: max, mean, focus or the number of the plane, from 0."""
    channels: tuple[str, ...] = ()
    """Names or numbers (from 0) of the channels to keep; all when empty."""
    truth: str = "auto"
    """Cell Tracking Challenge: gold or silver truth; auto takes gold where three frames have it."""
    labels: str | None = None
    """OME-Zarr: which of several label images is the annotation."""
    tiles: tuple[int, int] | None = None
    """Rows and columns of tiles that each image is a mosaic of; each tile becomes a field."""
