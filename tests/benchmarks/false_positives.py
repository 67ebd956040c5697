"""How often each test finds a difference where there is none, and how often each interval holds the true value.

    python tests/benchmarks/false_positives.py                 the tables, half a minute on one core
    python tests/benchmarks/false_positives.py --runs 4000     with a quarter of the sampling error

Planted truth: two methods measure the same 60 cells in 47 frames without any difference on average, or two conditions
of G fields each do not differ. A test that holds its level rejects 5 % of such studies at p < 0.05. Ends with 1 when a
test that this project recommends is off by more than 2 points and the sampling error.

In units of the SD of the trait between cells, a method errs on a cell by 0.34 in all frames alike (persistent), by
0.49 anew in every frame (random) and by 0.45 on all cells of a frame (focus). Of a trait's variance between cells of
conditions 3.8 % lies between fields.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from analysis import statistics as st

if TYPE_CHECKING:
    from numpy.typing import NDArray

CELLS, FRAMES = 60, 47
ERRORS = {
    "persistent": {"cell": 0.34, "random": 0.49, "frame": 0.0},
    "random": {"cell": 0.0, "random": 0.49, "frame": 0.0},
    "with focus": {"cell": 0.34, "random": 0.49, "frame": 0.45},
}
FIELDS, FIELD_ICC, CELLS_OF_FIELD = (3, 6, 12), 0.038, 900
GROUPS = (3, 5, 8, 15, 47)
ALPHA, TOLERANCE = 0.05, 0.02
RECOMMENDED = ("two-way (track x frame) cluster-robust t", "Welch t on field means", "cluster-robust t, G - 1 df")
RESAMPLES = 1000


def method_errors(rng: np.random.Generator, cell: float, random: float, frame: float) -> NDArray[np.float64]:
    """Errors of one method, `(CELLS, FRAMES)`, in SD of the trait."""
    own, shared = rng.normal(0, cell, (CELLS, 1)), rng.normal(0, frame, (1, FRAMES))
    return own + shared + rng.normal(0, random, (CELLS, FRAMES))


def same_cells(runs: int, seed: int, errors: str) -> dict[str, float]:
    """Share of studies of two equal methods on the same cells in which each test finds a difference."""
    rng = np.random.default_rng([seed, list(ERRORS).index(errors)])
    cell, frame = (index.ravel() for index in np.indices((CELLS, FRAMES)))
    p: dict[str, list[float]] = {}
    for _ in range(runs):
        trait = rng.normal(0, 1, (CELLS, 1))
        first, second = (trait + method_errors(rng, **ERRORS[errors]) for _ in range(2))
        d = first - second
        found = {
            "pooled Mann-Whitney (the study's)": st.mann_whitney(first, second).p,
            "pooled Wilcoxon": st.signed_rank(d).p,
            "Wilcoxon on frame means": st.signed_rank(d.mean(axis=0)).p,
            "Wilcoxon on track means": st.signed_rank(d.mean(axis=1)).p,
            RECOMMENDED[0]: st.clustered_mean(d.ravel(), cell, frame).p,
        }
        for name, value in found.items():
            p.setdefault(name, []).append(value)
    return {name: float(np.mean(np.array(values) < ALPHA)) for name, values in p.items()}


def conditions(runs: int, seed: int, fields: int) -> dict[str, float]:
    """Share of studies of two equal conditions, `fields` fields each, in which each test finds a difference."""
    rng = np.random.default_rng([seed, 10 + fields])
    rejected: dict[str, list[bool]] = {}
    for _ in range(runs):
        sides = [
            rng.normal(0, np.sqrt(FIELD_ICC), (fields, 1))
            + rng.normal(0, np.sqrt(1 - FIELD_ICC), (fields, CELLS_OF_FIELD))
            for _ in range(2)
        ]
        means = [side.mean(axis=1) for side in sides]
        drawn = [m[rng.integers(0, fields, (RESAMPLES, fields))].mean(axis=1) for m in means]
        low, high = np.percentile(drawn[0] - drawn[1], [2.5, 97.5])
        found = {
            "pooled Mann-Whitney": st.mann_whitney(*sides).p < ALPHA,
            "pooled Brunner-Munzel": st.brunner_munzel(*(side.ravel() for side in sides)).p < ALPHA,
            "percentile bootstrap of fields": bool(low > 0 or high < 0),
            RECOMMENDED[1]: st.independent(*means).p < ALPHA,
        }
        for name, value in found.items():
            rejected.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in rejected.items()}


def coverage(runs: int, seed: int, groups: int, cells: int = 20, icc: float = 0.3) -> dict[str, float]:
    """Share of 95 % intervals of a mean over `groups` clusters that hold the true mean."""
    rng = np.random.default_rng([seed, 100 + groups])
    names = np.repeat(np.arange(groups), cells)
    held = {"percentile bootstrap of clusters": 0, RECOMMENDED[2]: 0}
    for _ in range(runs):
        x = rng.normal(0, np.sqrt(icc), (groups, 1)) + rng.normal(0, np.sqrt(1 - icc), (groups, cells))
        drawn = x.mean(axis=1)[rng.integers(0, groups, (RESAMPLES, groups))].mean(axis=1)
        low, high = np.percentile(drawn, [2.5, 97.5])
        held["percentile bootstrap of clusters"] += low <= 0 <= high
        robust = st.clustered_mean(x.ravel(), names, fewest=2)
        held[RECOMMENDED[2]] += robust.low <= 0 <= robust.high
    return {name: n / runs for name, n in held.items()}


def holds(name: str, share: float, runs: int) -> bool:
    """Tell whether a recommended test is within `TOLERANCE` and two sampling errors of its level."""
    level = 0.95 if name == RECOMMENDED[2] else ALPHA
    return abs(share - level) <= TOLERANCE + 2 * np.sqrt(level * (1 - level) / runs)


def _print(title: str, columns: list[str], tables: list[dict[str, float]]) -> None:
    print(f"\n{title}")
    print(f"{'':<44}" + "".join(f"{name:>12}" for name in columns))
    for name in tables[0]:
        mark = "  <- recommended" if name in RECOMMENDED else ""
        print(f"{name:<44}" + "".join(f"{table[name]:>12.3f}" for table in tables) + mark)


def main() -> int:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=400, help="simulated studies per column (default 400)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    same = [same_cells(given.runs, given.seed, errors) for errors in ERRORS]
    _print(
        f"False positives, two methods on the same {CELLS} cells in {FRAMES} frames, {given.runs} runs",
        list(ERRORS),
        same,
    )
    apart = [conditions(given.runs, given.seed, g) for g in FIELDS]
    _print(
        f"False positives, two conditions of G fields with {CELLS_OF_FIELD} cells each, {given.runs} runs",
        [f"G = {g}" for g in FIELDS],
        apart,
    )
    covered = [coverage(given.runs, given.seed, g) for g in GROUPS]
    _print(f"Coverage of 95 % intervals, {given.runs} runs", [f"G = {g}" for g in GROUPS], covered)
    off = [n for t in (*same, *apart, *covered) for n in RECOMMENDED if n in t and not holds(n, t[n], given.runs)]
    print(f"\noff by more than {TOLERANCE:.0%}: {', '.join(off) or 'no recommended test'}")
    return int(bool(off))


if __name__ == "__main__":
    sys.exit(main())
