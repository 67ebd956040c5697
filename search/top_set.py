"""Which candidates cannot be told from the best one: paired, clustered intervals on validation frames decide ties."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from analysis.scores import difference, score
from analysis.statistics import FEWEST_CLUSTERS
from search.pareto import jackknife

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from analysis.scores import Counts

KEYS = {"pq": "pq_50", "iou": "dataset_iou"}
"""The score behind an objective that adds up over frames; a trait's error does not."""
ONE_FIELD = " All validation frames come from one field, so this says nothing of others."


def standing(
    objective: str,
    values: Mapping[str, float],
    counts: Mapping[str, Sequence[Counts]],
    clusters: Sequence[Hashable],
    chosen: str,
    estimates: Mapping[str, Callable[[Sequence[int]], float]] | None = None,
) -> dict[str, Any]:
    """Return how the candidates of one target stand to the chosen one, ready for JSON.

    Parameters
    ----------
    objective
        What they were chosen by.
    values
        The objective by trial, larger is better.
    counts
        Counts of the validation frames by trial, the frames in the same order.
    clusters
        What each frame is a repeat of (`analysis.scores.clusters_of`).
    chosen
        The trial with the best value.
    estimates
        For an objective that does not add up over frames: the objective by trial, from the frames of these positions.
        Its intervals come from the jackknife over clusters, with G - 1 df.

    Returns
    -------
    dict
        ``objective``, ``clusters``, ``ranked`` (False below 5 clusters),
        ``chosen``, ``candidates`` (trial, value, low, high, tie; best first; the 95 % interval of the value), ``top``
        (those among them that tie with the chosen one: the interval of the paired difference reaches 0) and
        ``sentence``.
    """
    key, found = KEYS.get(objective), len(set(clusters))
    one_field = all(isinstance(name, tuple) for name in clusters)  # a (field, frame), as `clusters_of` names them
    ranked = (key is not None or estimates is not None) and found >= FEWEST_CLUSTERS
    rows = []
    for trial in sorted(values, key=lambda name: (name != chosen, -values[name], name)):
        low = high = None
        tie = True
        if key is not None and ranked:
            interval = score(counts[trial], clusters)[f"{key}_ci"]
            low, high = interval if interval is not None else (None, None)
            gap = difference(counts[chosen], counts[trial], key, clusters)
            least = gap.mean if gap.reason else gap.low  # no interval: the same lead in every frame
            tie = trial == chosen or not least > 0
        elif estimates is not None and ranked:
            own, best = estimates[trial], estimates[chosen]
            low, high = _interval(values[trial], own, clusters)
            lead = _interval(values[chosen] - values[trial], partial(_lead, best, own), clusters)
            tie = trial == chosen or not lead[0] > 0
        rows.append({"trial": trial, "value": values[trial], "low": low, "high": high, "tie": tie})
    top = [row for row in rows if row["tie"]]
    return {
        "objective": objective,
        "clusters": found,
        "ranked": ranked,
        "chosen": chosen,
        "candidates": rows,
        "top": top if ranked else [],
        "sentence": _sentence(objective, found, ranked, rows, len(top)) + (ONE_FIELD if one_field else ""),
    }


def _lead(
    best: Callable[[Sequence[int]], float], other: Callable[[Sequence[int]], float], frames: Sequence[int]
) -> float:
    return best(frames) - other(frames)


def _interval(
    value: float, estimate: Callable[[Sequence[int]], float], clusters: Sequence[Hashable]
) -> tuple[float, float]:
    """95 % interval of an estimate by the jackknife over clusters; NaN where leaving one out leaves no estimate."""
    from scipy.stats import t

    half = float(t.ppf(0.975, len(set(clusters)) - 1)) * jackknife(estimate, clusters, FEWEST_CLUSTERS)
    return value - half, value + half


def _sentence(objective: str, clusters: int, ranked: bool, rows: Sequence[Mapping[str, Any]], ties: int) -> str:
    chosen, value = rows[0]["trial"], rows[0]["value"]
    if len(rows) == 1:
        return f"{chosen} is the only candidate ({objective} {value:.4f} on validation)."
    choice = f"{chosen} is the choice by point estimate ({objective} {value:.4f} on validation, {len(rows)} candidates)"
    if not ranked:
        return f"Cannot rank: {clusters} validation clusters, at least {FEWEST_CLUSTERS} are needed. {choice}."
    if ties > 1:
        return f"Top set of {ties}: the 95 % intervals do not tell them apart. {choice}."
    return f"{choice}; the 95 % interval of its lead over every other one excludes 0 for these validation images."
