"""How the decode parameters of each target were fitted: the curve along each, its bounds, and where the choice lies."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from analysis import figures
from analysis.report import MISSING, Block, Cell, Gallery, Section, Table, number
from analysis.results import LABEL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from analysis.figures import Look, Picture
    from analysis.record import Record

FLAT = 0.005
"""A score that varies no more along a parameter makes its bounds no matter."""
EXPLAINED = {
    "threshold": "foreground is a probability above this",
    "min_distance": "cell centres are more than this many pixels apart",
    "neck": "pieces part where the neck is narrower by more than this share",
    "core_bias": "added to the core's probability; negative parts more cells",
    "min_core": "smallest core, pixels",
    "min_area": "smallest cell, pixels",
    "probability": "candidates have an object probability above this",
    "nms": "a candidate goes where a likelier one covers more than this share",
    "paper_gap": "the gap between touching cells is kept, as in the study",
}
"""Decode parameters in words."""


def decoding_chapter(record: Record, looks: Mapping[str, Look]) -> Section | None:
    """Draw the best validation score at each value tried of each parameter, and say where a choice lies at a bound."""
    rows: list[list[Cell | str]] = []
    pictures: list[Picture] = []
    at_bounds = []
    for target, found in record.targets.items():
        fit = found.get("decode_fit") or {}
        along = profiles(fit.get("curve") or [])
        score = {"iou": LABEL["dataset_iou"], "pq": LABEL["pq_50"]}.get(str(fit.get("score")), "score")
        for name, profile in along.items():
            chosen = found["decode"].get(name)
            values = [value for value, _ in profile]
            spread = max(best for _, best in profile) - min(best for _, best in profile)
            bound = _bound(chosen, values)
            if bound and spread > FLAT:
                at_bounds.append(f"{name} of {target} ({bound})")
            tried = f"{_shown(values[0])} to {_shown(values[-1])}"
            rows.append(
                [target, name, EXPLAINED.get(name, ""), Cell(_shown(chosen), strong=True), tried, number(spread), bound]
            )
        if along:
            pictures += _curves(target, along, found["decode"], score, looks.get(target, figures.NOBODY))
    if not rows:
        return None
    told = [
        "Each curve shows the best score on the validation frames at one value, over all others tried. A steep curve "
        "is a parameter to watch on new images; a flat one hardly matters."
    ]
    if at_bounds:
        told.append(f"At the edge of what was tried, so that a wider range might do better: {', '.join(at_bounds)}.")
    columns = ("method", "parameter", "meaning", "chosen", "tried", "score range", "at a bound")
    table = Table("Decode parameters", columns, rows, ("method", "parameter", "meaning", "tried", "at a bound"))
    blocks: list[Block] = [table]
    if pictures:
        blocks.insert(0, Gallery(pictures, "Best validation score at each value tried; dashed: chosen."))
    title = "From the network's output to cells"
    return Section("decoding", title, tuple(told), tuple(blocks), "The search", "Decode parameters")


def _curves(
    target: str, along: Mapping[str, Sequence[tuple[float, float]]], chosen: Mapping[str, Any], score: str, look: Look
) -> list[Picture]:
    """Draw the curve along each parameter of a target, all with the same score axis."""
    best = [value for profile in along.values() for _, value in profile]
    margin = max(0.05 * (max(best) - min(best)), 0.002)
    y = (min(best) - margin, max(best) + margin)
    return [
        figures.decode_curve(target, name, profile, chosen.get(name), score, look, y) for name, profile in along.items()
    ]


def profiles(curve: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Return parameter -> (value, best score at it) by value, of the parameters of which several values were tried.

    >>> profiles([{"a": 1, "b": 2, "value": 0.5}, {"a": 2, "b": 2, "value": 0.7}, {"a": 1, "b": 2, "value": 0.6}])
    {'a': [(1.0, 0.6), (2.0, 0.7)]}
    """
    best: dict[str, dict[float, float]] = {}
    for point in curve:
        score = float(point["value"])
        for name, value in point.items():
            if name != "value" and not math.isnan(score):
                own = best.setdefault(name, {})
                own[float(value)] = max(score, own.get(float(value), -math.inf))
    return {name: sorted(values.items()) for name, values in best.items() if len(values) > 1}


def _bound(chosen: Any, values: Sequence[float]) -> str:
    """Return which bound of what was tried a value is, nothing for 0, a switch, or a value between."""
    if chosen is None or isinstance(chosen, bool) or float(chosen) == 0:
        return ""
    return {values[0]: "lowest", values[-1]: "highest"}.get(float(chosen), "")


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return MISSING if value is None else f"{value:g}"
