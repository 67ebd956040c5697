"""A frame of 20,000 x 20,000 px through instances and morphology: seconds and the peak of memory.

    python -m tests.benchmarks.large_frame [--side 20000] [--targets two_class three_class star]

The frame is one of 2,000 px with some 2,600 cells, laid side by side; the prediction is that of a network without
error. Each target is decoded and measured in a process of its own, whose peak counts pages of mapped files too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

PATTERN = 2000


def pattern(seed: int = 0) -> np.ndarray:
    """Return ``(2000, 2000)`` int32 labels: discs of radius 8 to 14 px on a jittered grid, many of them touching."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((PATTERN, PATTERN), np.int32)
    y, x = np.mgrid[-15:16, -15:16]
    for row in range(20, PATTERN - 19, 26):
        for column in range(20, PATTERN - 19, 26):
            cy, cx = row + rng.integers(-3, 4), column + rng.integers(-3, 4)
            if rng.random() < 0.45:
                continue
            part = labels[cy - 15 : cy + 16, cx - 15 : cx + 16]
            part[(np.hypot(y, x) < rng.uniform(8, 14)) & (part == 0)] = labels.max() + 1
    return labels


def make(run: Path, side: int, target: str) -> None:
    """Write a run with one frame and its prediction, region by region."""
    import tifffile

    from data_io.convert import convert
    from data_io.intake import Settings
    from postprocess import methods
    from postprocess.predictions import PredictionStore

    labels, times = pattern(), -(-side // PATTERN)
    (run / "source").mkdir(parents=True)
    image = np.tile((1000 + 500 * (labels > 0)).astype(np.uint16), (times, times))[:side, :side]
    tifffile.imwrite(run / "source" / "frame.tif", image, compression="zlib")
    dataset = convert(run / "source", run / "dataset.zarr", Settings(annotations=False, pixel_size_um=0.5))
    (run / "run.json").write_text(json.dumps({"dataset": "dataset.zarr", "kind": "predict", "synthetic": True}))
    module = methods.TARGETS[target]
    store = PredictionStore.open_or_create(run / "predictions.zarr")
    attrs = {"decode": asdict(module.Params()), "model_sha256": "none"}
    store.add_method(target, target, module.STRIDE, len(module.CHANNELS), module.RAYS, dataset.fields.values(), attrs)
    small, ref = module.perfect(labels), dataset.frames("all")[0]
    frames = store._frames(target, ref.field)
    stored = {"probability": small.probability, "distance": small.distance}
    for name, array in frames._arrays.items():
        tile, height, width = stored[name], array.shape[2], array.shape[3]
        step = array.chunks[2] * 2
        for top in range(0, height, step):
            rows = np.arange(top, min(top + step, height)) % tile.shape[1]
            across = -(-width // tile.shape[2])
            array[0, :, top : top + len(rows)] = np.tile(tile[:, rows], (1, 1, across))[:, :, :width]
    frames._marks[0] = 1


def treat(run: Path) -> None:
    """Decode and measure, and print what it took."""
    from postprocess.run import run as postprocess

    began = time.perf_counter()
    result = postprocess(run, "sync")
    seconds = time.perf_counter() - began
    import pandas as pd

    cells = len(pd.read_parquet(run / "cells.parquet", columns=["label"]))
    told = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    peak = int(told["VmHWM"].split()[0]) / 1e6  # getrusage would count the process that started this one
    print(
        json.dumps({"cells": cells, "failed": [f.reason for f in result.failed], "seconds": seconds, "peak_gb": peak})
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--targets", nargs="+", default=["three_class", "two_class", "star"])
    parser.add_argument("--treat", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.treat:
        treat(given.treat)
        return
    for target in given.targets:
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            make(run, given.side, target)
            command = [sys.executable, "-m", "tests.benchmarks.large_frame", "--treat", str(run)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            told = json.loads(done.stdout.strip().splitlines()[-1])
            print(
                f"{target}: {given.side} x {given.side} px, {told['cells']} cells, {told['seconds']:.0f} s, "
                f"peak of memory {told['peak_gb']:.2f} GB{''.join(', failed: ' + reason for reason in told['failed'])}"
            )


if __name__ == "__main__":
    main()
