"""Methods and conditions from anywhere: other programs' tables, frames that lack, and what is refused in one line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import tifffile

from analysis import comparisons
from analysis.compare import analyse, main
from analysis.loose_files import from_paths
from analysis.samples import TRUTH, Study, pair
from data_io.errors import BadInput
from data_io.synthetic import movie
from postprocess.morphology import measure
from postprocess.track import link

if TYPE_CHECKING:
    from pathlib import Path

MOVIE = movie(5, 6, (160, 160)).labels


def cells_of(labels: np.ndarray) -> pd.DataFrame:
    """Measure a movie as postprocess.measure --track does."""
    tracks = link(enumerate(labels))
    parts = []
    for t, frame in enumerate(labels):
        found = measure(frame)
        parts.append(found.assign(frame=t, track=[tracks[t][label] for label in found["label"]]))
    return pd.concat(parts, ignore_index=True)


CELLS = cells_of(MOVIE)


def trackmate(path: Path, unit: str = "pixel", scale: float = 1.0) -> Path:
    """Write the movie's cells as TrackMate's table of spots, with its four header rows."""
    table = CELLS[CELLS["area_trackmate"].notna()]
    columns = {
        "LABEL": [f"ID{i}" for i in range(len(table))],
        "ID": np.arange(len(table)),
        "TRACK_ID": table["track"].astype(str).where(table["track"] > 1, "None"),
        "QUALITY": table["area_px2"],
        "POSITION_X": table["centroid_x_px"] * scale,
        "POSITION_Y": table["centroid_y_px"] * scale,
        "FRAME": table["frame"],
        "RADIUS": table["radius_trackmate"] * scale,
        "AREA": table["area_trackmate"] * scale**2,
        "PERIMETER": table["perimeter_trackmate"] * scale,
        "CIRCULARITY": table["circularity_trackmate"],
        "SOLIDITY": table["solidity_trackmate"],
        "SHAPE_INDEX": table["shape_index_trackmate"],
    }
    told = {name: name.capitalize() for name in columns}
    units = {
        name: f"({unit})" if name in ("POSITION_X", "POSITION_Y", "RADIUS", "PERIMETER") else "" for name in columns
    }
    head = pd.DataFrame([told, told, units])
    pd.concat([head, pd.DataFrame(columns).astype(str)]).to_csv(path, index=False)
    return path


def stack(path: Path, labels: np.ndarray = MOVIE) -> Path:
    """Write a label stack."""
    tifffile.imwrite(path, labels.astype(np.uint16), photometric="minisblack")
    return path


def paired(study: Study, a: str = "a", b: str = "b") -> int:
    """Count the pairs of two methods, none of which may join different places."""
    found = pair(study, a, b)
    assert not found.duplicated(["field", "frame", "label_a"]).any()
    assert not found.duplicated(["field", "frame", "label_b"]).any()
    return len(found)


def test_trackmate_brings_its_tracks_and_the_others_its_measures(tmp_path: Path) -> None:
    study = from_paths({"a": trackmate(tmp_path / "spots.csv"), "b": stack(tmp_path / "b.tif")})
    assert paired(study) == len(study.of("a")) == CELLS["area_trackmate"].notna().sum()
    results = analyse(study)
    row = results.comparisons.query("trait == 'circularity' and test == @comparisons.SAME_CELLS").iloc[0]
    assert row["estimate"] == 0
    assert row["clustered_by"] == "track x frame"
    assert "same in a and b on every cell" in row["verdict"]
    assert any("TrackMate's" in note for note in study.warnings)


def test_trackmate_in_micrometres_is_not_mixed_with_pixels(tmp_path: Path) -> None:
    spots = trackmate(tmp_path / "spots.csv", "micron", 0.5)
    with pytest.raises(BadInput, match=r"a: lengths are in micron"):
        from_paths({"a": spots, "b": stack(tmp_path / "b.tif")})
    alone = from_paths({"a": spots, "b": spots})
    assert any("lengths are in micron" in note for note in alone.warnings)


def test_imagej_results_count_slices_from_one(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            " ": np.arange(1, len(CELLS) + 1),
            "Area": CELLS["area_px2"],
            "X": CELLS["centroid_x_px"],
            "Y": CELLS["centroid_y_px"],
            "Perim.": CELLS["perimeter_px"],
            "Circ.": CELLS["circularity"],
            "Slice": CELLS["frame"] + 1,
            "Solidity": CELLS["solidity"],
        }
    )
    table.to_csv(tmp_path / "Results.csv", index=False)
    study = from_paths({"a": tmp_path / "Results.csv", "b": stack(tmp_path / "b.tif")})
    assert paired(study) == len(CELLS)
    assert any("measured in another way" in note for note in study.warnings)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_the_table_of_a_run_gives_the_method_named(tmp_path: Path, suffix: str) -> None:
    both = pd.concat([CELLS.assign(method="star"), CELLS.iloc[::2].assign(method="two_class")]).assign(field="field_3")
    path = tmp_path / f"cells{suffix}"
    both.to_csv(path, index=False) if suffix == ".csv" else both.to_parquet(path)
    study = from_paths({"star": path, "two_class": path}, stack(tmp_path / "t.tif"))
    assert len(study.of("star")) == len(CELLS)
    assert {field for field, _ in study.frames} == {"field_3"}
    assert paired(study, "star", "two_class") == len(study.of("two_class"))
    with pytest.raises(BadInput, match="holds the methods star, two_class, none of them called ours"):
        from_paths({"ours": path})


def test_a_run_gives_the_method_named(run_folder: Path, tmp_path: Path) -> None:
    study = from_paths({"two_class": run_folder, "three_class": run_folder}, run_folder / "labels" / "truth.tif")
    assert set(study.labels) == {TRUTH, "two_class", "three_class"}
    assert len(study.of("three_class"))
    arguments = [f"control={run_folder}", f"treated={run_folder}", "--by", "condition", "--out", str(tmp_path / "out")]
    with pytest.raises(BadInput, match=r"or for conditions --method"):
        main(arguments)
    assert main([*arguments, "--method", "three_class"]) == 0
    table = pd.read_csv(tmp_path / "out" / "comparisons.csv")
    assert (table["clustered_by"] == "field").all()
    with pytest.raises(BadInput, match="--by method: no condition"):
        from_paths({"a": run_folder}, by="method")


def test_cells_of_label_images_are_followed(tmp_path: Path) -> None:
    study = from_paths({"a": stack(tmp_path / "a.tif"), "b": stack(tmp_path / "b.tif")})
    tracks = study.of("a").groupby("track_id")["frame"].nunique()
    assert (study.of("a")["track_id"] >= 0).all()
    assert tracks.median() > 3


def test_methods_that_lack_frames(tmp_path: Path) -> None:
    CELLS.to_csv(tmp_path / "a.csv", index=False)
    CELLS[CELLS["frame"] > 0].to_csv(tmp_path / "b.csv", index=False)
    paths = {"a": tmp_path / "a.csv", "b": tmp_path / "b.csv"}
    with pytest.raises(BadInput, match=r"no cells in 1 of 6 frames \(17 %\), more than 10 %"):
        from_paths(paths)
    study = from_paths(paths, allow_missing=True)
    assert any("no cells in 1 of 6 frames" in note for note in study.warnings)
    with pytest.raises(BadInput, match="--allow-missing"):
        main([*(f"{n}={p}" for n, p in paths.items()), "--out", str(tmp_path / "out")])


def test_few_lost_label_images_are_left_out_for_all(tmp_path: Path) -> None:
    for name, lost in (("truth", ()), ("a", (3,)), ("b", ())):
        (tmp_path / name).mkdir()
        for t in range(12):
            if t not in lost:
                tifffile.imwrite(tmp_path / name / f"t{t}.tif", MOVIE[t % 6].astype(np.uint16))
    study = from_paths({"a": tmp_path / "a", "b": tmp_path / "b"}, tmp_path / "truth")
    assert len(study.frames) == 11
    assert ("1", 3) not in study.frames
    assert any("no label image for 1 of 12 frames" in note for note in study.warnings)
    assert len(analyse(study).counted["b"]) == 11


def _spoilt(column: str, value: Any, rows: slice = slice(0, 3)) -> pd.DataFrame:
    table = CELLS[["frame", "label", "area_px2", "circularity", "centroid_x_px", "centroid_y_px"]].astype(object)
    table[column] = table.get(column, pd.Series([None] * len(table), dtype=object))
    table.loc[table.index[rows], column] = value
    return table


REFUSED = {
    "columns": (pd.DataFrame({"x": [1], "y": [2]}), "a cells table needs frame, label"),
    "no traits": (CELLS[["frame", "label"]], "a cells table needs"),
    "text": (_spoilt("area_px2", "big"), "column area_px2 holds 'big', which is no number"),
    "no frame": (_spoilt("frame", np.nan), "frames are whole numbers"),
    "half a frame": (_spoilt("frame", 0.5), "frame 0.5 in 3 rows"),
    "twice": (pd.concat([CELLS, CELLS.head(2)]), "2 rows repeat a cell"),
    "unpaired": (CELLS.assign(frame=CELLS["frame"] + 100), "no frame in common"),
    "other field": (CELLS.assign(field=np.where(CELLS["frame"] > 2, "x", "y")), "no frame in common"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_tables_that_cannot_be_compared_are_refused_in_one_line(tmp_path: Path, what: str) -> None:
    table, words = REFUSED[what]
    table.to_csv(tmp_path / "bad.csv", index=False)
    CELLS.assign(field=np.where(CELLS["frame"] > 2, "p", "q") if what == "other field" else "1").to_csv(
        tmp_path / "good.csv", index=False
    )
    arguments = [f"good={tmp_path / 'good.csv'}", f"bad={tmp_path / 'bad.csv'}", "--out", str(tmp_path / "out")]
    with pytest.raises(BadInput, match=words) as caught:
        main(arguments)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_files_that_are_no_tables_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no")
    for name in ("a.csv", "b.parquet"):
        with pytest.raises(BadInput, match="cannot be read as a table") as caught:
            from_paths({"a": tmp_path / name})
        assert "\n" not in str(caught.value)


def test_an_output_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    CELLS.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(BadInput, match="cannot be written to"):
        main([f"a={tmp_path / 'a.csv'}", "--out", str(tmp_path / "file" / "out")])


# --- nothing to test ------------------------------------------------------------------------------------------------


def drawn(n: int, frames: int = 6, size: int = 4) -> np.ndarray:
    """Return n cells in every frame."""
    labels = np.zeros((frames, 60, 60), np.uint16)
    for i in range(n):
        labels[:, 5 + 20 * i : 5 + 20 * i + size, 5 : 5 + size + i] = i + 1
    return labels


@pytest.mark.parametrize(
    ("a", "b", "frames", "words"),
    [
        (0, 0, 6, "no values"),
        (0, 2, 2, "no values"),
        (1, 1, 1, "one value"),
        (2, 2, 5, "2 clusters; below 5"),
        (2, 2, 1, "1 cluster; below 5"),
    ],
)
def test_none_one_or_two_cells_are_not_tested(tmp_path: Path, a: int, b: int, frames: int, words: str) -> None:
    paths = {name: stack(tmp_path / f"{name}.tif", drawn(n, frames)) for name, n in (("a", a), ("b", b))}
    truth = stack(tmp_path / "truth.tif", drawn(2, frames))
    table = analyse(from_paths(paths, truth)).comparisons
    same = table[table["test"] == comparisons.SAME_CELLS]
    assert same["reason"].str.startswith("not tested: ").all()
    assert same["reason"].str.contains(words).all()
    assert table["p_holm"].isna().all()
    assert not same["verdict"].str.contains("larger|smaller|no difference").any()


def test_the_page_of_nothing_is_a_page(tmp_path: Path) -> None:
    paths = [f"{name}={stack(tmp_path / f'{name}.tif', drawn(n))}" for name, n in (("a", 0), ("b", 1))]
    assert main([*paths, "--truth", str(stack(tmp_path / "truth.tif", drawn(1))), "--out", str(tmp_path / "out")]) == 0
    assert "cannot rank" in (tmp_path / "out" / "report.html").read_text()


def test_constant_and_undefined_traits_stay_out_of_the_correction(tmp_path: Path) -> None:
    one = CELLS.assign(solidity=np.nan, circularity=0.5)
    two = CELLS.assign(solidity=np.nan, circularity=0.4, area_px2=CELLS["area_px2"] * 1.1 + np.arange(len(CELLS)) % 3)
    two.loc[:4, "area_px2"] = np.nan
    one.to_csv(tmp_path / "a.csv", index=False)
    two.to_csv(tmp_path / "b.csv", index=False)
    table = analyse(from_paths({"a": tmp_path / "a.csv", "b": tmp_path / "b.csv"})).comparisons
    table = table[table["test"] == comparisons.SAME_CELLS].set_index("trait")
    assert "no values" in table.loc["solidity", "reason"]
    assert "all values are equal" in table.loc["circularity", "reason"]
    assert table.loc[["solidity", "circularity"], ["p", "p_holm", "p_bh", "ci_low"]].isna().all(axis=None)
    assert table.loc["area", "dropped"] == 5
    assert table.loc["area", "n_family"] == 1
    assert table.loc["area", "p_holm"] == table.loc["area", "p"]
    assert "perimeter is the same" in table.loc["perimeter", "verdict"]


def test_an_empty_table_is_an_empty_arm(tmp_path: Path) -> None:
    CELLS.to_csv(tmp_path / "a.csv", index=False)
    CELLS.head(0).to_csv(tmp_path / "b.csv", index=False)
    results = analyse(from_paths({"a": tmp_path / "a.csv", "b": tmp_path / "b.csv"}, tmp_path / "a.csv"))
    assert results.comparisons["p_holm"].isna().all()
    assert results.agreement.set_index(["trait", "method"]).loc[("area", "b"), "missed"] > 0
    assert results.agreement.set_index(["trait", "method"]).loc[("area", "a"), "tfe"] == 0


def test_numbers_have_no_nan_in_words(tmp_path: Path) -> None:
    CELLS.to_csv(tmp_path / "a.csv", index=False)
    results = analyse(from_paths({"a": tmp_path / "a.csv", "b": tmp_path / "a.csv"}, tmp_path / "a.csv"))
    for table in (results.comparisons, results.agreement):
        assert not table["verdict"].str.contains("nan").any()
        assert (table["verdict"].str.len() > 0).all()
    assert json.loads(results.choices.to_json())


def test_truth_is_a_name_for_the_truth(tmp_path: Path) -> None:
    study = from_paths({"a": stack(tmp_path / "a.tif")}, stack(tmp_path / "t.tif"))
    assert len(study.of(TRUTH)) == len(study.of("a")) == len(CELLS)
