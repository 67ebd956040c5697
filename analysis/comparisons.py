"""The tests of a report, one row each: every trait x pair of methods, and every trait x method against the truth.

The same cells are seen by all methods, again and again, in shared frames. So cells are matched one-to-one, the
difference is tested with errors clustered by track and by frame, and the pooled Mann-Whitney test of the study is
shown beside it with a caution.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis import statistics as st
from analysis.fidelity import fidelity, natural_spread
from analysis.samples import INDEPENDENT, TRAITS, TRUTH, Study, pair

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from analysis.statistics import Estimate

POOLED = "pooled Mann-Whitney U (as in the study)"
SAME_CELLS = "same cells, cluster-robust t"
REPLICATES = "independent replicates, Welch t"
CAUTION = "caution: pooled cells are not independent, so p is not what it claims"
LEVEL = 0.05

COMPARISON_COLUMNS = (
    "trait", "a", "b", "test", "estimate", "ci_low", "ci_high", "relative_percent", "statistic", "df", "n_cells",
    "n_clusters", "clustered_by", "n_eff", "p", "p_holm", "p_bh", "hodges_lehmann", "a12", "cliffs_delta",
    "rank_biserial", "dropped", "verdict", "reason",
)  # fmt: skip
AGREEMENT_COLUMNS = (
    "trait", "method", "n_matched", "n_truth", "n_pred", "missed", "invented", "border_left_out", "dropped", "bias",
    "bias_low", "bias_high", "bias_percent", "sd", "loa_low", "loa_low_ci_low", "loa_low_ci_high", "loa_high",
    "loa_high_ci_low", "loa_high_ci_high", "ccc", "ccc_low", "ccc_high", "icc_a1", "tost_p", "tfe", "tfe_matched",
    "tfe_detection", "bias_sd", "bias_sd_low", "bias_sd_high", "spread_sd", "match_rate", "sigma", "sigma_source",
    "wasserstein", "ks", "n_clusters", "clustered_by", "verdict", "reason",
)  # fmt: skip


def compare_methods(study: Study, traits: Sequence[str] | None = None) -> pd.DataFrame:
    """Compare every pair of methods in every trait: columns `COMPARISON_COLUMNS`, two rows (tests) each.

    `estimate` is the mean of a minus b over matched cells (`SAME_CELLS`) or of all cells (`POOLED`).
    Holm counts the independent traits x pairs of the `SAME_CELLS` rows that could be tested.
    """
    chosen = _chosen(study, traits)
    rows = []
    for a, b in combinations(study.methods, 2):
        cells = _same_cells(study, a, b)
        for trait in chosen:
            rows += [_pooled(study, trait, a, b), _paired(cells, trait, a, b)]
    table = pd.DataFrame(rows, columns=list(COMPARISON_COLUMNS))
    family = (table["test"] == SAME_CELLS) & table["trait"].isin(INDEPENDENT)
    for column, adjust in (("p_holm", st.holm), ("p_bh", st.benjamini_hochberg)):
        table[column] = np.nan
        table.loc[family, column] = adjust(table.loc[family, "p"].to_numpy(float))
    table["verdict"] = [_verdict(row) for row in table.to_dict("records")]
    return table


def compare_conditions(study: Study, by: str, traits: Sequence[str] | None = None) -> pd.DataFrame:
    """Compare the conditions in column `by`, method by method, on means of the highest replicate level known.

    The replicate is the patient, else the well, else the field; with one replicate a side nothing is tested.
    Same columns as `compare_methods`; `a` and `b` read "method: condition". Holm counts the independent traits and
    pairs of conditions of one method.
    """
    from data_io.errors import BadInput

    if by not in study.cells:
        raise BadInput(f"--by {by}: no such column in the cells table; columns: {', '.join(map(str, study.cells))}")
    level = next(
        name for name in ("patient", "well", "field") if name in study.cells and study.cells[name].notna().all()
    )
    rows = []
    for method in [*study.methods, *([TRUTH] if study.has_truth else [])]:
        cells = study.of(method)
        conditions = sorted(map(str, cells[by].dropna().unique()))
        own = [
            _replicated(cells, trait, by, level, (a, b), method)
            for a, b in combinations(conditions, 2)
            for trait in _chosen(study, traits)
        ]
        family = [i for i, row in enumerate(own) if row["trait"] in INDEPENDENT]
        p = np.array([own[i]["p"] for i in family], dtype=float)
        for i, holm, bh in zip(family, st.holm(p), st.benjamini_hochberg(p), strict=True):
            own[i] |= {"p_holm": holm, "p_bh": bh}
        rows += own
    table = pd.DataFrame(rows, columns=list(COMPARISON_COLUMNS))
    table["verdict"] = [_verdict(row) for row in table.to_dict("records")]
    return table


def agree_with_truth(study: Study, traits: Sequence[str] | None = None) -> pd.DataFrame:
    """Hold every method against the truth in every trait: columns `AGREEMENT_COLUMNS`, lengths in px."""
    rows = []
    if study.has_truth:
        for method in study.methods:
            cells = _against_truth(study, method)
            rows += [_agreement(study, cells, trait, method) for trait in _chosen(study, traits)]
    return pd.DataFrame(rows, columns=list(AGREEMENT_COLUMNS))


def _chosen(study: Study, traits: Sequence[str] | None) -> tuple[str, ...]:
    from data_io.errors import BadInput

    unknown = [trait for trait in traits or () if trait not in study.traits]
    if unknown:
        raise BadInput(f"trait {unknown[0]!r}: not measured here; choose from {', '.join(study.traits)}")
    return tuple(traits) if traits else study.traits


# --- matched cells ------------------------------------------------------------------------------------------------


def _same_cells(study: Study, a: str, b: str) -> pd.DataFrame:
    """Cells both methods found: field, frame, track, and each trait twice (`area_a`, `area_b`)."""
    if not study.has_truth:
        pairs = pair(study, a, b)
        return _with_traits(study, pairs, a, b, track_of=(a, "label_a"))
    to_a, to_b = (pair(study, TRUTH, m).rename(columns={"label_a": "true", "label_b": m}) for m in (a, b))
    pairs = to_a.merge(to_b, on=["field", "frame", "true"]).rename(columns={a: "label_a", b: "label_b"})
    return _with_traits(study, pairs, a, b, track_of=(TRUTH, "true"))


def _against_truth(study: Study, method: str) -> pd.DataFrame:
    """Pair cells as `_same_cells` does, `a` the method and `b` the truth, plus `border` of the true cell."""
    pairs = pair(study, TRUTH, method).rename(columns={"label_a": "label_b", "label_b": "label_a"})
    return _with_traits(study, pairs, method, TRUTH, track_of=(TRUTH, "label_b"))


def _with_traits(study: Study, pairs: pd.DataFrame, a: str, b: str, track_of: tuple[str, str]) -> pd.DataFrame:
    columns = {trait: TRAITS[trait] for trait in study.traits}
    result = pairs
    for side, method in (("a", a), ("b", b)):
        wanted = study.of(method)[["field", "frame", "label", *columns.values()]]
        named = {"label": f"label_{side}", **{column: f"{trait}_{side}" for trait, column in columns.items()}}
        result = result.merge(wanted.rename(columns=named), on=["field", "frame", f"label_{side}"], how="inner")
    owner, key = track_of
    facts = study.of(owner)[["field", "frame", "label", "track_id", "frame_id", "border"]].rename(
        columns={"label": key}
    )
    return result.merge(facts, on=["field", "frame", key], how="left")


def _clusters(cells: pd.DataFrame) -> tuple[str, list[NDArray[Any]]]:
    """How errors are clustered, in words, and the clusterings: track x frame, or frame where tracks are unknown."""
    frame, track = cells["frame_id"].to_numpy(), cells["track_id"].to_numpy()
    if not len(cells) or (track < 0).any():
        return "frame", [frame]
    return "track x frame", [track, frame]


def _n_clusters(estimate: Estimate) -> str:
    return " x ".join(map(str, estimate.clusters))


# --- one row ------------------------------------------------------------------------------------------------------


def _pooled(study: Study, trait: str, a: str, b: str) -> dict[str, Any]:
    x, y = (study.of(m)[TRAITS[trait]].to_numpy(float) for m in (a, b))
    found = st.mann_whitney(x, y)
    both = pd.concat([study.of(a), study.of(b)])
    named, clusters = _clusters(both)
    finite = [values[np.isfinite(values)] for values in (x, y)]
    means = [values.mean() if len(values) else np.nan for values in finite]
    return {
        "trait": trait,
        "a": a,
        "b": b,
        "test": POOLED,
        "estimate": means[0] - means[1],
        "relative_percent": _percent(means[0] - means[1], means[1]),
        "statistic": found.statistic,
        "n_cells": sum(map(len, finite)),
        "n_clusters": len(set(clusters[0])) if len(both) else 0,
        "clustered_by": named.split(" ")[0],
        "n_eff": st.effective_n(both[TRAITS[trait]].to_numpy(float), clusters[0]),
        "p": found.p,
        "hodges_lehmann": st.hodges_lehmann_shift(x, y),
        "a12": found.a12,
        "cliffs_delta": found.delta,
        "dropped": len(x) + len(y) - sum(map(len, finite)),
        "reason": "" if np.isfinite(found.p) else "not tested: a method has no cells",
    }


def _paired(cells: pd.DataFrame, trait: str, a: str, b: str) -> dict[str, Any]:
    d = (cells[f"{trait}_a"] - cells[f"{trait}_b"]).to_numpy(float)
    named, clusters = _clusters(cells)
    found = st.clustered_mean(d, *clusters)
    base = cells.loc[np.isfinite(d), f"{trait}_b"].mean() if len(cells) else np.nan
    return {
        "trait": trait,
        "a": a,
        "b": b,
        "test": SAME_CELLS,
        "estimate": found.mean,
        "ci_low": found.low,
        "ci_high": found.high,
        "relative_percent": _percent(found.mean, base),
        "statistic": found.statistic,
        "df": found.df,
        "n_cells": found.n,
        "n_clusters": _n_clusters(found),
        "clustered_by": named,
        "n_eff": st.effective_n(d, clusters[0]),
        "p": found.p,
        "hodges_lehmann": st.pseudomedian(d),
        "rank_biserial": st.signed_rank(d).rank_biserial,
        "dropped": found.dropped,
        "reason": f"not tested: {found.reason}" if found.reason else "",
    }


def _replicated(
    cells: pd.DataFrame, trait: str, by: str, level: str, conditions: tuple[str, str], method: str
) -> dict[str, Any]:
    column = TRAITS[trait]
    sides = [cells[cells[by].astype(str) == condition] for condition in conditions]
    found = st.independent(*(side.groupby(level)[column].mean().to_numpy(float) for side in sides))
    a, b = (f"{method}: {condition}" for condition in conditions)
    values = np.concatenate([side[column].to_numpy(float) for side in sides])
    return {
        "trait": trait,
        "a": a,
        "b": b,
        "test": f"{REPLICATES} on {level} means (permutation p = {found.p_permutation:.3g})",
        "estimate": found.difference,
        "ci_low": found.low,
        "ci_high": found.high,
        "relative_percent": _percent(found.difference, float(sides[1][column].mean())),
        "statistic": found.statistic,
        "df": found.df,
        "n_cells": int(np.isfinite(values).sum()),
        "n_clusters": f"{found.n[0]} + {found.n[1]}",
        "clustered_by": level,
        "n_eff": float(sum(found.n)),
        "p": found.p,
        "dropped": int((~np.isfinite(values)).sum()),
        "reason": f"not tested: {found.reason}" if found.reason else "",
    }


def _agreement(study: Study, cells: pd.DataFrame, trait: str, method: str) -> dict[str, Any]:
    column = TRAITS[trait]
    truth, predicted = study.of(TRUTH), study.of(method)
    inside = cells[~cells["border"].astype(bool)]
    named, clusters = _clusters(inside)
    x, y = inside[f"{trait}_a"].to_numpy(float), inside[f"{trait}_b"].to_numpy(float)
    limits = st.bland_altman(x, y, *clusters)
    concordance = st.ccc(x, y, *clusters)
    training = study.training_truth
    source = truth if training is None or training.empty else training
    source_name = "this truth" if source is truth else "training truth"
    source = source[~source["border"].astype(bool)]  # as the errors do: what the frame cuts is not a cell's own trait
    sigma = natural_spread(trait, source[column])
    missed = int((~truth["border"]).sum()) - len(inside)
    invented = len(predicted) - len(cells)
    error = fidelity(trait, x, y, *clusters, missed=missed, invented=invented, sigma=sigma)
    spread = float(source[column].std())
    equivalent = st.tost(x - y, st.EQUIVALENCE_MARGIN * spread, *clusters)
    both = np.isfinite(x) & np.isfinite(y)
    wasserstein, ks = _distribution_distance(predicted[column], truth[column])
    row = {
        "trait": trait,
        "method": method,
        "n_matched": int(both.sum()),
        "n_truth": len(truth),
        "n_pred": len(predicted),
        "missed": missed,
        "invented": invented,
        "border_left_out": int(truth["border"].sum()),
        "dropped": int((~both).sum()),
        "bias": limits.bias.mean,
        "bias_low": limits.bias.low,
        "bias_high": limits.bias.high,
        "bias_percent": _percent(limits.bias.mean, float(y[both].mean()) if both.any() else np.nan),
        "sd": limits.sd,
        "loa_low": limits.lower.mean,
        "loa_low_ci_low": limits.lower.low,
        "loa_low_ci_high": limits.lower.high,
        "loa_high": limits.upper.mean,
        "loa_high_ci_low": limits.upper.low,
        "loa_high_ci_high": limits.upper.high,
        "ccc": concordance.mean,
        "ccc_low": concordance.low,
        "ccc_high": concordance.high,
        "icc_a1": st.icc(np.column_stack([x, y])[both]).a1 if both.sum() > 1 else np.nan,
        "tost_p": equivalent.p,
        "tfe": error.tfe,
        "tfe_matched": error.matched,
        "tfe_detection": error.detection,
        "bias_sd": error.bias.mean,
        "bias_sd_low": error.bias.low,
        "bias_sd_high": error.bias.high,
        "spread_sd": error.spread,
        "match_rate": error.match_rate,
        "sigma": sigma,
        "sigma_source": source_name,
        "wasserstein": wasserstein,
        "ks": ks,
        "n_clusters": _n_clusters(limits.bias),
        "clustered_by": named,
        "reason": "; ".join(dict.fromkeys(filter(None, (limits.bias.reason, error.reason)))),
    }
    return row | {"verdict": _agreement_verdict(row)}


def _distribution_distance(x: pd.Series[float], y: pd.Series[float]) -> tuple[float, float]:
    """Wasserstein-1 and Kolmogorov-Smirnov distance of all cells, descriptive only."""
    from scipy.stats import ks_2samp, wasserstein_distance

    a, b = x.dropna().to_numpy(float), y.dropna().to_numpy(float)
    if not len(a) or not len(b):
        return float("nan"), float("nan")
    return float(wasserstein_distance(a, b)), float(ks_2samp(a, b).statistic)


def _percent(part: float, whole: float) -> float:
    return float(100 * part / whole) if np.isfinite(whole) and whole else float("nan")


# --- in words -----------------------------------------------------------------------------------------------------


def _verdict(row: dict[str, Any]) -> str:
    """Say what one test shows, never more."""
    trait = row["trait"].replace("_", " ")
    if row["test"] == POOLED:
        return row["reason"] or CAUTION
    if row["reason"]:
        return f"cannot rank in {trait}: {row['reason'].removeprefix('not tested: ')}"
    adjusted = row["p_holm"]
    if not np.isfinite(adjusted):
        return f"{trait} follows another trait and is not counted as a further test"
    if adjusted >= LEVEL:
        return f"no difference in {trait} shown between {row['a']} and {row['b']} (which does not prove them equal)"
    more = "larger" if row["estimate"] > 0 else "smaller"
    return f"{trait} is {more} in {row['a']} than in {row['b']}, by {abs(row['relative_percent']):.2g} %"


def _agreement_verdict(row: dict[str, Any]) -> str:
    trait = row["trait"].replace("_", " ")
    if row["reason"]:
        return f"descriptive only: {row['reason']}"
    if row["tost_p"] < LEVEL:
        return f"mean {trait} equivalent to the truth within {st.EQUIVALENCE_MARGIN:g} SD"
    low, high = row["bias_low"], row["bias_high"]
    if low > 0 or high < 0:
        return f"mean {trait} {'over' if low > 0 else 'under'}estimated; equivalence not shown"
    return f"neither a bias nor equivalence shown for mean {trait}"
