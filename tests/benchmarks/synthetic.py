"""How long a movie of the study's size takes on one core, with and without writing it.

    OMP_NUM_THREADS=1 python tests/benchmarks/synthetic.py

Prints processor and wall-clock seconds for 47 frames of 904x1224 px per preset. Numba compiles once before the clock
starts, as it does once per machine.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from data_io import synthetic

if TYPE_CHECKING:
    from collections.abc import Iterator

FRAMES, SIZE = 47, (904, 1224)


@contextlib.contextmanager
def clock(what: str) -> Iterator[None]:
    """Print the processor and wall-clock seconds of a block."""
    busy, wall = time.process_time(), time.perf_counter()
    yield
    print(f"{what}: {time.process_time() - busy:.1f} s of processor, {time.perf_counter() - wall:.1f} s")


def main() -> None:
    """Time each preset on one core."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    synthetic.movie(0, 1, (64, 64))
    for preset in synthetic.PRESETS:
        with clock(f"{preset}: {FRAMES} frames"):
            synthetic.movie(0, FRAMES, SIZE, preset)
    with tempfile.TemporaryDirectory() as folder, clock(f"paper: {FRAMES} frames, written"):
        synthetic.write(Path(folder) / "movies", fields=1, frames=FRAMES, size=SIZE)


if __name__ == "__main__":
    main()
