"""Cells that two methods both found, side by side, and those that only one of them has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from analysis.clusters import LEVELS
from analysis.samples import TRAITS, TRUTH, pair

if TYPE_CHECKING:
    from analysis.samples import Study

FACTS = ("field", "frame", "frame_id", "track_id", "border")


def same_cells(study: Study, a: str, b: str) -> pd.DataFrame:
    """Cells both methods found: what they belong to (`FACTS`, patient and well where known), each trait twice.

    With a truth these are the true cells that both found, else the cells matched with each other. Columns `area_a`,
    `area_b` and so on; tracks are the truth's, or those of `a`.
    """
    if not study.has_truth:
        return _with_traits(study, pair(study, a, b), a, b, track_of=(a, "label_a"))
    to_a, to_b = (pair(study, TRUTH, m).rename(columns={"label_a": "true", "label_b": m}) for m in (a, b))
    pairs = to_a.merge(to_b, on=["field", "frame", "true"]).rename(columns={a: "label_a", b: "label_b"})
    return _with_traits(study, pairs, a, b, track_of=(TRUTH, "true"))


def against_truth(study: Study, method: str) -> pd.DataFrame:
    """Pair cells as `same_cells` does, `a` the method and `b` the truth, also those cut by the frame's border."""
    pairs = pair(study, TRUTH, method).rename(columns={"label_a": "label_b", "label_b": "label_a"})
    return _with_traits(study, pairs, method, TRUTH, track_of=(TRUTH, "label_b"))


def alone(study: Study, method: str, cells: pd.DataFrame) -> pd.DataFrame:
    """Whole true cells the method missed, then the cells it invented, with their `FACTS`.

    `cells` are those of `against_truth`. Tracks of invented cells are theirs and no true cell's.
    """
    truth, own = study.of(TRUTH), study.of(method)
    missed = _without(truth[~truth["border"]], cells, "label_b")
    return pd.concat([_facts(missed), _facts(_without(own, cells, "label_a"))], ignore_index=True)


def _without(rows: pd.DataFrame, cells: pd.DataFrame, label: str) -> pd.DataFrame:
    """Rows whose cell is not among the matched ones."""
    taken = pd.MultiIndex.from_frame(cells[["field", "frame", label]])
    return rows[~pd.MultiIndex.from_frame(rows[["field", "frame", "label"]]).isin(taken)]


def _facts(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[[name for name in dict.fromkeys((*FACTS, *LEVELS)) if name in rows]]


def _with_traits(study: Study, pairs: pd.DataFrame, a: str, b: str, track_of: tuple[str, str]) -> pd.DataFrame:
    columns = {trait: TRAITS[trait] for trait in study.traits}
    result = pairs
    for side, method in (("a", a), ("b", b)):
        wanted = study.of(method)[["field", "frame", "label", *columns.values()]]
        named = {"label": f"label_{side}", **{column: f"{trait}_{side}" for trait, column in columns.items()}}
        result = result.merge(wanted.rename(columns=named), on=["field", "frame", f"label_{side}"], how="inner")
    owner, key = track_of
    facts = _facts(study.of(owner)).assign(**{key: study.of(owner)["label"]})
    return result.merge(facts, on=["field", "frame", key], how="left")
