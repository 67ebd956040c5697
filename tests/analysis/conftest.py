"""A small run folder made the real way: synthetic movies, perturbed networks, the post-processing stage itself."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from analysis.scores import frame_counts, score
from data_io import convert, synthetic
from postprocess import methods
from postprocess import run as stage
from postprocess.export import read_labels
from postprocess.predictions import PredictionStore

if TYPE_CHECKING:
    from pathlib import Path

    from data_io.store import Dataset, FrameRef


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a generator that gives the same numbers in every run."""
    return np.random.default_rng(0)


def shrunk(labels: np.ndarray) -> np.ndarray:
    """Take one pixel off every cell."""
    inside = ndimage.minimum_filter(labels, 3) == ndimage.maximum_filter(labels, 3)
    return np.where(inside, labels, 0)


def thinned(labels: np.ndarray) -> np.ndarray:
    """Lose every seventh cell."""
    return np.where(labels % 7 == 3, 0, labels)


PERTURBED = {"two_class": shrunk, "three_class": thinned}
EPOCHS = 4


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished run: three synthetic fields of six frames, two methods, six trials."""
    folder = tmp_path_factory.mktemp("run")
    movies = synthetic.write(folder / "movies", fields=3, frames=6, size=(160, 192), seed=5)
    dataset = convert.convert(movies, folder / "dataset.zarr")
    (folder / "run.json").write_text(json.dumps({"dataset": "dataset.zarr", "kind": "search", "synthetic": True}))
    _predict(dataset, folder / "predictions.zarr")
    stage.run(folder, scheduler="sync")
    trials = _trials(dataset, folder)
    (folder / "summary.json").write_text(json.dumps(_summary(dataset, folder, trials)))
    return folder


def _predict(dataset: Dataset, path: Path) -> None:
    store = PredictionStore.open_or_create(path)
    for name, perturb in PERTURBED.items():
        target = methods.target_named(name)
        channels = {"two_class": 1, "three_class": 3}[name]
        store.add_method(name, name, 1, channels, 0, dataset.fields.values(), {"decode": _defaults(name)})
        for ref in dataset.frames("test") + dataset.frames("val"):
            store.write(name, ref, target.perfect(perturb(dataset.labels(ref))))


def _defaults(name: str) -> dict[str, Any]:
    return asdict(methods.params_from(name, {}))


def _trials(dataset: Dataset, folder: Path) -> pd.DataFrame:
    ref = dataset.frames("val")[0]
    crop = np.s_[:96, :96]
    image, truth = dataset.normalised(ref)[0][crop], dataset.labels(ref)[crop]
    rows = []
    for at, (target, architecture) in enumerate((t, a) for t in PERTURBED for a in ("unet", "fpn", "=cmd()")):
        trial, stopped = f"trial_{at}", architecture == "fpn"
        epochs = 2 if stopped else EPOCHS
        epoch = np.arange(1, epochs + 1)
        iou = 0.9 - 0.5 / epoch - 0.05 * stopped
        path = folder / "trials" / trial
        path.mkdir(parents=True)
        curve = {"epoch": epoch, "train_loss": 1 / epoch, "val_loss": 1.2 / epoch, "val_dataset_iou": iou}
        pd.DataFrame(curve).to_csv(path / "metrics.csv", index=False)
        foreground = ndimage.gaussian_filter((truth > 0).astype(np.float32), 2)
        np.savez(path / "examples.npz", image=image[None], truth=truth[None], foreground=foreground[None])
        rows.append(
            {
                "trial": trial,
                "target": target,
                "architecture": architecture,
                "encoder": "resnet18",
                "loss": "<script>alert(1)</script>" if at == 5 else "dice",
                "reference": at == 0,
                "status": "stopped" if stopped else "completed",
                "epochs": epochs,
                "val_dataset_iou": iou[-1],
                "train_loss": 1 / epochs,
                "val_loss": 1.2 / epochs,
                "seconds": 3.0,
                "reason": "",
            }
        )
    table = pd.DataFrame(rows)
    table.to_parquet(folder / "trials.parquet")
    return table


def _summary(dataset: Dataset, folder: Path, trials: pd.DataFrame) -> dict[str, Any]:
    def scored(method: str, split: str) -> dict[str, Any]:
        refs: list[FrameRef] = dataset.frames(split)
        return score([frame_counts(dataset.labels(r), read_labels(folder, method, r)) for r in refs])

    best = trials[trials["status"] == "completed"].groupby("target", sort=False).first()
    targets = {
        name: {
            "trial": best.loc[name, "trial"],
            "configuration": {k: best.loc[name, k] for k in ("architecture", "encoder", "loss")},
            "parameters": 14_000_000,
            "validation": scored(name, "val"),
            "test": scored(name, "test"),
            "ceiling": {"f1_50": 1.0, "pq_50": 0.99},
        }
        for name in PERTURBED
    }
    stops = [{"trial": t, "epoch": 2, "value": 0.6, "cutoff": 0.65} for t in ("trial_1", "trial_4")]
    return {
        "dataset": {
            "path": "dataset.zarr",
            "name": "synthetic <b>movies</b>",
            "synthetic": True,
            "split_unit": "field",
            **{part: len(dataset.frames(part)) for part in ("train", "val", "test")},
            "warnings": [],
        },
        "targets": targets,
        "baseline": {"classical": {"validation": scored("classical", "val"), "test": scored("classical", "test")}},
        "winner": {"target": "three_class", "objective": "pq", "value": targets["three_class"]["validation"]["pq_50"]},
        "search": {"trials": 6, "completed": 4, "stopped": 2, "failed": 0, "seconds": 18, "stops": stops},
        "warnings": [],
        "provenance": {"version": "0", "seed": 0},
    }
