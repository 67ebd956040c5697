"""What is true of a data set as a whole: normalisation, recommended crop, and what the user must be told."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from data_io import images, masks, normalise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from data_io.store import Field, Splits

PAD_TO = 32
BATCH = 8
CROP_CELLS, CROP_LENGTHS = 5, 2.5
"""A crop is about this many diameters of a usual cell wide, or lengths of a long one if that is more."""
CROPS = (128, 256)


@dataclass(frozen=True)
class Written:
    """A field in the store, with what the whole data set's facts are made from."""

    field: Field
    percentiles: list[NDArray[np.float64]]
    """Per frame: `(C, 3)` low, median and high grey value."""
    areas: NDArray[np.int64]
    lengths: NDArray[np.int64]
    """Area in px and length of every annotated cell in px."""
    grey: bool
    digests: list[str]


def normalisation(written: Sequence[Written], splits: Splits) -> dict[str, Any]:
    """Return the rule of the training frames with cells; per pixel type of all its frames where there are none."""
    train = {(ref.field, ref.frame) for ref in splits.train}
    frames: dict[str, dict[bool, list[NDArray[np.float64]]]] = {}
    for one in written:
        kinds = frames.setdefault(one.field.dtype, {True: [], False: []})
        for i, percentiles in enumerate(one.percentiles):
            kinds[(one.field.name, i) in train and one.field.cells[i] > 0].append(percentiles)
    main_first = sorted(frames.items(), key=lambda item: (-len(item[1][True]), -len(item[1][False])))
    return normalise.rule({dtype: kinds[True] or kinds[False] for dtype, kinds in main_first})


def recommend(written: Sequence[Written], splits: Splits) -> dict[str, Any]:
    """Return crop, batch and padding that suit the size of the cells of the training frames; of all without a split."""
    train = {(ref.field, ref.frame) for ref in splits.train}
    seen = []
    for one in written:
        kept = [not train or (one.field.name, i) in train for i in range(one.field.n_frames)]
        seen.append(np.stack([one.areas, one.lengths])[:, np.repeat(kept, one.field.cells)])
    areas, lengths = np.concatenate(seen, axis=1)
    diameter = 2 * math.sqrt(float(np.median(areas)) / math.pi) if areas.size else None
    wide = 0.0
    if diameter is not None:
        long = float(np.percentile(lengths, 90))
        wide = max(CROP_CELLS * diameter, CROP_LENGTHS * long)
    crop = PAD_TO * math.ceil(wide / PAD_TO)
    return {
        "crop": int(np.clip(crop, *CROPS)),
        "batch": BATCH,
        "pad_to": PAD_TO,
        "cell_diameter_px": None if diameter is None else round(diameter, 2),
    }


def warnings(written: Sequence[Written], annotations: bool) -> list[str]:
    """Return what was decided for the user, and what looks odd but is allowed."""
    told: list[str] = []
    if grey := [one.field.name for one in written if one.grey]:
        told.append(f"{images.GREY} in {some(grey)}")
    if binary := [one.field.name for one in written if one.field.annotation == masks.COMPONENTS]:
        told.append(f"binary masks in {some(binary)}: cells are connected components, touching cells count as one")
    missing = sum(not known for one in written for known in one.field.annotated)
    if annotations and missing:
        told.append(f"{missing} frames have no mask: not trained on, not scored, still predicted")
    seen: dict[str, str] = {}
    for one in written:
        for digest, name in zip(one.digests, one.field.sources, strict=True):
            where = f"{one.field.name} {name}"
            if (twin := seen.setdefault(digest, where)) != where:
                told.append(f"{where}: the same pixels as {twin}")
    return told


def some(names: list[str]) -> str:
    """Return up to three names and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more fields" if len(names) > 3 else "")
