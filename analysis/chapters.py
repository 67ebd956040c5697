"""What the report says, chapter by chapter: results in, sections out; wording is never stronger than the test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from analysis import figures
from analysis.comparisons import LEVEL, POOLED
from analysis.fidelity import pareto_front
from analysis.matched import matched, values
from analysis.report import MISSING, Block, Cell, Gallery, Section, Table, interval, number, significant
from analysis.results import LABEL, ONE_FIELD, Results, frames, model_name, ordered
from analysis.samples import INDEPENDENT, TRAITS, TRUTH, Study

if TYPE_CHECKING:
    from collections.abc import Mapping

    from analysis.figures import Look, Picture

READING = "Full line: bias; dashed: 95 % limits; thin line: no difference. Same axes for all. Border cells left out."
"""How to read a Bland-Altman plot."""
UNITS = {"area": "px2", "perimeter": "px", "radius": "px"}


def score_chapter(results: Results) -> Section:
    """Tabulate every method, also the worse ones, with intervals or the reason why there are none."""
    methods = [m for m in (*ordered(results),) if m in results.scored]
    keys = tuple(LABEL)
    rows: list[list[Cell | str]] = []
    best = {
        key: max((results.scored[m][key] for m in methods if results.scored[m][key] is not None), default=None)
        for key in keys
    }
    for method in methods:
        found = results.scored[method]
        row: list[Cell | str] = [Cell(method, strong=method == results.winner), model_name(results, method)]
        for key in keys:
            ci = found[f"{key}_ci"]
            row.append(Cell(number(found[key]), strong=found[key] == best[key], below=interval(ci) if ci else ""))
        rows.append(
            [
                *row,
                str(found["n_pred"]),
                significant(100 * found["count_error"], 2) if found["count_error"] is not None else MISSING,
            ]
        )
    reasons = {
        found[f"{key}_ci_reason"] for found in results.scored.values() for key in keys if f"{key}_ci_reason" in found
    }
    n = len(results.study.frames)
    note = f"{frames(n)}, {next(iter(results.scored.values()))['n_truth']} annotated cells. " if results.scored else ""
    note += (
        f"Small print: 95 % intervals, {'frames' if results.one_field else 'fields'} as clusters. "
        if not reasons
        else f"Intervals missing: {'; '.join(sorted(reasons))}. "
    )
    note += f"{ONE_FIELD} " if results.one_field and not reasons else ""
    note += "Bold: chosen on validation; highest value of a column."
    split = "Test frames" if results.record else "Compared frames"
    table = Table(
        f"{split}: every method against the annotation",
        ("method", "model", *LABEL.values(), "cells drawn", "count error %"), rows, ("method", "model"), note,
    )  # fmt: skip
    blocks: list[Block] = [table]
    validation = _validation(results)
    if validation.rows:
        blocks.append(validation)
    title = "How well each method finds the cells"
    return Section("scores", title, (_explain_scores(),), tuple(blocks), "The cells", "Scores")


def _explain_scores() -> str:
    return (
        "Dataset IoU asks whether the right pixels are called cell; F1 whether cells are found one by one; PQ both at "
        "once: how many are found and how well their outlines fit. 1 is perfect."
    )


def _validation(results: Results) -> Table:
    rows: list[list[Cell | str]] = []
    sources = {**results.summary.get("targets", {}), **results.summary.get("baseline", {})}
    for name in ordered(results):
        found = sources.get(name)
        if not found:
            continue
        told, top = found.get("validation") or {}, found.get("ceiling") or {}
        rows.append(
            [
                Cell(name, strong=name == results.winner),
                *(number(told.get(key)) for key in LABEL),
                number(top.get("f1_50")),
                number(top.get("pq_50")),
                f"{found['parameters'] / 1e6:.1f}" if found.get("parameters") else MISSING,
            ]
        )
    return Table(
        "Validation frames, on which thresholds were fitted and the model was chosen",
        ("method", *LABEL.values(), "ceiling F1", "ceiling PQ", "million parameters"),
        rows,
        ("method",),
        "Validation scores are optimistic: the choice was made on them. The ceiling is what the method reaches when "
        "its network output is perfect.",
    )


def trait_chapter(results: Results, looks: Mapping[str, Look]) -> Section | None:
    """Draw the distribution of each trait per method, with the means of frames and of replicates."""
    study = results.study
    names = [*([TRUTH] if study.has_truth else []), *ordered(results)]
    cells = {name: study.of(name) for name in names}
    if not any(len(rows) > 1 for rows in cells.values()):
        return None
    level = replicate(study)
    pictures = [
        figures.superplot(cells, trait.replace("_", " "), TRAITS[trait], _unit(trait), looks, level)
        for trait in study.traits
    ]
    caption = "Shape: all cells (middle 99 %); line: median of all cells; small marks: the mean of each frame, in order"
    caption += f"; large marks: the mean of each {level}, the same joined by a line." if level else "."
    what = f"the means of each {level}" if level else "the means of frames"
    lead = (
        f"Cells of one frame, and the same cell in several frames, are not independent: compare {what}, not the "
        "number of cells. Radius follows from area, and shape index from circularity."
    )
    return Section(
        "traits", "Traits of the cells", (lead,), (Gallery(pictures, caption),), "What you measure", "Traits"
    )


def replicate(study: Study) -> str:
    """Name the highest level of which there are two or more: patient, well or field; nothing where there is one."""
    cells = study.cells
    levels = [level for level in ("patient", "well", "field") if level in cells and cells[level].notna().all()]
    return next((level for level in levels if cells[level].nunique() > 1), "")


def _unit(trait: str) -> str:
    return UNITS.get(trait, "").replace("2", "²")


def agreement_chapter(results: Results, looks: Mapping[str, Look]) -> Section | None:
    """Hold each method's measurements against the truth, cell by cell."""
    table, study = results.agreement, results.study
    if table.empty:
        return None
    rows: list[list[Cell | str]] = []
    order = {method: at for at, method in enumerate(ordered(results))}
    in_words = table["verdict"].nunique() > 1
    for row in sorted(table.to_dict("records"), key=lambda r: (study.traits.index(r["trait"]), order[r["method"]])):
        best = table.loc[table["trait"] == row["trait"], "tfe"].min()
        cells: list[Cell | str] = [
            row["trait"].replace("_", " "),
            row["method"],
            str(row["n_matched"]),
            _with_ci(row["bias"], (row["bias_low"], row["bias_high"])),
            number(row["bias_percent"], 1),
            f"{significant(row['loa_low'])} to {significant(row['loa_high'])}",
            number(row["ccc"], 2),
            Cell(number(row["tfe"], 2), strong=row["tfe"] == best),
            number(row["tfe_matched"], 2),
            number(row["tfe_detection"], 2),
        ]
        rows.append([*cells, row["verdict"]] if in_words else cells)
    columns = (
        "trait", "method", "cells", "bias", "bias %", "95 % limits", "CCC", "TFE", "TFE: outlines", "TFE: detection",
        *(["in words"] if in_words else []),
    )  # fmt: skip
    reasons = sorted({reason for reason in table["reason"] if reason})
    note = f"Intervals, where given, are clustered by {', '.join(sorted(set(table['clustered_by'])))}. "
    note += f"Not everything could be tested: {'; '.join(reasons)}. " if reasons else ""
    note += "" if len(reasons) and not in_words else "Equivalence tests are not adjusted for their number. "
    note += f"{ONE_FIELD} " if results.one_field and table["bias_low"].notna().any() else ""
    note += f"The spread of a trait is the SD over {', '.join(sorted(set(table['sigma_source'])))}. Lengths in px."
    main = Table("Matched cells, method minus truth", columns, rows, ("trait", "method", "in words"), note)
    lead = (
        "IoU does not see what you measure. Bias is what a method adds to every cell on average, the limits hold 95 % "
        "of cells, CCC is agreement (1 perfect). TFE, the trait fidelity error, is the typical error in units of "
        "the natural spread between cells; a missed or invented cell counts as one spread. 0 is perfect, 1 is no "
        "better than guessing the mean."
    )
    blocks: list[Block] = [main]
    for trait in [t for t in INDEPENDENT if t in study.traits]:
        pictures = _bland_altman(study, trait, ordered(results), looks)
        if pictures:
            caption = f"Bland-Altman plots of {trait}"
            folded = trait not in ("area", "circularity")
            blocks.append(Gallery(pictures, caption if folded else f"{caption}. {READING}", folded=folded))
    fronts = _fronts(results, looks)
    if fronts:
        blocks.append(Gallery(fronts, "Ring: no other method is at least as good in both PQ and trait fidelity."))
    title = "Agreement with the annotation, trait by trait"
    return Section("agreement", title, (lead,), tuple(blocks), "What you measure", "Agreement")


def _bland_altman(study: Study, trait: str, methods: list[str], looks: Mapping[str, Look]) -> list[Picture]:
    clouds = {}
    for method in methods:
        true, own = values(matched(study, method), trait)
        both = np.isfinite(true) & np.isfinite(own)
        if np.count_nonzero(both) > 2:
            clouds[method] = true[both], own[both]
    frame = figures.shared_frame([((x + y) / 2, y - x) for x, y in clouds.values()])
    return [
        figures.bland_altman(x, y, trait, _unit(trait), method, looks[method], frame)
        for method, (x, y) in clouds.items()
    ]


def _fronts(results: Results, looks: Mapping[str, Look]) -> list[Picture]:
    pictures = []
    for trait in [t for t in INDEPENDENT if t in results.study.traits]:
        errors = results.agreement.set_index(["trait", "method"])["tfe"]
        points = {m: (float(s["pq_50"]), float(errors.get((trait, m), np.nan))) for m, s in results.scored.items()}
        points = {m: point for m, point in points.items() if np.isfinite(point).all()}
        if len(points) > 1:
            on = pareto_front(*zip(*points.values(), strict=True))
            ringed = [m for m, is_on in zip(points, on, strict=True) if is_on]
            pictures.append(figures.front(points, trait, ringed, looks))
    return pictures


def comparison_chapter(results: Results) -> Section | None:
    """Compare methods pair by pair, with the pooled test of the study beside the one that holds."""
    table = results.comparisons
    if table.empty:
        return None
    rows: list[list[Cell | str]] = [
        [
            row["trait"].replace("_", " "),
            f"{row['a']} - {row['b']}",
            row["test"],
            _with_ci(row["estimate"], (row["ci_low"], row["ci_high"])),
            number(row["relative_percent"], 1),
            f"{row['n_cells']:,}",
            str(row["n_clusters"]),
            significant(row["n_eff"]),
            _p(row["p"]),
            _p(row["p_holm"]),
            row["verdict"],
        ]
        for row in table.to_dict("records")
    ]
    tested = table["p_holm"].notna()
    clear = int((table.loc[tested, "p_holm"] < LEVEL).sum())
    told = (
        f"Of {int(tested.sum())} comparisons of independent traits that could be tested, {clear} show a difference "
        f"after Holm's correction at {LEVEL:g}."
        if tested.any()
        else "No comparison could be tested here; cannot rank."
    )
    paragraphs = (
        "The methods see the same cells, again and again, in shared frames. The row 'same cells' therefore compares "
        "each cell with itself and lets errors repeat within a track and within a frame.",
        f"The row '{POOLED}' is what papers usually report. It takes every cell for an independent one: with no true "
        "difference it rejected in 36 % of simulated studies where each cell keeps its own error. n_eff is how many "
        "independent cells the pooled ones are worth.",
        told + (f" {ONE_FIELD}" if clear and results.one_field else ""),
    )
    main = Table(
        "All comparisons of methods (comparisons.csv has every column)",
        ("trait", "pair", "test", "difference", "%", "cells", "clusters", "n_eff", "p", "p (Holm)", "in words"),
        rows,
        ("trait", "pair", "test", "in words"),
        f"Cells are paired by {results.study.matched_by}.",
        folded=len(rows) > 12,
    )
    title = "Do the methods measure differently?"
    return Section("comparisons", title, paragraphs, (main,), "What you measure", "Comparisons")


def _with_ci(value: float, ci: tuple[float, float]) -> Cell:
    told = f"{significant(ci[0])} to {significant(ci[1])}" if np.isfinite(ci).all() else ""
    return Cell(significant(value), below=told)


def _p(value: float) -> str:
    return MISSING if not np.isfinite(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"
