"""Grey values to float32, the same way in training and in prediction.

Each frame is scaled by its own 1 % and 99.8 % percentiles, so that lamp and exposure do not matter. A frame without
cells has almost no range of its own: it is given at least half the median range of the training frames, laid around
the grey value where the background lies in those frames. Noise is not blown up to the contrast of cells.

Grey values of different pixel types (8 and 16 bit) have no common unit, so each type has a smallest range of its own.

In the mode "dataset" all frames of a pixel type are scaled alike, by the medians of the training frames' percentiles:
for sets whose brightness means something.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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


def rule(frames: Mapping[str, Sequence[NDArray[np.float64]]], mode: str = "frame") -> dict[str, Any]:
    """Return the rule, ready for JSON.

    Parameters
    ----------
    frames
        Per pixel type (such as "uint16") the `(C, 3)` percentiles of the frames that set its range, the main type
        first.
    mode
        "frame": each frame by its own percentiles; "dataset": all by the same.

    Returns
    -------
    dict
        `mode`; `dtype`: the main type; `limits` (median low and high percentile): for each type a `(C, 2)` list;
        `min_range` and `level` (median high percentile): a list with one value per channel for each type;
        `background`: one value per channel; `low_percentile`, `high_percentile`, `clip`.
    """
    found = {dtype: np.moveaxis(np.asarray(own, np.float64), -1, 0) for dtype, own in frames.items()}
    main = next(iter(found))
    low, median, high = found[main]
    spread = high - low
    where = np.divide(median - low, spread, out=np.full_like(spread, 0.5), where=spread > 0)
    return {
        "mode": mode,
        "limits": {dtype: [_listed(pair) for pair in np.median(own[[0, 2]], axis=1).T] for dtype, own in found.items()},
        "dtype": main,
        "low_percentile": LOW,
        "high_percentile": HIGH,
        "clip": list(CLIP),
        "min_range": {dtype: _listed(FLOOR * np.median(own[2] - own[0], axis=0)) for dtype, own in found.items()},
        "level": {dtype: _listed(np.median(own[2], axis=0)) for dtype, own in found.items()},
        "background": _listed(np.clip(np.median(where, axis=0), 0, 1)),
    }


def for_new_images(rule: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Return the rule of a model, made to fit a set of new images: all of `rule` that it has for their pixel types.

    Types the model was not trained on take their smallest range from `own`, the rule of the new images themselves.
    """
    return rule | {name: own.get(name, {}) | rule.get(name, {}) for name in ("min_range", "level", "limits")}


def rule_limits(
    low_high: NDArray[np.float64] | Sequence[Sequence[float]], rule: dict[str, Any], dtype: str
) -> NDArray[np.float64]:
    """Return `(C, 2)` limits from the `(C, 2)` percentiles of a frame of pixel type `dtype` and the data set's rule."""
    if rule.get("mode") == "dataset" and dtype in rule["limits"]:
        low_high = rule["limits"][dtype]
    floors = _floors(np.asarray(low_high, np.float64), rule, dtype)
    channels = zip(low_high, floors, rule["background"], strict=True)
    return np.array([limits(low, high, floor, background) for (low, high), floor, background in channels], np.float64)


def frame_limits(image: NDArray[Any], rule: dict[str, Any]) -> NDArray[np.float64]:
    """Return `(C, 2)` limits of a new `(C, Y, X)` frame by a stored rule.

    A pixel type the rule does not know (see `for_new_images`) is taken to be the main type in another unit, in which
    the frame is as bright as usual.

    Raises
    ------
    ValueError
        The frame has another number of channels than the data set the rule comes from.
    """
    return rule_limits(_low_high(image, rule), rule, image.dtype.name)


def hits_floor(image: NDArray[Any], rule: dict[str, Any]) -> bool:
    """Say whether a new `(C, Y, X)` frame has less contrast, in any channel, than the rule allows to be stretched.

    That is meant for frames without cells. Where most frames of a set do, the set is much dimmer than what the rule
    was made from, and its cells come out faint.
    """
    low_high = _low_high(image, rule)
    return bool(np.any(low_high[:, 1] - low_high[:, 0] < _floors(low_high, rule, image.dtype.name)))


def _low_high(image: NDArray[Any], rule: dict[str, Any]) -> NDArray[np.float64]:
    if len(image) != len(rule["background"]):
        raise ValueError(f"{len(image)} channels, the rule was made for {len(rule['background'])}")
    return percentiles(image)[:, [0, 2]]


def _floors(low_high: NDArray[np.float64], rule: dict[str, Any], dtype: str) -> NDArray[np.float64]:
    """Return the smallest range of each channel, in grey values of `dtype`."""
    ranges = rule["min_range"]
    if dtype in ranges:
        return np.asarray(ranges[dtype], np.float64)
    usual, level = (np.asarray(values[rule["dtype"]], np.float64) for values in (ranges, rule["level"]))
    high = np.maximum(low_high[:, 1], 0)
    return np.divide(usual * high, level, out=np.zeros_like(usual), where=level > 0)


def _listed(values: NDArray[np.float64]) -> list[float]:
    return [round(float(value), 6) for value in values]
