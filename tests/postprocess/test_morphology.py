"""Measures against scikit-image, on discs, and on what has no shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from data_io.errors import BadInput
from postprocess.morphology import NO_CONTOUR, compact, contours, measure

REFERENCE = Path(__file__).resolve().parents[1] / "reference"


def disc(radius: float, aspect: float, seed: int) -> np.ndarray:
    """Return an ellipse of the area of a disc, at a random place and angle."""
    rng = np.random.default_rng(seed)
    size = int(2 * radius * aspect + 8)
    y, x = np.mgrid[:size, :size] - (size / 2 + rng.uniform(-0.5, 0.5, 2))[:, None, None]
    t = rng.uniform(0, np.pi)
    u, v = x * np.cos(t) + y * np.sin(t), y * np.cos(t) - x * np.sin(t)
    return ((u / np.sqrt(aspect)) ** 2 + (v * np.sqrt(aspect)) ** 2 <= radius**2).astype(np.int32)


def test_columns_equal_scikit_image():
    from skimage.measure import regionprops_table

    labels = tifffile.imread(REFERENCE / "blobs_labels.tif").astype(np.int32)
    image = np.random.default_rng(0).integers(0, 65535, (2, *labels.shape)).astype(np.uint16)
    found = measure(labels, image)
    same = {
        "label": "label",
        "area_px2": "area",
        "perimeter_px": "perimeter_crofton",
        "centroid_y_px": "centroid-0",
        "centroid_x_px": "centroid-1",
        "bbox_y0": "bbox-0",
        "bbox_x1": "bbox-3",
        "eccentricity": "eccentricity",
        "orientation_rad": "orientation",
        "intensity_mean_c1": "intensity_mean-1",
        "intensity_sd_c0": "intensity_std-0",
    }
    names = sorted({name.split("-")[0] for name in same.values()})
    expected = regionprops_table(labels, np.moveaxis(image, 0, -1), properties=names)
    for ours, theirs in same.items():
        np.testing.assert_allclose(found[ours], expected[theirs], rtol=1e-9, atol=1e-9, err_msg=ours)


def test_contour_equals_marching_squares_of_the_blurred_mask():
    from scipy import ndimage as ndi
    from skimage.measure import find_contours

    labels = tifffile.imread(REFERENCE / "shapes_labels.tif").astype(np.int32)
    found = measure(labels).set_index("label")
    for label in found.index[found["reason"] == ""]:
        mask = np.pad(ndi.binary_fill_holes(labels == label), 6).astype(float)
        loops = find_contours(ndi.gaussian_filter(mask, 1, mode="constant"), 0.5)
        areas = [abs(np.sum(p[:-1, 0] * p[1:, 1] - p[1:, 0] * p[:-1, 1])) / 2 for p in loops]
        longest = loops[int(np.argmax(areas))]
        assert found.loc[label, "contour_area_px2"] == pytest.approx(max(areas), abs=1e-8)
        length = np.sqrt((np.diff(longest, axis=0) ** 2).sum(axis=1)).sum()
        assert found.loc[label, "contour_perimeter_px"] == pytest.approx(length, abs=1e-8)


@pytest.mark.parametrize("aspect", [1.0, 1.6])
@pytest.mark.parametrize("radius", [10, 15, 40])
def test_perimeter_is_unbiased(radius, aspect):
    from scipy.special import ellipe

    rows = [measure(disc(radius, aspect, seed)).iloc[0] for seed in range(60)]
    a, b = radius * np.sqrt(aspect), radius / np.sqrt(aspect)
    true = 4 * a * ellipe(1 - (b / a) ** 2)
    ratio = np.array([row["perimeter_px"] for row in rows]) / true
    assert abs(ratio.mean() - 1) < 0.005
    assert ratio.std() < 0.01


def test_circularity_of_discs_is_the_published_one():
    radii = np.random.default_rng(1).uniform(8, 15, 200)
    found = [measure(disc(radius, 1.0, seed))["circularity"].item() for seed, radius in enumerate(radii)]
    assert np.mean(found) == pytest.approx(1 - 0.011, abs=0.002)
    assert np.std(found) < 0.004
    assert max(found) < 1


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 14), st.integers(1, 14), st.floats(0.2, 1))
def test_any_shape_has_bounded_traits_or_a_reason(seed, height, width, density):
    mask = (np.random.default_rng(seed).random((height, width)) < density).astype(np.int32)
    for row in measure(mask).itertuples():
        assert row.area_px2 == mask.sum()
        if row.reason:
            assert np.isnan([row.circularity, row.solidity, row.shape_index, row.contour_area_px2]).all()
            continue
        assert 0 < row.circularity <= 1
        assert 0 < row.solidity <= 1 + 1e-12
        assert row.shape_index == pytest.approx(2 * np.sqrt(np.pi / row.circularity))
        assert row.circularity == pytest.approx(4 * np.pi * row.contour_area_px2 / row.contour_perimeter_px**2)


def test_shapes_without_a_contour_say_so():
    labels = np.zeros((20, 20), int)
    labels[1, 1], labels[4:6, 4:6], labels[9, 2:12], labels[12:18, 12:18] = 1, 2, 3, 40
    found = measure(labels).set_index("label")
    assert found["reason"].tolist() == [NO_CONTOUR, NO_CONTOUR, NO_CONTOUR, ""]
    assert found["circularity"].isna().tolist() == [True, True, True, False]
    assert list(contours(labels)) == [40]


def test_neighbours_border_pieces_and_calibration():
    labels = np.zeros((12, 14), int)
    labels[0:5, 2:6], labels[0:5, 6:9], labels[7:10, 2:5], labels[7:10, 8:11] = 5, 9, 11, 11
    found = measure(labels, pixel_size_um=0.5).set_index("label")
    assert found["n_neighbours"].tolist() == [1, 1, 0]
    assert found["contact_px"].tolist() == [5, 5, 0]
    assert found["border"].tolist() == [True, True, False]
    assert found["n_pieces"].tolist() == [1, 1, 2]
    np.testing.assert_allclose(found["area_um2"], found["area_px2"] / 4)
    np.testing.assert_allclose(found["perimeter_um"], found["perimeter_px"] / 2)
    np.testing.assert_allclose(found["radius_um"], found["radius_px"] / 2)


def test_empty_and_huge_ids():
    assert measure(np.zeros((5, 5), np.uint16)).empty
    labels = np.zeros((8, 8), np.int64)
    labels[2:6, 2:6] = 2**31 - 1
    ids, cells = compact(labels)
    assert ids.tolist() == [2**31 - 1]
    assert cells.max() == 1
    assert measure(labels)["area_px2"].item() == 16


@pytest.mark.parametrize(
    ("labels", "image", "message"),
    [
        (np.zeros((3, 3)), None, "float64"),
        (np.zeros((3, 3, 3), int), None, "shape"),
        (np.full((3, 3), -1), None, "negative"),
        (np.zeros((3, 3), int), np.zeros((1, 4, 3)), "image"),
    ],
)
def test_bad_input_is_refused(labels, image, message):
    with pytest.raises(BadInput, match=message):
        measure(labels, image)
