"""A movie of 500 frames with 200 cells each through instances and morphology: does its length cost memory?

    python -m tests.benchmarks.long_movie [--frames 500] [--target two_class] [--scheduler threads]

The resident memory of the process is read each time a few frames are done, and once more after tables, tracks and
stacks are written. From a tenth of the frames on it may stray by 10 %, and the whole stage may need 10 % more than on a
movie of a fifth of the length. The prediction is that of a network without error.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

SIDE = 512
ALLOWED = 0.1
"""How far memory may stray, as a part of what it is after a tenth of the frames."""


def pattern(cells: int, seed: int = 0) -> np.ndarray:
    """Return ``(SIDE, SIDE)`` int32 labels of discs of radius 9 to 13 px on a jittered grid, many of them touching."""
    rng = np.random.default_rng(seed)
    labels, side = np.zeros((SIDE, SIDE), np.int32), int(np.ceil(np.sqrt(cells)))
    step = SIDE / side
    y, x = np.mgrid[:SIDE, :SIDE]
    for number in range(cells):
        row, column = divmod(number, side)
        middle = (np.array([row, column]) + 0.5) * step + rng.uniform(-5, 5, 2)
        near = np.s_[
            max(int(middle[0]) - 15, 0) : int(middle[0]) + 16, max(int(middle[1]) - 15, 0) : int(middle[1]) + 16
        ]
        part = labels[near]
        inside = np.hypot(y[near] - middle[0], x[near] - middle[1]) < rng.uniform(9, 13)
        part[inside & (part == 0)] = number + 1
    return labels


def make(run: Path, frames: int, cells: int, target: str) -> None:
    """Write a run of one field whose cells move by a pixel a frame, and its prediction."""
    import tifffile

    from data_io.convert import convert
    from data_io.intake import Settings
    from postprocess import methods
    from postprocess.predictions import PredictionStore

    labels = pattern(cells)
    (run / "source").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for t in range(frames):
        image = 1000 + 500 * (np.roll(labels, t, axis=1) > 0) + rng.normal(0, 20, labels.shape)
        tifffile.imwrite(run / "source" / f"t{t:04d}.tif", image.astype(np.uint16))
    dataset = convert(run / "source", run / "dataset.zarr", Settings(annotations=False, pixel_size_um=0.5))
    (run / "run.json").write_text(json.dumps({"dataset": "dataset.zarr", "kind": "predict", "synthetic": True}))
    module = methods.TARGETS[target]
    store = PredictionStore.open_or_create(run / "predictions.zarr")
    attrs = {"decode": asdict(module.Params()), "model_sha256": "none"}
    store.add_method(target, target, module.STRIDE, len(module.CHANNELS), module.RAYS, dataset.fields.values(), attrs)
    for ref in dataset.frames("all"):
        store.write(target, ref, module.perfect(np.roll(labels, ref.frame, axis=1)))


def resident_mb() -> float:
    """Return the resident memory of this process, pages of mapped files included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def treat(run: Path, scheduler: str) -> None:
    """Post-process the run and print memory over the frames done."""
    from postprocess.run import run as postprocess

    seen: list[tuple[int, float]] = []
    began = time.perf_counter()
    result = postprocess(run, scheduler, lambda done, total: seen.append((done, resident_mb())))
    seen.append((result.frames, resident_mb()))
    told: dict[str, Any] = {
        "seconds": time.perf_counter() - began,
        "failed": [fault.reason for fault in result.failed],
        "seen": seen,
    }
    told["peak_mb"] = max(memory for _, memory in seen)
    print(json.dumps(told))


def measured(frames: int, cells: int, target: str, scheduler: str) -> dict[str, Any]:
    """Return what `treat` says of a movie, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        make(run, frames, cells, target)
        command = [sys.executable, "-m", "tests.benchmarks.long_movie", "--treat", str(run), "--scheduler", scheduler]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return told


def main() -> int:
    """Command line; returns 1 where memory is not flat."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=500)
    parser.add_argument("--cells", type=int, default=200)
    parser.add_argument("--target", default="two_class")
    parser.add_argument("--scheduler", default="threads")
    parser.add_argument("--treat", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.treat:
        treat(given.treat, given.scheduler)
        return 0
    short, long = (
        measured(frames, given.cells, given.target, given.scheduler) for frames in (given.frames // 5, given.frames)
    )
    late = [memory for at, memory in long["seen"][:-1] if at >= given.frames / 10]
    strays = max(abs(memory / late[0] - 1) for memory in late)
    grown = long["peak_mb"] / short["peak_mb"] - 1
    failed = [*short["failed"], *long["failed"]]
    print(f"{given.target}: {given.frames} frames of {given.cells} cells in {long['seconds']:.0f} s, {given.scheduler}")
    print(f"frames      {min(late):.0f} to {max(late):.0f} MB, {100 * strays:.1f} % off (10 allowed)")
    print(f"whole stage {long['peak_mb']:.0f} MB, of a fifth of the frames {short['peak_mb']:.0f} MB (10 % allowed)")
    for reason in failed:
        print(f"failed: {reason}")
    return int(strays > ALLOWED or grown > ALLOWED or bool(failed))


if __name__ == "__main__":
    sys.exit(main())
