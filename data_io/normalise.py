"""Grey values to float32, the same way in training and in prediction.

Each frame is scaled by its own 1 % and 99.8 % percentiles, so that lamp and exposure do not matter. A frame without
cells has almost no range of its own: it is given at least half the median range of the training frames, laid around
the grey value where the background lies in those frames. Noise is not blown up to the contrast of cells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LOW, HIGH = 1.0, 99.8
CLIP = (-1.0, 3.0)
FLOOR = 0.5


def percentiles(image: NDArray[Any]) -> NDArray[np.float64]:
    """Return `(C, 3)` float64: low (1 %), median and high (99.8 %) grey value per channel of a `(C, Y, X)` image."""
    return np.stack([np.percentile(channel, (LOW, 50.0, HIGH)) for channel in image])


def limits(low: float, high: float, floor: float, background: float = 0.0) -> tuple[float, float]:
    """Return the grey values that become 0 and 1.

    Parameters
    ----------
    low, high
        The frame's own percentiles.
    floor
        The smallest range allowed, in grey values.
    background
        Where the background lies between 0 and 1 in the training frames; a missing range is added around it.

    Examples
    --------
    >>> limits(100, 300, floor=50)
    (100.0, 300.0)
    >>> limits(190, 210, floor=100, background=0.5)
    (150.0, 250.0)
    """
    missing = max(0.0, max(floor, 1e-6) - (high - low))
    return float(low - background * missing), float(high + (1 - background) * missing)


def normalise(image: NDArray[Any], limits: NDArray[np.float64] | Sequence[tuple[float, float]]) -> NDArray[np.float32]:
    """Return `(C, Y, X)` float32, x = (image - low) / (high - low) clipped to [-1, 3]; `limits` is `(C, 2)`."""
    low, high = np.asarray(limits, np.float64).T[:, :, None, None]
    scaled: NDArray[np.float32] = image.astype(np.float32)
    scaled -= low.astype(np.float32)
    scaled *= (1 / (high - low)).astype(np.float32)
    np.clip(scaled, *CLIP, out=scaled)
    return scaled


def rule(frames: Sequence[NDArray[np.float64]]) -> dict[str, Any]:
    """Return the rule, ready for JSON, from the `(C, 3)` percentiles of the training frames.

    `min_range` and `background` have one value per channel.
    """
    low, median, high = np.moveaxis(np.asarray(frames, np.float64), -1, 0)
    spread = high - low
    where = np.divide(median - low, spread, out=np.full_like(spread, 0.5), where=spread > 0)
    return {
        "low_percentile": LOW,
        "high_percentile": HIGH,
        "clip": list(CLIP),
        "min_range": [round(float(v), 6) for v in FLOOR * np.median(spread, axis=0)],
        "background": [round(float(v), 6) for v in np.clip(np.median(where, axis=0), 0, 1)],
    }


def rule_limits(low_high: NDArray[np.float64] | Sequence[Sequence[float]], rule: dict[str, Any]) -> NDArray[np.float64]:
    """Return `(C, 2)` limits from the `(C, 2)` percentiles of a frame and the data set's rule."""
    channels = zip(low_high, rule["min_range"], rule["background"], strict=True)
    return np.array([limits(low, high, floor, background) for (low, high), floor, background in channels], np.float64)


def frame_limits(image: NDArray[Any], rule: dict[str, Any]) -> NDArray[np.float64]:
    """Return `(C, 2)` limits of a new `(C, Y, X)` frame by a stored rule.

    Raises
    ------
    ValueError
        The frame has another number of channels than the data set the rule comes from.
    """
    if len(image) != len(rule["min_range"]):
        raise ValueError(f"{len(image)} channels, the rule was made for {len(rule['min_range'])}")
    return rule_limits(percentiles(image)[:, [0, 2]], rule)
