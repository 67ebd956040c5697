"""Synthetic movies: exact labels, the right look, and said to be synthetic."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from scipy import ndimage
from skimage.filters import threshold_otsu

from data_io import brightfield, synthetic
from data_io.convert import convert
from data_io.errors import BadInput


@pytest.fixture(scope="module")
def movie():
    return synthetic.movie(1, 4, (384, 384), "paper")


def test_same_seed_same_movie(movie):
    again = synthetic.movie(1, 4, (384, 384), "paper")
    assert np.array_equal(movie.images, again.images)
    assert np.array_equal(movie.labels, again.labels)
    assert not np.array_equal(movie.images, synthetic.movie(2, 4, (384, 384), "paper").images)


def test_cells_are_as_many_and_as_large_as_the_study_s(movie):
    counts = [len(np.unique(labels)) - 1 for labels in movie.labels]
    assert 22 < np.mean(counts) < 50
    inner = movie.labels[0].copy()
    for edge in (inner[0], inner[-1], inner[:, 0], inner[:, -1]):
        inner[np.isin(inner, edge)] = 0
    radius = np.sqrt(np.unique(inner[inner > 0], return_counts=True)[1] / np.pi)
    assert abs(np.median(radius) - 11.5) < 1.2


def test_cells_keep_their_label_over_time(movie):
    for before, after in zip(movie.labels, movie.labels[1:], strict=False):
        for cell in np.intersect1d(before, after)[1:]:
            if min((before == cell).sum(), (after == cell).sum()) > 150:
                assert ((before == cell) & (after == cell)).sum() > 0.5 * (before == cell).sum()


def test_the_camera_gives_12_bits_in_16(movie):
    assert movie.images.dtype == np.uint16
    assert (movie.images % 16 == 0).all()
    background = np.median(movie.images[movie.labels == 0])
    assert abs(background / 65536 - 0.42) < 0.03


def test_the_profile_of_a_cell_in_focus():
    s = np.array([1.7, 0.42 * 11.5, 10.5, -2.6])
    rim, ring, centre, halo = brightfield.profile(s, 11.5)
    assert abs(rim + 0.085) < 0.012
    assert abs(ring - 0.060) < 0.025
    assert abs(centre + 0.050) < 0.005
    assert abs(halo - 0.018) < 0.005


def test_written_movies_are_marked_synthetic_and_split_by_field(tmp_path):
    how = {"fields": 3, "frames": 2, "size": (128, 160), "seed": 4}
    out = synthetic.write(tmp_path / "movies", **how)
    assert synthetic.write(out, **how) == out
    dataset = convert(out, tmp_path / "d.zarr")
    assert dataset.synthetic
    assert dataset.splits.unit == "field"
    assert not dataset.warnings
    assert all(field.tracked for field in dataset.fields.values())
    assert tifffile.imread(out / "field_2/masks/t001.tif").dtype == np.uint16
    with pytest.raises(BadInput, match="is not these movies"):
        synthetic.write(out, fields=1)


def test_bad_arguments_say_what_is_allowed(tmp_path):
    with pytest.raises(BadInput, match="choose from easy, paper, hard"):
        synthetic.write(tmp_path / "x", preset="nice")
    with pytest.raises(BadInput, match="at least 1 frame of 64x64"):
        synthetic.movie(0, 0, (384, 384))


def test_a_classical_baseline_is_neither_lost_nor_perfect():
    both = either = 0
    for k in range(3):
        made = synthetic.movie([0, k], 2, (384, 384), "paper")
        for image, labels in zip(made.images.astype(float), made.labels, strict=True):
            sd = np.sqrt(ndimage.uniform_filter(image**2, 5) - ndimage.uniform_filter(image, 5) ** 2)
            filled = ndimage.binary_fill_holes(sd > threshold_otsu(sd))
            found = ndimage.binary_erosion(filled, iterations=2, border_value=1)
            both += (found & (labels > 0)).sum()
            either += (found | (labels > 0)).sum()
    assert 0.72 < both / either < 0.86


@pytest.mark.parametrize("preset", ["easy", "hard"])
def test_the_other_presets(preset):
    made = synthetic.movie(0, 2, (256, 256), preset)
    assert made.labels.max() > 0
    assert made.images.max() < 65536 - 16
