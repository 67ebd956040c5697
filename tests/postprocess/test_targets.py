"""Round trips, ceilings and fits of the three targets."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage as ndi

from data_io.errors import BadInput
from postprocess import methods, star, three_class, two_class
from postprocess.prediction import Prediction, quantise

seeds = st.integers(0, 10_000)


def same_cells(truth: np.ndarray, found: np.ndarray) -> bool:
    """Say whether every cell has exactly one partner of IoU > 0.5 and none is left."""
    overlap = np.zeros((truth.max() + 1, found.max() + 1))
    np.add.at(overlap, (truth.ravel(), found.ravel()), 1)
    iou = (overlap / (overlap.sum(1)[:, None] + overlap.sum(0)[None] - overlap))[1:, 1:]
    return iou.shape[0] == iou.shape[1] == np.count_nonzero(iou > 0.5)


# --- three_class


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_three_class_finds_every_cell_whose_core_is_one_piece(crowd, seed):
    labels = crowd(seed, 25, 80)
    classes = three_class.encode(labels)
    cores = np.where(classes == three_class.CORE, labels, 0)
    whole = [k for k in range(1, labels.max() + 1) if ndi.label(cores == k)[1] == 1]
    kept = np.unique(np.where(np.isin(labels, whole), labels, 0), return_inverse=True)[1].reshape(labels.shape)
    decoded = three_class.decode(three_class.perfect(kept), three_class.Params())
    assert same_cells(kept, decoded)
    assert ((decoded > 0) == (kept > 0)).all()


def test_three_class_target_is_the_inner_boundary():
    from skimage.segmentation import find_boundaries

    labels = np.zeros((9, 12), np.int32)
    labels[1:8, 1:6], labels[1:8, 6:11] = 1, 2
    classes = three_class.encode(labels)
    assert classes.dtype == np.uint8
    np.testing.assert_array_equal(classes == 2, find_boundaries(labels, mode="inner", connectivity=1))
    np.testing.assert_array_equal(classes > 0, labels > 0)


def test_growth_is_level_by_level_and_ties_go_to_the_larger_id():
    cores = np.array([[1, 0, 0, 0, 2, 0, 0, 0, 0]], np.int32)
    free = np.array([[0, 1, 1, 1, 0, 1, 1, 0, 1]], bool)
    assert three_class.grow(cores, free).tolist() == [[1, 1, 2, 2, 2, 2, 2, 0, 0]]


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(1, 6))
def test_growth_in_a_block_with_a_halo_of_its_levels_is_the_undivided_one(seed, width):
    rng = np.random.default_rng(seed)
    cores = np.where(rng.random((30, 40)) < 0.05, rng.integers(1, 50, (30, 40)), 0).astype(np.int32)
    free = ndi.binary_dilation(cores > 0, iterations=width) & (cores == 0)
    halo = 4 * width  # never more levels than this here
    whole = three_class.grow(cores, free)
    left = three_class.grow(cores[:, : 20 + halo], free[:, : 20 + halo])[:, :20]
    np.testing.assert_array_equal(whole[:, :20], left)


def test_boundary_blobs_without_a_core_count_from_fifteen_pixels_on():
    classes = np.zeros((10, 20), np.uint8)
    classes[1:4, 1:6], classes[1:3, 10:17] = three_class.BOUNDARY, three_class.BOUNDARY
    one_hot = (classes[None] == np.arange(3)[:, None, None]).astype(np.uint8) * 255
    decoded = three_class.decode(Prediction(one_hot, None, 1, classes.shape), three_class.Params())
    assert np.bincount(decoded.ravel())[1:].tolist() == [15]


def test_a_small_core_joins_the_cell_around_it():
    classes = np.full((9, 18), three_class.BOUNDARY, np.uint8)
    classes[2:7, 2:8], classes[4, 12] = three_class.CORE, three_class.CORE
    assert three_class.cells_of(classes, 1, 15).max() == 2
    assert (three_class.cells_of(classes, 2, 15) == 1).all()


def test_paper_gap_parts_touching_cells_by_one_pixel():
    labels = np.repeat(np.array([[1, 1, 1, 1, 2, 2, 2, 2]], np.int32), 6, axis=0)
    assert three_class.part(labels)[0].tolist() == [1, 1, 1, 1, 0, 2, 2, 2]
    decoded = three_class.decode(three_class.perfect(labels, paper_gap=True), three_class.Params(paper_gap=True))
    assert decoded[0].tolist() == [1, 1, 1, 1, 0, 2, 2, 2]


# --- two_class


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_two_class_keeps_the_foreground_and_whole_components(crowd, seed):
    labels = crowd(seed, 20, 80)
    decoded = two_class.decode(two_class.perfect(labels), two_class.Params(min_distance=14))
    assert ((decoded > 0) == (labels > 0)).all()
    components, count = ndi.label(labels > 0)
    assert all(len(np.unique(components[decoded == k])) == 1 for k in range(1, decoded.max() + 1))
    assert decoded.max() >= count


def test_two_class_is_the_plain_pipeline(crowd):
    from skimage.feature import peak_local_max
    from skimage.segmentation import watershed

    mask = crowd(5, 60, 160) > 0
    height = ndi.gaussian_filter(ndi.distance_transform_edt(mask).astype(np.float32), 1) * mask
    markers = np.zeros(mask.shape, np.int32)
    peaks = peak_local_max(height, min_distance=5, exclude_border=False)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    plain = watershed(-height, markers, mask=mask)
    decoded = two_class.decode(two_class.perfect(mask.astype(int)), two_class.Params())
    np.testing.assert_array_equal(decoded[plain > 0], plain[plain > 0])


def test_two_touching_discs_part_and_the_gap_is_one_pixel():
    y, x = np.mgrid[:30, :50]
    mask = ((y - 15) ** 2 + (x - 15) ** 2 < 121) | ((y - 15) ** 2 + (x - 34) ** 2 < 121)
    prediction = two_class.perfect(mask.astype(int))
    plain = two_class.decode(prediction, two_class.Params())
    gap = two_class.decode(prediction, two_class.Params(paper_gap=True))
    assert plain.max() == gap.max() == 2
    assert (plain > 0).sum() == mask.sum()
    assert 0 < mask.sum() - (gap > 0).sum() < 15


def spindle(shape: tuple[int, int], centre: tuple[float, float], angle: float, bend: float = 0.0) -> np.ndarray:
    """Return a long thin cell with a wavy outline, 180 x 44 px."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    y, x = y - centre[0], x - centre[1]
    u, v = y * np.sin(angle) + x * np.cos(angle), y * np.cos(angle) - x * np.sin(angle)
    half = 22 * np.clip(1 - np.abs(u / 90) ** 1.6, 0, None) * (1 + 0.12 * np.sin(u / 9))
    return np.abs(v + bend * (u**2 / 90 - 30)) <= half


def draw_spindles(*cells: np.ndarray) -> np.ndarray:
    labels = np.zeros(cells[0].shape, np.int32)
    for k, cell in enumerate(cells, start=1):
        labels[cell & (labels == 0)] = k
    return labels


def test_long_cells_apart_stay_whole_and_touching_ones_part(pq):
    shape = (250, 260)
    apart = draw_spindles(*(spindle(shape, (40 + 65 * k, 110 + 20 * k), 0.1 * k, 0.1 * k) for k in range(3)))
    touching = draw_spindles(spindle(shape, (40, 120), 0.1), spindle(shape, (143, 140), 1.5, 0.1))
    assert ndi.label(touching)[1] == 1
    assert methods.ceiling("two_class", [apart], pq).value > 0.999
    fit = methods.ceiling("two_class", [apart, touching], pq)
    assert fit.value > 0.99
    assert fit.params.neck > 0
    assert pq([apart], [two_class.decode(two_class.perfect(apart), two_class.Params(min_distance=14))]) < 0.7


def test_necks_are_joined_from_the_highest_and_relative_to_the_thinner_piece():
    height = np.array([[10, 9, 8, 9, 6, 3, 4, 0, 5]], np.float32)
    pieces = np.array([[1, 1, 2, 2, 2, 3, 3, 0, 4]], np.int32)
    contacts = two_class.necks(pieces, height)
    assert contacts.pairs.tolist() == [[1, 2], [2, 3]]
    assert contacts.saddle.tolist() == [8, 3]
    assert contacts.peak.tolist() == [0, 10, 9, 4, 5]
    for neck, names in ((0.0, [0, 1, 2, 3, 4]), (0.2, [0, 1, 1, 2, 3]), (0.25, [0, 1, 1, 1, 2])):
        assert two_class.joined(contacts, neck).tolist() == names
    mask = height > 0
    assert two_class.split(mask, height, 1, 0.25).max() == 2
    assert two_class.split(mask, height, 1, 0.25, gap=True).max() == 2


@pytest.mark.parametrize("scale", [1, 4])
def test_what_is_tried_goes_with_the_size_of_the_cells(scale):
    from postprocess.sizes import median_diameter

    y, x = np.mgrid[: 40 * scale, : 40 * scale]
    labels = (np.hypot(y - 20 * scale, x - 20 * scale) < 11 * scale).astype(np.int32)
    diameter = median_diameter([labels, np.zeros((5, 5), int)])
    assert diameter == pytest.approx(22 * scale, rel=0.02)
    two, three = two_class.grid(diameter), three_class.grid(diameter)
    assert {2, 3, 5} < set(two["min_distance"])
    assert max(two["min_distance"]) == pytest.approx(22 * scale / 3, abs=1)
    assert two["min_area"] == three["min_area"] == pytest.approx([k * scale**2 for k in (0, 7.5, 19, 49)], rel=0.1)
    assert all(isinstance(value, int) for value in (*two["min_distance"], *two["min_area"], *three["min_core"]))
    assert median_diameter([]) == median_diameter([labels * 0]) == 22


def test_specks_are_left_out_and_real_cells_are_not(crowd, pq):
    labels = crowd(2, 30, 128)
    specks = np.random.default_rng(0).random(labels.shape) < 0.02
    prediction = two_class.perfect(np.maximum(labels, specks & ~ndi.binary_dilation(labels > 0, iterations=2)))
    fit = methods.fit("two_class", [prediction], [labels], pq)
    assert fit.value > 0.8
    assert fit.params.min_area > 0
    assert fit.value == pytest.approx(pq([labels], [two_class.decode(prediction, fit.params)]))


# --- star


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_star_finds_every_round_cell(seed):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:90, :90]
    labels = np.zeros((90, 90), np.int32)
    for k, (cy, cx) in enumerate(np.argwhere(np.ones((4, 4))) * 22 + 12, start=1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 <= rng.uniform(6, 11) ** 2] = k
    decoded = star.decode(star.perfect(labels), star.Params())
    assert same_cells(labels, decoded)


def test_star_targets_have_the_documented_form():
    labels = np.zeros((21, 33), np.int64)
    labels[4:16, 6:20] = 2**31 - 1
    probability, distance = star.encode(labels)
    assert (probability.shape, distance.shape) == ((11, 17), (32, 11, 17))
    assert probability.dtype == distance.dtype == np.float32
    assert ((probability > 0) == (labels[::2, ::2] > 0)).all()
    assert distance[0, 5, 5] == pytest.approx(19.5 - 10)  # along +x from column 10
    assert distance[8, 5, 5] == pytest.approx(15.5 - 10)  # along +y from row 10
    empty = star.perfect(np.zeros((8, 8), int))
    assert star.decode(empty, star.Params()).max() == 0
    assert star.encode(np.ones((16, 16), int))[0].max() == 1


@pytest.mark.parametrize("reach", [0.2, 30, 3000])
def test_star_survives_an_untrained_network(reach):
    rng = np.random.default_rng(0)
    probability = rng.integers(0, 256, (1, 128, 128)).astype(np.uint8)
    distance = rng.normal(0, reach, (32, 128, 128)).astype(np.float16)
    distance[:, :3] = np.nan
    prediction = Prediction(probability, distance, 2, (256, 256))
    star.encode(np.ones((4, 4), int))  # the import is not what is timed
    began = time.perf_counter()
    cells = star.decode(prediction, star.Params(probability=0.1))
    assert time.perf_counter() - began < 20
    assert cells.shape == (256, 256)


# --- all of them


@pytest.mark.parametrize("target", methods.TARGETS)
def test_sweep_equals_decode(crowd, target):
    module = methods.TARGETS[target]
    prediction = module.perfect(crowd(1, 30, 96))
    values = module.grid(16.0)
    points = list(module.sweep(prediction, values))
    sizes = [len(tried) for name, tried in values.items() if name != "min_area"]
    assert len({params for params, _ in points}) == len(points) == np.prod(sizes)
    assert module.Params() in [params for params, _ in points]
    for params, cells in points[:: 7 if target == "star" else 3]:
        other = module.decode(prediction, params)
        assert cells.dtype == other.dtype == np.int32
        assert ((cells > 0) == (other > 0)).all()
        assert cells.max() == other.max() or target == "star"
        pairs = np.unique(np.stack([cells.ravel(), other.ravel()]), axis=1)
        assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]  # the same but for the ids


@pytest.mark.parametrize(("target", "least"), [("two_class", 0.8), ("three_class", 0.98), ("star", 0.9)])
def test_ceilings_on_a_crowd(crowd, pq, target, least):
    fit = methods.ceiling(target, [crowd(seed, 40, 128) for seed in (1, 2)], pq)
    assert fit.value >= least
    assert fit.value == max(point["value"] for point in fit.curve)


@pytest.mark.parametrize(
    ("target", "least_f1", "least_pq"), [("two_class", 0.93, 0.9), ("three_class", 1.0, 0.99), ("star", 0.999, 0.96)]
)
def test_ceilings_on_a_crowded_synthetic_frame(pq, target, least_f1, least_pq):
    from data_io.synthetic import movie

    truth = np.asarray(movie(0, 1, (452, 612), "hard").labels[0])
    truth = np.where(np.bincount(truth.ravel())[truth] >= three_class.Params.min_blob, truth, 0)  # no slivers at edges
    assert len(np.unique(truth)) > 80
    module = methods.TARGETS[target]
    found = module.decode(module.perfect(truth), module.Params())
    overlap = np.zeros((truth.max() + 1, found.max() + 1))
    np.add.at(overlap, (truth.ravel(), found.ravel()), 1)
    pairs = (2 * overlap > overlap.sum(1)[:, None] + overlap.sum(0)[None] - overlap)[1:, 1:].sum()
    cells = len(np.unique(truth)) - 1 + len(np.unique(found)) - 1
    assert 2 * pairs / cells >= least_f1
    assert pq([truth], [found]) >= least_pq


@pytest.mark.parametrize(("target", "least"), [("two_class", 0.876), ("three_class", 0.99), ("star", 0.96)])
def test_ceilings_on_the_yeast_movie(yeast_masks, pq, target, least):
    assert methods.ceiling(target, yeast_masks, pq).value >= least


def test_fit_prefers_the_default_among_equals_and_never_nan(crowd):
    labels = crowd(1, 10, 64)
    prediction = three_class.perfect(labels)
    assert methods.fit("three_class", [prediction], [labels], lambda t, p: 1.0).params == three_class.Params()
    nan = methods.fit("three_class", [prediction], [labels], lambda t, p: float("nan"))
    assert nan.params == three_class.Params()
    assert nan.value == -np.inf


def test_a_wrong_threshold_is_found_and_corrected(crowd, pq):
    labels = crowd(2, 30, 96)
    blurred = ndi.gaussian_filter((labels > 0).astype(float), 2) * 0.7
    prediction = Prediction(quantise(blurred)[None], None, 1, labels.shape)
    fit = methods.fit("two_class", [prediction], [labels], pq)
    assert fit.params.threshold < 0.5
    assert fit.value > pq([labels], [two_class.decode(prediction, two_class.Params())])


@pytest.mark.parametrize("target", methods.TARGETS)
@pytest.mark.parametrize("shape", [(7, 9), (1, 1), (40, 3)])
def test_empty_and_full_frames(target, shape):
    module = methods.TARGETS[target]
    for labels in (np.zeros(shape, np.int32), np.ones(shape, np.int32)):
        cells = module.decode(module.perfect(labels), module.Params())
        assert cells.shape == shape
        assert cells.max() < 10
        assert not cells[labels == 0].any()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"core_bias": "wide"}, "core_bias is 'wide', and 0.0 by default"),
        ({"core_bias": float("nan")}, "core_bias is nan"),
        ({"min_core": None}, "min_core is None"),
        ({"min_area": 1.5}, "min_area is 1.5"),
        ({"min_area": -5}, "min_area is -5"),
        ({"min_blob": True}, "min_blob is True"),
        ({"paper_gap": "no"}, "paper_gap is 'no'"),
        ({"paper_gap": 1}, "paper_gap is 1"),
        ([1, 2], "no table of names"),
        ({1: 2}, "unknown 1"),
    ],
)
def test_stored_parameters_of_another_kind_are_refused(values, told):
    with pytest.raises(BadInput, match=f"three_class decode parameters: .*{told}"):
        methods.params_from("three_class", values)


def test_stored_parameters_may_be_any_numbers_of_their_kind():
    values = {"core_bias": 0, "min_core": np.int64(3), "paper_gap": True}
    assert methods.params_from("three_class", values) == three_class.Params(core_bias=0.0, min_core=3, paper_gap=True)
    assert methods.params_from("star", {"nms": np.float32(0.5)}).nms == 0.5


def test_names_parameters_and_arrays_are_checked():
    with pytest.raises(BadInput, match="two_class, three_class, star"):
        methods.target_named("four_class")
    with pytest.raises(BadInput, match="unknown nonsense"):
        methods.params_from("star", {"nonsense": 1})
    with pytest.raises(BadInput, match="quantise"):
        Prediction(np.zeros((1, 4, 4)), None, 1, (4, 4))
    with pytest.raises(BadInput, match="padding"):
        Prediction(np.zeros((1, 4, 4), np.uint8), None, 2, (9, 8))
    with pytest.raises(BadInput, match="another target"):
        star.decode(two_class.perfect(np.zeros((4, 4), int)), star.Params())
    assert quantise(np.array([np.nan, -1, 0.5, 2])).tolist() == [0, 0, 128, 255]
