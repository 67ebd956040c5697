"""Size limits of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def drop_small(labels: NDArray[np.int32], min_area: int) -> NDArray[np.int32]:
    """Return ``(Y, X)`` int32 labels without cells of fewer than ``min_area`` pixels, ids closed up in their order."""
    area = np.bincount(labels.ravel(), minlength=1)
    kept = area >= max(min_area, 1)
    kept[0] = False
    return np.where(kept, np.cumsum(kept), 0).astype(np.int32)[labels]
