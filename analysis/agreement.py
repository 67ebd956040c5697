"""Every method against the truth, trait by trait: bias, limits of agreement, concordance, equivalence, fidelity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import stdtr

from analysis import statistics as st
from analysis.clusters import clusters
from analysis.comparisons import LEVEL, chosen, percent
from analysis.fidelity import costs, fidelity, interval, natural_spread
from analysis.same_cells import against_truth, alone
from analysis.samples import FOLLOWS, INDEPENDENT, TRAITS, TRUTH, Study

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

COLUMNS = (
    "trait", "method", "n_matched", "n_truth", "n_pred", "missed", "invented", "border_left_out", "dropped", "bias",
    "bias_low", "bias_high", "bias_p", "bias_p_holm", "bias_percent", "sd", "loa_low", "loa_low_ci_low",
    "loa_low_ci_high", "loa_high", "loa_high_ci_low", "loa_high_ci_high", "ccc", "ccc_low", "ccc_high", "icc_a1",
    "tost_margin", "tost_p", "tost_p_holm", "tfe", "tfe_low", "tfe_high", "tfe_matched", "tfe_detection", "tfe_reason",
    "bias_sd", "bias_sd_low", "bias_sd_high", "spread_sd", "tost_sd_p", "match_rate", "sigma", "sigma_source",
    "wasserstein", "ks", "n_clusters", "clustered_by", "caution", "verdict", "reason",
)  # fmt: skip


@dataclass(frozen=True)
class Against:
    """The cells of one method beside the true ones.

    Attributes
    ----------
    cells
        Matched cells as `same_cells.against_truth` gives them, without those the frame's border cuts.
    alone
        Whole true cells missed, and cells invented.
    missed, invented
        How many of these.
    """

    cells: pd.DataFrame
    alone: pd.DataFrame
    missed: int
    invented: int


def hold_against(study: Study, method: str) -> Against:
    """Match the cells of a method with the true ones."""
    cells = against_truth(study, method)
    rest = alone(study, method, cells)
    inside = cells[~cells["border"].astype(bool)].reset_index(drop=True)
    whole = int((~study.of(TRUTH)["border"]).sum())
    missed = whole - len(inside)
    return Against(inside, rest, missed, len(rest) - missed)


def unit_costs(study: Study, found: Against, trait: str) -> tuple[NDArray[np.float64], pd.DataFrame]:
    """Costs of all cells of a method (see `fidelity.costs`), and the cells: what they are clustered by."""
    x, y = (found.cells[f"{trait}_{side}"].to_numpy(float) for side in "ab")
    cost = costs(trait, x, y, len(found.alone), sigma_of(study, trait)[0])
    return cost, pd.concat([found.cells[list(found.alone)], found.alone], ignore_index=True)


def sigma_of(study: Study, trait: str) -> tuple[float, float, str]:
    """Spread of a trait over whole true cells on TFE's scale, its SD in raw units, and the cells it was taken from."""
    truth, training = study.of(TRUTH), study.training_truth
    source, name = (truth, "this truth") if training is None or training.empty else (training, "training truth")
    source = source[~source["border"].astype(bool)]  # what the frame cuts is not a cell's own trait
    values = source[TRAITS[trait]]
    return natural_spread(trait, values), float(values.std()), name


def agree_with_truth(study: Study, traits: Sequence[str] | None = None) -> pd.DataFrame:
    """Hold every method against the truth in every trait: `COLUMNS`, lengths in px, method minus truth.

    Holm's correction counts the independent traits times the methods, for the bias and for the equivalence test each.
    """
    rows = []
    if study.has_truth:
        for method in study.methods:
            found = hold_against(study, method)
            rows += [_agreement(study, found, trait, method) for trait in chosen(study, traits)]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    family = table["trait"].isin(INDEPENDENT)
    for column in ("bias_p", "tost_p"):
        table[f"{column}_holm"] = np.nan
        table.loc[family, f"{column}_holm"] = st.holm(table.loc[family, column].to_numpy(float))
    table["verdict"] = [_verdict(row) for row in table.to_dict("records")]
    return table


def _agreement(study: Study, found: Against, trait: str, method: str) -> dict[str, Any]:
    truth, predicted = study.of(TRUTH), study.of(method)
    inside = found.cells
    by = clusters(inside)
    x, y = inside[f"{trait}_a"].to_numpy(float), inside[f"{trait}_b"].to_numpy(float)
    limits = st.bland_altman(x, y, *by.codes)
    concordance = st.ccc(x, y, *by.codes)
    sigma, spread, source = sigma_of(study, trait)
    error = fidelity(trait, x, y, *by.codes, missed=found.missed, invented=found.invented, sigma=sigma)
    cost, of_cells = unit_costs(study, found, trait)
    whole = interval(cost, *clusters(of_cells).codes)
    margin = st.EQUIVALENCE_MARGIN * spread
    both = np.isfinite(x) & np.isfinite(y)
    wasserstein, ks = _distribution_distance(predicted[TRAITS[trait]], truth[TRAITS[trait]])
    return {
        "trait": trait,
        "method": method,
        "n_matched": int(both.sum()),
        "n_truth": len(truth),
        "n_pred": len(predicted),
        "missed": found.missed,
        "invented": found.invented,
        "border_left_out": int(truth["border"].sum()),
        "dropped": int((~both).sum()),
        "bias": limits.bias.mean,
        "bias_low": limits.bias.low,
        "bias_high": limits.bias.high,
        "bias_p": limits.bias.p,
        "bias_percent": percent(limits.bias.mean, float(y[both].mean()) if both.any() else np.nan),
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
        "tost_margin": margin,
        "tost_p": st.tost(x - y, margin, *by.codes).p,
        "tfe": error.tfe,
        "tfe_low": whole.low,
        "tfe_high": whole.high,
        "tfe_matched": error.matched,
        "tfe_detection": error.detection,
        "tfe_reason": error.reason or whole.reason,
        "bias_sd": error.bias.mean,
        "bias_sd_low": error.bias.low,
        "bias_sd_high": error.bias.high,
        "spread_sd": error.spread,
        "tost_sd_p": _fidelity_tost(error.bias),
        "match_rate": error.match_rate,
        "sigma": sigma,
        "sigma_source": source,
        "wasserstein": wasserstein,
        "ks": ks,
        "n_clusters": " x ".join(map(str, limits.bias.clusters)),
        "clustered_by": by.name,
        "caution": by.caution,
        "reason": "; ".join(dict.fromkeys(filter(None, (limits.bias.reason, error.reason)))),
    }


def _fidelity_tost(bias: st.Estimate) -> float:
    """Equivalence of the bias in SD of the trait: |bias| below `EQUIVALENCE_MARGIN`."""
    if bias.reason:
        return float("nan")
    tails = [(sign * bias.mean - st.EQUIVALENCE_MARGIN) / bias.se for sign in (-1, 1)]
    return max(float(stdtr(bias.df, t)) for t in tails)


def _distribution_distance(x: pd.Series[float], y: pd.Series[float]) -> tuple[float, float]:
    """Wasserstein-1 and Kolmogorov-Smirnov distance of all cells, descriptive only."""
    from scipy.stats import wasserstein_distance

    a, b = (np.sort(values.dropna().to_numpy(float)) for values in (x, y))
    if not len(a) or not len(b):
        return float("nan"), float("nan")
    both = np.concatenate([a, b])
    below = [np.searchsorted(values, both, side="right") / len(values) for values in (a, b)]
    return float(wasserstein_distance(a, b)), float(np.abs(below[0] - below[1]).max())


def _verdict(row: dict[str, Any]) -> str:
    """Say what the tests of one method and trait show, never more."""
    trait = row["trait"].replace("_", " ")
    if row["n_matched"] and row["bias"] == 0 == row["sd"]:
        return f"{trait} of every matched cell is that of the truth"
    if row["reason"]:
        return f"descriptive only: {row['reason']}"
    if row["trait"] not in INDEPENDENT:
        return f"{trait} follows {FOLLOWS[row['trait']]} and is not tested again"
    if row["tost_p_holm"] < LEVEL:
        return f"mean {trait} equivalent to the truth within {st.EQUIVALENCE_MARGIN:g} SD"
    if row["bias_p_holm"] < LEVEL:
        return f"mean {trait} {'over' if row['bias'] > 0 else 'under'}estimated; equivalence not shown"
    return f"neither a bias nor equivalence shown for mean {trait}"
