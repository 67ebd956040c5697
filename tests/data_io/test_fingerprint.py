from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage
from skimage.measure import label

from data_io import fingerprint, recommendation, splits, twins
from data_io.fingerprint import focus, measure, ranges, robust_z, summarise, touching
from data_io.store import Field

RNG = np.random.default_rng(0)
NOISE = RNG.normal(0, 20, (96, 128))


def picture(seed: int, size: tuple[int, int] = (96, 128)) -> np.ndarray:
    rough = ndimage.gaussian_filter(np.random.default_rng(seed).normal(0, 1, size), 2)
    return (2000 + 4000 * rough + np.random.default_rng(seed + 1000).normal(0, 20, size)).clip(0).astype(np.uint16)


def discs(seed: int, size: tuple[int, int] = (96, 128), n: int = 5) -> np.ndarray:
    rng, labels = np.random.default_rng(seed), np.zeros(size, np.int32)
    y, x = np.ogrid[: size[0], : size[1]]
    for i, (cy, cx) in enumerate(rng.uniform((0, 0), size, (n, 2)), start=1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 < 64] = i
    return labels


def field(name: str, frames: int, cells: int = 3, **more: Any) -> Field:
    known: dict[str, Any] = {"pixel_size_um": None, "frame_interval_s": None, "groups": {}, "tracked": False}
    known |= {"annotated": (True,) * frames, "annotation": "labels"}
    return Field(
        name=name,
        slug=name,
        n_frames=frames,
        channels=("channel_1",),
        shape=(96, 128),
        dtype="uint16",
        cells=(cells,) * frames,
        sources=tuple(f"t{i}.tif" for i in range(frames)),
        percentiles=(),
        **(known | more),
    )


def fingerprint_of(frames: dict[str, list[np.ndarray]], labels: np.ndarray | None = None) -> dict[str, Any]:
    """Return the fingerprint of movies that all have the same annotation."""
    drawn = discs(0) if labels is None else labels
    fields = [field(name, len(own), len(np.unique(drawn)) - 1) for name, own in frames.items()]
    measures = {name: [measure(one[None], drawn) for one in own] for name, own in frames.items()}
    return summarise(fields, measures, splits.split(fields))


@pytest.mark.parametrize(
    ("values", "bits", "step"),
    [
        (np.arange(4096), 12, 1),
        (16 * np.arange(4096), 12, 16),  # 12 bits shifted into 16
        (257 * np.arange(256), 8, 257),  # 8 bits stretched to 16
        (np.arange(65536), 16, 1),
        (np.full(64, 300), 9, 0),
    ],
)
def test_bits_actually_used(values: np.ndarray, bits: int, step: int) -> None:
    image = np.resize(values, (64, 64 if len(values) <= 4096 else 1024)).astype(np.uint16)
    found = fingerprint_of({"a": [image] * 3}, np.pad(np.ones((2, 2), np.int32), ((0, 62), (0, image.shape[1] - 2))))
    assert found["bit_depth"]["uint16"]["bits"] == bits
    assert found["bit_depth"]["uint16"]["step"] == step


def test_fractions_have_no_bits() -> None:
    found = measure(RNG.normal(0, 1, (1, 32, 32)).astype(np.float32), None)
    assert found.channels[0].step is None
    assert found.areas is None


def test_saturation_at_the_ceiling_of_the_type_of_the_camera_and_of_an_export() -> None:
    image = RNG.integers(100, 900, (1, 100, 100)).astype(np.uint16)
    assert measure(image, None).channels[0].saturated == 0
    for ceiling in (65535, 4095, 3000):
        clipped = image.copy()
        clipped[0, :10, :20] = ceiling
        assert measure(clipped, None).channels[0].saturated == pytest.approx(0.02)


def test_focus_falls_with_blur_and_does_not_see_exposure_or_noise() -> None:
    sharp = picture(1).astype(float)
    blurred = [focus(ndimage.gaussian_filter(sharp, sigma) + NOISE) for sigma in (0.5, 1, 2, 4)]
    assert sorted(blurred, reverse=True) == blurred
    assert focus(sharp) == pytest.approx(focus(0.3 * sharp), rel=1e-3)
    assert focus((3e38 * (sharp / sharp.max())).astype(np.float32)) == pytest.approx(focus(sharp), rel=1e-3)
    assert focus(2000 + NOISE) == focus(np.zeros((50, 50))) == focus(np.full((50, 50), 7)) == 0


@given(arrays.arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 4)))
def test_touching_and_pieces_equal_their_definition(labels: np.ndarray) -> None:
    padded = np.pad(labels, 1)
    near = {
        int(labels[y, x])
        for y, x in np.argwhere(labels > 0)
        if set(padded[y : y + 3, x : x + 3].ravel().tolist()) - {0, int(labels[y, x])}
    }
    assert touching(labels) == near
    found = measure(np.zeros((1, *labels.shape), np.uint8), labels)
    present = [int(one) for one in np.unique(labels) if one]
    pieces = [int(label(labels == one, connectivity=2).max()) for one in present]
    assert found.in_pieces == sum(n > 1 for n in pieces)
    assert found.pieces == tuple(
        (one, n, int((labels == one).sum() - np.bincount(label(labels == one, connectivity=2)[labels == one]).max()))
        for one, n in zip(present, pieces, strict=True)
        if n > 1
    )
    assert found.areas == tuple(int((labels == one).sum()) for one in present)
    edge = np.ones_like(labels, bool)
    edge[1:-1, 1:-1] = False
    assert found.border == len(set(labels[edge].tolist()) - {0})


def test_the_fingerprint_is_json_and_counts_right() -> None:
    labels = np.zeros((96, 128), np.int32)
    labels[10:20, 10:20], labels[10:20, 20:30], labels[0:10, 60:70], labels[50:60, 50:60] = 1, 2, 3, 4
    labels[80, 80] = 4
    found = fingerprint_of({"a": [picture(i) for i in range(5)], "b": [picture(9)], "c": [picture(8)]}, labels)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["frames"], found["annotated_frames"], found["cells"]) == (7, 7, 28)
    assert found["touching_share"] == 0.5
    assert found["border_share"] == 0.25
    assert found["cells_per_frame"] == {"median": 4, "min": 4, "max": 4}
    assert found["radius_px"]["median"] == pytest.approx(np.sqrt(100 / np.pi), rel=1e-3)
    assert found["radius_um"] is None
    assert found["pieces"]["labels"] == 7
    first = {"field": "a", "frame": 0, "label": 4, "pieces": 2, "px_outside_the_largest": 1}
    assert found["pieces"]["first"][0] == first
    assert any("7 labels lie in several pieces" in text for text in fingerprint.warnings(found))
    assert json.dumps(asdict(measure(picture(0)[None], labels)))


def test_micrometres_where_every_field_knows_them() -> None:
    fields = [field("a", 3, pixel_size_um=0.5), field("b", 3, pixel_size_um=0.5)]
    measures = {f.name: [measure(picture(i)[None], discs(0)) for i in range(3)] for f in fields}
    found = summarise(fields, measures, splits.split(fields))
    assert found["radius_um"]["median"] == pytest.approx(found["radius_px"]["median"] / 2, rel=1e-4)


def test_drift_and_the_blurred_frame_are_named() -> None:
    rough = picture(3).astype(float)
    movie = [(rough * (1 + 0.05 * t)).astype(np.uint16) for t in range(11)]
    movie[4] = ndimage.gaussian_filter(movie[4], 4)
    found = fingerprint_of({"a": movie})
    drift = found["by_field"]["a"]["drift"][0]
    assert drift["slope_percent"] == pytest.approx(100 * 0.5 / 1.25, rel=0.02)
    assert drift["max_deviation_percent"] == pytest.approx(20, rel=0.02)
    assert [one["frame"] for one in found["by_field"]["a"]["focus_outliers"]] == [4]
    assert found["by_field"]["a"]["focus_outliers"][0]["z"] < -3.5
    told = fingerprint.warnings(found)
    assert any("out of focus" in text and "a frame 4" in text for text in told)


def test_short_fields_are_compared_with_each_other() -> None:
    frames = {f"f{i}": [picture(i)] for i in range(6)}
    frames["f2"] = [ndimage.gaussian_filter(picture(2), 5)]
    found = fingerprint_of(frames)
    assert [name for name, one in found["by_field"].items() if one["focus_outliers"]] == ["f2"]
    assert not robust_z([0.0, 0.0, 0.0]).any()


def test_duplicates_and_leakage_between_parts() -> None:
    frames = {name: [picture(10 * i + t) for t in range(3)] for i, name in enumerate("abcde")}
    frames["e"][1] = frames["a"][2].copy()
    darker = (0.4 * frames["b"][0]).astype(np.uint16)
    frames["d"][2] = np.rot90(ndimage.gaussian_filter(darker, 0.7), 2).copy()
    found = fingerprint_of(frames)
    assert [(one["a"], one["b"]) for one in found["duplicates"]] == [(["e", 1], ["a", 2])]
    assert [(one["a"], one["b"]) for one in found["near_duplicates"]] == [(["b", 0], ["d", 2])]
    assert found["near_duplicates"][0]["correlation"] > 0.9
    assert {(one["kind"], tuple(sorted(one["parts"]))) for one in found["leakage"]} == {
        ("duplicate", ("test", "train")),
        ("near duplicate", ("train", "val")),
    }
    told = fingerprint.warnings(found)
    assert "e frame 1 (t1.tif): the same pixels as a frame 2 (t2.tif); they lie in test and train" in told
    assert any("nearly the same picture" in text and "d frame 2" in text for text in told)


def test_different_pictures_are_no_twins_even_under_one_lamp() -> None:
    y, x = np.mgrid[0:96, 0:128]
    lamp = 3000 * np.exp(-((y - 40) ** 2 + (x - 70) ** 2) / 4000)
    found = fingerprint_of({name: [(picture(7 * i) + lamp).astype(np.uint16)] for i, name in enumerate("abcdef")})
    assert found["near_duplicates"] == []
    assert found["leakage"] == []


def test_constant_frames_of_different_value_are_no_near_twins() -> None:
    found = fingerprint_of({name: [np.full((96, 128), 10 + i, np.uint16)] for i, name in enumerate("abc")})
    assert found["near_duplicates"] == found["duplicates"] == []


def test_neighbours_in_two_parts_are_told_below_twenty_frames_only() -> None:
    short = fingerprint_of({"a": [picture(i) for i in range(10)]})
    assert [(one["kind"], one["a"], one["b"]) for one in short["leakage"]] == [
        ("neighbours", ["a", 5], ["a", 6]),
        ("neighbours", ["a", 7], ["a", 8]),
    ]
    assert any("neighbouring frames" in text for text in fingerprint.warnings(short))
    assert fingerprint_of({"a": [picture(i) for i in range(20)]})["leakage"] == []


def test_signatures_of_frames_smaller_than_the_grid() -> None:
    assert len(twins.signature(RNG.integers(0, 255, (2, 7, 40)).astype(np.uint8))) > 0
    assert measure(np.zeros((1, 1, 1), np.uint8), np.zeros((1, 1), np.int32)).areas == ()


def test_recommendation_with_reasons() -> None:
    fields = [field(name, 2) for name in "abc"]
    measures = {f.name: [measure(picture(i)[None], discs(i, n=6)) for i in range(2)] for f in fields}
    advice = recommendation.recommend(fields, measures, splits.split(fields))
    assert (advice["crop"], advice["batch"], advice["pad_to"], advice["split"]) == (128, 8, 32, "field")
    assert "at least 128" in advice["why"]["crop"]
    assert "fit as they are" in advice["why"]["pad_to"]
    assert "3 fields" in advice["why"]["split"]
    none = {f.name: [measure(picture(0)[None], None)] * 2 for f in fields}
    empty = recommendation.recommend(
        [field(n, 2, 0, annotated=(False, False), annotation="none") for n in "abc"], none, splits.unsplit()
    )
    assert empty["cell_diameter_px"] is None
    assert "no annotated cells" in empty["why"]["crop"]


@given(st.sets(st.integers(0, 60)))
def test_ranges_say_every_number_once(numbers: set[int]) -> None:
    text = ranges(numbers)
    said = [i for run in text.split(", ") if run for i in range(int(run.split("-")[0]), int(run.split("-")[-1]) + 1)]
    assert said == sorted(numbers)
