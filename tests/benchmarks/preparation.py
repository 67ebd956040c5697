"""What is done to a crop before a network sees it, and how many loading workers feed a GPU with the result.

    python tests/benchmarks/preparation.py

Crops of 256 px with 18 cells, one core. Rates are crops per second of processor time.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent))
import bench

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

BATCH, SIZE, CELLS, RADIUS = 16, 256, 18, 11.5
GPU = 500
"""Crops per second that a GPU takes."""
HEADS = ("", "crops/s of a core", f"workers for {GPU}/s")


def cells() -> np.ndarray:
    """Return labels `(N, S, S)` int32: discs that may touch."""
    import numpy as np

    rng = np.random.default_rng(0)
    labels = np.zeros((BATCH, SIZE, SIZE), np.int32)
    y, x = np.ogrid[:SIZE, :SIZE]
    for image in labels:
        for cell, (cy, cx) in enumerate(rng.uniform(0, SIZE, (CELLS, 2)), start=1):
            image[((y - cy) ** 2 + (x - cx) ** 2 <= RADIUS**2) & (image == 0)] = cell
    return labels


def steps() -> dict[str, Callable[[], float]]:
    """Return what can be done to a batch, by name."""
    import numpy as np

    from data_io.augment import Augmentation, augment
    from postprocess import star, three_class, two_class

    labels = cells()
    images = np.random.default_rng(1).random((BATCH, 1, SIZE, SIZE), np.float32)
    alone = {"turn": False, "tone": False, "noise": False}
    ways = {
        "turns, tone, noise": Augmentation(0.5),
        "any angle": Augmentation(0.5, rotation=1, **alone),
        "elastic": Augmentation(0.5, elastic=1, **alone),
        "defocus": Augmentation(0.5, defocus=1, **alone),
        "all of them, a quarter of the crops each": Augmentation(0.5, rotation=0.25, elastic=0.25, defocus=0.25),
    }
    encoders = {
        "two_class": two_class.encode,
        "three_class": lambda batch: np.stack([three_class.encode(crop) for crop in batch]),
        "star": star.encode_batch,
    }

    def augmented(how: Augmentation) -> float:
        augment(images, labels, np.random.default_rng(0), how)
        return BATCH

    def encoded(encode: Callable[[np.ndarray], np.ndarray]) -> float:
        return len(encode(labels))

    return {f"augmentation: {name}": lambda how=how: augmented(how) for name, how in ways.items()} | {
        f"target: {name}": lambda encode=encode: encoded(encode) for name, encode in encoders.items()
    }


def table(rates: dict[str, bench.Rate]) -> str:
    """Return the rates, those of usual augmentation and encoding together, and the workers each needs."""
    usual = rates["augmentation: turns, tone, noise"].cpu
    found = {name: rate.cpu for name, rate in rates.items()}
    for name, rate in rates.items():
        if name.startswith("target: "):
            found[f"turns, tone, noise and {name.removeprefix('target: ')}"] = 1 / (1 / usual + 1 / rate.cpu)
    lines = [HEADS, *((name, f"{rate:.0f}", str(math.ceil(GPU / rate))) for name, rate in found.items())]
    widths = [max(len(line[k]) for line in lines) for k in range(len(HEADS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of which the median counts (default: 5)")
    given = parser.parse_args(argv)
    core = bench.one_core()
    print(f"crops of {SIZE} px with {CELLS} cells, core {core}, medians of {given.rounds} rounds")
    print(table(bench.rates(given.rounds, **steps())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
