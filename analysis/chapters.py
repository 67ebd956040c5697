"""What the report says, chapter by chapter: results in, sections out; wording is never stronger than the test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from analysis import figures, scores
from analysis.comparisons import LEVEL, POOLED
from analysis.fidelity import pareto_front
from analysis.report import MISSING, Cell, Gallery, Section, Table, interval, number, significant
from analysis.results import LABEL, ONE_FIELD, Results, frames, model_name, ordered
from analysis.samples import INDEPENDENT, TRAITS, TRUTH, Study, pair
from analysis.search_chapters import network_gallery

if TYPE_CHECKING:
    from collections.abc import Mapping

    from analysis.figures import Picture

CROP = 128
"""Side of the example crops, px."""
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
    blocks: list[Table | Gallery] = [table]
    validation = _validation(results)
    if validation.rows:
        blocks.append(validation)
    return Section("scores", "How well each method finds the cells", (_explain_scores(),), tuple(blocks))


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


def example_chapter(results: Results, tint: Mapping[str, str]) -> Section | None:
    """Show the same crops with the outlines of each method and of the truth."""
    study = results.study
    if study.image is None or not study.frames or not study.labels:
        return None
    key = study.frames[-1]
    image = _grey(study, key)
    reference = study.labels[TRUTH if study.has_truth else study.methods[0]](*key)
    window = figures.busiest(reference, CROP)
    where = f"{key[0]}, frame {key[1]}"
    pictures = []
    for method in ordered(results):
        drawn = [(study.labels[method](*key)[window], tint[method])]
        if study.has_truth:
            drawn.insert(0, (reference[window], figures.YELLOW))
        alt = f"Crop of {where} with the outlines drawn by {method}" + (
            " over those of the truth" if study.has_truth else ""
        )
        pictures.append(figures.captioned(figures.outlines(image[window], drawn, alt), method))
    legend = [(method, tint[method]) for method in ordered(results)]
    blocks: list[Table | Gallery] = []
    if study.has_truth:
        legend.append(("truth (visible where the method's outline differs)", figures.YELLOW))
    blocks.append(
        Gallery(
            pictures,
            f"The crop of {where} with most outline in the reference; the same for every method.",
            tuple(legend),
            wide=True,
        )
    )
    if results.record:
        blocks += network_gallery(results.record)
    return Section("examples", "Examples", (), tuple(blocks))


def overlay_chapter(results: Results) -> Section | None:
    """Tint found, missed and invented pixels on a whole compared frame, one picture per method."""
    study = results.study
    if study.image is None or not study.has_truth or not study.labels or not study.frames:
        return None
    key = study.frames[-1]
    image, truth = _grey(study, key), study.labels[TRUTH](*key)
    pictures = []
    for method in ordered(results):
        pred = study.labels[method](*key)
        found = scores.score([scores.frame_counts(truth, pred)])
        told = f"dataset IoU {number(found['dataset_iou'])}, PQ {number(found['pq_50'])}"
        alt = f"{method} on {key[0]}, frame {key[1]}: {told}"
        caption = f"{method}: {told} on this frame"
        pictures.append(figures.captioned(figures.confusion(image, truth, pred, alt), caption))
    legend = (
        ("found (true positive)", figures.BLUE),
        ("missed (false negative)", figures.YELLOW),
        ("invented (false positive)", figures.VERMILION),
    )
    caption = f"{key[0]}, frame {key[1]}. Pixels, not cells: two cells drawn as one look right here and cost F1 and PQ."
    return Section("overlays", "Right and wrong pixels", (), (Gallery(pictures, caption, legend, wide=True),))


def trait_chapter(results: Results, tint: Mapping[str, str]) -> Section | None:
    """Draw the distribution of each trait per method, with frame means."""
    study = results.study
    names = [*([TRUTH] if study.has_truth else []), *ordered(results)]
    cells = {name: study.of(name) for name in names}
    if not any(len(rows) > 1 for rows in cells.values()):
        return None
    pictures = [
        figures.superplot(cells, trait.replace("_", " "), TRAITS[trait], UNITS.get(trait, "").replace("2", "²"), tint)
        for trait in study.traits
    ]
    caption = "Shape: all cells (middle 99 %); line: median of all cells; dots: the mean of each frame, in time order."
    lead = (
        "Cells of one frame, and the same cell in several frames, are not independent: compare the dots, not the "
        "number of cells. Radius follows from area, and shape index from circularity."
    )
    return Section("traits", "Traits of the cells", (lead,), (Gallery(pictures, caption),))


def agreement_chapter(results: Results, tint: Mapping[str, str]) -> Section | None:
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
    blocks: list[Table | Gallery] = [main]
    for trait in [t for t in ("area", "circularity") if t in study.traits]:
        pictures = _bland_altman(study, trait, ordered(results), tint)
        if pictures:
            caption = f"Bland-Altman plots of {trait}: full line bias, dashed lines 95 % limits, border cells left out."
            blocks.append(Gallery(pictures, caption))
    fronts = _fronts(results, tint)
    if fronts:
        blocks.append(Gallery(fronts, "Ring: no other method is at least as good in both."))
    return Section("agreement", "Agreement with the annotation, trait by trait", (lead,), tuple(blocks))


def _bland_altman(study: Study, trait: str, methods: list[str], tint: Mapping[str, str]) -> list[Picture]:
    pictures, column = [], TRAITS[trait]
    truth = study.of(TRUTH).query("not border")[["field", "frame", "label", column]]
    for method in methods:
        own = study.of(method)[["field", "frame", "label", column]]
        both = pair(study, TRUTH, method)
        both = both.merge(truth.rename(columns={"label": "label_a", column: "true"}), on=["field", "frame", "label_a"])
        both = both.merge(own.rename(columns={"label": "label_b", column: "own"}), on=["field", "frame", "label_b"])
        both = both.dropna(subset=["true", "own"])
        if len(both) > 2:
            x, y = both["true"].to_numpy(float), both["own"].to_numpy(float)
            pictures.append(
                figures.agreement(x, y, trait, UNITS.get(trait, "").replace("2", "²"), method, tint[method])
            )
    return pictures


def _fronts(results: Results, tint: Mapping[str, str]) -> list[Picture]:
    pictures = []
    for trait in [t for t in INDEPENDENT if t in results.study.traits]:
        errors = results.agreement.set_index(["trait", "method"])["tfe"]
        points = {m: (float(s["pq_50"]), float(errors.get((trait, m), np.nan))) for m, s in results.scored.items()}
        points = {m: point for m, point in points.items() if np.isfinite(point).all()}
        if len(points) > 1:
            on = pareto_front(*zip(*points.values(), strict=True))
            ringed = [m for m, is_on in zip(points, on, strict=True) if is_on]
            pictures.append(figures.front(points, trait, ringed, tint))
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
    return Section("comparisons", "Do the methods measure differently?", paragraphs, (main,))


def _with_ci(value: float, ci: tuple[float, float]) -> Cell:
    told = f"{significant(ci[0])} to {significant(ci[1])}" if np.isfinite(ci).all() else ""
    return Cell(significant(value), below=told)


def _p(value: float) -> str:
    return MISSING if not np.isfinite(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def definition_chapter() -> Section:
    """State every rule the numbers rest on."""
    paragraphs = (
        f"Empty frames: {scores.EMPTY_RULE}",
        "Dataset IoU is the sum of shared foreground pixels over the sum of pixels in either, over all frames; "
        "per-image IoU is the mean over frames. An image is a full frame here; in trials.parquet and metrics.csv, and "
        "so wherever trials are compared, validation scores are taken over validation crops and an image is a crop.",
        "A cell counts as found when its IoU with a true cell is at least 0.5 (>=, as StarDist counts; Kirillov's PQ "
        "asks > 0.5), one-to-one. F1 = 2 TP / (2 TP + FP + FN); PQ = sum of matched IoU / (TP + FP/2 + FN/2); AP is "
        "the mean over IoU .50, .55, ... .95 of TP / (TP + FP + FN). All are pooled over frames.",
        "Intervals are 95 %, t with (clusters - 1) degrees of freedom on cluster-robust standard errors: by field for "
        "scores, by frame where there is only one field; by track x frame, two-way, for traits, df from the smaller "
        "number. Below 5 clusters none is given.",
        "TFE: matched cells away from the frame border; error = difference (circularity, solidity) or log ratio (area, "
        "perimeter, radius, shape index) over the SD of the truth, cut at 3; a missed or invented cell counts 1; root "
        "mean square. Neither errors nor SD count true cells that the frame border cuts.",
        "Area is the pixel count, perimeter Crofton's with 4 directions, radius follows from area; circularity, "
        "solidity and shape index come from one smoothed contour, so circularity never exceeds 1. TrackMate's numbers "
        "are separate columns of the cells table.",
    )
    return Section("definitions", "Definitions", paragraphs)


def provenance(results: Results, made: Mapping[str, Any]) -> dict[str, str]:
    """Flatten what made the data, the models and this page."""
    found: dict[str, str] = {}
    for prefix, source in (("report", made), ("search", results.summary.get("provenance", {}))):
        for name, value in _flat(source):
            found[f"{prefix}: {name}"] = value
    for name, value in _flat({k: v for k, v in results.summary.get("dataset", {}).items() if k != "warnings"}):
        found[f"data: {name}"] = value
    return found


def _flat(source: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for name, value in source.items():
        if isinstance(value, dict):
            if all(not isinstance(v, (dict, list)) for v in value.values()):
                pairs.append((f"{prefix}{name}", ", ".join(f"{k} {v}" for k, v in value.items())))
            else:
                pairs += _flat(value, f"{prefix}{name} ")
        elif value not in (None, "", [], {}):
            pairs.append((f"{prefix}{name}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    return pairs


def _grey(study: Study, key: tuple[str, int]) -> Any:
    image = np.asarray(study.image(*key)) if study.image else np.zeros((1, 1))
    return image[0] if image.ndim == 3 else image
