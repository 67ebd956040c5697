"""Mask files become labels as drawn; what cannot mean cells is refused in a line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from data_io import masks
from data_io.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path


def written(folder: Path, mask: np.ndarray, name: str = "a.tif", **how: Any) -> Path:
    tifffile.imwrite(folder / name, mask, photometric="minisblack", **how)
    return folder / name


def grid(count: int, side: int = 6, across: int = 20) -> np.ndarray:
    """Return `(Y, X)` int64 labels of `count` squares, 1 px apart."""
    rows = -(-count // across)
    labels = np.zeros((rows * (side + 1), across * (side + 1)), np.int64)
    for at in range(count):
        y, x = (side + 1) * (at // across), (side + 1) * (at % across)
        labels[y : y + side, x : x + side] = at + 1
    return labels


def discs(scale: int, apart: float) -> np.ndarray:
    """Return `(Y, X)` bool: a disc alone, and two of its radius with centres `apart` radii from each other."""
    y, x = np.ogrid[: 60 * scale, : 120 * scale]
    centres = [(30, 15), (30, 50), (30, 50 + 10 * apart)]
    return np.any([(y - cy * scale) ** 2 + (x - cx * scale) ** 2 <= (10 * scale) ** 2 for cy, cx in centres], axis=0)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.uint32, np.float32, np.int64])
def test_labels_come_as_drawn(dtype, tmp_path):
    labels = grid(40).astype(dtype)
    got = masks.read(written(tmp_path, labels))
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, labels[None])


def test_pages_are_frames_and_a_palette_gives_indices(tmp_path):
    labels = np.stack([grid(40), grid(38)[:, :]]).astype(np.uint16)
    np.testing.assert_array_equal(masks.read(written(tmp_path, labels, compression="zlib")), labels)
    palette = Image.fromarray(grid(9).astype(np.uint8))
    palette.putpalette(list(range(250, 220, -1)))
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(masks.read(tmp_path / "p.png")[0], grid(9))


@pytest.mark.parametrize("name", ["a_seg.npy", "a_mask.jpg", "a_mask.JPEG"])
def test_files_that_cannot_be_masks(name, tmp_path):
    (tmp_path / name).write_bytes(b"x")
    remedy = "save masks as PNG/TIFF in Cellpose" if name.endswith("npy") else "export it without loss as TIFF or PNG"
    with pytest.raises(BadInput, match=rf"{name}: .*; {remedy}"):
        masks.read(tmp_path / name)


def test_a_mask_in_depth_is_refused(tmp_path):
    path = written(tmp_path, np.stack([grid(9)] * 3).astype(np.uint16), ome=True, metadata={"axes": "ZYX"})
    with pytest.raises(BadInput, match="a mask of 3 planes in depth; save the one drawn on the image's plane"):
        masks.read(path)


def test_two_channels_are_two_frames(tmp_path):
    path = written(tmp_path, np.stack([grid(9)] * 2).astype(np.uint16), metadata={"axes": "CYX"})
    assert len(masks.read(path)) == 2


@pytest.mark.parametrize(
    "save", [lambda labels: labels % 256, lambda labels: np.minimum(labels, 255)], ids=["wrap", "cut"]
)
def test_three_hundred_labels_in_eight_bits_are_noticed(save, tmp_path):
    path = written(tmp_path, save(grid(300)).astype(np.uint8))
    with pytest.raises(BadInput, match=r"more than 255 cells in 8 bits share labels; save the label image as 16-bit"):
        masks.read(path)


def test_full_but_honest_eight_bits_are_read(tmp_path):
    whole = grid(255)
    stray = whole.copy()
    stray[0:2, 0:2] = 255
    scattered = np.where(grid(300) % 90 == 1, 255, 0)
    for labels in (whole, stray, scattered, np.minimum(grid(300), 254), grid(300).astype(np.uint16)):
        narrow = labels if labels.dtype == np.uint16 else labels.astype(np.uint8)
        np.testing.assert_array_equal(masks.read(written(tmp_path, narrow))[0], labels)


def test_values_with_and_without_a_place_of_their_own():
    labels = np.zeros((20, 20), np.int32)
    labels[1:5, 1:5] = 3
    labels[10, 10] = labels[12:14, 12] = 3
    labels[5:8, 6:9], labels[8, 9] = 7, 7
    assert not masks.is_scattered(labels), "stray pieces beside a main one"
    assert not masks.has_places(np.where(labels == 3, 1, 0))
    labels[14:18, 14:18] = 3
    assert masks.has_places(np.where(labels == 3, 1, 0))
    assert not masks.is_scattered(np.zeros((4, 4), np.int32))
    classes = np.zeros((20, 20), np.int32)
    for corner in (1, 8, 14):
        classes[corner : corner + 5, corner : corner + 5] = 2
        classes[corner + 1 : corner + 4, corner + 1 : corner + 4] = 1
    assert masks.is_scattered(classes)


def test_what_is_full():
    tissue = np.arange(16, dtype=np.int32).reshape(4, 4) // 4 + 1
    assert not masks.is_full(tissue)
    assert masks.is_full(np.ones((4, 4), np.int32))
    assert masks.is_full((tissue > 2).astype(np.int32) + 1)
    assert not masks.is_full((tissue > 2).astype(np.int32))
    assert not masks.is_full(np.zeros((4, 4), np.int32))


@pytest.mark.parametrize("apart", [1.4, 1.7, 1.95])
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_touching_discs_are_told_apart_at_any_scale(scale, apart):
    mask = discs(scale, apart)
    labels = masks.split_touching(mask.astype(np.int32))
    np.testing.assert_array_equal(labels > 0, mask)
    assert labels.max() == 3
    areas = np.bincount(labels.ravel())[1:]
    left, right = (labels[30 * scale, int(x * scale)] for x in (45, 55 + 10 * apart))
    assert left != right
    assert abs(areas[left - 1] - areas[right - 1]) < 0.05 * areas.max()


def test_debris_does_not_change_how_cells_are_told_apart():
    mask = discs(2, 1.7).astype(np.int32)
    mask[2:12:3, ::5] = 1
    labels = masks.split_touching(mask)
    assert len(np.unique(labels[20:])) == 4


def test_splitting_leaves_round_cells_and_specks_whole():
    mask = discs(2, 3.0).astype(np.int32)
    mask[3, 3] = mask[3:5, 90] = mask[3, 5] = 1
    mask[100:, 200:] = 1
    labels = masks.split_touching(mask)
    expected = masks.components(mask)
    assert labels.max() == expected.max() == 7
    assert len(np.unique(np.stack([labels, expected])[:, mask > 0], axis=1).T) == 7
    assert not masks.split_touching(np.zeros((9, 9), np.int32)).any()
