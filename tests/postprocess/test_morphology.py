"""Measures against scikit-image, on discs, and on what has no shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from data_io.errors import BadInput
from postprocess.morphology import NO_CONTOUR, compact, contours, measure
from postprocess.polygon import feret, hull, hull_area

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


def test_perimeter_and_circularity_over_sizes_and_aspects():
    from scipy.special import ellipe

    rng = np.random.default_rng(5)
    radius, aspect = rng.uniform(8, 40, 1500), np.where(rng.random(1500) < 0.3, 1.0, rng.uniform(1, 1.6, 1500))
    frames = []
    for seed, (r, e) in enumerate(zip(radius, aspect, strict=True)):  # each in a place of its own, 136 px wide
        cell = disc(r, e, seed)
        frames.append(np.pad(cell * (seed + 1), [(0, 136 - side) for side in cell.shape]))
    found = pd.concat([measure(np.concatenate(frames[at : at + 100])) for at in range(0, 1500, 100)])
    ratio = found["perimeter_px"].to_numpy() / (4 * radius * np.sqrt(aspect) * ellipe(1 - aspect**-2.0))
    for low, high in ((8, 10), (10, 15), (15, 25), (25, 40)):
        part = ratio[(radius >= low) & (radius < high)]
        assert abs(part.mean() - 1) < 0.005
        assert part.std() < 0.01 or high == 10
    assert found["circularity"].max() < 1


@settings(max_examples=100, deadline=None)
@given(st.floats(8, 40), st.floats(1, 1.6), st.integers(0, 2**32 - 1))
def test_circularity_and_feret_diameters_of_any_ellipse(radius, aspect, seed):
    row = measure(disc(radius, aspect, seed)).iloc[0]
    assert row["circularity"] < 1
    assert row["feret_max_px"] == pytest.approx(2 * radius * np.sqrt(aspect), abs=1.1)
    assert row["feret_min_px"] == pytest.approx(2 * radius / np.sqrt(aspect), abs=1.1)


def brute_widths(points: np.ndarray) -> tuple[float, float]:
    """Return the largest distance of two points and the smallest width over the directions of all pairs of them."""
    apart = points[:, None] - points[None]
    distance = np.sqrt((apart**2).sum(-1))
    normals = np.stack([apart[..., 1], -apart[..., 0]], -1)[distance > 1e-6] / distance[distance > 1e-6][:, None]
    along = points @ normals.T
    return distance.max(), np.ptp(along, axis=0).min()


@settings(max_examples=100, deadline=None)
@given(st.floats(1, 30), st.floats(1, 30), st.floats(0, np.pi), st.integers(3, 40), st.booleans())
def test_feret_diameters_equal_brute_force(a, b, angle, n, is_rectangle):
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    points = np.stack([a * np.sin(t), b * np.cos(t)], 1)
    if is_rectangle:  # with points on its edges
        side = np.linspace(-1, 1, n)
        edges = [np.stack([side, np.full(n, k)], 1) for k in (-1.0, 1.0)]
        points = np.concatenate([*edges, *(edge[:, ::-1] for edge in edges)]) * (a, b)
    turned = points @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) + 50
    twice = np.concatenate([turned, turned + np.random.default_rng(n).normal(0, 1e-13, turned.shape)])
    found = feret(hull(twice))
    assert found == pytest.approx(brute_widths(turned), abs=1e-7)
    if is_rectangle:
        assert found == pytest.approx((2 * np.hypot(a, b), 2 * min(a, b)), abs=1e-7)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 60), st.sampled_from([None, 0, 1]))
def test_hull_and_feret_of_random_points(seed, n, decimals):
    from scipy.spatial import ConvexHull, QhullError

    points = np.random.default_rng(seed).normal(0, 5, (n, 2))
    points = points if decimals is None else points.round(decimals)
    try:
        expected = ConvexHull(points)
    except QhullError:
        return  # all on a line
    corners = hull(points)
    assert hull_area(points) == pytest.approx(expected.volume)
    assert {tuple(p) for p in corners} == {tuple(p) for p in points[expected.vertices]}
    assert feret(corners) == pytest.approx(brute_widths(points[expected.vertices]), abs=1e-9)


def test_feret_columns_are_those_of_the_contour():
    labels = tifffile.imread(REFERENCE / "shapes_labels.tif").astype(np.int32)
    found = measure(labels, pixel_size_um=2.0).set_index("label")
    for label, points in contours(labels).items():
        row = found.loc[label]
        assert (row["feret_max_px"], row["feret_min_px"]) == pytest.approx(brute_widths(points))
    np.testing.assert_allclose(found["feret_max_um"], 2 * found["feret_max_px"])
    np.testing.assert_allclose(found["feret_min_um"], 2 * found["feret_min_px"])
    assert found["feret_max_px"].isna().equals(found["circularity"].isna())


def test_focus_is_the_gradient_over_the_mean_and_falls_with_blur():
    from scipy import ndimage as ndi

    labels = tifffile.imread(REFERENCE / "blobs_labels.tif").astype(np.int32)
    rng = np.random.default_rng(0)
    sharp = ndi.gaussian_filter(rng.normal(0, 60, labels.shape), 1) + 1000
    stack = np.stack([sharp, 3 * sharp, ndi.gaussian_filter(sharp, 1.5), sharp - sharp.max()])
    found = measure(labels, stack.astype(np.float32))
    gradient = (ndi.sobel(sharp, 0, mode="nearest") ** 2 + ndi.sobel(sharp, 1, mode="nearest") ** 2) / 64
    expected = ndi.mean(gradient, labels, found["label"]) / ndi.mean(sharp, labels, found["label"]) ** 2
    np.testing.assert_allclose(found["focus_c0"], expected, rtol=1e-3)
    np.testing.assert_allclose(found["focus_c1"], found["focus_c0"], rtol=1e-3)
    assert (found["focus_c2"] < found["focus_c0"]).all()
    assert found["focus_c3"].isna().all()


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, ">u2", np.int32, np.uint64, np.float16, np.float64])
def test_grey_values_of_any_type(dtype):
    labels = np.zeros((9, 9), np.uint64)
    labels[2:7, 2:7] = 2**40
    image = np.random.default_rng(0).integers(0, 2, (1, 9, 9)).astype(dtype)
    found = measure(labels, image)
    assert found["label"].tolist() == [2**40]
    assert found["intensity_mean_c0"].item() == pytest.approx(image[0, 2:7, 2:7].astype(float).mean())


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
