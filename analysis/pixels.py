"""Pictures of pixels: outlines over images, right and wrong pixels, network outputs; PNG with at most 256 colours.

All greys of a picture are few and the colours named, so that a report of many pictures stays small. Pictures of the
user's data are PNG here and nowhere else: who sends a report on can take all of them out by their type.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.figures import BLUE, ORANGE, SKY, VERMILION, YELLOW, Picture, uri
from data_io.files import slug

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

GREYS, LEVELS = 64, 32
"""Grey levels of a picture of outlines, and of each tint of a picture of right and wrong pixels."""
EVEN = 160
"""Grey of an image without contrast, or of none at all."""
FOUND, MISSED, INVENTED = BLUE, YELLOW, VERMILION
"""True positive, false negative and false positive pixels: dark, light and middle, so that grey print tells them."""
TINTS = {FOUND: (0.55, 0.27), MISSED: (0.97, 0.03), INVENTED: (0.9, 0.1)}
"""How much of the colour and how much of the grey value of the image a tinted pixel has."""


def grey(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Stretch a `(Y, X)` image from its 0.5 % to its 99.5 % grey value onto 0..255; an even one is `EVEN`."""
    values = np.asarray(image, dtype=float)
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, [0.5, 99.5]) if finite.size else (0.0, 1.0)
    if high <= low:
        return np.full(values.shape, EVEN, np.uint8)
    scaled = (np.nan_to_num(values, nan=low) - low) / (high - low)
    return np.asarray(np.clip(scaled, 0, 1) * 255, dtype=np.uint8)


def outlines(
    image: NDArray[Any], drawn: Sequence[tuple[NDArray[Any], str]], alt: str, zoom: int = 4, name: str = ""
) -> Picture:
    """Draw outlines of label images, each in its colour, over a `(Y, X)` image enlarged `zoom` times."""
    painted = [(_edges(_enlarged(labels, zoom), "thick"), tint) for labels, tint in drawn]
    return _paint(_enlarged(grey(image), zoom), painted, alt, name)


def confusion(
    image: NDArray[Any], truth: NDArray[Any], pred: NDArray[Any], alt: str, most: int = 640, name: str = ""
) -> Picture:
    """Tint the foreground: found blue, missed yellow, invented vermilion; large frames are thinned to `most` px.

    The image is made pale, so that the three stand out by their lightness as well as by their colour.
    """
    step = max(1, -(-max(image.shape) // most))
    shade, t, p = grey(image)[::step, ::step], truth[::step, ::step] > 0, pred[::step, ::step] > 0
    kind = np.select([t & p, t & ~p, ~t & p], [1, 2, 3], 0)
    level = shade.astype(np.intp) * (LEVELS - 1) // 255
    greys = np.linspace(0, 255, LEVELS)[:, None]
    palette = [140 + 0.45 * greys.repeat(3, axis=1)]
    palette += [colour * np.array(rgb(tint)) + image_part * greys for tint, (colour, image_part) in TINTS.items()]
    return _png(kind * LEVELS + level, np.concatenate(palette), alt, name)


def probability(
    image: NDArray[Any], foreground: NDArray[Any], truth: NDArray[Any], alt: str, zoom: int = 2, name: str = ""
) -> Picture:
    """Show a network's foreground probability (0 black, 1 white); light blue its outline at 0.5, orange the truth's."""
    clear = np.clip(np.nan_to_num(foreground), 0, 1)
    fits = clear.shape == image.shape
    shade = np.asarray(clear * 255, dtype=np.uint8) if fits else grey(image)
    painted = [(_edges(_enlarged(truth, zoom), "inner"), ORANGE)]
    if fits:
        painted.append((_edges(_enlarged(np.asarray(clear >= 0.5, np.uint8), zoom), "inner"), SKY))
    return _paint(_enlarged(shade, zoom), painted, alt, name)


def busiest(truth: NDArray[Any], size: int) -> tuple[slice, slice]:
    """Return the `size` px window, on a coarse grid, that holds most outline pixels."""
    edges = _edges(truth, "inner").astype(np.int64)
    height, width = (min(size, side) for side in truth.shape)
    total = np.pad(edges.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    step = max(1, size // 4)
    ys, xs = (np.arange(0, side - window + 1, step) for side, window in zip(truth.shape, (height, width), strict=True))
    inside = (
        total[np.ix_(ys + height, xs + width)]
        - total[np.ix_(ys, xs + width)]
        - total[np.ix_(ys + height, xs)]
        + total[np.ix_(ys, xs)]
    )
    row, column = np.unravel_index(int(inside.argmax()), inside.shape)
    return slice(int(ys[row]), int(ys[row]) + height), slice(int(xs[column]), int(xs[column]) + width)


def around(y: float, x: float, size: int, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Return the window of at most `size` px around a point, moved inside the image.

    >>> around(2, 50, 20, (100, 60))
    (slice(0, 20, None), slice(40, 60, None))
    """
    spans = []
    for middle, side in zip((y, x), shape, strict=True):
        start = int(min(max(round(middle) - size // 2, 0), max(side - size, 0)))
        spans.append(slice(start, min(start + size, side)))
    return spans[0], spans[1]


def rgb(tint: str) -> tuple[int, int, int]:
    """Return the three bytes of a colour "#rrggbb"."""
    return int(tint[1:3], 16), int(tint[3:5], 16), int(tint[5:7], 16)


def _enlarged(image: NDArray[Any], zoom: int) -> NDArray[Any]:
    return np.repeat(np.repeat(image, zoom, axis=0), zoom, axis=1)


def _edges(labels: NDArray[Any], mode: str) -> NDArray[np.bool_]:
    from skimage.segmentation import find_boundaries

    return np.asarray(find_boundaries(labels, mode=mode, connectivity=1))


def _paint(shade: NDArray[np.uint8], painted: Sequence[tuple[NDArray[np.bool_], str]], alt: str, name: str) -> Picture:
    """Colour some pixels of a `(Y, X)` grey image; the palette holds the greys, then the colours."""
    index = shade.astype(np.intp) * (GREYS - 1) // 255
    tints = list(dict.fromkeys(tint for _, tint in painted))
    for where, tint in painted:
        index[where] = GREYS + tints.index(tint)
    greys = np.linspace(0, 255, GREYS)[:, None].repeat(3, axis=1)
    return _png(index, np.concatenate([greys, np.array([rgb(tint) for tint in tints]).reshape(-1, 3)]), alt, name)


def _png(index: NDArray[np.intp], palette: NDArray[Any], alt: str, name: str) -> Picture:
    """Encode `(Y, X)` positions in a palette of `(N, 3)` colours."""
    from PIL import Image

    image = Image.fromarray(index.astype(np.uint8))
    image.putpalette(np.clip(np.round(palette), 0, 255).astype(np.uint8).tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    source = uri("image/png", buffer.getvalue())
    return Picture(source, alt, width=image.width, height=image.height, name=slug(name or "picture"))
