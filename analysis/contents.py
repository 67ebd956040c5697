"""The contents of the report: its chapters in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis import (
    against_truth,
    answer,
    chapters,
    conventions,
    decoding,
    definitions,
    density,
    differences,
    early_stopping,
    examples,
    figures,
    limits,
    methods_text,
    rounding,
    search_chapters,
    verdict,
    worst_cells,
)
from analysis.report import Page
from analysis.results import frames
from analysis.samples import TRUTH
from data_io.provenance import provenance

if TYPE_CHECKING:
    from analysis.results import Results


def page(results: Results) -> Page:
    """Put the chapters in order."""
    record, study = results.record, results.study
    looks = figures.looks([*study.methods, TRUTH])
    sections = [
        chapters.score_chapter(results) if results.counted else None,
        examples.example_chapter(results, looks),
        examples.overlay_chapter(results),
        worst_cells.worst_chapter(results, looks),
        against_truth.agreement_chapter(results, looks),
        chapters.trait_chapter(results, looks),
        density.density_chapter(results, looks),
        rounding.rounding_chapter(results, looks),
        conventions.convention_chapter(results),
        differences.difference_chapter(results),
        decoding.decoding_chapter(record, looks) if record else None,
        search_chapters.leaderboard_chapter(record) if record else None,
        search_chapters.table_1_chapter(record) if record else None,
        search_chapters.architecture_chapter(record) if record else None,
        search_chapters.curve_chapter(record, looks) if record else None,
        early_stopping.early_stopping_chapter(record) if record else None,
        search_chapters.history_chapter(record) if record else None,
        methods_text.methods_chapter(results),
        limits.limit_chapter(results),
        definitions.definition_chapter(),
    ]
    data = results.summary.get("dataset", {})
    name = str(data.get("name") or (record.folder.name if record else "label images"))
    return Page(
        title=f"Cell segmentation: {name}" if record else "Comparison of segmentations",
        subtitle=_subtitle(results),
        verdict=verdict.verdict(results),
        answer=answer.answer(results),
        warnings=verdict.warnings(results),
        sections=tuple(section for section in sections if section),
        synthetic=bool(record and record.synthetic),
        provenance=definitions.provenance(results, provenance()),
    )


def _subtitle(results: Results) -> str:
    study, data = results.study, results.summary.get("dataset", {})
    n, what = len(study.methods), "condition" if study.independent else "method"
    told = f"{frames(len(study.frames))} compared, {n} {what}{'' if n == 1 else 's'}"
    if data:
        parts = ", ".join(f"{data[part]} {word}" for part, word in _PARTS.items() if data.get(part) is not None)
        told += f"; frames: {parts}; split by {data.get('split_unit', 'field')}"
    return told + ("; synthetic data" if results.record and results.record.synthetic else "")


_PARTS = {"train": "training", "val": "validation", "test": "test"}
