"""Which candidates cannot be told from the best one: paired, clustered intervals on validation frames decide ties."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from analysis.scores import difference, score
from analysis.statistics import FEWEST_CLUSTERS

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from analysis.scores import Counts

KEYS = {"pq": "pq_50", "iou": "dataset_iou"}
"""The score behind an objective; a trait's error has none that adds up over frames."""


def standing(
    objective: str,
    values: Mapping[str, float],
    counts: Mapping[str, Sequence[Counts]],
    clusters: Sequence[Hashable],
    chosen: str,
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

    Returns
    -------
    dict
        ``objective``, ``clusters``, ``ranked`` (False below 5 clusters, or where the objective has no interval),
        ``chosen``, ``candidates`` (trial, value, low, high, tie; best first; the 95 % interval of the value), ``top``
        (those among them that tie with the chosen one: the interval of the paired difference reaches 0) and
        ``sentence``.
    """
    key, found = KEYS.get(objective), len(set(clusters))
    ranked = key is not None and found >= FEWEST_CLUSTERS
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
        rows.append({"trial": trial, "value": values[trial], "low": low, "high": high, "tie": tie})
    top = [row for row in rows if row["tie"]]
    return {
        "objective": objective,
        "clusters": found,
        "ranked": ranked,
        "chosen": chosen,
        "candidates": rows,
        "top": top if ranked else [],
        "sentence": _sentence(objective, found, ranked, rows, len(top)),
    }


def _sentence(objective: str, clusters: int, ranked: bool, rows: Sequence[Mapping[str, Any]], ties: int) -> str:
    chosen, value = rows[0]["trial"], rows[0]["value"]
    if len(rows) == 1:
        return f"{chosen} is the only candidate ({objective} {value:.4f} on validation)."
    choice = f"{chosen} is the choice by point estimate ({objective} {value:.4f} on validation, {len(rows)} candidates)"
    if objective not in KEYS:
        return f"{choice}; this objective carries no interval, so ties are not known."
    if not ranked:
        return f"Cannot rank: {clusters} validation clusters, at least {FEWEST_CLUSTERS} are needed. {choice}."
    if ties > 1:
        return f"Top set of {ties}: the 95 % intervals do not tell them apart. {choice}."
    return f"{choice}; the 95 % interval of its lead over every other one excludes 0."
