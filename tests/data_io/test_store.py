"""The store refuses what is damaged, by name."""

from __future__ import annotations

import numpy as np
import pytest

from data_io.convert import convert
from data_io.errors import BadInput
from data_io.store import Dataset, FrameRef


@pytest.fixture
def store(movie, tmp_path):
    return convert(movie, tmp_path / "d.zarr").path


def _chunk(store, array="s0"):
    return store / f"movie/{array}/c/2" / ("0/0/0" if array == "s0" else "0/0")


@pytest.mark.parametrize("array", ["s0", "labels/truth/s0"])
def test_a_missing_or_cut_chunk_is_found_at_opening(store, array):
    chunk = _chunk(store, array)
    data = chunk.read_bytes()
    for spoiled in (data[:-1], b""):
        chunk.write_bytes(spoiled)
        with pytest.raises(BadInput, match=rf"c/2.*: {len(spoiled)} bytes instead of {len(data)}"):
            Dataset.open(store)
    chunk.unlink()
    with pytest.raises(BadInput, match=r"c/2.*: missing"):
        Dataset.open(store)


def test_a_flipped_bit_is_found_at_reading(store):
    rng = np.random.default_rng(0)
    chunk = _chunk(store)
    good = chunk.read_bytes()
    for _ in range(100):
        data = bytearray(good)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        chunk.write_bytes(data)
        with pytest.raises(BadInput, match="damaged chunk"):
            Dataset.open(store).image(FrameRef("movie", 2))


def test_a_chunk_lost_after_opening_is_not_read_as_zeros(store):
    dataset = Dataset.open(store)
    _chunk(store).unlink()
    with pytest.raises(BadInput, match="missing chunk"):
        dataset.image(FrameRef("movie", 2))


def test_an_unfinished_or_edited_store_is_refused(store, tmp_path):
    text = (store / "zarr.json").read_text()
    (store / "zarr.json").write_text(text.replace("uint16", "uint61"))
    with pytest.raises(BadInput, match="changed since it was written"):
        Dataset.open(store)
    (store / "manifest.json").unlink()
    with pytest.raises(BadInput, match="unfinished data set"):
        Dataset.open(store)
    with pytest.raises(BadInput, match="no such data set"):
        Dataset.open(tmp_path / "gone.zarr")
    with pytest.raises(BadInput, match="not a data set"):
        Dataset.open(tmp_path)


def test_unknown_frames_and_parts(store):
    dataset = Dataset.open(store)
    with pytest.raises(BadInput, match="choose from train, val, test"):
        dataset.frames("holdout")
    for ref in (FrameRef("movie", 5), FrameRef("film", 0)):
        with pytest.raises(BadInput, match="has no frame"):
            dataset.image(ref)


def test_the_content_hash_follows_the_pixels(movie, tmp_path, discs):
    import tifffile

    first = convert(movie, tmp_path / "a.zarr").content_hash
    assert convert(movie, tmp_path / "b.zarr").content_hash == first
    labels = discs(1)
    labels[0, 0] = 9
    tifffile.imwrite(movie / "masks/t001.tif", labels)
    assert convert(movie, tmp_path / "c.zarr").content_hash != first
