"""Augmentation: labels stay the cells of the image, a seed gives the same crops again, what was done is recorded."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage as ndi
from skimage.measure import label

from data_io import warp
from data_io.augment import Augmentation, augment
from data_io.errors import BadInput

ALL = Augmentation(1.0, rotation=0.5, elastic=0.5, defocus=0.5)


def _crops(n=6, size=64, seed=0):
    """Return smooth images `(n, 2, S, S)` and discs, each one piece, that their first channel shows."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((n, size, size), np.int32)
    y, x = np.mgrid[:size, :size]
    for image in labels:
        for cell, (cy, cx) in enumerate(rng.uniform(0, size, (7, 2)), start=1):
            disc = (y - cy) ** 2 + (x - cx) ** 2 <= 49
            if not (image[ndi.binary_dilation(disc)]).any():
                image[disc] = cell
    shown = (labels > 0).astype(np.float32)
    return np.stack([shown, ndi.gaussian_filter(shown, (0, 2, 2))], axis=1), labels


@given(st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_the_same_seed_gives_the_same_crops_and_leaves_what_it_got(seed):
    images, labels = _crops()
    before = images.copy(), labels.copy()
    first, second = (augment(images, labels, np.random.default_rng(seed), ALL) for _ in range(2))
    for a, b, old in zip(first, second, before, strict=True):
        assert np.array_equal(a, b)
        assert a.dtype == old.dtype
        assert a.shape == old.shape
    assert np.array_equal(images, before[0])
    assert np.array_equal(labels, before[1])
    assert not np.array_equal(first[0], augment(images, labels, np.random.default_rng(seed + 1), ALL)[0])
    assert first[0].min() >= -1
    assert first[0].max() <= 3


@pytest.mark.parametrize("how", [0, 0.0, Augmentation(0.0, rotation=1, elastic=1, defocus=1)])
def test_strength_0_changes_nothing(how):
    images, labels = _crops()
    same, cells = augment(images, labels, np.random.default_rng(0), how)
    assert np.array_equal(same, images)
    assert np.array_equal(cells, labels)


@given(st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_warped_labels_are_cells_that_lie_where_the_image_shows_them(seed):
    images, labels = _crops(4, seed=seed)
    how = Augmentation(1.0, rotation=1, elastic=1, tone=False, noise=False)
    warped, cells = augment(images, labels, np.random.default_rng(seed), how)
    assert ((warped[:, 0] > 0.5) == (cells > 0)).mean() > 0.98
    for drawn in cells:
        pieces = label(drawn, background=0, connectivity=2)
        assert pieces.max() == len(np.unique(drawn[drawn > 0]))


def test_a_quarter_turn_and_no_turn_are_exact():
    images, labels = _crops(1)
    same = warp.warp(images[0], labels[0], warp.positions(64, 0.0))
    assert np.array_equal(same[0], images[0])
    assert np.array_equal(same[1], labels[0])
    turned = warp.warp(images[0], labels[0], warp.positions(64, np.pi / 2))
    assert np.abs(turned[0] - np.rot90(images[0], -1, axes=(1, 2))).max() < 1e-4
    assert (turned[1] == np.rot90(labels[0], -1)).mean() > 0.999


@pytest.mark.parametrize("angle", [0.3, 2.0, -1.2])
def test_samples_are_those_of_scipy(angle):
    image = np.random.default_rng(0).random((2, 40, 40), np.float32)
    knots = np.random.default_rng(1).uniform(-6, 6, (2, warp.n_knots(40), warp.n_knots(40)))
    taken = warp.positions(40, angle, knots)
    found, nearest = warp.warp(image, np.zeros((40, 40), np.int32), taken)
    for channel, mine in zip(image, found, strict=True):
        np.testing.assert_allclose(mine, ndi.map_coordinates(channel, taken, order=1, mode="reflect"), atol=1e-4)
    assert not nearest.any()


def test_elastic_bending_is_smooth_and_never_folds():
    moves = np.random.default_rng(0).choice([-1, 1], (2, warp.n_knots(96), warp.n_knots(96)))
    rows, columns = warp.positions(96, 0.0, warp.FOLD * warp.SPACING * moves)
    assert np.diff(rows, axis=0).min() > 0
    assert np.diff(columns, axis=1).min() > 0
    still = warp.positions(96, 0.0, np.full((2, warp.n_knots(96), warp.n_knots(96)), 3.0))
    np.testing.assert_allclose(still, warp.positions(96, 0.0) + 3, atol=1e-4)


def test_a_mirrored_cell_is_another_cell_unless_both_are_one_piece():
    labels = np.zeros((40, 40), np.int32)
    labels[3:8, 10:16], labels[:5, 30:34] = 5, 9
    taken = warp.positions(40, 0.0)
    taken[0] -= 12
    drawn = warp.warp(np.zeros((1, 40, 40), np.float32), labels, taken)[1]
    assert set(np.unique(drawn)) == {0, 5, 9, 10}
    cell, mirrored = drawn[15:20, 10:16], drawn[4:9, 10:16]
    assert {int(cell[0, 0]), int(mirrored[0, 0])} == {5, 10}
    assert len(np.unique(cell)) == len(np.unique(mirrored)) == 1
    assert (drawn[7:17, 30:34] == 9).all()


def test_defocus_takes_contrast_and_no_light():
    images, labels = _crops(8)
    how = Augmentation(1.0, defocus=1.0, turn=False, tone=False, noise=False)
    blurred, same = augment(images, labels, np.random.default_rng(0), how)
    assert np.array_equal(same, labels)
    assert (blurred.std(axis=(2, 3)) <= images.std(axis=(2, 3)) + 1e-6).all()
    np.testing.assert_allclose(blurred.mean(axis=(2, 3)), images.mean(axis=(2, 3)), atol=0.01)


def test_only_the_part_asked_for_is_changed():
    images, labels = _crops(1)
    images, labels = np.repeat(images, 400, axis=0), np.repeat(labels, 400, axis=0)
    for name in ("rotation", "elastic", "defocus"):
        how = Augmentation(1.0, **{name: 0.25}, turn=False, tone=False, noise=False)
        changed = (augment(images, labels, np.random.default_rng(0), how)[0] != images).any(axis=(1, 2, 3)).mean()
        assert 0.15 < changed < 0.35, name


def test_what_was_done_is_recorded():
    record = json.loads(json.dumps(Augmentation(0.5, rotation=0.25, noise=False).record()))
    assert record["settings"]["rotation"] == 0.25
    assert record["transformations"]["rotation"] == {"share": 0.25, "largest_deg": 180.0}
    assert set(record["transformations"]) == {"turn", "rotation", "tone"}
    assert Augmentation(**record["settings"]) == Augmentation(0.5, rotation=0.25, noise=False)
    assert Augmentation(0.0).record()["transformations"] == {}


@pytest.mark.parametrize("bad", [{"strength": 1.5}, {"rotation": -0.1}, {"elastic": float("nan")}])
def test_a_number_that_is_no_part_is_refused(bad):
    with pytest.raises(BadInput, match=rf"augmentation {next(iter(bad))} .*: not a part; give a number from 0 to 1"):
        Augmentation(**bad)
