"""The cells and label images of several methods on the same frames, and how they are read from a run folder."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.matching import match
from analysis.scores import Counts, full_counts
from data_io.errors import BadInput
from data_io.progress import show

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from analysis.matching import Labels
    from postprocess.label_store import LabelStore

TRUTH, CLASSICAL = "truth", "classical"
"""The annotation, and the method without learning that every network is held against."""
TRAITS = {
    "area": "area_px2",
    "perimeter": "perimeter_px",
    "circularity": "circularity",
    "solidity": "solidity",
    "radius": "radius_px",
    "shape_index": "shape_index",
}
"""Trait name to its column in a cells table."""
INDEPENDENT = ("area", "perimeter", "circularity", "solidity")
"""Traits that count as tests; what follows one of them (`FOLLOWS`) is shown, but never counted as a further test."""
FOLLOWS = {"radius": "area", "shape_index": "circularity"}
NOT_COMPARED = (
    "image", "reason", "contact_px", "holes_px", "n_pieces", "eccentricity", "orientation_rad", "contour_", "feret_",
    "bbox_", "intensity_", "focus_",
)  # fmt: skip
"""How columns of a run's table begin that no comparison needs: left unread they cost no memory."""
REACH = 0.5
"""Without label images a cell is matched by its centroid, at most this many radii of the other cell away."""

MOST_MISSING = 0.1
"""Share of the frames that a method may lack before a comparison is refused: what failed is no random sample."""

Key = tuple[str, int]


@dataclass(frozen=True)
class Study:
    """Methods on the same frames.

    Attributes
    ----------
    cells
        One row per cell of every method, as `tidy` returns them: field, frame, track, label, method, the columns of
        `TRAITS` that are known, centroid_y_px, centroid_x_px, border, frame_id, track_id.
    labels
        Method to a function (field, frame) -> `(Y, X)` integer label image; empty where only tables are at hand.
    frames
        The (field, frame) compared, in order.
    training_truth
        True cells of the training frames, for the natural spread of a trait; None where not at hand.
    warnings
        What the data set says against itself.
    by
        Column of the conditions compared, empty without.
    independent
        True where `methods` are conditions that came as separate files: other samples and no cell in common.
    """

    cells: pd.DataFrame
    methods: tuple[str, ...]
    has_truth: bool
    frames: tuple[Key, ...]
    labels: Mapping[str, Callable[[str, int], Labels]] = field(default_factory=dict)
    image: Callable[[str, int], NDArray[Any]] | None = None
    training_truth: pd.DataFrame | None = None
    warnings: tuple[str, ...] = ()
    by: str = ""
    independent: bool = False

    @property
    def matched_by(self) -> str:
        """How cells are paired: by overlap where label images are at hand, else by centroid."""
        named = [*self.methods, *([TRUTH] if self.has_truth else [])]
        if all(name in self.labels for name in named):
            return "IoU >= 0.5"
        return f"nearest centroid, mutual, within {REACH:g} of the cell's radius"

    @property
    def traits(self) -> tuple[str, ...]:
        """Traits every method was measured for."""
        return tuple(trait for trait, column in TRAITS.items() if column in self.cells)

    def of(self, method: str) -> pd.DataFrame:
        """Cells of one method in the frames compared."""
        return self._by_method.get(method, self.cells.iloc[:0])

    @cached_property
    def pairs(self) -> dict[tuple[str, str], pd.DataFrame]:
        """Keep the pairs found so far; ask `pair` for them."""
        return {}

    @cached_property
    def _by_method(self) -> dict[str, pd.DataFrame]:
        return {str(name): rows for name, rows in self.cells.groupby("method", sort=False)}


def pair(study: Study, first: str, second: str) -> pd.DataFrame:
    """Pair the cells of two methods one-to-one in every frame: columns field, frame, label_a, label_b."""
    if (first, second) not in study.pairs:
        by_overlap = first in study.labels and second in study.labels
        found = _pair_by_overlap(study, first, second) if by_overlap else None
        study.pairs[first, second] = _pair_by_centroid(study.of(first), study.of(second)) if found is None else found
    return study.pairs[first, second]


def counts(study: Study, method: str, frames: Sequence[Key] | None = None) -> list[Counts]:
    """Count each frame of a method against the truth; needs label images of both."""
    found, wanted = [], study.frames if frames is None else frames
    for done, key in enumerate(wanted, start=1):
        found.append(full_counts(study.labels[TRUTH](*key), study.labels[method](*key)))
        show(f"scoring {method}", done, len(wanted), "frames")
    return found


def _pair_by_overlap(study: Study, first: str, second: str) -> pd.DataFrame:
    parts = []
    for name, frame in study.frames:
        found = match(study.labels[first](name, frame), study.labels[second](name, frame))
        parts.append(pd.DataFrame({"field": name, "frame": frame, "label_a": found.truth, "label_b": found.pred}))
    return pd.concat(parts, ignore_index=True) if parts else _no_pairs()


def _pair_by_centroid(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Pair cells that are each other's nearest in their frame; one tree holds all frames, far apart."""
    from scipy.spatial import KDTree

    columns = ["centroid_y_px", "centroid_x_px"]
    for name in (*columns, TRAITS["radius"]):
        if name not in first or name not in second:
            raise BadInput(f"cells table: no column {name}; cells cannot be paired without label images or centroids")
    a, b = (cells[np.isfinite(cells[columns].to_numpy(float)).all(axis=1)] for cells in (first, second))
    if not len(a) or not len(b):
        return _no_pairs()
    at_a, at_b = a[columns].to_numpy(float), b[columns].to_numpy(float)
    far = 4 * float(np.ptp(np.concatenate([at_a, at_b]), axis=0).sum()) + 1
    layer_a, layer_b = (cells["frame_id"].to_numpy(float) * far for cells in (a, b))
    in_a, in_b = np.column_stack([layer_a, at_a]), np.column_stack([layer_b, at_b])
    distance, to_b = KDTree(in_b).query(in_a)
    to_a = KDTree(in_a).query(in_b)[1]
    radius = np.minimum(a[TRAITS["radius"]].to_numpy(float), b[TRAITS["radius"]].to_numpy(float)[to_b])
    good = (to_a[to_b] == np.arange(len(a))) & (distance <= REACH * radius)
    found = a.loc[good, ["field", "frame"]].assign(label_a=a["label"][good], label_b=b["label"].to_numpy()[to_b[good]])
    return found.reset_index(drop=True)


def _no_pairs() -> pd.DataFrame:
    empty = pd.DataFrame({"field": [], "frame": [], "label_a": [], "label_b": []})
    return empty.astype({"field": str, "frame": np.int64, "label_a": np.int64, "label_b": np.int64})


# --- a run folder -------------------------------------------------------------------------------------------------


def from_run(run: Path, *, allow_missing: bool = True) -> Study:
    """Read the methods of a run; compared are its test frames, or every frame where there is no truth.

    A frame that a method has no label image of (it failed, or was not predicted) is left out for all, with a warning;
    more than `MOST_MISSING` of them are refused unless `allow_missing`.

    Raises
    ------
    BadInput
        When it is not a run, or the post-processing stage has not written its files.
    """
    from data_io.store import FrameRef
    from postprocess.export import open_dataset, read_facts
    from postprocess.label_store import LabelStore
    from postprocess.tables import read_parquet

    table = run / "cells.parquet"
    facts, dataset = read_facts(run), open_dataset(run)
    if not table.is_file():
        raise BadInput(f"{table}: no such file; run `python -m postprocess.run {run}` first")
    cells = tidy(read_parquet(table, f"`python -m postprocess.run {run}` writes it anew"))
    store = LabelStore(run / "labels.zarr", dataset)
    names = _methods(run, store.path, next(iter(dataset.fields.values())).slug)
    searched = facts.get("kind") != "predict" and bool(dataset.splits.test)
    wanted = dataset.frames("test" if searched else "all")
    refs = [ref for ref in wanted if all(store.mark(name, ref) for name in names if searched or name != TRUTH)]
    has_truth = TRUTH in names and bool(refs) and all(store.mark(TRUTH, ref) for ref in refs)
    lost = len(wanted) - len(refs)
    if lost > MOST_MISSING * len(wanted) and not allow_missing:
        raise BadInput(
            f"{run}: {lost} of {len(wanted)} frames lack the cells of a method, more than {100 * MOST_MISSING:.0f} %: "
            "frames that failed are no random sample; rerun python -m postprocess.run, or go on with --allow-missing"
        )
    warned = [f"{lost} of {len(wanted)} frames were left out: not every method has cells there"] if lost else []
    study = Study(
        cells=cells,
        methods=tuple(name for name in names if name != TRUTH and (has_truth or name != CLASSICAL)),
        has_truth=has_truth,
        frames=tuple((ref.field, ref.frame) for ref in refs),
        labels={name: _remembering(_run_reader(store, name)) for name in names if has_truth or name != TRUTH},
        image=lambda name, frame: dataset.image(FrameRef(name, frame)),
        warnings=(*dataset.warnings, *dataset.splits.warnings, *warned),
        training_truth=cells[(cells["method"] == TRUTH) & (cells["split"] == "train")] if has_truth else None,
    )
    return only(study, study.frames)


def _read(table: Path) -> pd.DataFrame:
    """Read what is compared of a run's table of cells."""
    from pyarrow.parquet import read_schema

    return pd.read_parquet(table, columns=[n for n in read_schema(table).names if not n.startswith(NOT_COMPARED)])


def _methods(run: Path, labels: Path, slug: str) -> list[str]:
    """List the methods of labels.zarr, also those that found no cell."""
    import zarr

    if not (labels / slug / "labels").is_dir():
        raise BadInput(f"{labels}: no cells of {slug}; run `python -m postprocess.run {run}` first")
    listed: Any = zarr.open_group(labels / slug / "labels", mode="r").attrs.asdict().get("ome", {})
    return [str(name) for name in listed.get("labels", [])]


def only(study: Study, frames: Sequence[Key]) -> Study:
    """Restrict a study to some frames."""
    index = pd.MultiIndex.from_frame(study.cells[["field", "frame"]])
    wanted = pd.MultiIndex.from_tuples(list(frames), names=["field", "frame"])
    return replace(study, cells=study.cells[index.isin(wanted)].reset_index(drop=True), frames=tuple(frames))


def _run_reader(store: LabelStore, method: str) -> Callable[[str, int], Labels]:
    from data_io.store import FrameRef

    return lambda name, frame: np.asarray(store.read(method, FrameRef(name, frame)))


def _remembering(read: Callable[[str, int], Labels]) -> Callable[[str, int], Labels]:
    """Keep the last frames read, so that pairs, scores and pictures decode each once."""
    return lru_cache(maxsize=64)(read)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, or refuse in one line."""
    again = "restore it, or run the command again that made this folder"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; is {path.parent} a run folder?") from None
    except (ValueError, OSError, RecursionError) as fault:
        raise BadInput(f"{path}: cannot be read ({fault}); {again}") from fault
    if not isinstance(found, dict):
        raise BadInput(f"{path}: not a JSON object; {again}")
    return found


def tidy(cells: pd.DataFrame) -> pd.DataFrame:
    """Give key columns their types; a missing track or border column means unknown and False.

    Adds what errors are clustered by: `frame_id`, and `track_id` (of each method its own), -1 where unknown.
    """
    cells = cells.reset_index(drop=True)
    if "track" not in cells:
        cells["track"] = np.nan
    if "border" not in cells:
        cells["border"] = False
    cells["field"] = cells["field"].astype(str)
    cells["frame"] = cells["frame"].astype(int)
    cells["border"] = cells["border"].fillna(False).astype(bool)
    cells["frame_id"] = cells.groupby(["field", "frame"], sort=False).ngroup()
    cells["track_id"] = cells.groupby(["method", "field", "track"], sort=False).ngroup().fillna(-1).astype(int)
    return cells
