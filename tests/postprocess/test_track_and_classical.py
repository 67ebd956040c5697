"""Links over time and the baseline without learning."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

from postprocess.classical import segment
from postprocess.track import LEAST_OVERLAP, link


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


def test_a_dividing_cell_goes_on_as_its_larger_daughter_and_the_other_starts_a_track():
    mother, apart = np.zeros((2, 30, 40), np.int32)
    mother[5:15, 5:30] = 7
    apart[5:15, 4:20], apart[5:15, 21:31], apart[20:28, 20:28] = 1, 2, 3
    tracks = link([(0, mother), (1, apart), (2, apart)])
    assert tracks == {0: {7: 1}, 1: {1: 1, 2: 2, 3: 3}, 2: {1: 1, 2: 2, 3: 3}}


@pytest.mark.parametrize("seed", range(5))
def test_links_have_the_largest_total_overlap_there_is(seed):
    rng = np.random.default_rng(seed)
    middles, pixels = rng.uniform(0, 100, (60, 2)), np.stack(np.mgrid[:100, :100], axis=-1)
    moved = middles + rng.normal(0, 6, middles.shape)
    one, other = (cKDTree(each).query(pixels)[1] for each in (middles, moved))
    one, other = np.where(one > 5, one, 0), np.where(other > 5, other, 0)
    shape = one.max() + 1, other.max() + 1
    both = np.bincount(one.ravel() * shape[1] + other.ravel(), minlength=shape[0] * shape[1]).reshape(shape)
    iou = (both / np.maximum(both.sum(1)[:, None] + both.sum(0)[None] - both, 1))[1:, 1:]
    iou[iou < LEAST_OVERLAP] = 0
    tracks = link([(0, one), (1, other)])
    links = [(a - 1, b - 1) for a, track in tracks[0].items() for b, same in tracks[1].items() if same == track]
    assert (np.count_nonzero(iou, axis=1) > 1).any(), "there is a choice"
    assert min(iou[place] for place in links) >= LEAST_OVERLAP
    best = iou[linear_sum_assignment(iou, maximize=True)].sum()
    np.testing.assert_allclose(sum(iou[place] for place in links), best)


def test_memory_does_not_go_with_the_square_of_the_number_of_cells():
    cells = np.kron(np.arange(1, 22_501, dtype=np.int32).reshape(150, 150), np.ones((4, 4), np.int32))
    cells[::4] = cells[:, ::4] = 0
    tracemalloc.start()
    tracks = link([(0, cells), (1, np.roll(cells, 1, axis=0))])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert tracks[1] == tracks[0]
    assert peak < 100e6


def right(truth, tracks, step: int = 1) -> float:
    """Return the part of the true links over so many frames that were found."""
    pairs = [(a, a + step, label) for a in range(len(truth) - step) for label in persisting(truth, a, a + step)]
    assert len(pairs) > 50
    return sum(tracks[a][label] == tracks[b][label] for a, b, label in pairs) / len(pairs)


def persisting(truth, one: int, other: int) -> set[int]:
    return (set(np.unique(truth[one]).tolist()) & set(np.unique(truth[other]).tolist())) - {0}


def missed_once(truth):
    """Return the frames with every cell missing in one of them, which differs from cell to cell."""
    frames = [frame.copy() for frame in truth]
    for cell in np.unique(truth[0])[1:]:
        frame = frames[1 + cell % (len(frames) - 2)]
        frame[frame == cell] = 0
    return frames


def test_yeast_links_are_right(yeast_movie):
    assert right(yeast_movie, link(enumerate(yeast_movie))) >= 0.98
    gaps = missed_once(yeast_movie)
    tracks = link(enumerate(gaps))
    assert right(gaps, tracks) >= 0.98
    assert right(gaps, tracks, 2) >= 0.98, "also across the gap"


@pytest.fixture(scope="module")
def movie():
    from data_io.synthetic import movie

    return movie(0, 5, (320, 320), "hard")


def test_synthetic_links_are_right(movie):
    truth = [np.asarray(frame) for frame in movie.labels]
    assert right(truth, link(enumerate(truth))) >= 0.98
    gaps = missed_once(truth)
    assert right(gaps, link(enumerate(gaps)), 2) >= 0.98


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
