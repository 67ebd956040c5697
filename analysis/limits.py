"""What the numbers of a report cannot tell, in plain words: its caveats, worked out from the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.report import Points, Section
from analysis.results import frames
from analysis.samples import TRUTH
from analysis.statistics import FEWEST_CLUSTERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from analysis.results import Results

Point = tuple[str, str]


def limit_chapter(results: Results) -> Section:
    """List every limit that applies here."""
    points = (
        *_synthetic(results),
        *_patients(results),
        *_clusters(results),
        *_annotation(results),
        *_split(results),
        *_seeds(results),
        *_always(results),
    )
    lead = "What a reviewer will ask. None of it is a fault of a method; each bounds what the numbers above can show."
    title = "What these numbers cannot tell"
    return Section("limits", title, (lead,), (Points(points),), "Fine print", "Limits")


def _synthetic(results: Results) -> Iterator[Point]:
    if results.record and results.record.synthetic:
        yield (
            "Synthetic images.",
            "A computer drew these cells and knows them exactly. A method that does well here has shown that it can "
            "learn the drawing, not that it measures real cells. Annotate some of your own frames and run it on them.",
        )


def _patients(results: Results) -> Iterator[Point]:
    cells = results.study.cells
    known = cells["patient"].nunique() if "patient" in cells else 0
    if known > 1:
        return
    yield (
        "One patient." if known else "Patients unknown.",
        ("All cells come from one patient" if known else "No patient is named in the data, so they count as one")
        + ": nothing here is a statement about patients, and there is no p-value for a population of them. Cells, "
        "frames and fields are repeats within a patient, however many there are.",
    )


def _clusters(results: Results) -> Iterator[Point]:
    n, units = len(results.study.frames), len(set(results.clusters))
    unit = "frame" if results.one_field else "field"
    if units < FEWEST_CLUSTERS:
        yield (
            "Few clusters.",
            f"{frames(n)} in {units} {unit}{'' if units == 1 else 's'} were compared. Below {FEWEST_CLUSTERS} an "
            "interval would be a guess, so none is given, and the order of methods is a point estimate. Annotate "
            f"frames of at least {FEWEST_CLUSTERS} fields to be able to rank.",
        )
    elif results.one_field:
        yield (
            "One field of view.",
            f"All {frames(n)} show the same place and mostly the same cells. Intervals and p-values ask whether "
            "another frame of this place would say the same, not another dish or patient.",
        )
    elif units < 3 * FEWEST_CLUSTERS:
        yield (
            "Not many clusters.",
            f"{units} {unit}s carry the intervals. They are made for small numbers, but an odd {unit} still weighs "
            "much.",
        )


def _annotation(results: Results) -> Iterator[Point]:
    if not results.study.has_truth:
        yield (
            "No annotation.",
            "The methods are compared with each other only. Where they agree, both can be wrong.",
        )
        return
    cells = len(results.study.of(TRUTH))
    synthetic = results.record and results.record.synthetic
    if not synthetic:
        yield (
            "The annotation counts as the truth.",
            f"{cells:,} cells were drawn by someone. An error of the annotator is charged to every method, and a "
            "method that draws as the annotator does looks better than it is. Have some frames annotated twice: "
            "methods closer to the truth than two annotators are to each other cannot be told apart.",
        )


def _split(results: Results) -> Iterator[Point]:
    data = results.summary.get("dataset", {})
    if str(data.get("split_unit", "")) == "time":
        yield (
            "Split by time.",
            "Training, validation and test frames come from the same movie, and a cell may be in all three. How the "
            "models do on another movie is not tested.",
        )
    elif data:
        yield (
            "One split.",
            f"Training, validation and test are kept apart by {data.get('split_unit', 'field')}, once. Another split "
            "would give somewhat other numbers; --folds repeats the choice's training on others.",
        )


def _seeds(results: Results) -> Iterator[Point]:
    record = results.record
    if record is None or record.trials.empty or "seed" not in record.trials:
        return
    if record.trials["seed"].nunique() < 2:
        yield (
            "One seed.",
            "Each network was trained once. Trained again from another start it would end elsewhere, by as much as "
            "neighbouring ranks in the leaderboard differ: --seeds shows by how much.",
        )


def _always(results: Results) -> Iterator[Point]:
    if len(results.study.methods) > 1:
        yield (
            "No difference shown is not equality.",
            "A large p-value means that these data cannot tell two methods apart. That two are equivalent is said only "
            "where an equivalence test shows it.",
        )
    yield (
        "These images only.",
        "Another microscope, magnification, focus or cell type can turn the order round. The measures are in pixels "
        "of these images; a smaller pixel makes every outline error smaller.",
    )
