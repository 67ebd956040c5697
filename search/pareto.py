"""The choice between quality, trait fidelity and cost: a Pareto front, then the one-standard-error rule."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.fidelity import pareto_front

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence


@dataclass(frozen=True)
class Point:
    """One candidate on the validation frames.

    Attributes
    ----------
    trial
        Its id.
    pq, tfe
        Panoptic quality, larger is better, and trait fidelity error in SD of the trait, smaller is better.
    pq_se, tfe_se
        Their standard errors over clusters (`jackknife`); NaN where there are too few.
    parameters
        Trainable parameters, the cost.
    """

    trial: str
    pq: float
    tfe: float
    pq_se: float
    tfe_se: float
    parameters: int


def jackknife(estimate: Callable[[Sequence[int]], float], clusters: Sequence[Hashable], fewest: int) -> float:
    """Return the standard error of an estimate by leaving out one cluster of frames after the other.

    Parameters
    ----------
    estimate
        The estimate from the frames of these positions.
    clusters
        What each frame is a repeat of.
    fewest
        With fewer clusters there is none: NaN.

    References
    ----------
    Efron and Stein, Annals of Statistics 9:586 (1981).
    """
    groups = list(dict.fromkeys(clusters))
    if len(groups) < fewest:
        return math.nan
    left = [estimate([i for i, c in enumerate(clusters) if c != group]) for group in groups]
    return float(np.sqrt((len(groups) - 1) * np.var(left)))


def front(points: Sequence[Point]) -> list[Point]:
    """Points that no other beats in PQ, TFE and size together, best PQ first; a TFE that is no number is the worst."""
    tfe = [_known(point.tfe) for point in points]
    kept = []
    for place, point in enumerate(points):
        no_larger = [i for i, other in enumerate(points) if other.parameters <= point.parameters]
        flat = pareto_front([points[i].pq for i in no_larger], [tfe[i] for i in no_larger])
        equal = any(
            points[i].parameters < point.parameters and points[i].pq == point.pq and tfe[i] == tfe[place]
            for i in no_larger
        )
        if flat[no_larger.index(place)] and not equal:
            kept.append(point)
    return sorted(kept, key=lambda point: (-point.pq, _known(point.tfe), point.trial))


def best_of(points: Sequence[Point]) -> Point:
    """Return the point nearest to perfection, PQ 1 and TFE 0; it is on the front of these two.

    The distance knows nothing of the other candidates, so one more or less of them changes no order. Of equals the
    higher PQ, then the smaller network, then the name decides; a TFE that is no number comes last.
    """
    return min(
        points,
        key=lambda point: (
            round(math.hypot(1 - point.pq, _known(point.tfe)), 12),
            -point.pq,
            point.parameters,
            point.trial,
        ),
    )


def choose(points: Sequence[Point]) -> Point:
    """Return the smallest network within one standard error of `best_of` in both PQ and TFE; itself without errors."""
    best = best_of(points)
    within = [
        point
        for point in points
        if point is best or (point.pq >= best.pq - best.pq_se and _known(point.tfe) <= _known(best.tfe) + best.tfe_se)
    ]
    return min(within, key=lambda point: (point.parameters, -point.pq, point.trial))


def standing(objective: str, points: Sequence[Point], clusters: int, fewest: int) -> dict[str, Any]:
    """Return how the candidates of one target stand, in the shape of `top_set.standing`.

    Besides that: ``front`` (trials of the front) and, per candidate, ``pq``, ``tfe`` and ``parameters``. A candidate's
    value is its PQ; it ties with the chosen one where it lies within the standard errors that chose it.
    """
    best, chosen, kept = best_of(points), choose(points), front(points)
    ranked = clusters >= fewest
    rows = [
        {
            "trial": point.trial,
            "value": point.pq,
            "low": None,
            "high": None,
            "tie": not ranked
            or point in (chosen, best)
            or (point.pq >= best.pq - best.pq_se and _known(point.tfe) <= _known(best.tfe) + best.tfe_se),
            "pq": point.pq,
            "tfe": point.tfe if math.isfinite(point.tfe) else None,
            "parameters": point.parameters,
        }
        for point in sorted(points, key=lambda p: (p is not chosen, p not in kept, -p.pq, p.trial))
    ]
    return {
        "objective": objective,
        "clusters": clusters,
        "ranked": ranked,
        "chosen": chosen.trial,
        "front": [point.trial for point in kept],
        "candidates": rows,
        "top": [row for row in rows if row["tie"]] if ranked else [],
        "sentence": _sentence(objective.partition(":")[2], best, chosen, len(kept), len(points), clusters, fewest),
    }


def balanced(chosen: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the key whose chosen candidate (``pq``, ``tfe``, ``parameters``) balances best: `best_of` across targets.

    >>> found = {"pq": 0.9, "tfe": 0.5, "parameters": 1}
    >>> balanced({"star": found, "two_class": {**found, "pq": 0.8}})
    'star'
    """
    nan = math.nan
    points = [
        Point(k, row["pq"], nan if row["tfe"] is None else row["tfe"], nan, nan, row["parameters"])
        for k, row in chosen.items()
    ]
    return best_of(points).trial


def _sentence(trait: str, best: Point, chosen: Point, kept: int, of: int, clusters: int, fewest: int) -> str:
    figures = f"PQ {chosen.pq:.4f}, TFE of {trait} {_shown(chosen.tfe)} on validation"
    if of == 1:
        return f"{chosen.trial} is the only candidate ({figures})."
    told = f"{chosen.trial} ({figures})"
    if clusters < fewest:
        return (
            f"Cannot rank: {clusters} validation clusters, at least {fewest} are needed. {told} is the choice by point "
            f"estimate, nearest to PQ 1 and TFE 0; {kept} of {of} candidates are on the Pareto front of "
            "PQ, TFE and size."
        )
    if chosen is best:
        return (
            f"{told} lies nearest to PQ 1 and TFE 0, and no smaller network is within one standard error; "
            f"{kept} of {of} candidates are on the Pareto front of PQ, TFE and size."
        )
    return (
        f"{told} is the smallest network ({chosen.parameters / 1e6:.2f} M parameters) within one standard error of "
        f"{best.trial} (PQ {best.pq:.4f}, TFE {_shown(best.tfe)}, {best.parameters / 1e6:.2f} M), which lies nearest "
        f"to PQ 1 and TFE 0; {kept} of {of} candidates are on the Pareto front of PQ, TFE and size."
    )


def _known(tfe: float) -> float:
    return tfe if math.isfinite(tfe) else 1e9


def _shown(tfe: float) -> str:
    return f"{tfe:.3f}" if math.isfinite(tfe) else "unknown"
