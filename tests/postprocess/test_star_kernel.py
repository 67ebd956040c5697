"""Star targets: those of the stardist package, from compiled loops."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage as ndi

from postprocess import star, star_kernel


def _of_stardist(labels):
    """Return probability and distances as the package computes them."""
    from stardist.geometry import star_dist
    from stardist.utils import edt_prob

    cells = labels.astype(np.uint16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an image of nothing but one cell
        probability = edt_prob(cells)[:: star.STRIDE, :: star.STRIDE]
    return probability, np.moveaxis(star_dist(cells, n_rays=star.N_RAYS, grid=(star.STRIDE, star.STRIDE)), -1, 0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(40, 130), (90, 96), (5, 61)]))
def test_targets_are_those_of_stardist(crowd, seed, form):
    labels = crowd(seed, *form)
    for found, expected in zip(star.encode(labels), _of_stardist(labels), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.tuples(st.integers(1, 70), st.integers(1, 70)))
def test_targets_are_those_of_stardist_whatever_the_labels(seed, top, shape):
    rng = np.random.default_rng(seed)
    labels = np.kron(rng.integers(0, top + 1, (1 + shape[0] // 8, 1 + shape[1] // 8)), np.ones((8, 8), np.int32))
    labels = labels[: shape[0], : shape[1]].astype(np.int32)
    for found, expected in zip(star.encode(labels), _of_stardist(labels), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_batch_is_its_images_one_by_one_and_names_do_not_matter(crowd):
    images = np.stack([crowd(seed, 20, 64) for seed in range(3)])
    batch = star.encode_batch(images)
    assert batch.shape == (3, 33, 32, 32)
    assert batch.dtype == np.float32
    renamed = np.where(images > 0, images + 2_000_000_000, 0)
    for labels, target, other in zip(images, batch, star.encode_batch(renamed), strict=True):
        probability, distance = star.encode(labels)
        assert np.array_equal(target[0], probability)
        assert np.array_equal(target[1:], distance)
        assert np.array_equal(target, other)


def test_a_step_in_the_middle_between_two_pixels_is_rounded_where_it_stands(monkeypatch, crowd):
    labels = crowd(3, 20, 64)
    expected = star.encode(labels)[1]
    table = star_kernel.steps(star.N_RAYS, labels.shape)
    monkeypatch.setattr(
        star_kernel, "steps", lambda *_: table._replace(offset=np.full_like(table.offset, star_kernel.TIE))
    )
    assert np.array_equal(star.encode(labels)[1], expected)


@pytest.mark.parametrize("seed", range(5))
def test_squared_distances_are_those_of_each_cell(crowd, seed):
    labels = crowd(seed, 30, 80)
    found = star_kernel.squared_distances(labels)
    for cell in range(1, labels.max() + 1):
        inside = labels == cell
        np.testing.assert_allclose(found[inside], ndi.distance_transform_edt(inside)[inside] ** 2, atol=1e-6)
    assert not found[labels == 0].any()
