"""What the facts of a store must say before they are believed: their types, and that they fit each other."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from data_io.damage import one_line
from data_io.errors import BadInput
from data_io.images import MAX_PIXELS

if TYPE_CHECKING:
    from pathlib import Path

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Pair = tuple[float, float]


class Stored(BaseModel):
    """A part of the facts, which may hold more than is asked about here."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="allow")


class StoredField(Stored):
    """A `store.Field`."""

    name: Annotated[str, Field(min_length=1)]
    slug: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$", max_length=100)]
    n_frames: Annotated[int, Field(ge=1)]
    channels: Annotated[tuple[str, ...], Field(min_length=1)]
    shape: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
    dtype: Literal["uint8", "uint16", "uint32", "float32"]
    pixel_size_um: Positive | None
    frame_interval_s: Positive | None
    groups: dict[str, str]
    annotated: tuple[bool, ...]
    cells: tuple[Count, ...]
    sources: tuple[str, ...]
    percentiles: tuple[tuple[Pair, ...], ...]
    tracked: bool
    annotation: str

    @model_validator(mode="after")
    def _one_entry_per_frame(self) -> Self:
        for name in ("annotated", "cells", "sources", "percentiles"):
            if len(getattr(self, name)) not in {self.n_frames, 0 if name == "percentiles" else self.n_frames}:
                raise ValueError(f"{len(getattr(self, name))} entries of {name} for {self.n_frames} frames")
        if self.shape[0] * self.shape[1] > MAX_PIXELS:
            raise ValueError(f"a plane of {self.shape[0]} x {self.shape[1]} pixels")
        if any(len(frame) != len(self.channels) for frame in self.percentiles):
            raise ValueError("percentiles of another number of channels")
        return self


class StoredSplits(Stored):
    """A `store.Splits`."""

    train: tuple[tuple[str, Count], ...]
    val: tuple[tuple[str, Count], ...]
    test: tuple[tuple[str, Count], ...]
    unit: str
    warnings: tuple[str, ...]
    hash: str

    @property
    def frames(self) -> list[tuple[str, int]]:
        """Frames of all parts."""
        return [*self.train, *self.val, *self.test]


class StoredRule(Stored):
    """A rule of `normalise.rule`."""

    mode: Literal["frame", "dataset"]
    dtype: str
    limits: dict[str, tuple[Pair, ...]]
    min_range: dict[str, tuple[float, ...]]
    level: dict[str, tuple[float, ...]]
    background: tuple[float, ...]

    @model_validator(mode="after")
    def _one_entry_per_channel(self) -> Self:
        values = [*self.limits.values(), *self.min_range.values(), *self.level.values()]
        if any(len(one) != len(self.background) for one in values):
            raise ValueError("entries of another number of channels")
        if not self.min_range.keys() & self.level.keys() >= {self.dtype}:
            raise ValueError(f"nothing on its main type {self.dtype}")
        return self


class Advice(Stored):
    """What is recommended for the data set."""

    crop: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=1)]
    pad_to: Annotated[int, Field(ge=1)]
    split: str


class Origin(Stored):
    """Where a store was converted from, and how."""

    path: str
    reader: str
    files: str
    options: dict[str, Any]


class StoredFacts(Stored):
    """The attribute "dataset" of a store."""

    ome_zarr: Literal["0.4", "0.5"]
    name: str
    synthetic: bool
    warnings: tuple[str, ...]
    fields: Annotated[tuple[StoredField, ...], Field(min_length=1)]
    splits: StoredSplits
    folds: tuple[StoredSplits, ...] = ()
    normalisation: StoredRule
    recommended: Advice
    source: Origin

    @model_validator(mode="after")
    def _they_fit_each_other(self) -> Self:
        if len({field.slug.lower() for field in self.fields}) < len(self.fields):
            raise ValueError("two fields of one name")
        annotated = {(f.name, frame) for f in self.fields for frame in range(f.n_frames) if f.annotated[frame]}
        for split in (self.splits, *self.folds):
            if len(set(split.frames)) < len(split.frames) or not annotated >= set(split.frames):
                raise ValueError("a split with frames in two parts, or that are not annotated")
        return self


def check(path: Path, facts: dict[str, Any]) -> None:
    """Refuse facts that are not as this version writes them.

    Raises
    ------
    BadInput
        With the first thing that is wrong.
    """
    try:
        StoredFacts.model_validate_json(json.dumps(facts))
    except ValidationError as fault:
        first = fault.errors()[0]
        place = "".join(f"{step}." for step in first["loc"]).removesuffix(".")
        what = one_line(first["msg"]).removeprefix("Value error, ")
        told = f"{place}: {what}" if place else what
        raise BadInput(f"{path}: its facts are damaged ({told}); convert the source again into a new store") from fault
