"""Links over time and the baseline without learning."""

from __future__ import annotations

import numpy as np
import pytest

from postprocess.classical import segment
from postprocess.track import link


def squares(*corners: tuple[int, int] | None) -> np.ndarray:
    """Return 40 x 40 labels with an 8 x 8 cell 1, 2, ... at each corner given."""
    labels = np.zeros((40, 40), np.int32)
    for k, corner in enumerate(corners, start=1):
        if corner:
            labels[corner[0] : corner[0] + 8, corner[1] : corner[1] + 8] = k
    return labels


def test_cells_keep_their_track_across_a_gap_of_one_frame():
    frames = [squares((2, 2), (20, 20)), squares(None, (21, 21)), squares((22, 22), (3, 3)), squares((23, 23))]
    tracks = link(enumerate(frames))
    assert tracks == {0: {1: 1, 2: 2}, 1: {2: 2}, 2: {1: 2, 2: 1}, 3: {1: 2}}


def test_a_longer_gap_or_no_overlap_starts_a_track():
    frames = [squares((2, 2)), squares(), squares(), squares((2, 2)), squares((20, 20))]
    assert link(enumerate(frames)) == {0: {1: 1}, 1: {}, 2: {}, 3: {1: 2}, 4: {1: 3}}
    assert link([(0, squares((2, 2))), (5, squares((2, 2)))]) == {0: {1: 1}, 5: {1: 2}}


def test_yeast_links_are_right(yeast_masks):
    before, after = yeast_masks
    tracks = link([(0, before), (1, after)])
    kept = set(np.unique(before)) & set(np.unique(after)) - {0}
    right = sum(tracks[0][label] == tracks[1][label] for label in kept)
    assert right / len(kept) >= 0.98


@pytest.fixture(scope="module")
def movie():
    from data_io.synthetic import movie

    return movie(0, 4, (256, 256), "paper")


def test_synthetic_links_are_right(movie):
    tracks = link(enumerate(movie.labels))
    links = right = 0
    for t in range(1, len(movie.labels)):
        for label in set(tracks[t]) & set(tracks[t - 1]):
            links += 1
            right += tracks[t][label] == tracks[t - 1][label]
    assert links > 50
    assert right / links >= 0.98


def test_the_baseline_is_neither_trivial_nor_impossible(movie):
    inside = outside = 0
    for image, labels in zip(movie.images, movie.labels, strict=True):
        cells = segment(np.asarray(image)[None])
        inside += ((cells > 0) & (labels > 0)).sum()
        outside += ((cells > 0) | (labels > 0)).sum()
    assert 0.7 < inside / outside < 0.95


def test_the_baseline_keeps_long_cells_whole():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:120, :260]
    image = rng.normal(0, 1, (1, 120, 260))
    cell = np.abs(y - 60 + 8 * np.sin(x / 30)) <= 20 * np.clip(1 - np.abs((x - 130) / 95.0) ** 1.6, 0, None)
    image[0, cell] += rng.normal(0, 12, cell.sum())
    assert segment(image).max() == 1


def test_the_baseline_ignores_scale_and_survives_flat_frames():
    image = np.random.default_rng(0).normal(0, 0.01, (1, 64, 64))
    image[0, 20:40, 20:40] += np.random.default_rng(1).normal(0, 1, (20, 20))
    np.testing.assert_array_equal(segment(image), segment(image * 100 + 5000))
    assert segment(image).max() >= 1
    assert segment(np.full((1, 16, 16), 7.0)).max() == 0
