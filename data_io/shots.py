"""Small pictures of frames with their cells outlined, for a page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from data_io.store import Field

MOST_FIELDS = 8
"""Fields that get pictures, evenly taken."""
WIDE = 400
"""px of the longer side of a picture of a whole frame."""
CLOSE = 160
"""px of the frame that a close-up is wide, enlarged; it has the shape of the frame."""
ZOOM = 3
GREYS = 40
"""Grey levels of a picture: noise has no need of more, and the page stays small."""
OUTLINE = (255, 159, 28)


@dataclass(frozen=True)
class Shot:
    """A picture of a frame as a data URI."""

    frame: int
    src: str
    width: int
    height: int
    close: bool
    """A piece of the frame where it has most cells, enlarged, not the whole."""
    outlined: bool
    """The frame is annotated: cells are outlined."""


class Album:
    """Takes the first, middle and last frame of up to eight fields, and a close-up of the last one."""

    def __init__(self, fields: Sequence[Field]) -> None:
        chosen = sorted({round(at) for at in np.linspace(0, len(fields) - 1, min(MOST_FIELDS, len(fields)))})
        self.wanted = {fields[i].name: _three(fields[i].n_frames) for i in chosen}
        self.shots: dict[str, list[Shot]] = {name: [] for name in self.wanted}

    def take(self, field: str, frame: int, image: NDArray[Any], labels: NDArray[np.int32] | None) -> None:
        """Take `image` `(C, Y, X)`, of which the first channel is shown, with `labels` `(Y, X)` if it is wanted."""
        frames = self.wanted.get(field, ())
        if frame not in frames:
            return
        self.shots[field].append(whole(frame, image[0], labels))
        if frame == frames[-1] and min(image.shape[1:]) > 2 * CLOSE:
            self.shots[field].append(close_up(frame, image[0], labels))


def whole(frame: int, grey: NDArray[Any], labels: NDArray[np.int32] | None) -> Shot:
    """Return a picture of a `(Y, X)` frame, made smaller if need be."""
    from PIL import Image

    factor = min(1.0, WIDE / max(grey.shape))
    size = max(1, round(grey.shape[1] * factor)), max(1, round(grey.shape[0] * factor))
    small = np.asarray(Image.fromarray(grey.astype(np.float32)).resize(size, Image.Resampling.BOX))
    drawn = None if labels is None else np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
    return _shot(frame, small, drawn, zoom=1, close=False)


def close_up(frame: int, grey: NDArray[Any], labels: NDArray[np.int32] | None) -> Shot:
    """Return the window of a `(Y, X)` frame with most outline in it, enlarged."""
    high, wide = round(CLOSE * min(1.0, grey.shape[0] / grey.shape[1])), CLOSE
    y, x = ((grey.shape[0] - high) // 2, (grey.shape[1] - wide) // 2)
    if labels is not None:
        y, x = _busiest(labels, high, wide)
    window = slice(y, y + high), slice(x, x + wide)
    return _shot(frame, grey[window].astype(np.float32), None if labels is None else labels[window], ZOOM, close=True)


def _three(n: int) -> tuple[int, ...]:
    return tuple(sorted({0, n // 2, n - 1}))


def _busiest(labels: NDArray[np.int32], high: int, wide: int) -> tuple[int, int]:
    """Return the corner of the window with most outline, on a coarse grid."""
    total = np.pad(_edges(labels).cumsum(0, dtype=np.int64).cumsum(1), ((1, 0), (1, 0)))
    ys = np.arange(0, labels.shape[0] - high + 1, high // 4)
    xs = np.arange(0, labels.shape[1] - wide + 1, wide // 4)
    rows = total[ys + high] - total[ys]
    inside = rows[:, xs + wide] - rows[:, xs]
    row, column = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(ys[row]), int(xs[column])


def _shot(frame: int, grey: NDArray[np.float32], labels: NDArray[np.int32] | None, zoom: int, *, close: bool) -> Shot:
    from PIL import Image

    low, high = np.percentile(grey, (0.5, 99.5))
    levels = np.clip((grey - low) / ((high - low) or 1.0), 0, 1) * (GREYS - 1)
    canvas = np.rint(levels).astype(np.uint8).repeat(zoom, 0).repeat(zoom, 1)
    if labels is not None:
        edges = _edges(labels.repeat(zoom, 0).repeat(zoom, 1))
        if zoom > 1:
            edges[1:] |= edges[:-1]
            edges[:, 1:] |= edges[:, :-1]
        canvas[edges] = GREYS
    picture = Image.frombytes("P", canvas.shape[::-1], canvas.tobytes())
    ramp = np.rint(np.linspace(0, 255, GREYS)).astype(np.uint8).repeat(3).tolist()
    picture.putpalette([*ramp, *OUTLINE])
    buffer = io.BytesIO()
    picture.save(buffer, "png", optimize=True)
    src = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Shot(frame, src, canvas.shape[1], canvas.shape[0], close, labels is not None)


def _edges(labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return the pixels of cells that have a neighbour (of four) of another value."""
    edges = np.zeros(labels.shape, bool)
    for a, b in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        differ = labels[a] != labels[b]
        edges[a] |= differ
        edges[b] |= differ
    return edges & (labels > 0)
