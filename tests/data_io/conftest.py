"""Small folders of frames and masks to convert."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from data_io.files import building
from data_io.location import located
from data_io.normalise import rule
from data_io.store import Dataset, Field, Splits, Writer

YEAST = Path(__file__).resolve().parents[3] / "shared/data/yeast_phase_movie"
Draw = Callable[..., np.ndarray]
Store = Callable[..., Dataset]
Write = Callable[..., Path]


def _discs(t: int = 0, size: tuple[int, int] = (96, 128), n: int = 6, radius: float = 8) -> np.ndarray:
    """Return `(Y, X)` uint16 labels: n discs on a grid that keep their label and drift by t px."""
    labels = np.zeros(size, np.uint16)
    y, x = np.ogrid[: size[0], : size[1]]
    for i in range(n):
        cy, cx = 16 + 32 * (i // 3), 20 + 36 * (i % 3) + t
        labels[(y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = i + 1
    return labels


def _grey(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return `(Y, X)` uint16: bright cells on a noisy background."""
    noise = np.random.default_rng(seed).normal(0, 20, labels.shape)
    return (1000 + 800 * (labels > 0) + noise).astype(np.uint16)


@pytest.fixture(scope="session")
def discs() -> Draw:
    return _discs


@pytest.fixture(scope="session")
def grey() -> Draw:
    return _grey


@pytest.fixture(scope="session")
def write_movie() -> Write:
    """Write frames/ and masks/ with `frames` TIFF files each into a folder."""

    def write(folder: Path, frames: int = 5, **kwargs: Any) -> Path:
        for name in ("frames", "masks"):
            (folder / name).mkdir(parents=True)
        seed = 0 if folder.name == "movie" else zlib.crc32("/".join(folder.parts[-2:]).encode())
        for t in range(frames):
            labels = _discs(t, **kwargs)
            tifffile.imwrite(folder / f"frames/t{t:03d}.tif", _grey(labels, seed + t))
            tifffile.imwrite(folder / f"masks/t{t:03d}.tif", labels)
        return folder

    return write


@pytest.fixture
def movie(tmp_path: Path, write_movie: Write) -> Path:
    """Return a folder with one movie of five frames and six cells."""
    return write_movie(tmp_path / "movie")


@pytest.fixture(scope="session")
def write_store() -> Store:
    """Write a store of drifting discs with `Writer` and open it; the last frame is not annotated."""

    def write(place: Path | str, frames: int = 5, ome_zarr: str = "0.5", **changes: Any) -> Dataset:
        shape = changes.pop("shape", (96, 128))
        field = _field(frames, shape, changes)
        with building(located(place)) as partial:
            writer = Writer(partial, ome_zarr)
            image, truth = writer.field(field)
            for t in range(frames):
                labels = _discs(t, size=shape)
                writer.frame(image, t, np.stack([_grey(labels, t)] * len(field.channels)))
                if field.annotated[t]:
                    writer.frame(truth, t, labels.astype(np.int32))
            advice = {"crop": 64, "batch": 8, "pad_to": 32, "split": "none"}
            origin = {"path": "discs", "reader": "test", "files": "", "options": {}}
            facts = {"name": "discs", "synthetic": False, "warnings": [], "recommended": advice, "source": origin}
            scale = rule({field.dtype: [np.array([[900.0, 1000.0, 1800.0]] * len(field.channels))]})
            writer.finish(fields=[field], splits=Splits((), (), (), "none"), normalisation=scale, facts=facts)
        return Dataset.open(place)

    return write


def _field(frames: int, shape: tuple[int, int], changes: dict[str, Any]) -> Field:
    channels = changes.get("channels", ("phase",))
    known: dict[str, Any] = {
        "name": "Field 1",
        "slug": "Field-1",
        "channels": channels,
        "pixel_size_um": 0.5,
        "frame_interval_s": 60.0,
        "groups": {"plate": "P1", "well": "B1", "patient": "7"},
        "annotated": (True,) * (frames - 1) + (False,),
        "cells": (6,) * (frames - 1) + (0,),
        "sources": tuple(f"t{t}.tif" for t in range(frames)),
        "percentiles": (((900.0, 1800.0),) * len(channels),) * frames,
        "tracked": True,
        "annotation": "labels",
    }
    return Field(n_frames=frames, shape=shape, dtype="uint16", **known | changes)


@pytest.fixture(scope="session")
def yeast() -> Path:
    """Return the yeast movie, or skip."""
    if not YEAST.is_dir():
        pytest.skip(f"no yeast movie at {YEAST}")
    return YEAST
