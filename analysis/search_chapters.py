"""The chapters about the search: leaderboard, Table 1, architectures, curves, every network's output, every trial."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis import figures
from analysis.record import Record, curves, trial_name, varied
from analysis.report import MISSING, Block, Cell, Gallery, Section, Table, interval, number, shade, significant, with_ci
from analysis.results import or_nan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from analysis.figures import Look

SCORED_ONCE = "scored once after the choice; nothing chosen from it"
"""Said wherever test scores of many trials stand side by side."""


def leaderboard_chapter(record: Record) -> Section | None:
    """Tabulate the candidates of each target as the choice saw them, best first, ties marked, with what they cost."""
    trials = record.trials
    if "validation" not in trials or not trials["validation"].notna().any():
        return None
    standing, settings = record.summary.get("selection", {}), varied(trials)
    tables, paragraphs = [], []
    for target, own in trials.dropna(subset="validation").groupby("target", sort=False):
        found = standing.get(target, {})
        rows: list[list[Cell | str]] = []
        repeated = "validation_mean" in own and own["validation_mean"].notna().any()
        for row in _best_first(own).to_dict("records"):
            chosen = str(row["trial"]) == str(found.get("chosen"))
            ci = interval((or_nan(row.get("validation_low")), or_nan(row.get("validation_high"))))
            tie = "chosen" if chosen else "tie" if row.get("top_set") else ""
            rows.append(
                [
                    Cell(trial_name(row, settings), strong=chosen, below=str(row["trial"])),
                    Cell(number(row["validation"]), below="" if ci == MISSING else ci),
                    *([_over_seeds(row)] if repeated else []),
                    tie,
                    *_cost(row),
                    significant(row.get("peak_memory_mb")),
                    significant(row.get("megapixels_per_second")),
                ]
            )
        objective = found.get("objective", record.summary.get("search", {}).get("objective", ""))
        mean = ("mean over seeds",) if repeated else ()
        score = {"pq": "PQ", "iou": "dataset IoU"}.get(objective, objective)
        columns = ("model", f"validation {score}".strip(), *mean, "standing", *COSTS, "memory MB", "Mpx/s")
        tables.append(Table(f"{target}: candidates", columns, rows, ("model", "standing"), folded=len(rows) > 15))
        if found.get("sentence"):
            paragraphs.append(f"{target}: {found['sentence']}")
    if _one_validation_field(record):
        paragraphs.append(ONE_VALIDATION_FIELD)
    return Section("leaderboard", "Leaderboard", (LEADERBOARD_NOTE, *paragraphs), tuple(tables), "The search")


ONE_VALIDATION_FIELD = (
    "All validation frames come from one field, so that these intervals and ties describe its cells only and are too "
    "narrow for new samples."
)


def _one_validation_field(record: Record) -> bool:
    """Tell whether the clusters of the choice were frames of one field: there are more of them than fields."""
    fields = or_nan(record.summary.get("dataset", {}).get("fields"))
    clusters = [or_nan(found.get("clusters")) for found in record.summary.get("selection", {}).values()]
    return any(n > fields for n in clusters)


COSTS = ("million parameters", "training time", "GPU share", "GPU hours")
LEADERBOARD_NOTE = (
    "The candidates as the choice saw them; small print: 95 % interval, clustered. A tie cannot be told apart from the "
    "best on these validation frames. GPU share is the part of one GPU a trial had, so two training times compare only "
    "at equal shares; GPU hours are time x share. Memory is the peak while training, on a CPU of the whole process; "
    "Mpx/s are frame megapixels predicted per second."
)


def _best_first(own: pd.DataFrame) -> pd.DataFrame:
    """Sort candidates by their configuration's value, then by their own."""
    if "validation_mean" not in own:
        return own.sort_values("validation", ascending=False)
    value = own["validation_mean"].fillna(own["validation"])
    return own.assign(_value=value).sort_values(["_value", "validation"], ascending=False)


def _over_seeds(row: Mapping[str, Any]) -> Cell:
    """Mean and, below it, SD of the seeds that a trial's configuration was trained with."""
    mean, deviation = or_nan(row.get("validation_mean")), or_nan(row.get("validation_sd"))
    return Cell(number(mean), below=f"SD {number(deviation)}" if np.isfinite(deviation) else "")


def _millions(row: Mapping[str, Any]) -> str:
    return number(or_nan(row.get("parameters")) / 1e6, 1)


def _cost(row: Mapping[str, Any]) -> list[str]:
    """Millions of parameters, training time, GPU share and GPU hours of a trial."""
    gpus = or_nan(row.get("gpus"))
    share = "CPU" if gpus == 0 else number(gpus, 2)
    return [_millions(row), duration(or_nan(row.get("seconds"))), share, number(row.get("gpu_hours"))]


def duration(seconds: float) -> str:
    """Write a time as "h:mm:ss" or "m:ss", or a dash where there is none."""
    if not np.isfinite(seconds):
        return MISSING
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def table_1_chapter(record: Record) -> Section | None:
    """Tabulate and draw the test dataset IoU of every completed architecture and encoder, as the study's Table 1."""
    cells = completed_cells(record.trials)
    if cells.empty:
        return None
    crops = cells["crop"].dropna() if "crop" in cells else pd.Series(dtype=float)
    usual = crops.mode().iloc[0] if len(crops) else None
    pictures = []
    for target, own in cells.groupby("target", sort=False):
        names, values, ends = _grid(own)
        if values.size > 1:
            pictures.append(figures.heat_map(values, *names, str(target), "test dataset IoU", ends))
    rows: list[list[Cell | str]] = [
        [
            str(row["target"]),
            trial_name(row) + (f" ({int(row['crop'])} px)" if crops.size and row["crop"] != usual else ""),
            _millions(row),
            with_ci(or_nan(row["test_dataset_iou"]), [or_nan(row.get(f"test_dataset_iou_{end}")) for end in ENDS]),
            number(row.get("test_pq")),
            number(row.get("train_loss"), 4),
            number(row.get("epochs"), 0),
            *_cost(row)[1:],
        ]
        for _, own in cells.groupby("target", sort=False)
        for row in own.to_dict("records")
    ]
    title = f"Every architecture and encoder on the test frames, {SCORED_ONCE}"
    table = Table(title, TABLE_1, rows, ("target", "model"), folded=len(rows) > 40)
    known = "test_dataset_iou_low" in cells and cells["test_dataset_iou_low"].notna().any()
    small = "Small print: 95 % interval, clustered. " if known else ""
    caption = f"Dataset IoU on the test frames, {SCORED_ONCE}. {small}A blank cell was not completed."
    blocks: tuple[Block, ...] = (Gallery(pictures, caption), table) if pictures else (table,)
    lead = (
        f"Every completed combination on the test frames, {SCORED_ONCE}: the best cell here is not a recommendation, "
        "the verdict is. Where losses, settings or seeds were tried, the cell shows the trial that was best on "
        "validation. The training loss is that of the epoch used. Training times compare only at equal GPU shares. "
        + ("Intervals are of one trained network each: another seed may lie outside." if known else "")
    )
    odd = f" Crops are {int(usual)} px; other sizes are marked." if usual is not None and crops.nunique() > 1 else ""
    title = "Table 1: architectures and encoders on the test frames"
    return Section("table-1", title, (lead + odd,), blocks, "The search", "Table 1")


TABLE_1 = (
    "target", "model", "million parameters", "test dataset IoU", "test PQ", "training loss", "epochs", "training time",
    "GPU share", "GPU hours",
)  # fmt: skip
ENDS = ("low", "high")

Grid = tuple[tuple[list[str], list[str]], NDArray[np.float64], tuple[NDArray[np.float64], NDArray[np.float64]] | None]


def _grid(own: pd.DataFrame) -> Grid:
    """Spread the test IoU of one target over architectures and encoders: names, values, ends of the intervals."""
    keys = own[["architecture", "encoder"]].astype(str)
    names = [list(dict.fromkeys(keys[key])) for key in keys]

    def spread(column: str) -> NDArray[np.float64]:
        grid = np.full((len(names[0]), len(names[1])), np.nan)
        if column in own:
            at = [keys[key].map(names[k].index).to_numpy(int) for k, key in enumerate(keys)]
            grid[at[0], at[1]] = own[column].to_numpy(float)
        return grid

    low, high = (spread(f"test_dataset_iou_{end}") for end in ENDS)
    return (names[0], names[1]), spread("test_dataset_iou"), (low, high) if np.isfinite(low).any() else None


def completed_cells(trials: pd.DataFrame) -> pd.DataFrame:
    """Return one row per target, architecture and encoder: of its completed trials the best on validation.

    Only trials with a test score count. Test scores decide nothing: the order is that of the column validation, else
    of val_dataset_iou.
    """
    if trials.empty or "test_dataset_iou" not in trials:
        return pd.DataFrame()
    done = trials[(trials["status"] == "completed") & trials["test_dataset_iou"].notna()]
    order = "validation" if "validation" in done and done["validation"].notna().any() else "val_dataset_iou"
    done = done.assign(encoder=done["encoder"].replace("", None).fillna("its own")).sort_values(
        order, ascending=False, kind="stable"
    )
    return done.drop_duplicates(["target", "architecture", "encoder"]).sort_index()


def architecture_chapter(record: Record) -> Section | None:
    """Tabulate the best validation IoU of each architecture and encoder, one table per target."""
    trials = record.trials
    if trials.empty or "val_dataset_iou" not in trials:
        return None
    tables = []
    for target, own in trials.groupby("target", sort=False):
        best = own.groupby(["architecture", "encoder"])["val_dataset_iou"].max().unstack()
        done = own.groupby(["architecture", "encoder"])["epochs"].max().unstack() if "epochs" in own else None
        values = best.to_numpy(float)
        if not np.isfinite(values).any():
            continue
        full = (
            own.loc[own["epochs"] >= own["epochs"].max(), "val_dataset_iou"]
            if "epochs" in own
            else own["val_dataset_iou"]
        )
        low, high = float(full.min()) if len(full) > 1 else float(np.nanmin(values)), float(np.nanmax(values))
        columns = ("architecture", *map(str, best.columns))
        rows: list[list[Cell | str]] = []
        for architecture in best.index:
            row: list[Cell | str] = [str(architecture)]
            for encoder in best.columns:
                value = float(best.loc[architecture, encoder])
                trained = "" if done is None or not np.isfinite(value) else f" ({int(done.loc[architecture, encoder])})"
                row.append(Cell(f"{number(value)}{trained}", shade(value, low, high), strong=value == high))
            rows.append(row)
        tables.append(Table(f"{target}: validation dataset IoU", columns, rows, ("architecture",), beside=True))
    if not tables:
        return None
    return Section(
        "architectures",
        "Architectures and encoders",
        (
            "The best trial of each combination, in brackets the epochs it was trained. Darker is better within one "
            "table, starting at the worst fully trained one; targets are not comparable, since each counts its own "
            "foreground.",
            "Combinations stopped early had less training: a low value can mean slow rather than bad. One seed per "
            "combination carries no interval, so small differences are not findings.",
        ),
        tuple(tables),
        "The search",
    )


WANTED = {
    "train_loss": "training loss",
    "val_loss": "validation loss",
    "val_dataset_iou": "validation dataset IoU",
}
"""Columns of metrics.csv that are drawn."""


def curve_chapter(record: Record, looks: Mapping[str, Look]) -> Section | None:
    """Draw training loss, validation loss and validation IoU of all trials, a figure per target."""
    found = curves(record)
    targets = list(dict.fromkeys(curve.target for curve in found))
    blocks = []
    for column, label in WANTED.items():
        drawn = [figures.learning(found, t, column, label, looks.get(t, figures.NOBODY)) for t in targets]
        pictures = [picture for picture in drawn if picture]
        if pictures:
            blocks.append(Gallery(pictures, f"{label[:1].upper()}{label[1:]}. {figures.LEARNING_LEGEND}"))
    if not blocks:
        return None
    lead = (
        "A validation loss that rises while the training loss falls means that the network learns its frames by heart. "
        "Losses compare only within one target and one loss function."
    )
    return Section("curves", "Learning curves", (lead,), tuple(blocks), "The search")


def history_chapter(record: Record) -> Section | None:
    """Tell which trials ran to the end, which were stopped when and against what, and what references show."""
    trials, search = record.trials, record.summary.get("search", {})
    if trials.empty:
        return None
    stops, settings = {str(stop.get("trial")): stop for stop in search.get("stops", [])}, varied(trials)
    rows: list[list[Cell | str]] = []
    for row in trials.sort_values("val_dataset_iou", ascending=False, na_position="last").to_dict("records"):
        stop = stops.get(str(row["trial"]))
        why = (
            f"stopped after epoch {stop.get('epoch')}: {number(stop.get('value'))} below {number(stop.get('cutoff'))}"
            if stop
            else str(row.get("reason") or "")
        )
        rows.append(
            [
                str(row["trial"]),
                str(row["target"]),
                trial_name(row, settings) + (" (reference)" if row.get("reference") else ""),
                str(row.get("status", "")),
                number(row.get("epochs"), 0),
                number(row.get("val_dataset_iou")),
                number(row.get("train_loss")),
                number(row.get("val_loss")),
                significant(row.get("seconds")),
                why,
            ]
        )
    status = trials["status"].value_counts() if "status" in trials else pd.Series(dtype=int)
    told = ", ".join(f"{count} {name}" for name, count in status.items())
    seconds = or_nan(search.get("seconds"))
    paragraphs = [
        f"{len(trials)} trials: {told}" + (f", in {seconds / 60:.1f} minutes." if np.isfinite(seconds) else ".")
    ]
    references = int(trials["reference"].sum()) if "reference" in trials else 0
    if references:
        paragraphs.append(
            f"{references} reference {'run was' if references == 1 else 'runs were'} never stopped, so that one can "
            "see what a full training reaches."
        )
    columns = (
        "trial",
        "target",
        "model",
        "status",
        "epochs",
        "val. IoU",
        "train loss",
        "val. loss",
        "seconds",
        "why it ended",
    )
    table = Table(
        "Every trial, best validation IoU first",
        columns,
        rows,
        ("trial", "target", "model", "status", "why it ended"),
        folded=len(rows) > 15,
    )
    return Section("search", "How the search went", tuple(paragraphs), (table,), "The search", "Every trial")
