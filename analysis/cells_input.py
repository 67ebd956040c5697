"""Tables of cells from this project, TrackMate or ImageJ, with the columns that comparisons need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analysis.label_input import FIELD
from analysis.samples import TRAITS
from data_io.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path

KEYS = ("patient", "well", "field", "condition", "frame", "track")
"""What a cell belongs to; all optional but the frame."""
TRACKMATE = {
    "FRAME": "frame",
    "ID": "label",
    "TRACK_ID": "track",
    "POSITION_X": "centroid_x_px",
    "POSITION_Y": "centroid_y_px",
    "AREA": "area_px2",
    "PERIMETER": "perimeter_px",
    "CIRCULARITY": "circularity",
    "SOLIDITY": "solidity",
    "RADIUS": "radius_px",
    "SHAPE_INDEX": "shape_index",
}
"""Columns of TrackMate's table of spots."""
IMAGEJ = {
    "Area": "area_px2",
    "Perim.": "perimeter_px",
    "Circ.": "circularity",
    "Solidity": "solidity",
    "X": "centroid_x_px",
    "Y": "centroid_y_px",
}
"""Columns of ImageJ's table of results; Slice or Frame count from 1."""
_PLAIN = {trait: column for trait, column in TRAITS.items() if trait != column}
_IN_PIXELS = ("", "pixel", "pixels", "px", "pix", "pixel^2", "px^2", "nan")


def is_table(path: Path) -> bool:
    """Tell whether a path is a table by its name."""
    return path.suffix.lower() in {".csv", ".parquet"}


def read_cells(path: Path, method: str, *, paired: bool = True) -> pd.DataFrame:
    """Read a table of cells: one row per cell and frame, columns of `TRAITS`, `KEYS`, label, centroids.

    The table of a run holds several methods: rows of `method` are taken. A TrackMate table loses its three further
    header rows. `table.attrs` says `estimator` ("trackmate", "imagej" or "") and `unit` ("px" or another length).
    Without `paired`, for conditions that share no cells, frame and label may be missing.

    Raises
    ------
    BadInput
        Unreadable, columns missing or of the wrong type, or a cell that stands in it twice.
    """
    try:
        table = pd.read_parquet(path) if path.suffix.lower() == ".parquet" else pd.read_csv(path, low_memory=False)
    except (OSError, ValueError) as fault:
        told = str(fault).splitlines()[0] if str(fault) else type(fault).__name__
        raise BadInput(f"{path}: cannot be read as a table ({told}); export it again") from fault
    if table.columns.duplicated().any():
        twice = table.columns[table.columns.duplicated()][0]
        raise BadInput(f"{path}: two columns are called {twice}; keep one of them")
    table = _known(table)
    estimator, unit = str(table.attrs.get("estimator", "")), str(table.attrs.get("unit", "px"))
    if not paired:
        spare = {"frame": 0, "label": np.arange(1, len(table) + 1)}
        table = table.assign(**{name: value for name, value in spare.items() if name not in table})
    traits = [column for column in TRAITS.values() if column in table]
    if not traits or "frame" not in table or "label" not in table:
        raise BadInput(
            f"{path}: a cells table needs frame, label and at least one of {', '.join(TRAITS.values())}; "
            f"it has {', '.join(map(str, table.columns[:12]))}"
        )
    table = _of_method(path, table, method)
    for column in (*traits, "frame", "centroid_x_px", "centroid_y_px"):
        if column in table:
            _require_numbers(path, table[column], column)
    _require_frames(path, table)
    numbers = [column for column in (*TRAITS.values(), "centroid_x_px", "centroid_y_px") if column in table]
    table = table.astype({**dict.fromkeys(numbers, "float64"), "frame": "int64"})
    if not len(table) or pd.api.types.is_numeric_dtype(table["label"]):
        table = table.astype({"label": "int64"})
    table = table.assign(field=table["field"].astype(str) if "field" in table else FIELD)
    if "area_px2" in table and "radius_px" not in table:
        table = table.assign(radius_px=np.sqrt(table["area_px2"] / np.pi))
    _require_once(path, table)
    table.attrs = {"estimator": estimator, "unit": unit}
    return table


def _known(table: pd.DataFrame) -> pd.DataFrame:
    """Give the columns of other programs the names used here."""
    if {"FRAME", "POSITION_X"} <= set(table.columns):
        rows = table[pd.to_numeric(table["FRAME"], errors="coerce").notna()].reset_index(drop=True)
        units = table.loc[pd.to_numeric(table["FRAME"], errors="coerce").isna(), "POSITION_X"].astype(str)
        unit = str(units.iloc[-1]).strip("() ").lower() if len(units) else ""
        known = [name for name in TRACKMATE if name in rows]
        table = rows[known].apply(pd.to_numeric, errors="coerce").rename(columns=TRACKMATE)
        table.attrs = {"estimator": "trackmate", "unit": "px" if unit in _IN_PIXELS else unit}
    elif {"Area", "Circ."} <= set(table.columns):
        table = table.rename(columns=IMAGEJ)
        slices = next((table[name] - 1 for name in ("Frame", "Slice") if name in table), 0)
        table = table.assign(frame=slices, label=np.arange(1, len(table) + 1))
        table.attrs = {"estimator": "imagej", "unit": "px"}
    plain = {name: column for name, column in _PLAIN.items() if name in table and column not in table}
    attributes = table.attrs
    table = table.rename(columns=plain)
    table.attrs = attributes
    return table


def _of_method(path: Path, table: pd.DataFrame, method: str) -> pd.DataFrame:
    if "method" not in table or not len(table):
        return table.drop(columns="method", errors="ignore")
    held = table["method"].astype(str)
    if method in set(held):
        return table[held == method].drop(columns="method").reset_index(drop=True)
    if held.nunique() > 1:
        raise BadInput(
            f"{path}: holds the methods {', '.join(sorted(set(held)))}, none of them called {method}; write one of "
            f"them before the =, such as {min(held)}={path.name}, or for conditions --method {min(held)}"
        )
    return table.drop(columns="method")


def _require_numbers(path: Path, column: pd.Series, name: str) -> None:
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return
    if column.isna().all():
        return
    wrong = column[pd.to_numeric(column, errors="coerce").isna() & column.notna()]
    told = repr(wrong.iloc[0]) if len(wrong) else f"values of type {column.dtype}"
    raise BadInput(f"{path}: column {name} holds {told}, which is no number; mend it or leave the column out")


def _require_frames(path: Path, table: pd.DataFrame) -> None:
    frame = table["frame"].to_numpy(float)
    odd = ~np.isfinite(frame) | (frame != np.floor(frame))
    if odd.any():
        raise BadInput(f"{path}: frame {frame[odd][0]:g} in {int(odd.sum())} rows; frames are whole numbers from 0")


def _require_once(path: Path, table: pd.DataFrame) -> None:
    twice = table.duplicated(["field", "frame", "label"])
    if twice.any():
        row = table[twice].iloc[0]
        raise BadInput(
            f"{path}: {int(twice.sum())} rows repeat a cell, the first being label {row['label']} of field "
            f"{row['field']}, frame {int(row['frame'])}; give every cell of a frame a label of its own"
        )
