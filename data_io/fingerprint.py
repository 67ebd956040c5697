"""The fingerprint of a data set: what its frames and its annotation are like, in numbers a person can check.

`measure` looks at one frame while it passes by; `summarise` puts the frames of all fields together. Frames that occur
twice and parts that leak into each other are found by `twins`, what follows for training by `recommendation`.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from data_io import masks, twins
from data_io.store import PARTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from data_io.store import Field, Splits

FEW = 5
"""Pieces, outliers and the like are listed up to this many, and counted beyond."""
CEILING_FROM = 255
"""A camera's ceiling is a power of two less one, and at least this many grey steps."""
SPIKE = 10.0
SPIKE_SHARE = 1e-4
"""Elsewhere the highest value is a ceiling if it is this many times as frequent as those below it, on this share."""
HISTOGRAM = 2**20
"""Integers below this are counted in a table, which is much faster than sorting them."""
OUTLIER = 3.5
"""Robust z from which on a frame's focus stands out (Iglewicz and Hoaglin 1993)."""
OUTLIER_FACTOR = 1.5
"""And it must differ from the median by this factor: fields of a set are not all alike."""
BLURRED = 0.5
"""Below this fraction of the median focus the user is warned."""
UNSURE = 0.05
"""Structure of less than this fraction of the noise cannot be told from none."""
OUTLIER_FROM = 5
"""Frames that it takes to say so."""
STEADY = 0.05
"""Focus that scatters by less than this fraction is taken to scatter by it."""
MUCH_SATURATED, MUCH_DRIFT, MUCH_IN_PIECES = 0.01, 20.0, 0.02
"""Beyond these (share of pixels, per cent of the mean, share of cells) the user is warned."""


@dataclass(frozen=True)
class ChannelMeasures:
    """The grey values of one channel of one frame."""

    low: float
    high: float
    mean: float
    median: float
    background: float
    """Median grey value outside cells; of the whole frame where it is not annotated."""
    step: int | None
    """What all differences of grey values are multiples of: 16 for 12 bits shifted into 16; None for fractions."""
    saturated: float
    """Share of pixels at the ceiling of the camera or of the export."""
    focus: float
    """See `focus`."""


@dataclass(frozen=True)
class FrameMeasures:
    """One frame; sequences have one entry per channel or per cell."""

    channels: tuple[ChannelMeasures, ...]
    areas: tuple[int, ...] | None
    """px of each cell in the order of their labels; None where the frame is not annotated."""
    lengths: tuple[int, ...]
    """Longer side of each cell's bounding box in px."""
    touching: int
    """Cells with a pixel of another cell among the eight neighbours of one of theirs."""
    border: int
    """Cells with a pixel on the edge of the frame."""
    in_pieces: int
    """Labels that lie in two or more pieces (8-connected)."""
    pieces: tuple[tuple[int, int, int], ...]
    """The first few of them: label, pieces, px outside the largest piece."""
    digest: str
    """SHA-256 of the pixels."""
    signature: str
    """See `twins.signature`."""


def measure(image: NDArray[Any], labels: NDArray[np.int32] | None) -> FrameMeasures:
    """Return the measures of one frame.

    Parameters
    ----------
    image
        `(C, Y, X)` grey values.
    labels
        `(Y, X)`, 0 background, each positive value below 2**20 a cell; None where there is no annotation.
    """
    outside = None if labels is None else labels == 0
    areas = None if labels is None else tuple(_areas(labels).tolist())
    in_pieces, pieces = (0, ()) if labels is None else _pieces(labels, cells=len(areas or ()))
    return FrameMeasures(
        channels=tuple(_channel(channel, outside) for channel in image),
        areas=areas,
        lengths=() if labels is None else tuple(masks.lengths(labels).tolist()),
        touching=0 if labels is None else len(touching(labels)),
        border=0 if labels is None else len(on_border(labels)),
        in_pieces=in_pieces,
        pieces=pieces,
        digest=hashlib.sha256(np.ascontiguousarray(image).data).hexdigest(),
        signature=twins.signature(image),
    )


def focus(grey: NDArray[Any]) -> float:
    """Return how sharp a `(Y, X)` image is: 0 for nothing but noise; comparable within a movie, not between kinds.

    Brenner's gradient, the mean squared difference of pixels two apart (Brenner et al. 1976, J. Histochem. Cytochem.
    24, 100), less what noise contributes to it, over the mean square of the grey values, so that exposure cancels as
    in the normalised measures of Santos et al. (1997, J. Microsc. 188, 264). The noise is that of Immerkær (1996,
    Comput. Vis. Image Underst. 64, 300) with a median in place of the mean, which edges do not move.
    """
    peak = float(np.abs(grey).max())
    if min(grey.shape) < 3 or peak == 0:
        return 0.0
    values = grey.astype(np.float32)
    values /= peak
    rough = values[:-2:3] - 2 * values[1:-1:3] + values[2::3]  # every third row, then every third column, will do
    rough = rough[:, :-2:3] - 2 * rough[:, 1:-1:3] + rough[:, 2::3]
    noise = (float(np.median(np.abs(rough))) / 0.6745 / 6) ** 2
    brenner = (_mean_square(values[2:] - values[:-2]) + _mean_square(values[:, 2:] - values[:, :-2])) / 2
    structure = brenner - 2 * noise
    return structure / _mean_square(values) if structure > UNSURE * 2 * noise else 0.0


def saturated(values: NDArray[Any], counts: NDArray[np.int64], step: int | None) -> float:
    """Return the share of pixels at the ceiling, from the sorted grey values and how often each occurs.

    The ceiling is the highest value if that is 2**n - 1 steps (n of 8 or more), or far more frequent than the values
    below it.
    """
    if len(values) < 2:
        return 0.0
    share = float(counts[-1] / counts.sum())
    steps = int(values[-1]) // step if step else 0
    full = steps >= CEILING_FROM and (steps + 1) & steps == 0
    spike = len(values) > 2 and share >= SPIKE_SHARE and counts[-1] > SPIKE * counts[-17:-1].mean()
    return share if full or spike else 0.0


def touching(labels: NDArray[np.int32]) -> set[int]:
    """Return the labels of `(Y, X)` that have another label among the eight neighbours of one of their pixels.

    >>> sorted(touching(np.array([[1, 2, 0, 0], [1, 0, 3, 0], [0, 0, 0, 4], [5, 0, 0, 0]], np.int32)))
    [1, 2, 3, 4]
    """
    width = labels.shape[1] + 1
    flat = np.pad(labels, ((0, 0), (0, 1))).ravel()
    found = []
    for apart in (1, width - 1, width, width + 1):
        at = np.flatnonzero(flat[:-apart] != flat[apart:])
        one, other = flat[at], flat[at + apart]
        both = (one > 0) & (other > 0)
        found += [one[both], other[both]]
    return set(np.unique(np.concatenate(found)).tolist())


def on_border(labels: NDArray[np.int32]) -> set[int]:
    """Return the labels of `(Y, X)` with a pixel on the edge of the frame."""
    edges = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return set(edges[edges > 0].tolist())


def _channel(channel: NDArray[Any], outside: NDArray[np.bool_] | None) -> ChannelMeasures:
    values, counts = _levels(channel)
    median = _median(values, counts)
    around = channel[outside] if outside is not None else channel[:0]
    step = _step(values)
    return ChannelMeasures(
        low=float(values[0]),
        high=float(values[-1]),
        mean=float(np.dot(values.astype(np.float64), counts) / counts.sum()),
        median=median,
        background=_median(*_levels(around)) if around.size else median,
        step=step,
        saturated=saturated(values, counts, step),
        focus=focus(channel),
    )


def _levels(grey: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the grey values that occur, sorted, and how many pixels have each."""
    if grey.dtype.kind == "u" and grey.max() < HISTOGRAM:
        counts = np.bincount(grey.ravel())
        values = np.flatnonzero(counts)
        return values, counts[values]
    found = np.unique_counts(grey)
    return found.values, found.counts


def _median(values: NDArray[Any], counts: NDArray[np.int64]) -> float:
    """Return the lower median."""
    return float(values[np.searchsorted(np.cumsum(counts), (counts.sum() + 1) // 2)])


def _step(values: NDArray[Any]) -> int | None:
    if values.dtype.kind == "f" and (np.rint(values) != values).any():
        return None
    return int(np.gcd.reduce(np.diff(values.astype(np.int64)), initial=0))


def _mean_square(values: NDArray[np.float32]) -> float:
    flat = values.ravel()
    return float(np.dot(flat, flat)) / flat.size


def _areas(labels: NDArray[np.int32]) -> NDArray[np.int64]:
    counts = np.bincount(labels.ravel())[1:]
    return counts[counts > 0]


def _pieces(labels: NDArray[np.int32], cells: int) -> tuple[int, tuple[tuple[int, int, int], ...]]:
    """Return how many labels lie in several 8-connected pieces, and the first few: label, pieces, px outside."""
    from skimage.measure import label

    pieces, count = label(labels, background=0, connectivity=2, return_num=True)
    if count == cells:
        return 0, ()
    sizes = np.bincount(pieces.ravel())[1:]
    owner = np.zeros(count + 1, np.int64)
    owner[pieces] = labels
    owner = owner[1:]
    split = np.flatnonzero(np.bincount(owner) > 1).tolist()
    own = [sizes[owner == one] for one in split[:FEW]]
    return len(split), tuple((one, len(px), int(px.sum() - px.max())) for one, px in zip(split, own, strict=False))


# --- the whole data set -------------------------------------------------------------------------------------------


def summarise(
    fields: Sequence[Field], measures: Mapping[str, Sequence[FrameMeasures]], splits: Splits
) -> dict[str, Any]:
    """Return the fingerprint, ready for JSON.

    Parameters
    ----------
    fields
        All fields, in order, with their counts of cells.
    measures
        For each field's name, the measures of its frames in order.
    splits
        The split of the frames.

    Returns
    -------
    dict
        Counts; `bit_depth` per pixel type; `saturated`; `radius_px` and `radius_um` (equivalent radius, the radius of
        the disc of a cell's area); shares of touching and border cells; `pieces`; `empty`, `duplicates`,
        `near_duplicates` and `leakage` as lists of frames; `by_field` with one value per frame for `mean` and `focus`
        (per channel) and `cells`; `parts`.
    """
    every = [one for field in fields for one in measures[field.name]]
    drawn = [one for one in every if one.areas is not None]
    cells = sum(len(one.areas or ()) for one in drawn)
    by_field = {field.name: _field(field, measures[field.name]) for field in fields}
    for name, outliers in _focus_outliers(fields, measures).items():
        by_field[name]["focus_outliers"] = outliers
    return {
        "fields": len(fields),
        "frames": len(every),
        "annotated_frames": len(drawn),
        "channels": max(len(field.channels) for field in fields),
        "sizes": dict(Counter(f"{field.shape[0]} x {field.shape[1]}" for field in fields for _ in field.refs())),
        "bit_depth": _bit_depth(fields, measures),
        "saturated": _saturated(every),
        "cells": cells,
        "cells_per_frame": _spread([len(one.areas or ()) for one in drawn]),
        "radius_px": _radius(fields, measures, in_um=False),
        "radius_um": _radius(fields, measures, in_um=True),
        "touching_share": _share(sum(one.touching for one in drawn), cells),
        "border_share": _share(sum(one.border for one in drawn), cells),
        "pieces": _in_pieces(fields, measures),
        "empty": [[f.name, i] for f in fields for i, one in enumerate(measures[f.name]) if one.areas == ()],
        "by_field": by_field,
        "parts": {part: _part(fields, splits, part) for part in PARTS},
        "split": {"unit": splits.unit, "hash": splits.hash},
        **twins.find(fields, measures, splits),
    }


def _field(field: Field, measures: Sequence[FrameMeasures]) -> dict[str, Any]:
    columns = list(zip(*(one.channels for one in measures), strict=True))
    return {
        "mean": [[_short(one.mean) for one in column] for column in columns],
        "focus": [[_short(one.focus) for one in column] for column in columns],
        "cells": [None if one.areas is None else len(one.areas) for one in measures],
        "drift": [_drift([one.mean for one in column]) for column in columns],
        "focus_outliers": [],
    }


def _drift(means: Sequence[float]) -> dict[str, float | None]:
    """Return how the mean grey value changes over a movie, in per cent of its median: along a line, and at most."""
    middle = float(np.median(means))
    if middle <= 0:
        return {"slope_percent": None, "max_deviation_percent": None}
    relative = 100 * (np.asarray(means) / middle - 1)
    slope = np.polyfit(np.arange(len(means)), relative, 1)[0] * (len(means) - 1) if len(means) > 2 else 0.0
    return {"slope_percent": _short(slope), "max_deviation_percent": _short(np.abs(relative).max())}


def _focus_outliers(
    fields: Sequence[Field], measures: Mapping[str, Sequence[FrameMeasures]]
) -> dict[str, list[dict[str, Any]]]:
    """Return each field's frames whose focus stands out: within a movie, or among all short fields together."""
    long = [[field] for field in fields if field.n_frames >= OUTLIER_FROM]
    short = [field for field in fields if field.n_frames < OUTLIER_FROM]
    found: dict[str, list[dict[str, Any]]] = {field.name: [] for field in fields}
    for together in [*long, short]:
        frames = [(field, i) for field in together for i in range(field.n_frames)]
        if len(frames) < OUTLIER_FROM:
            continue
        for channel in range(len(together[0].channels)):
            values = [measures[field.name][i].channels[channel].focus for field, i in frames]
            middle = float(np.median(values))
            for (field, i), value, z in zip(frames, values, robust_z(values), strict=True):
                if abs(z) > OUTLIER and not middle / OUTLIER_FACTOR < value < middle * OUTLIER_FACTOR:
                    seen = {"frame": i, "source": field.sources[i], "channel": channel, "z": round(float(z), 1)}
                    found[field.name].append(seen | {"of_median": _short(value / middle)})
    return found


def robust_z(values: Sequence[float]) -> NDArray[np.float64]:
    """Return how far the logarithm of each value lies from the median, in SDs estimated from the median deviation."""
    middle = float(np.median(values))
    if np.percentile(values, 25) <= 0:  # nothing but noise
        return np.zeros(len(values))
    logs = np.log(np.maximum(values, 1e-3 * middle))
    from_middle = logs - np.median(logs)
    spread: NDArray[np.float64] = from_middle / max(1.4826 * float(np.median(np.abs(from_middle))), STEADY)
    return spread


def _bit_depth(fields: Sequence[Field], measures: Mapping[str, Sequence[FrameMeasures]]) -> dict[str, dict[str, Any]]:
    """Return per pixel type: the range of grey values, the step between them and the bits it takes to tell them."""
    found = {}
    for dtype in dict.fromkeys(field.dtype for field in fields):
        channels = [c for f in fields if f.dtype == dtype for one in measures[f.name] for c in one.channels]
        low, high = min(c.low for c in channels), max(c.high for c in channels)
        steps = [c.step for c in channels if c.step is not None]
        bits = step = None
        if len(steps) == len(channels):
            step = math.gcd(*steps, *(int(c.low - low) for c in channels))
            bits = (int(high) // max(step, 1)).bit_length()
        found[dtype] = {"low": _short(low), "high": _short(high), "step": step, "bits": bits}
    return found


def _saturated(every: Sequence[FrameMeasures]) -> dict[str, Any]:
    shares = [max(channel.saturated for channel in one.channels) for one in every]
    return {
        "mean": _short(float(np.mean(shares))),
        "max": _short(max(shares)),
        "frames": sum(share > MUCH_SATURATED for share in shares),
    }


def _radius(
    fields: Sequence[Field], measures: Mapping[str, Sequence[FrameMeasures]], *, in_um: bool
) -> dict[str, float] | None:
    """Return median, 5 % and 95 % of the equivalent radius and its histogram; None without cells or without a unit."""
    radii: list[NDArray[np.float64]] = []
    for field in fields:
        areas = np.array([area for one in measures[field.name] for area in one.areas or ()], np.float64)
        if in_um and areas.size and field.pixel_size_um is None:
            return None
        radii.append(np.sqrt(areas / np.pi) * (field.pixel_size_um or 1.0 if in_um else 1.0))
    all_radii = np.concatenate(radii)
    if not all_radii.size:
        return None
    p5, median, p95 = np.percentile(all_radii, (5, 50, 95))
    return {"median": _short(median), "p5": _short(p5), "p95": _short(p95)}


def _in_pieces(fields: Sequence[Field], measures: Mapping[str, Sequence[FrameMeasures]]) -> dict[str, Any]:
    listed = [
        {"field": f.name, "frame": i, "label": label, "pieces": n, "px_outside_the_largest": outside}
        for f in fields
        for i, one in enumerate(measures[f.name])
        for label, n, outside in one.pieces
    ]
    labels = sum(one.in_pieces for f in fields for one in measures[f.name])
    return {"labels": labels, "first": listed[:FEW]}


def _part(fields: Sequence[Field], splits: Splits, part: str) -> dict[str, Any]:
    """Return what a part holds, its frames as ranges per field."""
    cells = {field.name: field.cells for field in fields}
    frames: dict[str, list[int]] = {}
    for ref in getattr(splits, part):
        frames.setdefault(ref.field, []).append(ref.frame)
    return {
        "frames": sum(map(len, frames.values())),
        "cells": sum(cells[name][i] for name, own in frames.items() for i in own),
        "fields": {name: ranges(own) for name, own in frames.items()},
    }


def ranges(numbers: Iterable[int]) -> str:
    """Write numbers as ranges.

    >>> ranges([0, 1, 2, 5, 7, 8])
    '0-2, 5, 7-8'
    """
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)


def warnings(summary: dict[str, Any]) -> list[str]:
    """Return what the user must know of the pixels and the annotation from what `summarise` found, one line each."""
    told = twins.warnings(summary)
    if summary["saturated"]["frames"]:
        much = f"{summary['saturated']['frames']} frames have more than {MUCH_SATURATED:.0%} of their pixels saturated"
        told.append(f"{much} (up to {summary['saturated']['max']:.1%}): contrast is lost there")
    for name, field in summary["by_field"].items():
        drift = max((one["max_deviation_percent"] or 0.0 for one in field["drift"]), default=0.0)
        if drift > MUCH_DRIFT:
            told.append(f"{name}: its mean grey value departs by up to {drift:.0f} % from the movie's median")
    blurred = [
        f"{name} frame {one['frame']}"
        for name, field in summary["by_field"].items()
        for one in field["focus_outliers"]
        if one["of_median"] < BLURRED
    ]
    if blurred:
        told.append(f"out of focus beside the other frames: {_some(list(dict.fromkeys(blurred)))}")
    if summary["pieces"]["labels"] > MUCH_IN_PIECES * max(summary["cells"], 1):
        told.append(f"{summary['pieces']['labels']} labels lie in several pieces; each counts as one cell")
    return told


def _some(names: list[str]) -> str:
    return ", ".join(names[:FEW]) + (f" and {len(names) - FEW} more" if len(names) > FEW else "")


def _spread(values: Sequence[int]) -> dict[str, float] | None:
    if not values:
        return None
    return {"median": float(np.median(values)), "min": min(values), "max": max(values)}


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _short(value: float) -> float:
    """Keep five significant digits."""
    return float(f"{float(value):.5g}")
