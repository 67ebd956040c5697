"""Crowded frames of ellipses, a stand-in score and a small run to work on."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import pytest

YEAST = Path(__file__).resolve().parents[2] / "../shared/data/yeast_phase_movie"


@pytest.fixture(scope="session")
def crowd():
    """Return ``crowd(seed, n, size) -> (size, size)`` int32: up to n touching ellipses, no hole, no stray pixel."""
    from scipy import ndimage as ndi

    @cache
    def drawn(seed: int, n: int, size: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[:size, :size]
        labels = np.zeros((size, size), np.int32)
        for _ in range(n):
            cy, cx = rng.uniform(0, size, 2)
            a, b, t = rng.uniform(6, 12), rng.uniform(5, 8), rng.uniform(0, np.pi)
            u, v = (y - cy) * np.cos(t) + (x - cx) * np.sin(t), -(y - cy) * np.sin(t) + (x - cx) * np.cos(t)
            cell = (u / a) ** 2 + (v / b) ** 2 <= 1
            crowded = (cell & ndi.binary_dilation(labels > 0)).sum() > 0.1 * cell.sum()
            if not crowded and (cell & (labels == 0)).sum() > 60:
                labels[cell & (labels == 0)] = labels.max() + 1
        for k in range(1, labels.max() + 1):
            pieces, count = ndi.label(ndi.binary_opening(labels == k))
            labels[labels == k] = 0
            if count:
                labels[pieces == np.bincount(pieces.ravel())[1:].argmax() + 1] = k
        return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int32)

    return lambda seed, n, size: drawn(seed, n, size).copy()


@pytest.fixture(scope="session")
def pq():
    """Return a panoptic quality at IoU > 0.5 pooled over frames."""

    def score(truth, cells) -> float:
        quality, pairs, both = 0.0, 0, 0
        for t, p in zip(truth, cells, strict=True):
            shape = (int(t.max()) + 1, int(p.max()) + 1)
            overlap = np.bincount(t.ravel() * shape[1] + p.ravel(), minlength=shape[0] * shape[1]).reshape(shape)
            union = overlap.sum(1)[:, None] + overlap.sum(0)[None] - overlap
            iou = (overlap / np.maximum(union, 1))[1:, 1:]
            quality += iou[iou > 0.5].sum()
            pairs += np.count_nonzero(iou > 0.5)
            both += len(np.unique(t[t > 0])) + len(np.unique(p[p > 0]))
        return quality / (both / 2) if both else float("nan")

    return score


@pytest.fixture(scope="session")
def yeast_movie():
    """Return the ten yeast masks, whose ids persist over time."""
    import tifffile

    if not YEAST.is_dir():
        pytest.skip(f"{YEAST}: the yeast movie is not on this machine")
    return [tifffile.imread(path).astype(np.int32) for path in sorted((YEAST / "masks").glob("*.tif"))]


@pytest.fixture(scope="session")
def yeast_masks(yeast_movie):
    """Return the last two yeast masks."""
    return yeast_movie[-2:]


@pytest.fixture(scope="session")
def prepared_run(tmp_path_factory, crowd):
    """Return ``prepared_run(pixel_size_um) -> folder``: one field of 5 frames, perfect predictions of val and test."""
    import tifffile

    from data_io.convert import convert
    from data_io.intake import Settings
    from postprocess import methods
    from postprocess.predictions import PredictionStore

    @cache
    def make(pixel_size_um: float | None) -> Path:
        folder = tmp_path_factory.mktemp("prepared")
        source, run = folder / "source", folder / "run"
        run.mkdir()
        labels = crowd(3, 30, 96)
        rng = np.random.default_rng(0)
        for part in ("frames", "masks"):
            (source / part).mkdir(parents=True)
        for t in range(5):
            moved = np.roll(labels, t, axis=1)
            moved[:, :t] = 0
            image = (1000 + 500 * (moved > 0) + rng.normal(0, 20, moved.shape)).astype(np.uint16)
            tifffile.imwrite(source / "frames" / f"t{t}.tif", image)
            tifffile.imwrite(source / "masks" / f"t{t}.tif", moved.astype(np.uint16))
        dataset = convert(source, run / "dataset.zarr", Settings(pixel_size_um=pixel_size_um))
        (run / "run.json").write_text(json.dumps({"dataset": "dataset.zarr", "kind": "search", "synthetic": False}))
        store = PredictionStore.open_or_create(run / "predictions.zarr")
        for name, target in methods.TARGETS.items():
            attrs = {"decode": asdict(target.Params()), "model_sha256": "m"}
            store.add_method(
                name, name, target.STRIDE, len(target.CHANNELS), target.RAYS, dataset.fields.values(), attrs
            )
            for ref in dataset.frames("val") + dataset.frames("test"):
                store.write(name, ref, target.perfect(dataset.labels(ref)))
        return run

    return make


@pytest.fixture
def make_run(tmp_path, prepared_run):
    """Return ``make_run(pixel_size_um=None) -> folder``, a run of the test's own that `prepared_run` describes."""
    return lambda pixel_size_um=None: Path(shutil.copytree(prepared_run(pixel_size_um), tmp_path / "run"))
