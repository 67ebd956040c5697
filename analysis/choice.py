"""Which method to use for which trait, and what that costs.

The method of highest IoU or PQ need not measure a trait best. For every trait the method of smallest trait fidelity
error is held against each other one, on the same cells, with errors clustered; only differences that stay after Holm's
correction over independent traits x rivals are told as such.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis import scores
from analysis import statistics as st
from analysis.agreement import hold_against, unit_costs
from analysis.clusters import clusters
from analysis.comparisons import LEVEL
from analysis.fidelity import difference, pareto_front
from analysis.samples import FOLLOWS, INDEPENDENT

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from analysis.samples import Study
    from analysis.statistics import Estimate

GUESSING = 1.0
"""Trait fidelity error of calling every cell average, in SD of the true trait."""
COLUMNS = (
    "trait", "use", "tied", "certain", "tfe", "tfe_low", "tfe_high", "best_pq", "tfe_best_pq", "gain", "gain_low",
    "gain_high", "gain_p", "gain_p_holm", "pq_cost", "pq_cost_low", "pq_cost_high", "best_iou", "front", "reason",
    "sentence",
)  # fmt: skip


def choose(
    study: Study,
    agreement: pd.DataFrame,
    counted: Mapping[str, Sequence[scores.Counts]],
    frame_clusters: Sequence[Hashable],
) -> pd.DataFrame:
    """Choose a method for every trait: `COLUMNS`, one row per trait; none without truth or with a single method.

    Parameters
    ----------
    study, agreement
        The cells, and the table of `agreement.agree_with_truth`.
    counted, frame_clusters
        Counts of each compared frame per method, and what each frame is a repeat of; both empty without label images.

    Notes
    -----
    `use` has the smallest error; `tied` are the methods that cannot be told from it; `certain` says that there are
    none. `gain` is the error of `best_pq`, the method of highest PQ, minus that of `use`, and `pq_cost` what PQ that
    takes, each with a clustered 95 % interval.
    """
    known = agreement.dropna(subset="tfe")
    if known.empty or known["method"].nunique() < 2:
        return pd.DataFrame(columns=list(COLUMNS))
    quality = {name: scores.score(found, frame_clusters) for name, found in counted.items()}
    pq = {name: float(found["pq_50"]) for name, found in quality.items() if found["pq_50"] is not None}
    iou = {name: float(found["dataset_iou"]) for name, found in quality.items() if found["dataset_iou"] is not None}
    gaps = _gaps(study, known, pq)
    rows = []
    for trait, table in known.groupby("trait", sort=False):
        tfe = dict(zip(table["method"], table["tfe"], strict=True))
        use = _best(tfe, pq)
        rivals = {name: gaps[str(trait), name] for name in tfe if name != use}
        own = table.set_index("method").loc[use]
        best = max(pq, key=pq.__getitem__) if pq else ""
        gain = rivals[best][0] if best in rivals else None
        cost = (
            scores.difference(counted[best], counted[use], "pq_50", frame_clusters) if gain and use in counted else None
        )
        row: dict[str, Any] = {
            "trait": trait,
            "use": use,
            "tied": ", ".join(name for name, (_, p) in rivals.items() if not p < LEVEL),
            "certain": all(p < LEVEL for _, p in rivals.values()),
            "tfe": own["tfe"],
            "tfe_low": own["tfe_low"],
            "tfe_high": own["tfe_high"],
            "best_pq": best,
            "tfe_best_pq": tfe.get(best, np.nan),
            **_with_ends("gain", gain),
            "gain_p": gain.p if gain else np.nan,
            "gain_p_holm": rivals[best][1] if gain else np.nan,
            **_with_ends("pq_cost", cost),
            "best_iou": max(iou, key=iou.__getitem__) if iou else "",
            "front": ", ".join(_front(tfe, pq)),
            "reason": next((found.reason for found, _ in rivals.values() if found.reason), ""),
        }
        rows.append(row | {"sentence": sentence(row)})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _best(tfe: Mapping[str, float], pq: Mapping[str, float]) -> str:
    """Name the method of smallest error; of equals the one of higher PQ."""
    return min(tfe, key=lambda name: (tfe[name], -pq.get(name, 0.0)))


def _gaps(study: Study, known: pd.DataFrame, pq: Mapping[str, float]) -> dict[tuple[str, str], tuple[Estimate, float]]:
    """TFE of each rival minus that of the best method, per trait, and its p after Holm's correction."""
    held = {name: hold_against(study, name) for name in known["method"].unique()}
    found: dict[tuple[str, str], Estimate] = {}
    for trait, table in known.groupby("trait", sort=False):
        tfe = dict(zip(table["method"], table["tfe"], strict=True))
        best = _best(tfe, pq)
        least, best_cells = unit_costs(study, held[best], str(trait))
        for name in tfe.keys() - {best}:
            cost, cells = unit_costs(study, held[name], str(trait))
            codes = clusters(pd.concat([cells, best_cells], ignore_index=True)).codes
            own, others = [c[: len(cost)] for c in codes], [c[len(cost) :] for c in codes]
            found[str(trait), name] = difference(cost, least, own, others)
    return {key: (gap, _after_holm(found, key)) for key, gap in found.items()}


def _after_holm(found: Mapping[tuple[str, str], Estimate], key: tuple[str, str]) -> float:
    """Adjust p over independent traits x rivals; a trait that follows another takes that one's place among them."""
    place = FOLLOWS.get(key[0], key[0]), key[1]
    others = [gap.p for other, gap in found.items() if other[0] in INDEPENDENT and other != place]
    return float(st.holm([found[key].p, *others])[0])


def _with_ends(name: str, found: Estimate | None) -> dict[str, float]:
    if found is None:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), float("nan"))
    return {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}


def _front(tfe: Mapping[str, float], pq: Mapping[str, float]) -> list[str]:
    names = [name for name in tfe if name in pq]
    if not names:
        return []
    on = pareto_front([pq[name] for name in names], [tfe[name] for name in names])
    return [name for name, kept in zip(names, on, strict=True) if kept]


def sentence(row: Mapping[str, Any]) -> str:
    """Put one row of `choose` in words, never stronger than its test."""
    trait = str(row["trait"]).replace("_", " ")
    trait = trait[:1].upper() + trait[1:]
    if row["tfe"] >= GUESSING:
        return (
            f"{trait}: no method is shown to be better than calling every cell average, whose error is {GUESSING:g} "
            f"SD; the smallest here, that of {row['use']}, is {row['tfe']:.2f} SD{_bounds(row)}."
        )
    error = f"{_sd(row['tfe'])} SD of the trait"
    error += _bounds(row)
    if row["tfe_high"] >= GUESSING:
        error += ", not shown to be below that of calling every cell average"
    if row["certain"]:
        return f"{trait}: use {row['use']}. Its error, {error}, is smaller than that of every other method.{_cost(row)}"
    if row["reason"]:
        return f"{trait}: cannot rank ({row['reason']}). {row['use']} has the smallest error, {error}.{_cost(row)}"
    return f"{trait}: {row['use']} has the smallest error, {error}, not told apart from {row['tied']}.{_cost(row)}"


def _bounds(row: Mapping[str, Any]) -> str:
    """Give the interval of the error, where there is one."""
    if not np.isfinite(row["tfe_low"]):
        return ""
    return f" (95 % interval {_sd(row['tfe_low'])} to {_sd(row['tfe_high'])})"


def _cost(row: Mapping[str, Any]) -> str:
    """Say what the choice costs in PQ, or what a choice by PQ would cost in the trait."""
    best, use = row["best_pq"], row["use"]
    if not best:
        return ""
    if best == use:
        return " It has the highest PQ too, so it costs nothing."
    own = f" {best}, highest in PQ, has an error of {_sd(row['tfe_best_pq'])} SD"
    own += _ends(row, "gain", " larger") if best not in str(row["tied"]).split(", ") else ""
    if not np.isfinite(row["pq_cost"]):
        return f"{own}; {use}'s PQ is not known: it came without label images."
    lower = f"{use}'s PQ is {row['pq_cost']:.3f} lower"
    if not np.isfinite(row["pq_cost_low"]):
        return f"{own}; {lower}."
    ends = f" (95 % interval {row['pq_cost_low']:.3f} to {row['pq_cost_high']:.3f})"
    shown = "" if row["pq_cost_low"] > 0 else ", a difference not shown by the test"
    return f"{own}; {lower}{ends}{shown}."


def _ends(row: Mapping[str, Any], name: str, word: str) -> str:
    told = f", {_sd(row[name])} SD{word}"
    if np.isfinite(row[f"{name}_low"]):
        told += f" ({_sd(row[f'{name}_low'])} to {_sd(row[f'{name}_high'])})"
    return told


def _sd(value: float) -> str:
    """Two digits that say something."""
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"
