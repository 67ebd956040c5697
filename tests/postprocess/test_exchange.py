"""Files for other programs, each read back by a reader that is not the writer's."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import roifile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy import ndimage as ndi
from skimage.draw import polygon2mask

from analysis.loose_files import from_paths
from data_io import geojson, rois
from data_io.errors import BadInput
from data_io.polygons import fill
from postprocess import exchange, outlines, trackmate
from postprocess.export import open_dataset
from postprocess.predictions import PredictionStore
from postprocess.run import main, run
from postprocess.three_class import part


@pytest.fixture
def movie(make_run, monkeypatch):
    """Return the ``three_class`` cells of a run whose labels have a hole, pieces, a pixel and cells at the edge."""
    run_dir = make_run(0.5)
    run(run_dir, "sync")
    [found] = exchange.movies(run_dir, ["three_class"])

    def odd(ref):
        labels = found.labels(ref).copy()
        labels[0:9, 0:9] = 90
        labels[3:5, 3:5] = 0
        labels[20:22, 60:66] = 91
        labels[24:26, 60:66] = 91
        labels[90, 90] = 92
        labels[91, 91] = 92
        return labels

    return replace(found, labels=odd)


def stack(movie):
    return np.stack([movie.labels(ref) for ref in movie.refs])


def partition(one, other):
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    return len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]


@given(arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3)))
def test_rings_filled_give_back_the_labels(labels):
    back = np.zeros_like(labels)
    for label, pieces in outlines.cells(labels):
        for piece in pieces:
            assert outlines.area(piece[0]) > 0
            assert all(outlines.area(hole) < 0 for hole in piece[1:])
            assert all(len(np.unique(ring, axis=0)) == len(ring) for ring in piece), "no ring meets itself"
            assert all((np.diff(ring, axis=0, append=ring[:1]) == 0).sum() == len(ring) for ring in piece)
            patch = fill(0, [ring.astype(float) for ring in piece], labels.shape)
            height, width = patch.inside.shape
            region = back[patch.top : patch.top + height, patch.left : patch.left + width]
            region[patch.inside] = label
    np.testing.assert_array_equal(back, labels)


def test_outlines_of_odd_labels():
    assert list(outlines.cells(np.zeros((0, 4), np.int32))) == []
    assert list(outlines.cells(np.zeros((3, 4), np.uint8))) == []
    labels = np.zeros((3, 5), np.int64)
    labels[0, 0] = 2**40
    labels[1:, 3:] = 7
    (small, [[square]]), (large, [[pixel]]) = outlines.cells(labels)
    assert (small, large) == (7, 2**40)
    assert {tuple(corner) for corner in pixel.tolist()} == {(0, 0), (1, 0), (1, 1), (0, 1)}
    assert {tuple(corner) for corner in square.tolist()} == {(3, 1), (5, 1), (5, 3), (3, 3)}
    bent = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], bool)  # its hole touches the outside in a corner
    outer, hole = outlines.rings(bent)
    assert (outlines.area(outer), outlines.area(hole)) == (8, -1)


def test_imagej_rois_give_the_labels_back(movie, tmp_path):
    [path] = exchange.rois(movie)
    labels = stack(movie)
    found = roifile.roiread(path)
    assert {roi.position for roi in found} == {ref.frame + 1 for ref in movie.refs}
    whole = max(ref.frame for ref in movie.refs) + 1
    read = rois.read(path, whole, labels.shape[1:]).labels
    for place, ref in enumerate(movie.refs):
        assert partition(read[ref.frame], labels[place])
    simple = next(roi for roi in found if roi.roitype == roifile.ROI_TYPE.POLYGON)
    frame, label = (int(part) for part in simple.name.split("-"))
    cell = movie.labels(next(ref for ref in movie.refs if ref.frame == frame - 1)) == label
    inside = polygon2mask(cell.shape, simple.coordinates()[:, ::-1] - 0.5)  # another way to fill it
    assert np.count_nonzero(inside ^ cell) <= 0.35 * np.count_nonzero(cell ^ ndi.binary_erosion(cell))


def test_qupath_objects_give_the_labels_and_measures_back(movie):
    written = exchange.geojson(movie)
    assert len(written) == len(movie.refs)
    for ref, path in zip(movie.refs, written, strict=True):
        labels = movie.labels(ref)
        np.testing.assert_array_equal(geojson.read(path, 1, labels.shape).labels[0] > 0, labels > 0)
        assert partition(geojson.read(path, 1, labels.shape).labels[0], labels)
        found = json.loads(path.read_text())
        measured = {row["label"]: row for row in movie.of(ref).to_dict("records")}
        for feature in found["features"]:
            label = int(feature["properties"]["name"].removeprefix("cell "))
            if label in measured:
                assert feature["properties"]["measurements"]["area_px2"] == measured[label]["area_px2"]
                assert feature["properties"]["measurements"]["track"] == measured[label]["track"]
    odd = {f["properties"]["name"]: f["geometry"] for f in found["features"]}
    assert odd["cell 91"]["type"] == "MultiPolygon"
    assert len(odd["cell 90"]["coordinates"]) == 2, "an outer ring and a hole"


def test_trackmates_table_has_its_four_headers_and_calibrated_values(movie, tmp_path):
    [path] = exchange.spots(movie)
    lines = path.read_text().splitlines()
    assert lines[0].startswith("LABEL,ID,TRACK_ID,QUALITY,POSITION_X,POSITION_Y,POSITION_Z,POSITION_T,FRAME,RADIUS")
    assert lines[1].startswith("Label,Spot ID,Track ID")
    assert "(micron)" in lines[3]
    assert "(micron^2)" in lines[3]
    spots = pd.read_csv(path, skiprows=[1, 2, 3])
    assert len(spots) == movie.table["area_trackmate"].notna().sum()
    for ref in movie.refs:
        own = spots[spots["FRAME"] == ref.frame].reset_index(drop=True)
        table = movie.of(ref)
        table = table[table["area_trackmate"].notna()].reset_index(drop=True)
        np.testing.assert_allclose(own["AREA"], table["area_trackmate"] * 0.25)
        np.testing.assert_allclose(own["PERIMETER"], table["perimeter_trackmate"] * 0.5)
        np.testing.assert_allclose(own["POSITION_X"], table["centroid_x_px"] * 0.5)
        np.testing.assert_allclose(own["CIRCULARITY"], table["circularity_trackmate"])
    study = from_paths({"ours": path, "again": path}, None)  # what the comparison makes of it
    assert len(study.cells) == 2 * len(spots)


def test_pictures_show_outlines_where_cells_end(movie):
    for ref, path in zip(movie.refs, exchange.outline_pictures(movie), strict=True):
        picture = np.asarray(Image.open(path))
        assert picture.shape == (2 * 96, 2 * 96, 3), "small frames are drawn twice as large"
        coloured = (picture.max(axis=-1) != picture.min(axis=-1))[::2, ::2]
        labels = movie.labels(ref)
        inner = ndi.binary_erosion(labels > 0, iterations=4)
        far = ~ndi.binary_dilation(labels > 0, iterations=2)
        assert coloured.sum() > 50
        assert not coloured[far].any()
        assert coloured[inner].mean() < 0.2
    [moving] = exchange.animation(movie)
    with Image.open(moving) as found:
        assert (found.format, found.n_frames) == ("GIF", len(movie.refs))
        for place, ref in enumerate(movie.refs):
            found.seek(place)
            shown = {tuple(colour) for colour in np.asarray(found.convert("RGB")).reshape(-1, 3).tolist()}
            tracks = movie.of(ref)["track"].to_numpy()
            assert {exchange.COLOURS[track % 7] for track in tracks} <= shown, "outlines keep their colours"


def test_binary_masks_keep_touching_cells_apart(movie):
    for ref, path in zip(movie.refs, exchange.binary(movie), strict=True):
        mask = np.asarray(Image.open(path))
        assert mask.dtype == np.uint8
        assert set(np.unique(mask)) <= {0, 255}
        labels = movie.labels(ref)
        pieces, n = ndi.label(mask)
        assert all(len(np.unique(labels[pieces == k])) == 1 for k in range(1, n + 1)), "no piece holds two cells"
        assert ((labels > 0) & (mask == 0)).sum() < 0.2 * (labels > 0).sum()


@given(arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 4)), st.integers(1, 4))
def test_masks_made_in_strips_are_those_made_at_once(labels, rows):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(exchange, "STRIP", rows)
        np.testing.assert_array_equal(exchange.parted(labels), np.where(part(labels) > 0, 255, 0))


def test_large_frames_are_drawn_reduced_and_equal_ones_stay_frames(movie):
    ref = movie.refs[0]
    assert exchange.drawn(movie, ref, 50).size == (2 * 48, 2 * 48)
    dark = np.zeros((1, 96, 96), np.uint16)
    still = replace(movie, labels=lambda _: movie.labels(ref) * 0, image=lambda _: dark, table=movie.table.iloc[:0])
    with Image.open(exchange.animation(still)[0]) as found:
        assert found.n_frames == len(movie.refs) > 1
        assert found.size == (192, 192)
    assert exchange.eight_bit(np.array([[-1e4, 0, 1e4]])).tolist() == [[0, 127, 255]]


def test_hostile_names_stay_in_their_folder(movie):
    odd = replace(movie, field=replace(movie.field, name="=1+1", slug="../../=cmd|' /C calc'!A0"))
    for write in exchange.KINDS.values():
        for path in write(odd):
            assert path.resolve().is_relative_to(movie.folder.resolve())
            assert path.name.startswith("cmd-C-calc-A0")
    for line in exchange.spots(odd)[0].read_text().splitlines():
        assert not any(cell.startswith(("=", "+", "@")) for cell in line.split(","))
    run_dir = movie.folder.parents[1]
    group = next((run_dir / "labels.zarr").glob("*/labels/zarr.json"))
    facts = json.loads(group.read_text())
    facts["attributes"]["ome"]["labels"].append("../../three_class")
    group.write_text(json.dumps(facts))
    with pytest.raises(BadInput, match="no safe file name; rename it to 'three_class'"):
        exchange.write_exports(run_dir, ["rois"])


def test_the_command_writes_all_kinds_and_refuses_others(make_run, capsys):
    run_dir = make_run()
    assert main([str(run_dir), "--export", "all", "--scheduler", "sync"]) == 0
    said = capsys.readouterr()
    assert "exports:" in said.out
    assert "export 30/30" in said.err, "six kinds of five methods"
    assert not list((run_dir / "exports").rglob("*.tmp"))
    for method in ("star", "truth", "classical"):
        names = {path.suffix for path in (run_dir / "exports" / method).rglob("*") if path.is_file()}
        assert names == {".csv", ".zip", ".geojson", ".png", ".gif"}
    with pytest.raises(BadInput, match="unknown; choose from trackmate"):
        main([str(run_dir), "--export", "excel"])
    with pytest.raises(BadInput, match="no method"):
        exchange.write_exports(run_dir, ["rois"], ["cellpose"])
    (run_dir / "exports").rename(run_dir / "old")
    (run_dir / "exports").write_text("in the way")
    with pytest.raises(BadInput, match="cannot be written"):
        exchange.write_exports(run_dir, ["binary"])


def test_a_method_that_is_gone_is_written_no_more_and_comes_back(make_run):
    run_dir = make_run()
    run(run_dir, "sync")
    predictions = PredictionStore.open(run_dir / "predictions.zarr")
    facts, [ref, *_] = predictions.attrs("star"), predictions.frames("star")
    prediction = predictions.read("star", ref)
    predictions.remove_method("star")
    run(run_dir, "sync")
    exchange.write_exports(run_dir, ["geojson"])
    assert {path.name for path in (run_dir / "exports").iterdir()} == {"two_class", "three_class", "truth", "classical"}

    dataset = open_dataset(run_dir)
    predictions.add_method("star", "star", 2, 1, 32, dataset.fields.values(), {"decode": facts["decode"]})
    predictions.write("star", ref, prediction)
    assert run(run_dir, "sync").computed == 0, "it is the same prediction"
    exchange.write_exports(run_dir, ["geojson"])
    [path] = (run_dir / "exports" / "star").iterdir()
    assert all(feature["properties"]["measurements"] for feature in json.loads(path.read_text())["features"])


def test_frames_without_cells_are_written_too(movie):
    nothing = replace(movie, labels=lambda ref: np.zeros((96, 96), np.int32), table=movie.table.iloc[:0])
    for kind, write in exchange.KINDS.items():
        for path in write(nothing):
            assert path.stat().st_size > 0 or kind == "rois", kind
    assert json.loads(exchange.geojson(nothing)[0].read_text())["features"] == []
    assert pd.read_csv(exchange.spots(nothing)[0], skiprows=[1, 2, 3]).empty
    assert trackmate.measure(np.zeros((4, 4), np.int32)).empty
