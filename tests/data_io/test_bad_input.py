"""Every unusable folder gives one line: file, fault, remedy; nothing stays on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from data_io.convert import convert
from data_io.errors import BadInput

Spoil = Callable[[Path], object]
FRAME, MASK = "frames/t001.tif", "masks/t001.tif"


def _cut(share: float) -> Spoil:
    return lambda movie: (movie / FRAME).write_bytes((movie / FRAME).read_bytes()[: int(share * (96 * 128 * 2 + 300))])


def _mask(values: np.ndarray, **how: object) -> Spoil:
    return lambda movie: tifffile.imwrite(movie / MASK, values, **how)


def _frame(values: np.ndarray) -> Spoil:
    return lambda movie: tifffile.imwrite(movie / FRAME, values)


def _flip_zlib(movie: Path) -> None:
    tifffile.imwrite(movie / FRAME, tifffile.imread(movie / FRAME), compression="zlib")
    data = bytearray((movie / FRAME).read_bytes())
    data[len(data) // 2] ^= 0x10
    (movie / FRAME).write_bytes(data)


def _cut_png(movie: Path) -> None:
    (movie / FRAME).unlink()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 128), np.uint8)).save(movie / "frames/t001.png")
    data = (movie / "frames/t001.png").read_bytes()
    (movie / "frames/t001.png").write_bytes(data[: len(data) // 2])


def _renamed_jpeg(movie: Path) -> None:
    Image.fromarray(np.zeros((96, 128), np.uint8)).save(movie / "x.jpg")
    (movie / "x.jpg").rename(movie / FRAME)


def _double(movie: Path) -> None:
    Image.fromarray(np.zeros((96, 128), np.uint8)).save(movie / "frames/t001.png")


def _dangling(movie: Path) -> None:
    (movie / FRAME).unlink()
    (movie / FRAME).symlink_to(movie / "gone.tif")


def _copy_as_mask(movie: Path) -> None:
    (movie / MASK).write_bytes((movie / FRAME).read_bytes())


def _no_cells(movie: Path) -> None:
    for path in (movie / "masks").iterdir():
        tifffile.imwrite(path, np.zeros((96, 128), np.uint16))


def _full(movie: Path) -> None:
    for path in (movie / "masks").iterdir():
        tifffile.imwrite(path, np.full((96, 128), 255, np.uint8))


def _renamed_masks(movie: Path) -> None:
    for i, path in enumerate(sorted((movie / "masks").iterdir())):
        path.rename(path.with_name(f"{'abcde'[i]}.tif"))


def _two_left(movie: Path) -> None:
    for t in (2, 3, 4):
        (movie / f"masks/t{t:03d}.tif").unlink()


NAN = np.full((96, 128), np.nan, np.float32)
FAULTS: dict[str, tuple[Spoil, str]] = {
    "zero bytes": (lambda movie: (movie / FRAME).write_bytes(b""), r"t001.tif: empty file"),
    "cut at 10 %": (_cut(0.1), r"t001.tif: (unreadable|damaged)"),
    "cut at 50 %": (_cut(0.5), r"t001.tif: (unreadable|damaged)"),
    "cut at 99 %": (_cut(0.97), r"t001.tif: (unreadable|damaged)"),
    "flipped zlib": (_flip_zlib, r"t001.tif: unreadable"),
    "cut png": (_cut_png, r"t001.png: unreadable"),
    "renamed jpeg": (_renamed_jpeg, r"t001.tif: neither TIFF nor PNG"),
    "text": (lambda movie: (movie / FRAME).write_text("no image"), r"t001.tif: neither TIFF nor PNG"),
    "dangling link": (_dangling, r"t001.tif: no such file, or a link to nothing"),
    "duplicate names": (_double, r"same name as"),
    "nan": (_frame(NAN), r"t001.tif: has NaN or infinite"),
    "negative": (_frame(np.full((96, 128), -3, np.int16)), r"t001.tif: has negative"),
    "complex": (_frame(np.ones((96, 128), np.complex64)), r"t001.tif: unreadable \(pixels of type complex64\)"),
    "z-stack over time": (
        lambda movie: tifffile.imwrite(movie / FRAME, np.zeros((2, 3, 1, 96, 128), np.uint16), imagej=True),
        r"stack of 2 T x 3 Z planes",
    ),
    "mask of another size": (_mask(np.ones((90, 128), np.uint16)), r"t001.tif: 90 x 128 px, its image .* 96 x 128"),
    "float mask": (_mask(np.full((96, 128), 0.5, np.float32)), r"t001.tif: a mask with fractions"),
    "nan mask": (_mask(NAN), r"t001.tif: a mask with fractions or NaN"),
    "negative mask": (_mask(np.full((96, 128), -1, np.int32)), r"t001.tif: a mask with negative values"),
    "colour mask": (_mask(np.zeros((96, 128, 3), np.uint8), photometric="rgb"), r"t001.tif: a colour mask"),
    "jpeg mask": (_mask(np.zeros((96, 128), np.uint8), compression="jpeg"), r"t001.tif: a JPEG-compressed mask"),
    "label 2**31": (_mask(np.full((96, 128), 2**31, np.uint32)), r"t001.tif: label 2147483648|2\*\*31 or more"),
    "mask is the image": (_copy_as_mask, r"t001.tif: the same pixels as its image"),
    "mask of more pages": (
        _mask(np.ones((3, 96, 128), np.uint16), photometric="minisblack"),
        r"t001.tif: 3 frames, its image t001.tif 1",
    ),
    "all foreground": (_full, r"every pixel is foreground"),
    "no cells": (_no_cells, r"all masks are empty"),
    "masks of other names": (_renamed_masks, r"do not belong to the images"),
    "two annotated frames": (_two_left, r"2 annotated frames"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_one_line_and_nothing_left(fault, movie, tmp_path):
    spoil, line = FAULTS[fault]
    spoil(movie)
    with pytest.raises(BadInput, match=line) as caught:
        convert(movie, tmp_path / "out/d.zarr")
    message = str(caught.value)
    assert "\n" not in message
    assert ": " in message
    assert "; " in message
    assert not list((tmp_path / "out").glob("*"))
    assert not list((tmp_path / "out").glob(".*"))


def test_a_bad_option_or_source(movie, tmp_path):
    with pytest.raises(BadInput, match="pixel_size_um: -1 is not a positive number"):
        convert(movie, tmp_path / "d.zarr", pixel_size_um=-1)
    with pytest.raises(BadInput, match="no such file or folder"):
        convert(tmp_path / "gone", tmp_path / "d.zarr")
    with pytest.raises(BadInput, match="unknown group; choose from auto, field, time"):
        convert(movie, tmp_path / "d.zarr", split_by="plate")
    with pytest.raises(BadInput, match="there is one field"):
        convert(movie, tmp_path / "d.zarr", split_by="field")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/notes.txt").write_text("x")
    with pytest.raises(BadInput, match=r"only \.txt"):
        convert(tmp_path / "texts", tmp_path / "d.zarr")


def test_different_channels_are_refused(tmp_path, write_movie):
    write_movie(tmp_path / "set/a")
    write_movie(tmp_path / "set/b")
    for path in (tmp_path / "set/b/frames").iterdir():
        tifffile.imwrite(path, np.stack([tifffile.imread(path)] * 2), metadata={"axes": "CYX"})
    with pytest.raises(BadInput, match=r"2 channels, t000\.tif has 1"):
        convert(tmp_path / "set", tmp_path / "d.zarr")
