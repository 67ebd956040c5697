"""The chapters about the search: architectures, learning curves, every network's output, who was stopped and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analysis import figures
from analysis.record import Record, curves, examples, trial_name
from analysis.report import Cell, Gallery, Section, Table, number, shade, significant
from analysis.results import or_nan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from analysis.figures import Curve

MOST_NETWORKS = 60
"""Network outputs shown, the best by validation IoU."""


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
    )


def curve_chapter(record: Record, tint: Mapping[str, str]) -> Section | None:
    """Draw training loss, validation loss and validation IoU of all trials."""
    found = curves(record)
    if not found:
        return None
    wanted = {
        "train_loss": "training loss",
        "val_loss": "validation loss",
        "val_dataset_iou": "validation dataset IoU",
    }
    pictures = [
        figures.learning(found, column, label, tint)
        for column, label in wanted.items()
        if any(column in c.table and c.table[column].notna().any() for c in found)
    ]
    blocks = tuple(Gallery([picture]) for picture in pictures)
    lead = "A validation loss that rises while the training loss falls means the network learns its frames by heart."
    return Section("curves", "Learning curves", (lead,), blocks)


def network_gallery(record: Record) -> list[Table | Gallery]:
    """Show one validation crop of every trial: its foreground probability and the true outlines."""
    shown = sorted(examples(record), key=lambda e: -or_nan(e.row.get("val_dataset_iou")))[:MOST_NETWORKS]
    if not shown:
        return []
    pictures = []
    for example in shown:
        name = f"{example.row['target']}: {trial_name(example.row)}"
        iou = number(example.row.get("val_dataset_iou"))
        alt = f"Foreground probability of {name} on a validation crop, truth outlined"
        picture = figures.probability(example.image, example.foreground, example.truth, alt)
        pictures.append(figures.captioned(picture, f"{name}, {example.row.get('status', '')}, IoU {iou}"))
    left_out = f" (the best {MOST_NETWORKS})" if len(shown) == MOST_NETWORKS else ""
    title = f"Every network's output on a validation crop{left_out}: white is cell, orange the true outline"
    return [Gallery(pictures, title, folded=True, small=True)]


def history_chapter(record: Record) -> Section | None:
    """Tell which trials ran to the end, which were stopped when and against what, and what references show."""
    trials, search = record.trials, record.summary.get("search", {})
    if trials.empty:
        return None
    stops = {str(stop.get("trial")): stop for stop in search.get("stops", [])}
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
                trial_name(row) + (" (reference)" if row.get("reference") else ""),
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
        paragraphs += _hindsight(record)
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
    return Section("search", "How the search went", tuple(paragraphs), (table,))


def _hindsight(record: Record) -> list[str]:
    """Say how the references stood at the first epoch at which others were stopped, against their end."""
    epochs = [int(stop["epoch"]) for stop in record.summary.get("search", {}).get("stops", []) if "epoch" in stop]
    found: list[Curve] = [c for c in curves(record) if c.reference and "val_dataset_iou" in c.table]
    if not epochs or not found:
        return []
    first = min(epochs)
    lines = []
    for curve in found:
        early = curve.table.loc[curve.table["epoch"] <= first, "val_dataset_iou"]
        if len(early) and len(curve.table) > len(early):
            lines.append(
                f"{curve.name} ({curve.target}) stood at {number(early.iloc[-1])} at epoch {first}, when others were "
                f"first stopped, and ended at {number(curve.table['val_dataset_iou'].iloc[-1])}."
            )
    return lines
