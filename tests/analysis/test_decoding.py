"""The chapter on decode parameters: curves along each, and choices at the edge of what was tried."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from analysis.decoding import decoding_chapter, profiles
from analysis.record import Record

CURVE = [
    {"threshold": threshold, "neck": neck, "paper_gap": False, "value": value}
    for (threshold, neck), value in {(0.3, 0.0): 0.5, (0.5, 0.0): 0.8, (0.7, 0.0): 0.6, (0.5, 0.2): 0.9}.items()
]


def record(**decode: object) -> Record:
    found = {"decode": decode, "decode_fit": {"score": "pq", "curve": CURVE}}
    return Record(Path(), {}, {"targets": {"two_class": found}}, pd.DataFrame())


def test_a_profile_is_the_best_at_each_value_and_constants_have_none() -> None:
    assert profiles(CURVE) == {"threshold": [(0.3, 0.5), (0.5, 0.9), (0.7, 0.6)], "neck": [(0.0, 0.8), (0.2, 0.9)]}


def test_a_choice_at_the_edge_of_what_was_tried_is_told() -> None:
    section = decoding_chapter(record(threshold=0.5, neck=0.2), {})
    assert section is not None
    assert "neck of two_class (highest)" in section.paragraphs[1]
    gallery, table = section.blocks
    assert [p.name for p in gallery.pictures] == ["decode_two_class_threshold", "decode_two_class_neck"]  # type: ignore[union-attr]
    assert "dashed: chosen" in gallery.caption  # type: ignore[union-attr]
    rows = {row[1]: row for row in table.rows}  # type: ignore[union-attr]
    assert rows["threshold"][4:] == ["0.3 to 0.7", "0.400", ""]
    assert rows["neck"][6] == "highest"
    inside = decoding_chapter(record(threshold=0.5, neck=0.0), {})
    assert inside is not None
    assert len(inside.paragraphs) == 1


def test_without_curves_there_is_no_chapter() -> None:
    empty = Record(Path(), {}, {"targets": {"star": {"decode": {}}}}, pd.DataFrame())
    assert decoding_chapter(empty, {}) is None
