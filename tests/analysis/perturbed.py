"""Synthetic cells drawn again with errors of one kind each, all at a mean IoU of about .885.

The cells are those of the synthetic movies, but standing alone and livelier: 40 % motile with uropods of .25 to .65 of
the radius, 7 % larger, so that circularity spreads by .05 between cells. Outlines are polar radii, moved before they
are drawn, so shrinking by a fraction of a pixel is possible.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from data_io.brightfield import draw, grains
from data_io.population import ANGLES, Population, populate

if TYPE_CHECKING:
    from numpy.typing import NDArray

CELLS, PITCH = 250, 62
SHRINK, DILATE, PULL, JITTER, WAVES = 0.69, 0.73, 0.72, 0.0915, 28
"""Pixels; share of the way to the circle of equal area; SD of the radius as a fraction, drawn at so many angles."""


def cells(rng: np.random.Generator) -> Population:
    """Return 250 cells on a grid."""
    found = populate(rng, (904, 1224), 2.2e-4, 0.0)
    kept = rng.permutation(len(found.radius))[:CELLS]
    for name in ("radius", "heading", "ripple", "speed"):
        setattr(found, name, getattr(found, name)[kept])
    motile = rng.random(CELLS) < 0.40
    found.aspect = np.where(motile, rng.uniform(1.2, 1.6, CELLS), rng.uniform(1.0, 1.1, CELLS))
    found.uropod = np.where(motile, rng.uniform(0.25, 0.65, CELLS), 0)
    found.radius = found.radius * 1.07
    grid = np.stack(np.divmod(np.arange(CELLS), 16), 1)
    found.position = 0.5 * PITCH + grid * PITCH + rng.uniform(0, 1, (CELLS, 2))
    return found


@cache
def frame(seed: int) -> dict[str, NDArray[np.int32]]:
    """Return label images `(Y, X)`: truth, shrink, dilate, circle, jitter."""
    rng = np.random.default_rng(seed)
    found = cells(rng)
    outline, grain = found.outlines(), grains(rng, CELLS)

    def drawn(outlines: NDArray[np.float64], from_edge: float = 0.0) -> NDArray[np.int32]:
        scene = draw(outlines, found.position, grain, (PITCH * 16, PITCH * 16))
        return np.where(scene.distance > from_edge, scene.owner + 1, 0).astype(np.int32)

    round_ = np.sqrt(np.mean(outline[:, :-1] ** 2, axis=1, keepdims=True))
    waves = rng.normal(0, 1, (CELLS, WAVES))
    at = np.arange(len(ANGLES)) * WAVES / (len(ANGLES) - 1)
    rough = np.stack([np.interp(at, np.arange(WAVES + 1), [*row, row[0]]) for row in waves])
    return {
        "truth": drawn(outline),
        "shrink": drawn(outline, SHRINK),
        "dilate": drawn(outline, -DILATE),
        "circle": drawn(outline + PULL * (round_ - outline)),
        "jitter": drawn(np.clip(outline * (1 + JITTER * rough), 1, None)),
    }
