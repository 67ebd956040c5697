"""Cells as star-convex polygons: StarDist's geometry and non-maximum suppression, without its network.

Schmidt et al. 2018, "Cell Detection with Star-convex Polygons". The compiled parts come from the stardist package,
imported when first used because that takes seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from data_io.errors import BadInput
from postprocess.components import Box
from postprocess.prediction import FULL, Prediction, fraction, quantise

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

CHANNELS = ("probability",)
N_RAYS = RAYS = 32
STRIDE = 2
"""Samples are taken at every second pixel: StarDist's grid (2, 2)."""

NMS = (0.3, 0.4, 0.5)
PROBABILITIES = (0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
LOWEST_PROBABILITY = min(PROBABILITIES)
"""Distances need not be stored where the probability is at or below this."""
SQUARE, UNLEARNED_SQUARE = 2, 6
"""Sides, in samples, of the squares of which only the likeliest candidate competes (trained, not yet trained)."""


@dataclass(frozen=True)
class Params:
    """How probabilities and distances become cells."""

    probability: float = 0.5
    """A candidate has object probability > this."""
    nms: float = 0.4
    """A candidate is dropped if a likelier one covers more than this part of the smaller of the two."""


def encode(labels: NDArray[np.integer]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return StarDist's targets of ``(Y, X)`` instance labels at grid (2, 2).

    Returns
    -------
    probability
        ``(Y', X')`` float32, distance to the outline divided by its maximum in the cell, 0 background.
    distance
        ``(32, Y', X')`` float32, pixels to the outline; ray k points to (row, column) = (sin, cos)(2 pi k / 32).
    """
    target = encode_batch(labels[None])[0]
    return target[0], target[1:]


def encode_batch(labels: NDArray[np.integer]) -> NDArray[np.float32]:
    """Return ``(N, 33, Y', X')`` float32, probability and distances of `encode`, of ``(N, Y, X)`` instance labels."""
    from postprocess import star_kernel

    n, height, width = labels.shape
    targets = np.zeros((n, 1 + N_RAYS, -(-height // STRIDE), -(-width // STRIDE)), np.float32)
    steps = star_kernel.steps(N_RAYS, (height, width))
    for target, image in zip(targets, labels, strict=True):
        cells = _compact(image)
        alone = 1 if cells.min() > 0 and cells.min() == cells.max() else 0  # without any outline the edge serves
        squared = star_kernel.squared_distances(np.pad(cells, alone))
        star_kernel.fill(cells, squared[alone : alone + height, alone : alone + width], *steps, STRIDE, target)
    return targets


def _compact(labels: NDArray[np.integer]) -> NDArray[np.int32]:
    """Return labels as int32, renumbered where a table of them would be larger than the image."""
    if labels.max() > labels.size:
        names, cells = np.unique(labels, return_inverse=True)
        labels = cells.reshape(labels.shape) + (names[0] > 0)
    return np.ascontiguousarray(labels, np.int32)


def perfect(labels: NDArray[np.integer]) -> Prediction:
    """Return the prediction of a network without error for `(Y, X)` labels, for ceilings."""
    probability, distance = encode(labels)
    return Prediction(
        quantise(probability)[None], distance.astype(np.float16), STRIDE, (labels.shape[0], labels.shape[1])
    )


def decode(prediction: Prediction, params: Params) -> NDArray[np.int32]:
    """Return ``(Y, X)`` int32 cells, 0 background; where polygons overlap the likelier one is on top."""
    return draw(suppress(candidates(prediction, params.probability), params.nms), params.probability, prediction.shape)


def grid(diameter: float) -> dict[str, tuple[Any, ...]]:
    """Return the values to try on validation frames; none depends on the size of cells."""
    return {"nms": NMS, "probability": PROBABILITIES}


def sweep(prediction: Prediction, values: Mapping[str, tuple[Any, ...]]) -> Iterator[tuple[Params, NDArray[np.int32]]]:
    """Yield every combination of values with its cells; probabilities have to descend.

    Suppression goes from likely to unlikely, so the survivors at a higher threshold are those of the lowest one that
    pass it: one suppression serves all probabilities, and each threshold only adds cells below those drawn before.
    """
    lowest = candidates(prediction, min(values["probability"]))
    for nms in values["nms"]:
        survivors = suppress(lowest, nms)
        cells, above = np.zeros(prediction.shape, np.int32), np.inf
        for probability in values["probability"]:
            added = draw(survivors[survivors.probability <= np.float32(above)], probability, prediction.shape)
            below = (cells == 0) & (added > 0)
            cells = np.where(below, added + cells.max(), cells).astype(np.int32)
            yield Params(probability, nms), cells
            above = probability


@dataclass(frozen=True)
class Polygons:
    """Star-convex polygons, likeliest first: points ``(N, 2)`` pixels, probability ``(N,)``, distance ``(N, 32)``."""

    points: NDArray[np.int32]
    probability: NDArray[np.float32]
    distance: NDArray[np.float32]

    def __getitem__(self, chosen: NDArray[Any]) -> Polygons:
        """Return the polygons at the chosen places."""
        return Polygons(self.points[chosen], self.probability[chosen], self.distance[chosen])


def candidates(
    prediction: Prediction, threshold: float, side: int | None = None, longest: int | None = None
) -> Polygons:
    """Return the samples above the threshold, likeliest first, ties in scan order.

    Of each small square of samples only the likeliest competes, and no ray is longer than the frame, so that decoding
    returns in seconds whatever an untrained network says. A part of a frame is told the `side` of the squares
    (`square_of`) and the `longest` side of the frame. Raises BadInput where the prediction is of another target.
    """
    if prediction.distance is None:
        raise BadInput("star: the prediction has no ray distances; it was written by a model of another target")
    stored = prediction.probability[0]
    probability = fraction(stored)
    rows, columns = np.nonzero(probability > np.float32(threshold))
    likely_first = np.argsort(-probability[rows, columns], kind="stable")
    rows, columns = rows[likely_first], columns[likely_first]
    side = side or square_of(np.bincount(stored.ravel(), minlength=FULL + 1))
    square = rows // side * probability.shape[1] + columns // side
    winners = np.sort(np.unique(square, return_index=True)[1])
    rows, columns = rows[winners], columns[winners]
    distance = prediction.distance[:, rows, columns].T.astype(np.float32)
    distance = np.clip(np.nan_to_num(distance, nan=0.0), 0.5, longest or max(prediction.shape))
    points = np.stack([rows, columns], axis=1).astype(np.int32) * np.int32(prediction.grid)
    return Polygons(points, probability[rows, columns], distance)


def square_of(levels: NDArray[np.integer]) -> int:
    """Return the side of the squares, in samples, from the histogram of the stored probabilities, ``(256,)``.

    A trained map has peaks: it falls from each centre and is mostly below half its maximum.
    """
    highest = np.flatnonzero(levels)[-1] if levels.any() else 0
    high = levels[2 * np.arange(len(levels)) > highest].sum()
    return SQUARE if high < 0.4 * levels.sum() or not levels.any() else UNLEARNED_SQUARE


def suppress(polygons: Polygons, nms: float) -> Polygons:
    """Return the polygons that no likelier one covers by more than ``nms`` of the smaller area."""
    from stardist.nms import non_maximum_suppression_inds
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    if len(polygons.points) == 0:
        return polygons
    ranks = np.arange(len(polygons.points), 0, -1, dtype=np.float32)  # no ties, whose order would be left to chance
    with threadpool_limits(1):  # its OpenMP loop is so short that on busy cores the threads only wait: 10 times slower
        kept = non_maximum_suppression_inds(polygons.distance, polygons.points, scores=ranks, thresh=nms, verbose=0)
    return polygons[kept]


def draw(polygons: Polygons, threshold: float, shape: tuple[int, int]) -> NDArray[np.int32]:
    """Return the polygons above the threshold drawn into ``(Y, X)`` int32, unlikely ones first."""
    chosen = polygons[polygons.probability > np.float32(threshold)]
    return paint(chosen, np.arange(1, len(chosen.points) + 1, dtype=np.int32), Box(0, 0, *shape))


def paint(polygons: Polygons, numbers: NDArray[np.int32], box: Box) -> NDArray[np.int32]:
    """Return a box of the frame, ``(y, x)`` int32, in which polygons are drawn with their numbers, unlikely ones first.

    Corners are rounded to 1e-4 px, so that a box shows to the pixel what the frame shows there.
    """
    from skimage.draw import polygon

    cells = np.zeros((box.y1 - box.y0, box.x1 - box.x0), np.int32)
    angle = 2 * np.pi / N_RAYS * np.arange(N_RAYS)
    corners = np.stack([np.sin(angle), np.cos(angle)])[:, None] * polygons.distance.astype(np.float64)
    corners = np.round(corners, 4) + (polygons.points.T - np.array([[box.y0], [box.x0]]))[..., None]
    for i in np.argsort(polygons.probability, kind="stable"):
        inside = polygon(corners[0, i], corners[1, i], shape=cells.shape)
        cells[inside] = numbers[i]
    return cells


def together(parts: Sequence[Polygons]) -> Polygons:
    """Return the polygons of several parts of a frame as one set, likeliest first, ties in scan order."""
    points = np.concatenate([np.zeros((0, 2), np.int32), *(part.points for part in parts)])
    probability = np.concatenate([np.zeros(0, np.float32), *(part.probability for part in parts)])
    distance = np.concatenate([np.zeros((0, N_RAYS), np.float32), *(part.distance for part in parts)])
    return Polygons(points, probability, distance)[np.lexsort((points[:, 1], points[:, 0], -probability))]
