"""The first words of the report: what to use, how sure that is, and what limits it; never stronger than the test."""

from __future__ import annotations

import numpy as np

from analysis import scores
from analysis.clusters import NO_TRACKS
from analysis.comparisons import LEVEL, PAIRED_REPLICATES, REPLICATES, SAME_CELLS
from analysis.record import trial_name
from analysis.report import interval, number, significant
from analysis.results import LABEL, ONE_FIELD, Results, cells_found, frames, objective_key
from analysis.samples import CLASSICAL, INDEPENDENT
from analysis.statistics import FEWEST_CLUSTERS


def verdict(results: Results) -> tuple[str, ...]:
    """Say first what a biologist needs: which model, how good, how sure, which method for which trait."""
    if results.study.independent:
        return (f"Conditions compared: {', '.join(results.study.methods)}.", *_conditions(results))
    lines = _which_model(results) if results.winner else _how_many(results)
    told = (*_which_network(results), *_how_sure(results), *_which_for_trait(results), *_conditions(results))
    return (*lines, *told)


def _conditions(results: Results) -> list[str]:
    """Say for each independent trait whether conditions differ, with the replicates that say so."""
    table = results.comparisons
    rows = table[table["test"].isin((REPLICATES, PAIRED_REPLICATES)) & table["trait"].isin(INDEPENDENT)]
    lines = []
    for row in rows.to_dict("records"):
        told = " ("
        if np.isfinite(row["p_holm"]):
            ends = f"{significant(row['ci_low'])} to {significant(row['ci_high'])}"
            told += f"difference {significant(row['estimate'])}, 95 % interval {ends}; "
            told += f"p {_p(row['p_holm'])} after Holm's correction; "
        lines.append(
            f"{row['verdict'][:1].upper()}{row['verdict'][1:]}{told}{row['n_clusters']} {row['clustered_by']}"
            f"{'' if row['n_clusters'] == '1' else 's'}{'; ' * bool(row['caution'])}{row['caution']})."
        )
    return lines


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def _which_model(results: Results) -> list[str]:
    name = str(results.winner)
    found = results.summary["targets"].get(name, {})
    value = number(results.summary["winner"].get("value"))
    lines = [f"Use {name} ({trial_name(found.get('configuration', {}))}): {_best_what(results, value)}."]
    own = results.scored.get(name)
    if own is None:
        return lines
    kept = frames(own["n_frames"])
    lines.append(
        f"On the {kept} kept aside for testing it found {cells_found(results, name)} of {own['n_truth']} annotated "
        f"cells at IoU >= 0.5 and drew {own['n_pred']} in all: F1@0.5 {number(own['f1_50'])}, PQ "
        f"{number(own['pq_50'])}, dataset IoU {number(own['dataset_iou'])}."
    )
    better = [m for m, s in results.scored.items() if m != name and s["pq_50"] > own["pq_50"]]
    if better:
        told = ", ".join(f"{m} (PQ {number(results.scored[m]['pq_50'])})" for m in better)
        lines.append(
            f"On the test frames {told} scored higher. The choice was made on validation frames and is not changed "
            "by the test: that would make the test optimistic."
        )
    return [*lines, *_against_classical(results, name)]


def _best_what(results: Results, value: str) -> str:
    """Name what the chosen model is best at on the validation frames, by the objective of the search."""
    kind, _, trait = str(results.summary["winner"].get("objective", "")).partition(":")
    if kind == "pareto":
        return f"the best balance of PQ and trait fidelity of {trait} on validation, with a PQ of {value} there"
    if kind == "trait":
        error = value.removeprefix("-").removeprefix("\u2212")
        return f"the smallest trait fidelity error of {trait} on validation, {error} SD"
    return f"the best {LABEL.get(objective_key(results), kind)} on validation, {value}"


def _which_network(results: Results) -> list[str]:
    """Say whether the network was the best of its target or ties with others, and how far it spread trained again."""
    standing = results.summary.get("selection", {}).get(results.winner)
    said = [standing["sentence"]] if standing and len(standing["candidates"]) > 1 else []
    confirmed = results.summary.get("confirm", {}).get(results.winner)
    return [*said, confirmed] if confirmed else said


def _against_classical(results: Results, winner: str) -> list[str]:
    """Say how far the winner is from the method without learning, and which targets do not beat it."""
    iou = {name: found["dataset_iou"] for name, found in results.scored.items()}
    base = iou.pop(CLASSICAL, None)
    if base is None:
        return []
    gap = iou[winner] - base
    word = "above" if gap > 0 else "below" if gap < 0 else "different from"
    lines = [
        f"Its dataset IoU is {number(abs(gap))} {word} that of the classical method without learning ({number(base)})."
    ]
    if lost := [f"{name} ({number(value)})" for name, value in iou.items() if value <= base]:
        told = "does not beat" if len(lost) == 1 else "do not beat"
        lines.append(f"{', '.join(lost)} {told} the classical method in dataset IoU.")
    return lines


def _how_many(results: Results) -> list[str]:
    names = ", ".join(results.study.methods)
    n = frames(len(results.study.frames))
    if len(results.study.methods) == 1:
        lines = [f"Measured by {names} on {n}."]
        if results.study.by:
            lines = [f"Conditions compared by {results.study.by}, as measured by {names} on {n}."]
    else:
        lines = [f"Compared on the same {n}: {names}."]
    if results.scored:
        ranked = sorted(results.scored.items(), key=lambda item: -item[1]["pq_50"])
        told = ", ".join(f"{name} {number(found['pq_50'])}" for name, found in ranked)
        lines.append(f"PQ against the truth, from high to low: {told}.")
    elif not results.study.has_truth:
        several = len(results.study.methods) > 1
        told = "which method is right: only where they differ" if several else f"how right {names} is"
        lines.append(f"There is no annotation, so nothing here says {told}.")
        lines += _differences(results)
    return lines


def _differences(results: Results) -> list[str]:
    """Say in which independent traits methods differ on the same cells, and in which that is not shown."""
    table = results.comparisons
    table = table[(table["test"] == SAME_CELLS) & table["trait"].isin(INDEPENDENT)]
    clear = table[table["p_holm"] < LEVEL]
    lines = [f"{told[:1].upper()}{told[1:]}." for told in clear["verdict"]]
    open_ = table[table["p_holm"] >= LEVEL]
    if len(open_):
        pairs = [f"{row.trait.replace('_', ' ')} ({row.a}, {row.b})" for row in open_.itertuples()]
        lines.append(f"No difference shown, which does not prove them equal: {', '.join(pairs)}.")
    return lines


def _how_sure(results: Results) -> list[str]:
    if len(results.counted) < 2:
        return []
    ranked = sorted(results.counted, key=lambda m: -results.scored[m]["pq_50"])
    first = results.winner if results.winner in results.counted else ranked[0]
    rivals = [m for m in ranked if m not in (first, CLASSICAL)] or [m for m in ranked if m != first]
    gap = scores.difference(results.counted[str(first)], results.counted[rivals[0]], "pq_50", results.clusters)
    unit = "frame" if results.one_field else "field"
    if gap.reason:
        why = gap.reason[:1].upper() + gap.reason[1:]
        return [f"How sure: cannot rank. {why} (a cluster is a {unit}); the order of methods is a point estimate."]
    clear = gap.low > 0 or gap.high < 0
    told = f"PQ of {first} minus {rivals[0]} is {number(gap.mean)} (95 % interval {interval(gap.ci)}, by {unit})"
    if clear:
        limit = f" {ONE_FIELD}" if results.one_field else ""
        return [f"How sure: {told}. The interval excludes 0 for these {unit}s.{limit}"]
    return [f"How sure: {told}. The interval includes 0: the two cannot be told apart here."]


def _which_for_trait(results: Results) -> list[str]:
    """Say for each independent trait which method to use and what that costs."""
    table = results.choices
    return [str(told) for told in table.loc[table["trait"].isin(INDEPENDENT), "sentence"]]


def warnings(results: Results) -> tuple[str, ...]:
    """List what limits these numbers, most serious first."""
    study, found = results.study, []
    record = results.record
    if record and record.synthetic:
        found.append("Synthetic data: the images were made by a computer. Nothing here is a finding about real cells.")
    told = [
        *results.summary.get("dataset", {}).get("warnings", []),
        *study.warnings,
        *results.summary.get("warnings", []),
    ]
    found += [f"{str(w)[:1].upper()}{str(w)[1:]}" for w in told]
    n, independent = len(study.frames), len(set(results.clusters))
    if independent < FEWEST_CLUSTERS and not study.independent:
        found.append(
            f"Only {frames(n)}{'' if results.one_field or not n else f' of {independent} fields'} compared: below "
            f"{FEWEST_CLUSTERS} clusters results are descriptive only and methods cannot be ranked."
        )
    if results.one_field and not study.independent:
        found.append(ONE_FIELD)
    found += _pretrained(results)
    if not study.independent and "centroid" in study.matched_by and len(study.methods) + study.has_truth > 1:
        lacking = "No" if not study.labels else "Not every method's"
        found.append(f"{lacking} label images were given: cells were paired by {study.matched_by}.")
    if results.comparisons["caution"].fillna("").str.contains(NO_TRACKS).any():
        found.append(f"{NO_TRACKS[:1].upper()}{NO_TRACKS[1:]}. A column track in the tables mends that.")
    found += _disagreements(results)
    return tuple(dict.fromkeys(found))


def _pretrained(results: Results) -> list[str]:
    """Say which weights the encoders started from, where any was pretrained."""
    record, column = results.record, "encoder_weights"
    used = set(results.summary.get("search", {}).get(column, ()))
    by_encoder: dict[str, str] = {}
    if record and column in record.trials:
        trials = record.trials.assign(**{column: record.trials[column].fillna("none").astype(str)})
        used |= set(trials[column])
        if "encoder" in trials:
            told = trials.groupby("encoder", sort=False)[column].unique()
            by_encoder = {str(encoder): " or ".join(weights) for encoder, weights in told.items() if encoder}
    if not used:
        used = {found.get("configuration", {}).get(column) for found in results.summary.get("targets", {}).values()}
    if not used - {None, "none", ""}:
        return []
    weights = ", ".join(f"{encoder} {name}" for encoder, name in by_encoder.items())
    weights = weights or ", ".join(sorted(str(name or "none") for name in used))
    return [
        f"Some encoders are pretrained (weights: {weights}): encoder and pretraining are confounded. An encoder that "
        "has seen other pictures before starts ahead, so a difference between encoders may come from either its "
        "design or its pretraining."
    ]


def _disagreements(results: Results) -> list[str]:
    """Compare the scores written by the search with those of the label images at hand."""
    found = []
    for name, target in results.summary.get("targets", {}).items():
        told, seen = target.get("test") or {}, results.scored.get(name, {})
        for key in ("dataset_iou", "pq_50"):
            a, b = told.get(key), seen.get(key)
            if a is not None and b is not None and abs(a - b) > 5e-4:
                found.append(
                    f"{name}: summary.json gives a test {LABEL[key]} of {number(a)}, the label images give "
                    f"{number(b)}; the tables below use the label images."
                )
    return found
