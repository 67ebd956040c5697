"""`python -m analysis.score`: every key with its interval, published vectors, planted errors, odd input in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from analysis import boundary, scores
from analysis.label_input import paired, read_labels
from analysis.score import IN_WORDS, main, score_paths
from data_io.errors import BadInput
from data_io.synthetic import movie

VECTORS = json.loads((Path(__file__).parents[1] / "reference" / "metric_vectors.json").read_text())
KEYS = (
    "dataset_iou", "per_image_iou", "dice", "boundary_f1_1", "boundary_f1_2", "boundary_iou_2", "hd95", "f1_50",
    "pq_50", "sq_50", "rq_50", "ap", "seg", "aji", "count_error", "splits", "merges", "missed", "spurious", "n_truth",
    "n_pred",
)  # fmt: skip


def _box(shape: tuple[int, int], *boxes: tuple[int, int, int, int]) -> np.ndarray:
    image = np.zeros(shape, np.uint16)
    for label, (top, bottom, left, right) in enumerate(boxes, start=1):
        image[top:bottom, left:right] = label
    return image


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return truth.tif and pred.tif, six frames; the prediction loses a pixel of each outline."""
    where = tmp_path_factory.mktemp("labels")
    labels = movie(5, 6, (160, 160)).labels.astype(np.uint16)
    tifffile.imwrite(where / "truth.tif", labels)
    tifffile.imwrite(where / "pred.tif", np.stack([np.where(np.roll(f, 1, 0) == f, f, 0) for f in labels]))
    return where


def test_json_has_every_key_with_an_interval_and_the_rules(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder / "pred.tif"), str(folder / "truth.tif"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert set(KEYS) <= found.keys()
    for key in KEYS:
        low, high = found[f"{key}_ci"] or (found[key], found[key])
        assert low <= found[key] <= high, key
        assert found[f"{key}_ci"] or found[f"{key}_ci_reason"]
    assert found["pq_50_ci"][0] < found["pq_50_ci"][1]
    assert (found["n_frames"], found["n_clusters"], found["clustered_by"]) == (6, 6, "frame")
    assert found["empty_rule"] == scores.EMPTY_RULE
    assert found["threshold_rule"] == "IoU >= threshold"


def test_text_says_the_rules_and_why_there_is_no_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("pred", "truth"):
        tifffile.imwrite(tmp_path / f"{name}.tif", _box((30, 30), (5, 15, 5, 15)))
    assert main([str(tmp_path / "pred.tif"), str(tmp_path / "truth.tif"), "--strict"]) == 0
    out = capsys.readouterr().out
    assert all(words in out for words in (*IN_WORDS.values(), scores.EMPTY_RULE, "IoU > threshold"))
    assert "No interval: one value" in out


def test_instance_vector(tmp_path: Path) -> None:
    vector = VECTORS["instance_20x20"]
    tifffile.imwrite(tmp_path / "t.tif", _box((20, 20), (2, 8, 2, 8), (10, 16, 10, 16)))
    tifffile.imwrite(tmp_path / "p.tif", _box((20, 20), (2, 8, 2, 7), (10, 16, 12, 18), (0, 2, 15, 18)))
    got = score_paths(tmp_path / "p.tif", tmp_path / "t.tif")
    assert got["seg"] == pytest.approx(vector["SEG_ctc"])
    assert got["aji"] == pytest.approx(vector["AJI"])
    assert got["pq_50"] == pytest.approx(vector["thr0.5_stardist"]["pq"])
    assert (got["spurious"], got["missed"], got["splits"], got["merges"]) == (1, 0, 0, 0)
    strict = score_paths(tmp_path / "p.tif", tmp_path / "t.tif", strict=True)
    assert strict["pq_50"] == pytest.approx(vector["thr0.5_strict_kirillov"]["pq"])
    assert (strict["fn"], strict["fp"]) == (1, 2)


def test_boundary_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    square = VECTORS["boundary_square20_shift2"]
    a, b = (_box((40, 40), box) > 0 for box in ((10, 30, 10, 30), (10, 30, 12, 32)))
    counts = scores.score([scores.full_counts(a.astype(int), b.astype(int))])
    assert counts["hd95"] == pytest.approx(square["hd95"])
    assert (counts["dataset_iou"], counts["dice"]) == pytest.approx((square["iou"], square["dice"]), abs=1e-6)
    for r in (1, 2):
        assert counts[f"boundary_f1_{r}"] == pytest.approx(square["boundary_f1_tol"][str(r)], abs=1e-6)
    y, x = np.indices((41, 41)) - 20
    discs = [x**2 + y**2 <= r**2 for r in (12, 11)]
    for depth in (1, 2, 3):
        monkeypatch.setattr(boundary, "DEPTH", depth)
        assert boundary.agreement(a, b).iou == pytest.approx(square["boundary_iou_d"][str(depth)], abs=1e-6)
        expected = VECTORS["disc12_vs_disc11"]["boundary_iou_d"][str(depth)]
        assert boundary.agreement(*discs).iou == pytest.approx(expected, abs=1e-6)


def test_planted_errors_are_counted_by_kind() -> None:
    shape, at = (60, 100), [(5, 25, 5, 25), (5, 25, 35, 55), (35, 55, 5, 15), (35, 55, 15, 25), (35, 55, 60, 80)]
    truth = _box(shape, *at)
    pred = truth.copy()
    pred[5:25, 5:15] = 9  # the first cell in two halves
    pred[pred == 4] = 3  # the third and fourth as one
    pred[pred == 5] = 0  # the fifth missed
    pred[5:15, 80:95] = 7  # made up
    pred[24, 35:37] = 8  # debris of two pixels
    got = scores.score([scores.full_counts(truth, pred)])
    assert [got[key] for key in ("splits", "merges", "missed")] == [1, 1, 1]
    assert got["spurious"] == 2
    mirrored = scores.score([scores.full_counts(pred, truth)])
    assert [mirrored[key] for key in ("splits", "merges", "missed", "spurious")] == [1, 1, 2, 1]


def test_a_cell_badly_drawn_is_no_split() -> None:
    truth, pred = _box((40, 40), (10, 30, 10, 30)), _box((40, 40), (20, 36, 20, 36))
    got = scores.score([scores.full_counts(truth, pred)])
    assert [got[key] for key in ("splits", "merges", "missed", "spurious", "hd95")] == [0, 0, 1, 1, None]
    assert got["hd95_ci_reason"] == "no matched cells"


def test_empty_images_follow_the_rule() -> None:
    empty, cell = np.zeros((20, 20), int), _box((20, 20), (5, 9, 5, 9)).astype(int)
    shared = ("dataset_iou", "dice", "boundary_f1_1", "boundary_iou_2", "f1_50", "pq_50", "ap", "seg", "aji")
    assert {scores.score([scores.full_counts(empty, empty)])[key] for key in shared} == {1.0}
    assert {scores.score([scores.full_counts(empty, cell)])[key] for key in shared} == {0.0}
    assert {scores.score([scores.full_counts(cell, empty)])[key] for key in shared} == {0.0}


def test_intervals_of_totals_and_boundaries_cover(rng: np.random.Generator) -> None:
    """Of 200 samples of 12 frames, the interval holds what 4000 frames give about 95 % of the time."""

    def frame() -> scores.Counts:
        truth = np.kron(np.arange(1, 10).reshape(3, 3), np.ones((6, 6), int)) * (rng.random((18, 18)) < 0.97)
        pred = np.roll(truth, rng.integers(0, 3), 0) * np.isin(truth, np.flatnonzero(rng.random(10) < 0.8))
        return scores.full_counts(truth, pred)

    population = [frame() for _ in range(600)]
    exact = scores.score(population)
    names = ("boundary_f1_1", "boundary_iou_2", "aji", "seg", "hd95", "fn", "pq_50")
    held = dict.fromkeys(names, 0)
    for _ in range(200):
        sample = scores.score([population[i] for i in rng.integers(0, 600, 12)])
        for key in names:
            aim = exact[key] * (12 / 600 if key == "fn" else 1)
            held[key] += sample[f"{key}_ci"][0] <= aim <= sample[f"{key}_ci"][1]
    assert min(held.values()) >= 176, held


def test_fields_are_the_clusters(tmp_path: Path) -> None:
    labels = movie(5, 2, (120, 120)).labels.astype(np.uint16)
    for source in ("truth", "pred"):
        for name in ("a", "b", "c"):
            (tmp_path / source / name / "masks").mkdir(parents=True)
            tifffile.imwrite(tmp_path / source / name / "masks" / "t.tif", labels)
    got = score_paths(tmp_path / "pred", tmp_path / "truth")
    assert (got["clustered_by"], got["n_clusters"], got["n_frames"]) == ("field", 3, 6)
    assert got["n_truth_ci"] is None
    assert "3 clusters; below 5" in got["n_truth_ci_reason"]


@pytest.mark.parametrize("kind", ["cellpose", "fiji", "fiji float", "stardist", "numpy", "numbers"])
def test_label_images_of_other_tools_are_paired_frame_by_frame(tmp_path: Path, kind: str) -> None:
    labels = movie(5, 4, (120, 120)).labels.astype(np.uint16)
    (tmp_path / "truth").mkdir()
    for t, frame in enumerate(labels, start=8):
        tifffile.imwrite(tmp_path / "truth" / f"t{t}.tif", frame)
    where = tmp_path / "pred"
    if kind in ("cellpose", "numbers"):
        where.mkdir()
        for t, frame in enumerate(labels, start=8):
            if kind == "cellpose":
                tifffile.imwrite(where / f"t{t}.tif", frame * 0 + np.arange(120, dtype=np.uint16))
            tifffile.imwrite(where / (f"t{t}_cp_masks.tif" if kind == "cellpose" else f"man_seg{t:03d}.tif"), frame)
    elif kind == "numpy":
        where = where.with_suffix(".npy")
        np.save(where, labels)
    else:
        where = where.with_suffix(".tif")
        imagej = {"photometric": "minisblack"} if kind == "stardist" else {"imagej": True}
        tifffile.imwrite(where, labels.astype(np.float32 if kind == "fiji float" else np.uint16), **imagej)
    got = score_paths(where, tmp_path / "truth")
    assert got["pq_50"] == 1
    assert got["n_frames"] == 4


def test_binary_masks_are_taken_apart_and_that_is_said(tmp_path: Path) -> None:
    truth = _box((40, 40), (5, 15, 5, 15), (20, 30, 20, 30))
    tifffile.imwrite(tmp_path / "t.tif", truth)
    tifffile.imwrite(tmp_path / "p.tif", ((truth > 0) * 255).astype(np.uint8))
    got = score_paths(tmp_path / "p.tif", tmp_path / "t.tif")
    assert (got["n_pred"], got["pq_50"]) == (2, 1)
    assert "binary masks" in got["notes"][0]


def test_frames_without_truth_are_left_out_with_a_note(tmp_path: Path) -> None:
    labels = movie(5, 4, (120, 120)).labels.astype(np.uint16)
    for name in ("truth", "pred"):
        (tmp_path / name).mkdir()
        for t, frame in enumerate(labels):
            if name == "pred" or t % 2:
                tifffile.imwrite(tmp_path / name / f"{t}.tif", frame)
    got = score_paths(tmp_path / "pred", tmp_path / "truth")
    assert (got["n_frames"], got["pq_50"]) == (2, 1)
    assert "2 of 4 frames are not in" in got["notes"][0]
    with pytest.raises(BadInput, match="no label image for 2 of 4 frames"):
        score_paths(tmp_path / "truth", tmp_path / "pred")


def test_pairing_by_order_is_said(tmp_path: Path) -> None:
    for name, names in (("truth", "abc"), ("pred", "xyz")):
        (tmp_path / name).mkdir()
        for letter in names:
            tifffile.imwrite(tmp_path / name / f"{letter}.tif", _box((30, 30), (5, 15, 5, 15)))
    got = score_paths(tmp_path / "pred", tmp_path / "truth")
    assert got["n_frames"] == 3
    assert "paired by order" in got["notes"][0]


BAD = {
    "missing": (lambda p: None, "no such file"),
    "empty file": (lambda p: p.write_bytes(b""), "empty file"),
    "text": (lambda p: p.write_text("no image at all"), "neither TIFF nor PNG"),
    "fractions": (lambda p: tifffile.imwrite(p, np.full((6, 160, 160), 0.5, np.float32)), "fractions"),
    "negative": (lambda p: tifffile.imwrite(p, np.full((6, 160, 160), -1, np.int16)), "negative"),
    "size": (lambda p: tifffile.imwrite(p, np.zeros((6, 50, 50), np.uint16)), "frames of 50 x 50 px, but"),
    "frames": (lambda p: tifffile.imwrite(p, np.zeros((5, 160, 160), np.uint16)), "5 frames of"),
    "colours": (lambda p: tifffile.imwrite(p, np.zeros((160, 160, 3), np.uint8)), "colour"),
}


@pytest.mark.parametrize("what", BAD)
def test_odd_input_is_one_line(folder: Path, tmp_path: Path, what: str) -> None:
    make, words = BAD[what]
    make(tmp_path / "odd.tif")
    with pytest.raises(BadInput, match=words) as caught:
        main([str(tmp_path / "odd.tif"), str(folder / "truth.tif")])
    assert "\n" not in str(caught.value)


def test_an_empty_folder_and_foreign_fields_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(BadInput, match="no label images"):
        read_labels(tmp_path / "none")
    one = read_labels(folder / "truth.tif")
    for name in ("x", "y"):
        (tmp_path / "fields" / name).mkdir(parents=True)
        tifffile.imwrite(tmp_path / "fields" / name / "t.tif", _box((20, 20), (5, 9, 5, 9)))
    with pytest.raises(BadInput, match="name the files or folders of one field alike"):
        paired(one, read_labels(tmp_path / "fields"))


def test_the_command_ends_with_two_and_one_line(tmp_path: Path) -> None:
    call = [sys.executable, "-m", "analysis.score", str(tmp_path / "a.tif"), str(tmp_path / "b.tif")]
    done = subprocess.run(call, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")


def test_stacks_of_a_run_keep_their_fields_and_sizes(run_folder: Path, tmp_path: Path) -> None:
    labels = run_folder / "labels"
    got = score_paths(labels / "three_class.tif", labels / "truth.tif")
    told = pd.read_csv(labels / "frames.csv")
    assert got["clustered_by"] == "field" if told["field"].nunique() > 1 else "frame"
    plain = tmp_path / "pages.tif"
    plain.write_bytes((labels / "three_class.tif").read_bytes())  # without frames.csv beside it
    assert score_paths(plain, labels / "truth.tif")["pq_50"] == got["pq_50"]
    assert set(read_labels(labels / "truth.tif").frames) == set(zip(told["field"], told["frame"], strict=True))


def test_ome_zarr_labels_are_label_images(run_folder: Path) -> None:
    stored = sorted((run_folder / "labels.zarr").glob("*/labels/three_class"))
    truth = sorted((run_folder / "labels.zarr").glob("*/labels/truth"))
    both = [(a, b) for a in stored for b in truth if a.parent == b.parent]
    assert both
    got = score_paths(*both[-1])
    assert 0 < got["pq_50"] <= 1
