"""A passage for the methods section of a paper, filled in with what was done and found here.

It says what was done, names every number with its interval or why there is none, and claims no more than the tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.comparisons import LEVEL, PAIRED_REPLICATES, POOLED, REPLICATES, SAME_CELLS
from analysis.references import Citations
from analysis.report import Passage, Section, interval, many, number
from analysis.results import LABEL, ONE_FIELD, Results, cells_found, frames, objective_key, or_nan, ordered
from analysis.samples import CLASSICAL, TRUTH
from analysis.statistics import EQUIVALENCE_MARGIN, FEWEST_CLUSTERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ARCHITECTURES = {
    "unet": "U-Net", "unetplusplus": "U-Net++", "manet": "MA-Net", "linknet": "LinkNet", "fpn": "FPN",
    "deeplabv3": "DeepLabV3", "deeplabv3plus": "DeepLabV3+", "pan": "PAN", "stardist_unet": "StarDist's U-Net",
}  # fmt: skip
LOSSES = {
    "dice": ("Dice", "dice"), "bce_dice": ("binary cross-entropy plus Dice", "dice"),
    "ce_dice": ("cross-entropy plus Dice", "dice"), "focal_dice": ("focal plus Dice", "focal", "dice"),
    "lovasz": ("Lovász", "lovasz"), "tversky": ("Tversky", "tversky"),
    "boundary_ce_dice": ("boundary-weighted cross-entropy plus Dice", "dice"), "stardist": ("StarDist's", "stardist"),
}  # fmt: skip
TARGETS = {
    "two_class": ("foreground with a watershed on the distance to the background (two_class)",),
    "three_class": ("cell core and boundary, cores grown back into the boundary (three_class)",),
    "star": ("star-convex polygons (star)", "stardist"),
}
"""What each name stands for in a sentence, then what is cited for it."""


def methods_chapter(results: Results) -> Section:
    """Offer the passage with its references."""
    cite = Citations()
    paragraphs = [
        _data(results),
        _networks(results, cite),
        _choice(results),
        _scores(results, cite),
        _traits(results, cite),
        _tests(results, cite),
        _software(results, cite),
    ]
    passage = Passage(tuple(text for text in paragraphs if text), cite.listed)
    lead = (
        "To copy and to shorten. It is filled in from this run; add the microscope, the cells, who annotated them and "
        "what the ethics committee said. If you leave a sentence out, leave out the claim that rests on it."
    )
    return Section("methods", "For your methods section", (lead,), (passage,), "Fine print", "Methods text")


def _data(results: Results) -> str:
    study, data = results.study, results.summary.get("dataset", {})
    synthetic = "synthetic " if results.record and results.record.synthetic else ""
    if data:
        parts = [f"{data[part]} {name}" for part, name in PARTS.items() if data.get(part) is not None]
        fields = int(or_nan(data.get("fields"))) if np.isfinite(or_nan(data.get("fields"))) else 0
        of = f" of {fields} field{'' if fields == 1 else 's'}" if fields else ""
        where = f"{data['frames']} {synthetic}frames{of}" if data.get("frames") else f"{synthetic}frames{of}"
        unit = data.get("split_unit", "field")
        text = f"{where} were split by {unit} into {_listed(parts)} frames."
        text = text[:1].upper() + text[1:]
        if synthetic:
            text += " The images were generated with known outlines; they are not micrographs."
        return text
    if study.independent:
        return f"Cells of the conditions {_listed(study.methods)} were compared: {frames(len(study.frames))}."
    known = f" with {len(study.of(TRUTH)):,} annotated cells" if study.has_truth else ""
    names = _listed(study.methods)
    return f"Segmentations by {names} of the same {frames(len(study.frames))}{known} were compared."


PARTS = {"train": "training", "val": "validation", "test": "test"}


def _networks(results: Results, cite: Citations) -> str:
    record = results.record
    if record is None or record.trials.empty:
        return ""
    trials, search = record.trials, record.summary.get("search", {})
    names = [n for n in dict.fromkeys(trials["architecture"].astype(str)) if n not in ("", "nan", "None")]
    architectures = _listed(f"{ARCHITECTURES.get(n, n)}{cite(n)}" for n in names)
    encoders = [str(e) for e in dict.fromkeys(trials["encoder"].dropna()) if e]
    losses = [LOSSES.get(str(name), (str(name),)) for name in dict.fromkeys(trials["loss"])]
    library = f"as implemented in Segmentation Models PyTorch{cite('smp')}"
    text = f"{many(len(trials), 'network')} {'was' if len(trials) == 1 else 'were'} planned: {architectures}, {library}"
    text += f" with the encoders {_listed(encoders)}{cite('timm')}" if encoders else ""
    text += f", trained with {_listed(f'{name}{cite(*keys)}' for name, *keys in losses)} loss"
    if "crop" in trials and trials["crop"].notna().any():
        text += f" on crops of {_listed(f'{int(c)}' for c in sorted(trials['crop'].dropna().unique()))} px"
    most = or_nan(trials["max_epochs"].max()) if "max_epochs" in trials else np.nan
    text += f" for at most {int(most)} epochs" if np.isfinite(most) else ""
    targets = [TARGETS.get(str(name), (str(name),)) for name in dict.fromkeys(trials["target"])]
    text += f". Touching cells were told apart in {len(targets)} way{'' if len(targets) == 1 else 's'}: "
    text += f"{_listed(f'{name}{cite(*keys)}' for name, *keys in targets)}."
    return f"{text} {_early_stopping(trials['status'].value_counts().to_dict(), search, cite)}{_weights(trials)}"


def _early_stopping(status: Mapping[str, int], search: Mapping[str, Any], cite: Citations) -> str:
    done, stopped = status.get("completed", 0), status.get("stopped", 0)
    text = f"{done} ran to the end"
    if stopped:
        factor = or_nan(search.get("reduction_factor"))
        kept = f", reduction factor {factor:g}" if np.isfinite(factor) else ""
        text += f", {stopped} were stopped early by asynchronous successive halving{cite('asha', 'tune')}{kept}"
    rest = sum(status.values()) - done - stopped
    text += f", {rest} did not finish for other reasons" if rest else ""
    return f"{text}."


def _weights(trials: Any) -> str:
    if "encoder_weights" not in trials:
        return ""
    used = sorted(set(trials["encoder_weights"].fillna("none").astype(str)))
    return " All weights started at random." if used == ["none"] else f" Encoder weights: {_listed(used)}."


def _choice(results: Results) -> str:
    if not results.winner:
        return ""
    found = results.summary.get("targets", {}).get(results.winner, {}).get("configuration", {})
    model = ARCHITECTURES.get(str(found.get("architecture")), str(found.get("architecture")))
    encoder = f" with {found['encoder']}" if found.get("encoder") else ""
    key = objective_key(results)
    score = LABEL.get(key, key.replace("trait:", "trait fidelity of ").replace("pareto:", "PQ and trait fidelity of "))
    ties = [str(name) for name in results.summary.get("winner", {}).get("ties", [])]
    tied = f" It could not be told apart from {_listed(ties)} on these frames." if ties else ""
    return (
        f"Decoding parameters were fitted, and the model chosen by {score}, on validation frames; the choice was fixed "
        f"before a test frame was read. Chosen was {results.winner}: {model}{encoder}.{tied}"
    )


def _scores(results: Results, cite: Citations) -> str:
    if not results.scored:
        return ""
    text = (
        "A cell counted as found where its intersection over union (IoU) with an annotated cell was at least 0.5, "
        f"one-to-one; PQ is the panoptic quality{cite('pq')}; all scores are pooled over frames, and an empty frame "
        "met by an empty prediction counts 1. "
    )
    if CLASSICAL in results.scored:
        text += f"The baseline without learning thresholds the local standard deviation{cite('otsu')}. "
    first = next(iter(results.scored.values()))
    unit = "frame" if results.one_field else "field"
    told = [_score(results, method) for method in ordered(results) if method in results.scored]
    text += f"On {frames(first['n_frames'])} with {first['n_truth']:,} annotated cells: {'; '.join(told)}. "
    if any(found["pq_50_ci"] for found in results.scored.values()):
        text += f"Intervals are 95 % with {unit}s as clusters (t, clusters - 1 degrees of freedom)."
    else:
        text += f"No intervals are given: there are fewer than {FEWEST_CLUSTERS} independent {unit}s."
    return text


def _score(results: Results, method: str) -> str:
    found = results.scored[method]
    parts = []
    for key in ("pq_50", "f1_50", "dataset_iou"):
        ci = found[f"{key}_ci"]
        parts.append(f"{LABEL[key]} {number(found[key])}" + (f" ({interval(ci)})" if ci else ""))
    return f"{method} found {cells_found(results, method):,}, {', '.join(parts)}"


def _traits(results: Results, cite: Citations) -> str:
    study, traits = results.study, results.study.traits
    tables = [name for name in (*study.methods, *([TRUTH] if study.has_truth else [])) if name not in study.labels]
    text = (
        f"Measured were {_listed(t.replace('_', ' ') for t in traits)}: area as the pixel count, perimeter by "
        "Crofton's formula in four directions, radius from area, and circularity, solidity and shape index from one "
        "contour of the mask smoothed with a Gaussian of 1 px"
    )
    if tables:
        text = f"{_listed(t.replace('_', ' ') for t in traits)} were taken as given in the tables of {_listed(tables)}"
        text = f"{text[:1].upper()}{text[1:]} (add which program measured them)"
    known = any(f"{trait}_trackmate" in study.cells for trait in traits)
    text += f"; TrackMate's measures{cite('trackmate')} were kept apart and never mixed with these. " if known else ". "
    if results.agreement.empty:
        return text
    text += (
        "Against the annotation, for matched cells away from the frame border, we give bias and 95 % limits of "
        f"agreement{cite('bland_altman')}, the concordance correlation{cite('ccc')}, two one-sided tests of "
        f"equivalence within {EQUIVALENCE_MARGIN:g} SD of the truth{cite('tost')}, and the trait fidelity error "
        "(TFE): the root mean square error in SD of the true trait, cut at 3, where a missed or invented cell counts "
        "1. "
    )
    least = results.agreement.dropna(subset="tfe").sort_values("tfe").groupby("trait", sort=False).first()
    told = [
        f"{str(trait).replace('_', ' ')} {row['method']} ({number(row['tfe'], 2)})"
        for trait, row in least.loc[[t for t in traits if t in least.index]].iterrows()
    ]
    return f"{text}The smallest TFE (point estimates) had: {_listed(told)}." if told else text


def _tests(results: Results, cite: Citations) -> str:
    table = results.comparisons
    same, other = table[table["test"] == SAME_CELLS], table[table["test"].isin(T_TESTS)]
    parts = []
    if len(same):
        named = _listed(sorted(set(same["clustered_by"])))
        parts.append(
            f"Methods were compared on the same cells by the mean paired difference, with errors clustered by {named}"
            f"{cite('clusters')}, adjusted by Holm's method{cite('holm')} over independent traits and pairs."
        )
        parts.append(_found(same))
    if len(other):
        levels = _listed(sorted(set(other["clustered_by"].astype(str))))
        kinds = [name for test, name in T_TESTS.items() if (other["test"] == test).any()]
        tests = f"{_listed(kinds)}{cite('welch') if (other['test'] == REPLICATES).any() else ''}"
        adjusted = f"adjusted by Holm's method{cite('holm')} over independent traits and pairs"
        parts.append(f"Conditions were compared on means of replicates ({levels}) by {tests}, {adjusted}.")
        parts.append(_found(other))
    if (table["test"] == POOLED).any():
        parts.append(
            f"Mann-Whitney tests of pooled cells{cite('mann_whitney')}, as in the study that this "
            f"follows{cite('study')}, are reported for comparison only, since cells seen repeatedly are not "
            "independent."
        )
    if parts and results.one_field:
        parts.append(ONE_FIELD)
    if len(results.study.methods) and results.study.traits:
        parts.append(f"Distributions are shown with the means of replicates or frames{cite('superplots')}.")
    return " ".join(part for part in parts if part)


T_TESTS = {REPLICATES: "Welch's t test", PAIRED_REPLICATES: "the paired t test"}
"""Tests of conditions, in words."""


def _found(rows: Any) -> str:
    tested = rows.dropna(subset="p_holm")
    if tested.empty:
        return f"None could be tested (at least {FEWEST_CLUSTERS} clusters are needed): differences are descriptive."
    clear = tested[tested["p_holm"] < LEVEL]
    return (
        f"{many(len(tested), 'comparison')} {'was' if len(tested) == 1 else 'were'} tested at {LEVEL:g}; {len(clear)} "
        "showed a difference" + (f" ({'; '.join(clear['verdict'])})" if 0 < len(clear) <= MOST_TOLD else "") + "."
    )


MOST_TOLD = 6
"""Differences told one by one in the passage; more stand in comparisons.csv."""


def _software(results: Results, cite: Citations) -> str:
    from data_io.provenance import provenance

    made = results.summary.get("provenance", {}) or provenance()
    libraries = made.get("libraries", {})
    wanted = [f"{name} {libraries[name]}" for name in ("torch", "ray", "scipy", "scikit-image") if libraries.get(name)]
    text = f"Analyses were done with cellsearch {made.get('version') or 'unknown version'}"
    text += f" (commit {str(made['commit'])[:12]})" if made.get("commit") else ""
    text += f", Python {made.get('python', '')}" + (f", {_listed(wanted)}" if wanted else "")
    text += f"; seed {made['seed']}" if made.get("seed") is not None else ""
    text += f"; data SHA-256 {str(made['data_hash'])[:12]}" if made.get("data_hash") else ""
    return f"{text}. The analysis follows and extends the study of Vašinková et al.{cite('study')}."


def _listed(items: Iterable[str]) -> str:
    """Join words with commas and a last "and".

    >>> _listed(["a", "b", "c"])
    'a, b and c'
    """
    listed = list(items)
    return " and ".join([", ".join(listed[:-1]), listed[-1]] if len(listed) > 1 else listed)
