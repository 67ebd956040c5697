"""predictions.zarr: whole frames or none."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from data_io.errors import BadInput
from data_io.store import FrameRef
from postprocess import star, two_class
from postprocess.predictions import PredictionStore

FIELDS = [SimpleNamespace(name="Field A", slug="Field-A", n_frames=3, shape=(21, 16))]
REF = FrameRef("Field A", 1)


@pytest.fixture
def labels(crowd):
    return crowd(0, 4, 24)[:21, :16]


@pytest.fixture
def store(tmp_path, labels):
    store = PredictionStore.open_or_create(tmp_path / "predictions.zarr")
    store.add_method("star", "star", 2, 1, 32, FIELDS, {"decode": {"nms": 0.3}, "model_sha256": "a"})
    store.write("star", REF, star.perfect(labels))
    return store


def test_round_trip_and_frames(store, labels):
    reopened = PredictionStore.open_or_create(store.path)
    assert reopened.methods() == ["star"]
    assert reopened.frames("star") == [REF]
    assert reopened.has("star", REF)
    assert not reopened.has("star", FrameRef("Field A", 0))
    assert not reopened.has("other", REF)
    read, written = reopened.read("star", REF), star.perfect(labels)
    np.testing.assert_array_equal(read.probability, written.probability)
    np.testing.assert_array_equal(read.distance, written.distance)
    assert (read.grid, read.shape) == (2, (21, 16))
    assert reopened.attrs("star")["decode"] == {"nms": 0.3}


def test_the_same_model_keeps_its_frames_another_one_starts_anew(store):
    store.add_method("star", "star", 2, 1, 32, FIELDS, {"decode": {"nms": 0.5}, "model_sha256": "a"})
    assert store.has("star", REF)
    assert store.attrs("star")["decode"] == {"nms": 0.5}
    store.add_method("star", "star", 2, 1, 32, FIELDS, {"model_sha256": "b"})
    assert store.frames("star") == []


def test_a_frame_without_all_its_arrays_does_not_count(store, labels):
    prediction = star.perfect(labels)
    other = FrameRef("Field A", 2)
    broken = SimpleNamespace(probability=prediction.probability, distance=prediction.distance[:, :2])
    with pytest.raises(BadInput, match="distance"):
        store.write("star", other, broken)
    assert not store.has("star", other)
    with pytest.raises(BadInput, match="missing"):
        store.read("star", other)


@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "flipped"])
@pytest.mark.parametrize("array", ["probability", "distance"])
def test_damage_is_seen(store, array, damage):
    chunk = next((store.path / "star" / "Field-A" / array / "c" / "1").rglob("0"))
    while chunk.is_dir():
        chunk = chunk / "0"
    data = bytearray(chunk.read_bytes())
    if damage == "missing":
        chunk.unlink()
    else:
        data[len(data) // 2] ^= 4
        chunk.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "flipped": data}[damage])
    with pytest.raises(BadInput, match="frame 1"):
        PredictionStore.open_or_create(store.path).read("star", REF)


def test_bad_names_and_places_are_refused(store, tmp_path):
    with pytest.raises(BadInput, match="safe file name"):
        store.add_method("../x", "two_class", 1, 1, 0, FIELDS)
    with pytest.raises(BadInput, match="no method"):
        store.attrs("two_class")
    with pytest.raises(BadInput, match="no field"):
        store.read("star", FrameRef("B", 0))
    with pytest.raises(BadInput, match="no predictions"):
        PredictionStore.open(tmp_path / "nothing")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(BadInput, match="in the way"):
        PredictionStore.open_or_create(tmp_path / "full")


def test_an_empty_frame_is_stored_as_such(store):
    store.add_method("two_class", "two_class", 1, 1, 0, FIELDS)
    store.write("two_class", REF, two_class.perfect(np.zeros((21, 16), int)))
    assert store.has("two_class", REF)
    assert store.read("two_class", REF).probability.max() == 0


def test_frames_predicted_in_another_way_are_no_longer_there(store):
    store.add_method("star", "star", 2, 1, 32, FIELDS, {"model_sha256": "a", "tta": False})
    assert store.has("star", REF)
    store.add_method("star", "star", 2, 1, 32, FIELDS, {"model_sha256": "a", "tta": True})
    assert not store.has("star", REF)
    assert store.attrs("star")["tta"] is True
