"""Time and peak memory of all statistics on a million measured cells.

    python tests/benchmarks/statistics_load.py                    a truth and three methods, a million cells in all
    python tests/benchmarks/statistics_load.py --cells 100000

Tables of cells are read, cells matched by centroid, six traits compared between all methods, with the truth and between
two conditions, and a method chosen for each trait; the page is not part of it. Ends with 1 above a minute of one core
or 2 GB.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from analysis.compare import analyse
from analysis.loose_files import from_paths

METHODS = ("truth", "one", "two", "three")
PER_FRAME, FRAMES_OF_FIELD, SIDE = 250, 50, 1000
SECONDS, GIGABYTES = 60, 2


def write(folder: Path, cells: int, seed: int = 0) -> dict[str, Path]:
    """Write a table per method: fields of at most `FRAMES_OF_FIELD` frames of `PER_FRAME` cells, which keep tracks."""
    rng = np.random.default_rng(seed)
    frames = max(cells // len(METHODS) // PER_FRAME, 2)
    n = frames * PER_FRAME
    frame, track = np.divmod(np.arange(n), PER_FRAME)
    field, frame = np.divmod(frame, min(FRAMES_OF_FIELD, frames // 2))
    keys = {
        "field": pd.Categorical.from_codes(field, [f"f{i:03d}" for i in range(field.max() + 1)]),
        "condition": np.where(field % 2, "treated", "control"),
        "frame": frame,
        "label": track + 1,
        "track": track,
        "border": rng.random(n) < 0.05,
    }
    grid = np.stack(np.divmod(track, 16), 1) * SIDE / 16
    area, circularity = rng.lognormal(6, 0.25, n), rng.beta(20, 2, n)
    paths = {}
    for at, method in enumerate(METHODS):
        error = 0 if method == "truth" else 0.02 * at
        a = area * np.exp(rng.normal(-error, error, n))
        c = np.clip(circularity + rng.normal(0, error, n), 0.01, 1)
        measured = {
            "area_px2": np.rint(a),
            "perimeter_px": np.sqrt(4 * np.pi * a / c),
            "circularity": c,
            "solidity": np.clip(c + 0.02, 0, 1),
            "radius_px": np.sqrt(a / np.pi),
            "shape_index": 2 * np.sqrt(np.pi / c),
            "centroid_y_px": grid[:, 0] + rng.normal(0, 0.5, n),
            "centroid_x_px": grid[:, 1] + rng.normal(0, 0.5, n),
        }
        table = pd.DataFrame(keys | measured).assign(field=lambda t: t["field"].astype(str))
        kept = np.ones(n, bool) if method == "truth" else rng.random(n) > 0.03
        paths[method] = folder / f"{method}.parquet"
        table[kept].to_parquet(paths[method], index=False)
    return paths


def main() -> int:
    """Measure once in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1_000_000, help="of all tables together (default a million)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = write(Path(folder), given.cells)
        before = time.perf_counter(), time.process_time()
        truth = paths.pop("truth")
        study = from_paths(paths, truth, "condition")
        read = time.perf_counter()
        results = analyse(study, by="condition")
        chosen = results.choices
        wall, cpu = time.perf_counter() - before[0], time.process_time() - before[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    rows = len(results.comparisons) + len(results.agreement) + len(chosen)
    print(f"{len(study.cells):,} cells, {len(study.frames):,} frames, {rows} rows of results")
    print(f"reading {read - before[0]:.1f} s, all {wall:.1f} s ({cpu:.1f} s of one core), peak of memory {peak:.2f} GB")
    return int(cpu > SECONDS or peak > GIGABYTES)


if __name__ == "__main__":
    sys.exit(main())
