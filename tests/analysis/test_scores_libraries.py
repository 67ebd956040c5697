"""Scores equal those of other libraries, each under its own rule, on random label images with cells in both."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import tifffile
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from analysis.scores import THRESHOLDS, full_counts, score

LABELS = hnp.arrays(np.int32, (9, 10), elements=st.integers(0, 5))


@st.composite
def drawings(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Return truth and prediction: blocks of cells, and the same moved, thinned and with a few cells exchanged."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    truth = np.kron(rng.permutation(30).reshape(5, 6) * (rng.random((5, 6)) < 0.7), np.ones((7, 6), int)).astype(
        np.int32
    )
    pred = np.roll(truth, rng.integers(-2, 3, 2), (0, 1))
    pred = np.where(rng.random(truth.shape) < 0.1, 0, pred)
    joined, cut = rng.integers(1, 30, 2)
    pred[pred == joined] = cut
    pred[(pred == cut) & (np.arange(truth.shape[1]) % 12 < 3)] = 31
    return truth, pred


EITHER = st.one_of(st.tuples(LABELS, LABELS), drawings())


@settings(max_examples=40)
@given(EITHER)
def test_stardist_counts_iou_at_least(images: tuple[np.ndarray, np.ndarray]) -> None:
    matching = pytest.importorskip("stardist.matching").matching
    truth, pred = images
    assume(truth.any() and pred.any())
    got, levels = score([full_counts(truth, pred)]), matching(truth, pred, thresh=THRESHOLDS)
    assert got["f1_50"] == pytest.approx(levels[0].f1, abs=1e-6)
    assert got["pq_50"] == pytest.approx(levels[0].panoptic_quality, abs=1e-6)
    assert got["sq_50"] == pytest.approx(levels[0].mean_matched_score, abs=1e-6)
    assert (got["fn"], got["fp"]) == (levels[0].fn, levels[0].fp)
    assert got["ap"] == pytest.approx(np.mean([level.accuracy for level in levels]), abs=1e-6)


@settings(max_examples=20)
@given(st.lists(EITHER, min_size=1, max_size=3))
def test_torchmetrics_counts_iou_above(images: list[tuple[np.ndarray, np.ndarray]]) -> None:
    torch = pytest.importorskip("torch")
    classification = pytest.importorskip("torchmetrics.classification")
    quality = pytest.importorskip("torchmetrics.detection").PanopticQuality
    assume(any(t.any() for t, _ in images) and any(p.any() for _, p in images))
    got = score([full_counts(t, p, strict=True) for t, p in images])
    iou, dice = classification.BinaryJaccardIndex(), classification.BinaryF1Score()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        panoptic = quality(things={1}, stuffs={0}, return_sq_and_rq=True, return_per_class=True)
        for truth, pred in images:
            a, b = (torch.from_numpy(image.astype(np.int64)) for image in (truth, pred))
            iou.update(b > 0, a > 0)
            dice.update(b > 0, a > 0)
            panoptic.update(*(torch.stack([(x > 0).long(), x], -1)[None] for x in (b, a)))
        cells = panoptic.compute()[0]  # things come first
    assert got["dataset_iou"] == pytest.approx(float(iou.compute()), abs=1e-6)
    assert got["dice"] == pytest.approx(float(dice.compute()), abs=1e-6)
    assert [got[key] for key in ("pq_50", "sq_50", "rq_50")] == pytest.approx(cells.tolist(), abs=1e-6)


@settings(max_examples=15)
@given(st.lists(EITHER, min_size=1, max_size=3))
def test_ctc_measures_seg_over_all_frames(
    tmp_path_factory: pytest.TempPathFactory, images: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    pytest.importorskip("ctc_metrics")
    from ctc_metrics.metrics.technical.seg import seg
    from ctc_metrics.utils.representations import match

    assume(all(t.any() and p.any() and not t.all() and not p.all() for t, p in images))
    folder = tmp_path_factory.mktemp("ctc")
    reference, overlaps = [], []
    for truth, pred in images:
        for name, image in (("truth", truth), ("pred", pred)):
            tifffile.imwrite(folder / f"{name}.tif", image.astype(np.uint16))
        labels, _, _, _, iou = match(str(folder / "truth.tif"), str(folder / "pred.tif"))
        reference.append(labels)
        overlaps.append(iou)
    got = score([full_counts(t, p) for t, p in images])
    assert got["seg"] == pytest.approx(seg(reference, overlaps), abs=1e-6)


def _surface(mask: np.ndarray) -> np.ndarray:
    return mask & ~ndimage.binary_erosion(mask)


@settings(max_examples=40)
@given(EITHER)
def test_outlines_are_compared_as_distance_transforms_do(images: tuple[np.ndarray, np.ndarray]) -> None:
    truth, pred = images
    a, b = (_surface(image > 0) for image in (truth, pred))
    assume(a.any() and b.any())
    to_a, to_b = (ndimage.distance_transform_edt(~edge) for edge in (a, b))
    got = score([full_counts(truth, pred)])
    for r in (1, 2):
        precision, recall = np.mean(to_a[b] <= r), np.mean(to_b[a] <= r)
        expected = 2 * precision * recall / (precision + recall) if precision + recall else 0
        assert got[f"boundary_f1_{r}"] == pytest.approx(expected, abs=1e-6)
    bands = [m & ~ndimage.binary_erosion(m, np.ones((3, 3)), iterations=2) for m in (truth > 0, pred > 0)]
    assert got["boundary_iou_2"] == pytest.approx((bands[0] & bands[1]).sum() / (bands[0] | bands[1]).sum(), abs=1e-6)


@settings(max_examples=25)
@given(EITHER)
def test_hd95_is_the_one_of_each_matched_pair(images: tuple[np.ndarray, np.ndarray]) -> None:
    from analysis.boundary import hd95
    from analysis.matching import match

    truth, pred = images
    found = match(truth, pred)
    expected = []
    for t, p in zip(found.truth, found.pred, strict=True):
        a, b = _surface(truth == t), _surface(pred == p)
        to_a, to_b = (ndimage.distance_transform_edt(~edge) for edge in (a, b))
        expected.append(max(np.percentile(to_a[b], 95), np.percentile(to_b[a], 95)))
    assert hd95(truth, pred, found) == pytest.approx(np.array(expected), abs=1e-6)
    assert score([full_counts(truth, pred)])["hd95"] == (pytest.approx(np.mean(expected)) if expected else None)


def test_hd95_of_monai_and_metrics_reloaded_takes_the_larger_direction() -> None:
    truth, pred = np.zeros((2, 40, 60), np.int32)
    truth[10:30, 10:40], pred[10:30, 10:40] = 1, 1
    pred[18:20, 40:55] = 1  # a spur: far from the truth, which is near everywhere
    assert score([full_counts(truth, pred)])["hd95"] > 10
    assert score([full_counts(pred, truth)])["hd95"] > 10
