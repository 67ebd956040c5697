"""What the benchmarks share: one core, one thread, a synthetic store, interleaved timing and a table."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[2]
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "BLOSC_NTHREADS")

if TYPE_CHECKING:
    from collections.abc import Callable

    from data_io.store import Dataset


def one_core() -> int:
    """Keep this process and its children on one core with one thread each; call it before NumPy is imported."""
    for name in THREADS:
        os.environ[name] = "1"
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    sys.path.insert(0, str(ROOT))
    return core


def cache_folder(given: Path | None) -> Path:
    """Return the folder in which stores are kept from one run to the next."""
    folder = given or Path(tempfile.gettempdir()) / f"cellsearch-benchmarks-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def make_store(cache: Path, frames: int, size: tuple[int, int]) -> Dataset:
    """Return a store of one synthetic uint16 movie with labels, made at first use."""
    from data_io import synthetic
    from data_io.convert import convert

    name = f"movie_{frames}x{size[0]}x{size[1]}"
    movie = synthetic.write(cache / name, fields=1, frames=frames, size=size, seed=0)
    return convert(movie, cache / f"{name}.zarr")


def read_size(text: str) -> tuple[int, int]:
    """Read 904x1224 as (Y, X)."""
    y, x = text.lower().split("x")
    return int(y), int(x)


@dataclass(frozen=True)
class Rate:
    """Units per second, medians over the rounds."""

    wall: float
    cpu: float


def rates(rounds: int, **runs: Callable[[], float]) -> dict[str, Rate]:
    """Return the rate of each run, which returns how many units it made; they take turns, after one round to warm up.

    The processor time is that of this process with all its threads: other work on the machine does not slow it down.
    """
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            units = run()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if turn:
                seen[name].append((units / wall, units / max(cpu, 1e-9)))
    return {
        name: Rate(*(statistics.median(column) for column in zip(*found, strict=True))) for name, found in seen.items()
    }


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    what: str
    ours: str
    other: str
    ratio: str
    target: str
    reached: bool | None
    """None where there is no target."""

    def cells(self) -> tuple[str, ...]:
        """Return the text of the line."""
        verdict = {True: "yes", False: "NO", None: "-"}[self.reached]
        return self.what, self.ours, self.other, self.ratio, self.target, verdict


def compare(what: str, ours: Rate, other: Rate, target: float, unit: str) -> Row:
    """Return a line for two rates; the ratio of the processor times counts, that of wall time follows in brackets."""
    ratio = ours.cpu / other.cpu
    return Row(
        what,
        f"{ours.cpu:.0f} {unit}",
        f"{other.cpu:.0f} {unit}",
        f"{ratio:.2f} ({ours.wall / other.wall:.2f})",
        f">= {target:g}",
        ratio >= target,
    )


def table(rows: list[Row], heads: tuple[str, ...] = ("", "ours", "other", "ratio", "target", "reached")) -> str:
    """Return rows as plain text in columns."""
    lines = [heads, *(row.cells() for row in rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(heads))]
    drawn = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([drawn[0], "-" * len(max(drawn, key=len)), *drawn[1:]])
