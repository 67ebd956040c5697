"""The slope of a straight line through points that come in clusters.

>>> x, cluster = [0, 1, 2, 3, 4] * 6, [k for k in range(6) for _ in range(5)]
>>> found = clustered_slope(x, [v * (2 + k % 2) for v, k in zip(x, cluster)], cluster)
>>> round(found.mean, 6), round(found.low, 2), round(found.high, 2), found.df
(2.5, 1.93, 3.07, 5)
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from analysis.statistics import Clustering, Estimate, clustered_mean

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def clustered_slope(x: ArrayLike, y: ArrayLike, *clusterings: Clustering) -> Estimate:
    """Least-squares slope of `y` on `x` with a cluster-robust t interval, tested against 0.

    Each point's influence is b + n (x - mean x) e / Sxx, with residual e; their mean is the slope b, and their
    clustered standard error is the usual sandwich with the factor G / (G - 1).

    Parameters
    ----------
    x, y
        `(N,)` float; pairs in which either is not finite are dropped and counted.
    clusterings
        None, one or two, as for `clustered_mean`.

    Returns
    -------
    Estimate
        `mean` is the slope; NaN with a `reason` where `x` does not vary.
    """
    a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    known = np.isfinite(a) & np.isfinite(b)
    groups = [np.asarray(c)[known] for c in clusterings]
    a, b, dropped = a[known], b[known], int(np.count_nonzero(~known))
    if len(a) < 3 or np.ptp(a) == 0:
        nothing = clustered_mean([])
        reason = "fewer than three cells" if len(a) < 3 else "all cells have the same value"
        return replace(nothing, n=len(a), dropped=dropped, reason=reason)
    away = a - a.mean()
    spread = float(np.sum(away**2))
    slope = float(np.sum(away * b) / spread)
    residual = b - b.mean() - slope * away
    found = clustered_mean(slope + len(a) * away * residual / spread, *groups)
    reason = "all points lie on a line" if found.reason == "all values are equal" else found.reason
    return replace(found, dropped=dropped, reason=reason)
