"""Take in a folder: what it holds, which frames train and test, and what each frame is like.

Everything but the pixels of the images is looked at first, so that whatever is wrong is said before anything is
written. `convert` stores what comes out of here; `check` only tells it.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from data_io import masks, normalise, readers
from data_io import splits as splitting
from data_io.calibration import is_possible
from data_io.errors import BadInput
from data_io.files import slug
from data_io.fingerprint import FrameMeasures, measure
from data_io.readers import Options
from data_io.store import Field, Splits
from data_io.survey import Survey, survey

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from data_io.survey import Frame

NORMALISATIONS = ("frame", "dataset")


@dataclass(frozen=True)
class Settings:
    """What the user says about a source; None leaves it to the files."""

    annotations: bool = True
    """False: frames without masks are what is wanted (prediction); masks found are kept, nothing is split."""
    pixel_size_um: float | None = None
    """Micrometres per pixel."""
    frame_interval_s: float | None = None
    """Seconds per frame."""
    split_by: str = "auto"
    """"auto", "field", "time" or a group key; see `splits.split`."""
    folds: int = 0
    """Number of folds over groups to store beside the split; 0 stores none."""
    split_touching: bool = False
    """Cells drawn as one foreground are told apart by a watershed instead of by connected components."""
    normalise: str = "frame"
    """Whether each frame is scaled by its own percentiles, or all by those of the data set."""
    reading: Options = Options()  # noqa: RUF009  # frozen
    """What the readers are told."""

    def as_facts(self) -> dict[str, Any]:
        """Return all settings, flat and ready for JSON."""
        facts = asdict(self)
        reading = facts.pop("reading")
        return facts | {key: list(value) if isinstance(value, tuple) else value for key, value in reading.items()}


@dataclass(frozen=True)
class Intake:
    """A source before its images are decoded; `fields` and `surveys` belong together, one by one."""

    source: Path
    settings: Settings
    found: readers.Found
    surveys: tuple[Survey, ...]
    fields: tuple[Field, ...]
    splits: Splits
    folds: tuple[Splits, ...]

    @property
    def n_frames(self) -> int:
        """Frames of all fields."""
        return sum(field.n_frames for field in self.fields)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the readers and the annotation files have to say."""
        return tuple(dict.fromkeys([*self.found.warnings, *(note for one in self.surveys for note in one.notes)]))


@dataclass(frozen=True)
class Measured:
    """A field whose frames were all decoded once; lists have one entry per frame."""

    field: Field
    measures: list[FrameMeasures]
    percentiles: list[NDArray[np.float64]]
    """`(C, 3)` low, median and high grey value."""
    grey: bool
    """Some frame was in colour."""


def take_in(source: Path, settings: Settings) -> Intake:
    """Return what a source holds and how it is split.

    Raises
    ------
    BadInput
        Anything wrong with the source that shows without decoding its images.
    """
    _check_settings(settings)
    found = readers.find(source, settings.reading)
    surveys = tuple(survey(raw, split_touching=settings.split_touching) for raw in found.fields)
    if any(one.one_by_one for one in surveys):
        surveys = tuple(replace(one, beside_labels=True) for one in surveys)
    _check_set(source, surveys, settings.annotations)
    fields = tuple(_describe(one, settings, found.facts) for one in surveys)
    splits, folds = splitting.unsplit(), tuple[Splits, ...]()
    if settings.annotations:
        parts = {one.raw.name: part for one in surveys if (part := one.raw.part)}
        try:
            splits = splitting.split(fields, settings.split_by, parts)
            folds = splitting.folds(fields, settings.split_by, settings.folds) if settings.folds else ()
        except BadInput as fault:
            raise BadInput(f"{source}: {fault}") from fault
    return Intake(source, settings, found, surveys, fields, splits, folds)


def measure_field(survey: Survey, field: Field, keep: Callable[[int, Frame], None]) -> Measured:
    """Decode a field frame by frame, give each frame to `keep` with its number, and measure it."""
    percentiles, measures = [], []
    before, shared, stayed, grey = None, 0, 0, False
    for at, frame in enumerate(survey.frames()):
        keep(at, frame)
        percentiles.append(normalise.percentiles(frame.image))
        measures.append(measure(frame.image, frame.labels))
        grey |= frame.grey
        if frame.labels is not None:
            common, same = (0, 0) if before is None else masks.kept(before, frame.labels)
            shared, stayed, before = shared + common, stayed + same, frame.labels
    drawn = field.annotation.startswith(masks.LABELS)
    tracked = field.tracked or (drawn and masks.follow_cells(shared, stayed))
    limits = tuple(tuple((float(low), float(high)) for low, _, high in one) for one in percentiles)
    cells = tuple(len(one.areas or ()) for one in measures)
    return Measured(replace(field, cells=cells, percentiles=limits, tracked=tracked), measures, percentiles, grey)


def _describe(survey: Survey, settings: Settings, marker: dict[str, Any]) -> Field:
    """Return what is known of a field before its pixels are read; `cells` are then the values in each annotation."""
    return Field(
        name=survey.raw.name,
        slug=slug(survey.raw.name),
        n_frames=len(survey.sources),
        channels=survey.channels,
        shape=survey.plane.shape,
        dtype=survey.dtype,
        pixel_size_um=settings.pixel_size_um or survey.scale("pixel_size_um"),
        frame_interval_s=settings.frame_interval_s or survey.scale("frame_interval_s"),
        groups=dict(survey.raw.groups),
        annotated=survey.annotated,
        cells=tuple(drawn or 0 for drawn in survey.drawn),
        sources=survey.sources,
        percentiles=(),
        tracked=bool(marker.get("tracked")) or survey.raw.tracked,
        annotation=survey.annotation,
    )


def _check_settings(settings: Settings) -> None:
    for name in ("pixel_size_um", "frame_interval_s"):
        value = getattr(settings, name)
        if value is not None and not (value > 0 and is_possible(value)):
            what = "too small or too large" if value > 0 and math.isfinite(value) else "not a positive number"
            raise BadInput(f"{name}: {value} is {what}; give it in its unit, or leave it out if unknown")
    if settings.normalise not in NORMALISATIONS:
        raise BadInput(f"normalise {settings.normalise!r}: unknown; choose from {', '.join(NORMALISATIONS)}")


def _check_set(source: Path, surveys: Sequence[Survey], annotations: bool) -> None:
    """Refuse a set that no store can be made from."""
    channels = {one.plane.channels: one.raw.files[0].image for one in surveys}
    if len(channels) > 1:
        (few, a), (many, b) = sorted(channels.items())[:2]
        raise BadInput(f"{b}: {many} channels, {a.name} has {few}; export the same channels everywhere")
    slugs: dict[str, str] = {}
    for one in surveys:
        other = slugs.setdefault(slug(one.raw.name).lower(), one.raw.name)
        if other != one.raw.name:
            raise BadInput(f"{source}: fields {other!r} and {one.raw.name!r} are the same as file names; rename one")
    if annotations and not any(any(one.annotated) for one in surveys):
        raise BadInput(f"{source}: no masks at all; add label images in masks/, named like their images")
    if annotations and not any(one.values for one in surveys):
        raise BadInput(f"{source}: all masks are empty; annotate some cells")
