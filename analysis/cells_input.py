"""Tables of cells from this project, TrackMate or ImageJ, with the columns that comparisons need."""

from __future__ import annotations

import csv
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
MOST_COLUMNS = 1000
"""A wider table is not one of cells."""
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
    table = _known(path, _table(path))
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
    places = [column for column in ("centroid_x_px", "centroid_y_px") if column in table]
    for column in (*traits, *places, "frame"):
        _require_numbers(path, table[column], column)
    _require_whole(path, table["frame"])
    table = table.astype({**dict.fromkeys([*traits, *places], "float64"), "frame": "int64"})
    for column in (*traits, *places):
        _require_possible(path, table[column], -np.inf if column in places else 0)
    if not len(table) or pd.api.types.is_numeric_dtype(table["label"]):
        _require_whole(path, table["label"])
        table = table.astype({"label": "int64"})
    if "border" in table:
        table = table.assign(border=_flags(path, table["border"]))
    table = table.assign(field=table["field"].astype(str) if "field" in table else FIELD)
    if "area_px2" in table and "radius_px" not in table:
        table = table.assign(radius_px=np.sqrt(table["area_px2"] / np.pi))
    _require_once(path, table)
    table.attrs = {"estimator": estimator, "unit": unit}
    return table


def _table(path: Path) -> pd.DataFrame:
    """Read a file as a table of text, numbers and truth values."""
    if not path.is_file():
        raise BadInput(f"{path}: a folder, a pipe or a device, not a table; give the file itself")
    try:
        if path.suffix.lower() == ".parquet":
            table = pd.read_parquet(path)
        else:
            refuse_header(path)
            table = pd.read_csv(path, low_memory=False)
        if "field" in table:
            table["field"] = table["field"].astype(str)
    except BadInput:
        raise
    except (OSError, ValueError) as fault:
        said = str(getattr(fault, "strerror", None) or fault)
        told = said.splitlines()[0] if said else type(fault).__name__
        raise BadInput(f"{path}: cannot be read as a table ({told}); export it again") from fault
    if table.columns.duplicated().any():
        raise BadInput(
            f"{path}: two columns are called {table.columns[table.columns.duplicated()][0]}; keep one of them"
        )
    return table


def refuse_header(path: Path) -> None:
    """Refuse a CSV whose first line shows that it is no table of cells, or that its columns cannot be told apart.

    Raises
    ------
    BadInput
        Too many columns, two of one name, or columns that are not separated by commas.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        line = file.readline(MOST_COLUMNS * 100)
    columns = next(csv.reader([line]), [])
    if len(columns) > MOST_COLUMNS:
        raise BadInput(f"{path}: {len(columns)} columns or more; export the table of cells alone")
    if len(columns) == 1 and {";", "\t"} & set(line):
        raise BadInput(
            f"{path}: its columns are not separated by commas; save it as CSV with commas and decimal points"
        )
    if sum(not name.strip(" .+-0123456789") for name in columns) > len(columns) / 2:
        raise BadInput(f"{path}: its first line holds no names of columns; export it with a header")
    if twice := [name for at, name in enumerate(columns) if name and name in columns[:at]]:
        raise BadInput(f"{path}: two columns are called {twice[0]}; keep one of them")


def _known(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Give the columns of other programs the names used here."""
    if {"FRAME", "POSITION_X"} <= set(table.columns):
        rows = table[pd.to_numeric(table["FRAME"], errors="coerce").notna()].reset_index(drop=True)
        units = table.loc[pd.to_numeric(table["FRAME"], errors="coerce").isna(), "POSITION_X"].astype(str)
        unit = str(units.iloc[-1]).strip("() ").lower() if len(units) else ""
        known = [name for name in TRACKMATE if name in rows]
        for name in known:
            if name != "TRACK_ID":  # a spot in no track has none
                _refuse_text(path, rows[name])
        table = rows[known].apply(pd.to_numeric, errors="coerce").rename(columns=TRACKMATE)
        table.attrs = {"estimator": "trackmate", "unit": "px" if unit in _IN_PIXELS else unit}
    elif {"Area", "Circ."} <= set(table.columns):
        table = table.rename(columns=IMAGEJ)
        counted = next((table[name] for name in ("Frame", "Slice") if name in table), pd.Series(1, table.index))
        _refuse_text(path, counted)
        table = table.assign(frame=pd.to_numeric(counted) - 1, label=np.arange(1, len(table) + 1))
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
    _refuse_text(path, column)
    told = f"values of type {column.dtype}"
    raise BadInput(f"{path}: column {name} holds {told}, which is no number; mend it or leave the column out")


def _refuse_text(path: Path, column: pd.Series) -> None:
    """Refuse cells of a column that are neither empty nor numbers."""
    wrong = column[pd.to_numeric(column, errors="coerce").isna() & column.notna()]
    if len(wrong):
        told = f"column {column.name} holds {wrong.iloc[0]!r}, which is no number"
        raise BadInput(f"{path}: {told}; mend it or leave the column out")


def _require_whole(path: Path, column: pd.Series) -> None:
    values = column.to_numpy(float)
    odd = ~np.isfinite(values) | (values != np.floor(values))
    if column.name == "frame":
        odd |= values < 0
    if odd.any():
        told = f"{column.name} {values[odd][0]:g} in {int(odd.sum())} rows"
        raise BadInput(f"{path}: {told}; {column.name}s are whole numbers{' from 0' * (column.name == 'frame')}")


def _require_possible(path: Path, column: pd.Series, least: float) -> None:
    """Refuse what no measure can be; NaN says that a cell has none."""
    values = column.to_numpy(float)
    odd = np.isinf(values) | (values < least)
    if odd.any():
        told = f"{values[odd][0]:g} in {int(odd.sum())} rows"
        raise BadInput(f"{path}: column {column.name} holds {told}, which no cell has; mend it or leave the column out")


def _flags(path: Path, column: pd.Series) -> pd.Series:
    """Return a column of yes and no as truth values; one that is not known is no."""
    known = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False, "nan": False, "": False}
    told = column.astype(str).str.strip().str.lower().replace({"none": "", "<na>": ""})
    if len(wrong := column[~told.isin(known)]):
        raise BadInput(f"{path}: column {column.name} holds {wrong.iloc[0]!r}; write True or False")
    return told.map(known).astype(bool)


def _require_once(path: Path, table: pd.DataFrame) -> None:
    twice = table.duplicated(["field", "frame", "label"])
    if twice.any():
        row = table[twice].iloc[0]
        raise BadInput(
            f"{path}: {int(twice.sum())} rows repeat a cell, the first being label {row['label']} of field "
            f"{row['field']}, frame {int(row['frame'])}; give every cell of a frame a label of its own"
        )
