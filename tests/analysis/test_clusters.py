"""What errors are clustered by, and that words and intervals go no further than the clusters."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from analysis import compare, comparisons, verdict
from analysis.choice import _after_holm, sentence
from analysis.clusters import NO_TRACKS, clusters
from analysis.compare import ReportFailed, analyse, compare_paths, main
from analysis.loose_files import from_paths
from analysis.statistics import clustered_mean
from data_io.errors import REPORT_FAILED

if TYPE_CHECKING:
    from pathlib import Path


def cells(fields: int, frames: int, tracks: bool = True, **levels: list[str]) -> pd.DataFrame:
    """Return ten cells in every frame of every field."""
    field, frame, cell = (index.ravel() for index in np.indices((fields, frames, 10)))
    return pd.DataFrame(
        {
            "field": [f"f{i}" for i in field],
            "frame_id": field * frames + frame,
            "track_id": field * 10 + cell if tracks else -1,
            **{name: np.array(values)[field] for name, values in levels.items()},
        }
    )


@pytest.mark.parametrize(
    ("table", "name", "caution"),
    [
        (cells(1, 8), "track x frame", "one field: describes this field only"),
        (cells(3, 8), "track x frame", "3 fields: describes these fields only"),
        (cells(5, 8), "field", ""),
        (cells(6, 1, tracks=False), "field", ""),
        (cells(1, 8, tracks=False), "frame", NO_TRACKS),
        (cells(6, 8, well=list("aabbcc")), "field", "3 wells: describes these wells only"),
        (cells(6, 8, patient=list("abcdef")), "patient", ""),
        (cells(6, 8, patient=list("aaaaaa")), "field", "one patient: describes this patient only"),
        (
            cells(2, 8, patient=list("ab"), well=list("cd")),
            "track x frame",
            "2 patients: describes these patients only",
        ),
    ],
)
def test_the_highest_level_with_enough_members_counts(table: pd.DataFrame, name: str, caution: str) -> None:
    found = clusters(table)
    assert found.name == name
    assert caution in found.caution
    assert bool(found.caution) == bool(caution)
    assert all(len(codes) == len(table) for codes in found.codes)


def test_a_cell_without_track_is_a_track_of_its_own() -> None:
    table = cells(1, 6)
    table.loc[:9, "track_id"] = -1
    track, _ = clusters(table).codes
    assert len(set(track[:10])) == 10
    assert not set(track[:10]) & set(track[10:])


def test_equal_methods_are_told_apart_in_one_of_twenty_only(rng: np.random.Generator, tmp_path: Path) -> None:
    """Planted truth through the whole command: persistent errors of each cell, of each frame, no difference."""
    found = np.zeros(2)
    runs, frames, n = 25, 10, 20
    frame, cell = (index.ravel() for index in np.indices((frames, n)))
    keys = {"frame": frame, "label": cell + 1, "track": cell, "centroid_y_px": 0.0, "centroid_x_px": cell * 40.0}
    for _ in range(runs):
        own = rng.normal(0.8, 0.05, n)[cell]
        for name in ("a", "b"):
            error = rng.normal(0, 0.02, n)[cell] + rng.normal(0, 0.01, frames)[frame] + rng.normal(0, 0.02, len(cell))
            table = pd.DataFrame(keys | {"circularity": own + error, "radius_px": 12.0})
            table.to_csv(tmp_path / f"{name}.csv", index=False)
        study = from_paths({name: tmp_path / f"{name}.csv" for name in "ab"})
        rows = comparisons.compare_methods(study, ["circularity"]).set_index("test")
        found += [rows.loc[test, "p"] < 0.05 for test in (comparisons.SAME_CELLS, comparisons.POOLED)]
        claims = "larger" in rows.loc[comparisons.SAME_CELLS, "verdict"]
        claims |= "smaller" in rows.loc[comparisons.SAME_CELLS, "verdict"]
        assert claims == (rows.loc[comparisons.SAME_CELLS, "p_holm"] < 0.05)
        assert rows.loc[comparisons.POOLED, "verdict"] == comparisons.CAUTION
    assert found[0] <= 4


def _choice(**changed: object) -> dict[str, object]:
    row: dict[str, object] = dict.fromkeys(("gain", "gain_low", "gain_high", "pq_cost_low", "pq_cost_high"), np.nan)
    row |= {"trait": "area", "use": "a", "tied": "", "certain": True, "tfe": 0.3, "tfe_low": 0.2, "tfe_high": 0.4}
    row |= {"best_pq": "a", "tfe_best_pq": 0.3, "pq_cost": np.nan, "reason": ""}
    return row | changed


def test_a_choice_is_worded_as_its_test_allows() -> None:
    sure = sentence(_choice())
    assert sure == (
        "Area: use a. Its error, 0.30 SD of the trait (95 % interval 0.20 to 0.40), is smaller than that of every "
        "other method. It has the highest PQ too, so it costs nothing."
    )
    cost = {"best_pq": "b", "tfe_best_pq": 0.5, "gain": 0.2, "gain_low": 0.1, "gain_high": 0.3}
    cost |= {"pq_cost": 0.02, "pq_cost_low": -0.01, "pq_cost_high": 0.05}
    told = sentence(_choice(**cost))
    assert "b, highest in PQ, has an error of 0.50 SD, 0.20 SD larger (0.10 to 0.30)" in told
    assert "a's PQ is 0.020 lower (95 % interval -0.010 to 0.050), a difference not shown by the test." in told
    tie = sentence(_choice(**cost, certain=False, tied="b"))
    assert "use" not in tie.split(".")[0]
    assert "not told apart from b" in tie
    assert "larger" not in tie
    few = sentence(_choice(**cost, certain=False, tied="b", reason="3 clusters; below 5 results are descriptive only"))
    assert few.startswith("Area: cannot rank (3 clusters")
    lost = sentence(_choice(tfe=1.2))
    assert lost.startswith("Area: no method is shown to be better than calling every cell average, whose error is 1 SD")
    assert "use a" not in lost
    assert "not shown to be below that of calling every cell average" in sentence(_choice(tfe=0.95, tfe_high=1.02))
    assert "calling every cell" not in sure
    tables = sentence(_choice(**cost | dict.fromkeys(("pq_cost", "pq_cost_low", "pq_cost_high"), np.nan)))
    assert tables.endswith("a's PQ is not known: it came without label images.")


def test_a_trait_that_follows_another_is_held_to_the_same_level() -> None:
    p = {("area", "b"): 0.02, ("perimeter", "b"): 0.5, ("circularity", "b"): np.nan, ("solidity", "b"): 0.03}
    p |= {("radius", "b"): 0.02, ("shape_index", "b"): 0.01}
    found = {key: clustered_mean([]) for key in p}
    found = {key: replace(gap, p=p[key]) for key, gap in found.items()}
    adjusted = {trait: _after_holm(found, (trait, "b")) for trait, _ in p}
    assert adjusted["radius"] == adjusted["area"] == pytest.approx(0.06)
    assert adjusted["shape_index"] == pytest.approx(0.04)
    assert np.isnan(adjusted["circularity"])


def test_a_failing_page_keeps_the_numbers_and_drops_the_old_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.DataFrame(
        {"frame": 0, "label": [1, 2], "area_px2": [300, 400], "centroid_y_px": 0, "centroid_x_px": [0, 50]}
    )
    table.to_csv(tmp_path / "a.csv", index=False)
    out = tmp_path / "out"
    arguments = [f"a={tmp_path / 'a.csv'}", f"b={tmp_path / 'a.csv'}", "--out", str(out)]
    assert main(arguments) == 0
    (out / "comparisons.csv").unlink()

    def fail(_: object) -> None:
        raise RuntimeError("no paper")

    monkeypatch.setattr(compare, "page", fail)
    assert main(arguments) == REPORT_FAILED
    assert "the numbers are saved" in capsys.readouterr().err
    assert (out / "comparisons.csv").is_file()
    assert not (out / "report.html").exists()
    with pytest.raises(ReportFailed, match="no paper"):
        compare_paths({"a": tmp_path / "a.csv"}, None, out)


def test_a_fault_in_the_numbers_is_no_failed_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    pd.DataFrame({"frame": [0], "label": [1], "area_px2": [300]}).to_csv(tmp_path / "a.csv", index=False)
    monkeypatch.setattr(comparisons, "compare_methods", fail)
    with pytest.raises(ZeroDivisionError):
        main([f"a={tmp_path / 'a.csv'}", "--out", str(tmp_path / "out")])


def test_without_annotation_the_differences_are_told_first(tmp_path: Path, rng: np.random.Generator) -> None:
    frame, cell = (index.ravel() for index in np.indices((6, 10)))
    keys = {"frame": frame, "label": cell + 1, "track": cell, "centroid_y_px": 0.0, "centroid_x_px": cell * 40.0}
    own = rng.normal(0.9, 0.02, 60)
    for name, shift in (("a", 0.0), ("b", 0.05)):
        error = rng.normal(0, 0.01, (2, 60))
        table = pd.DataFrame(keys | {"circularity": own + shift + error[0], "solidity": own + error[1]})
        table.assign(radius_px=12.0).to_csv(tmp_path / f"{name}.csv", index=False)
    told = verdict.verdict(analyse(from_paths({name: tmp_path / f"{name}.csv" for name in "ab"})))
    assert any(line.startswith("Circularity is smaller in a than in b, by 5") for line in told)
    assert told[-1] == "No difference shown, which does not prove them equal: solidity (a, b)."


def test_frames_of_one_field_without_tracks_are_warned_of(tmp_path: Path, rng: np.random.Generator) -> None:
    frame, cell = (index.ravel() for index in np.indices((6, 10)))
    keys = {"frame": frame, "label": cell + 1, "centroid_y_px": 0.0, "centroid_x_px": cell * 40.0, "radius_px": 12.0}
    for name in ("a", "b"):
        pd.DataFrame(keys | {"circularity": rng.normal(0.9, 0.02, 60)}).to_csv(tmp_path / f"{name}.csv", index=False)
    results = analyse(from_paths({name: tmp_path / f"{name}.csv" for name in "ab"}))
    told = verdict.warnings(results)
    assert any(line.startswith("Tracks are unknown") for line in told)
    assert any("nearest centroid" in line for line in told)
