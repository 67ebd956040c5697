"""What is true of a data set as a whole: normalisation, recommendation, fingerprint, and what the user must be told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from data_io import fingerprint, images, masks, normalise
from data_io.errors import BadInput
from data_io.recommendation import recommend

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from data_io.intake import Intake, Measured
    from data_io.store import Splits


def of_set(intake: Intake, measured: Sequence[Measured]) -> dict[str, Any]:
    """Return `warnings`, `recommended` and `fingerprint` of a source whose frames were all measured."""
    fields = [one.field for one in measured]
    measures = {one.field.name: one.measures for one in measured}
    found = fingerprint.summarise(fields, measures, intake.splits)
    if intake.settings.annotations:
        _refuse_copies(measured, found)
    decided = warnings(measured, intake.settings.annotations)
    return {
        "warnings": [*intake.notes, *decided, *fingerprint.warnings(found), *intake.splits.warnings],
        "recommended": recommend(fields, measures, intake.splits),
        "fingerprint": found,
    }


def _refuse_copies(measured: Sequence[Measured], found: dict[str, Any]) -> None:
    """Refuse frames that are there twice: they would be trained on and tested on, or count double."""
    measures = {one.field.name: one.measures for one in measured}
    for pair in found["duplicates"]:
        (field, frame), (other, _) = pair["a"], pair["b"]
        if any(channel.low < channel.high for channel in measures[field][frame].channels):
            names = [f"{name} {file}" for name, file in zip((field, other), pair["files"], strict=True)]
            raise BadInput(f"{names[0]}: the same pixels as {names[1]}; remove one of the two")


def normalisation(measured: Sequence[Measured], splits: Splits, mode: str = "frame") -> dict[str, Any]:
    """Return the rule of the training frames with cells; per pixel type of all its frames where there are none."""
    train = {(ref.field, ref.frame) for ref in splits.train}
    frames: dict[str, dict[bool, list[NDArray[np.float64]]]] = {}
    for one in measured:
        kinds = frames.setdefault(one.field.dtype, {True: [], False: []})
        for i, percentiles in enumerate(one.percentiles):
            kinds[(one.field.name, i) in train and one.field.cells[i] > 0].append(percentiles)
    main_first = sorted(frames.items(), key=lambda item: (-len(item[1][True]), -len(item[1][False])))
    return normalise.rule({dtype: kinds[True] or kinds[False] for dtype, kinds in main_first}, mode)


def warnings(measured: Sequence[Measured], annotations: bool) -> list[str]:
    """Return what was decided for the user, and what looks odd but is allowed."""
    told: list[str] = []
    if grey := [one.field.name for one in measured if one.grey]:
        told.append(f"{images.GREY} in {some(grey)}")
    if binary := [one.field.name for one in measured if one.field.annotation == masks.COMPONENTS]:
        told.append(
            f"binary masks in {some(binary)}: cells are connected components, touching cells count as one; "
            "--split-touching tells them apart by a watershed"
        )
    if split := [one.field.name for one in measured if one.field.annotation == masks.WATERSHED]:
        told.append(f"binary masks in {some(split)}: touching cells told apart by a watershed, not by a person")
    blank = [
        f"{one.field.name} frame {frame}"
        for one in measured
        for frame, found in enumerate(one.measures)
        if all(channel.low == channel.high for channel in found.channels)
    ]
    if blank:
        told.append(f"{len(blank)} frames have one grey value everywhere, such as {blank[0]}")
    missing = sum(not known for one in measured for known in one.field.annotated)
    if annotations and missing:
        told.append(f"{missing} frames have no mask: not trained on, not scored, still predicted")
    return told


def some(names: list[str]) -> str:
    """Return up to three names and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more fields" if len(names) > 3 else "")
