"""Our contours against the numbers of the original."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from postprocess import trackmate

REFERENCE = Path(__file__).resolve().parents[1] / "reference"
COLUMNS = ["n_points", *trackmate.TRAITS]


@pytest.mark.parametrize(("prefix", "simplify"), [("tm_", True), ("tmraw_", False)])
def test_shapes_equal_the_golden_numbers(prefix, simplify):
    golden = pd.read_csv(REFERENCE / "shapes_trackmate.csv")
    found = trackmate.measure(tifffile.imread(REFERENCE / "shapes_labels.tif"), simplify=simplify)
    golden.index += 1
    drawn = golden[golden[f"{prefix}n_points"] > 0]
    assert found["label"].tolist() == drawn.index.tolist()
    expected = drawn[[prefix + name for name in COLUMNS]].to_numpy(float)
    np.testing.assert_allclose(found[COLUMNS].to_numpy(float), expected, rtol=0, atol=1e-6)
    assert found["quality"].tolist() == drawn["n_px"].tolist()


@pytest.mark.parametrize("simplify", [True, False])
def test_blobs_equal_the_golden_numbers(simplify):
    golden = pd.read_csv(REFERENCE / "blobs_trackmate.csv")
    golden = golden[golden["simplify"] == simplify].sort_values(["label", "piece"])
    found = trackmate.measure(tifffile.imread(REFERENCE / "blobs_labels.tif"), simplify=simplify)
    assert found[["label", "piece"]].to_numpy().tolist() == golden[["label", "piece"]].to_numpy().tolist()
    np.testing.assert_allclose(found[COLUMNS].to_numpy(float), golden[COLUMNS].to_numpy(float), rtol=0, atol=1e-6)


@pytest.mark.parametrize("simplify", [True, False])
def test_blob_polygons_equal_the_golden_vertices(simplify):
    golden = pd.read_csv(REFERENCE / "blobs_polygons_first40.csv")
    golden = golden[golden["simplify"] == simplify]
    labels = tifffile.imread(REFERENCE / "blobs_labels.tif")
    found = {(c.label, c.piece): c.points for c in trackmate.contours(labels, simplify=simplify)}
    for row in golden.itertuples():
        vertices = np.array(row.poly.split(), float).reshape(-1, 2)
        np.testing.assert_array_equal(found[row.label, row.piece], vertices)


def test_separate_pieces_give_separate_polygons_and_a_corner_joins():
    labels = np.zeros((20, 30), int)
    labels[2:6, 2:6] = labels[6:9, 6:9] = 7  # touch at a corner
    labels[2:8, 20:26] = 7  # apart
    found = trackmate.contours(labels, simplify=False)
    assert [(c.label, c.piece, c.n_px) for c in found] == [(7, 0, 36), (7, 1, 25)]
    traits, pieces = trackmate.largest((labels > 0).astype(np.int32), 1)
    assert pieces.tolist() == [2]
    assert traits[0, 0] == trackmate.measure(labels).query("quality == 36")["area"].item()


def test_holes_are_filled_and_two_pixels_vanish():
    ring = np.ones((9, 9), int)
    ring[3:6, 3:6] = 0
    assert trackmate.measure(ring, simplify=False)["area"].item() == 81
    assert trackmate.measure(np.array([[1, 1, 0], [0, 0, 0], [0, 0, 2]])).empty
    assert trackmate.measure(np.zeros((4, 4), int)).empty


def test_a_disc_of_the_table():
    y, x = np.mgrid[:25, :25]
    row = trackmate.measure(((x - 12) ** 2 + (y - 12) ** 2 <= 100).astype(int)).iloc[0]
    assert (row["area"], round(row["perimeter"], 4), round(row["solidity"], 4)) == (316.0, 65.4894, 0.9768)
