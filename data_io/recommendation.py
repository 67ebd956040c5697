"""What crop, padding, batch and split suit a data set, and why, in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from data_io import splits as splitting
from data_io.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from data_io.fingerprint import FrameMeasures
    from data_io.store import Field, Splits

PAD_TO = 32
BATCH = 8
CROP_CELLS, CROP_LENGTHS = 5, 2.5
"""A crop is about this many diameters of a usual cell wide, or lengths of a long one if that is more."""
CROPS = (128, 256)


def recommend(
    fields: Sequence[Field], measures: Mapping[str, Sequence[FrameMeasures]], splits: Splits
) -> dict[str, Any]:
    """Return `crop`, `batch`, `pad_to`, `cell_diameter_px`, `split`, and `why`: a sentence for each of the first four.

    The crop suits the cells of the training frames; of all frames without a split.
    """
    train = {(ref.field, ref.frame) for ref in splits.train}
    seen = [
        one
        for field in fields
        for i, one in enumerate(measures[field.name])
        if not train or (field.name, i) in train
    ]  # fmt: skip
    areas = np.array([area for one in seen for area in one.areas or ()], np.int64)
    lengths = np.array([length for one in seen for length in one.lengths], np.int64)
    size = for_cells(areas, lengths)
    unit, why_split = _split(fields, splits)
    why = {
        "crop": _why_crop(areas, lengths, size["crop"]),
        "pad_to": _why_padding(fields),
        "batch": f"{BATCH} crops of {size['crop']} px are {BATCH * size['crop'] ** 2 / 1e6:.2g} million px in a step",
        "split": why_split,
    }
    return size | {"split": unit, "why": why}


def for_cells(areas: NDArray[np.int64], lengths: NDArray[np.int64]) -> dict[str, Any]:
    """Return crop, batch, padding and the median diameter for cells of these areas and lengths in px."""
    diameter = _diameter(areas) if areas.size else None
    wide = 0.0
    if diameter is not None:
        wide = max(CROP_CELLS * diameter, CROP_LENGTHS * _long(lengths))
    crop = PAD_TO * math.ceil(wide / PAD_TO)
    return {
        "crop": int(np.clip(crop, *CROPS)),
        "batch": BATCH,
        "pad_to": PAD_TO,
        "cell_diameter_px": None if diameter is None else round(diameter, 2),
    }


def _diameter(areas: NDArray[np.int64]) -> float:
    return 2 * math.sqrt(float(np.median(areas)) / math.pi)


def _long(lengths: NDArray[np.int64]) -> float:
    return float(np.percentile(lengths, 90))


def _why_crop(areas: NDArray[np.int64], lengths: NDArray[np.int64], crop: int) -> str:
    if not areas.size:
        return "no annotated cells to measure: the smallest crop"
    usual, long = CROP_CELLS * _diameter(areas), CROP_LENGTHS * _long(lengths)
    sizes = f"a usual cell is {_diameter(areas):.0f} px wide, a long one {_long(lengths):.0f} px"
    rule = f"{CROP_CELLS} of the first" if usual >= long else f"{CROP_LENGTHS:g} of the second"
    wanted = max(usual, long)
    bound = f", at least {CROPS[0]}" * (wanted <= CROPS[0]) + f", at most {CROPS[1]}" * (wanted > CROPS[1])
    return f"{sizes}: {rule} make {wanted:.0f} px, in steps of {PAD_TO}{bound}"


def _why_padding(fields: Sequence[Field]) -> str:
    """Say what whole frames are padded to: a network halves them five times."""
    sizes = sorted({field.shape for field in fields})
    told = [
        f"{y} x {x} becomes {_padded(y)} x {_padded(x)}" for y, x in sizes[:3] if (y, x) != (_padded(y), _padded(x))
    ]
    more = f" and {len(sizes) - 3} more sizes" if len(sizes) > 3 else ""
    return f"networks halve a frame five times; {', '.join(told) + more if told else 'the frames fit as they are'}"


def _padded(side: int) -> int:
    return PAD_TO * math.ceil(side / PAD_TO)


def _split(fields: Sequence[Field], splits: Splits) -> tuple[str, str]:
    """Return the unit to split by, and why."""
    try:
        unit = splitting.split(fields).unit
    except BadInput:
        return "none", "too few annotated frames for training, validation and test"
    count = len({field.name if unit == "field" else field.groups.get(unit) for field in fields if any(field.annotated)})
    if unit == "time":
        why = "one field: its first frames train, its last are tested; more fields would tell how it does on new ones"
    else:
        groups = f"{count} fields" if unit == "field" else f"{count} groups by {unit}"
        why = f"{groups}: whole ones are kept for the test, so that its cells are new to the network"
    if splits.unit not in (unit, "none"):
        why += f"; the present split is by {splits.unit}"
    return unit, why
