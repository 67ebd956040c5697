"""Which mask belongs to which image, and which folder is a field."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from data_io.errors import BadInput
from data_io.readers import find
from data_io.readers.folder import pair


def _paths(*names: str) -> list[Path]:
    return [Path(name) for name in names]


@pytest.mark.parametrize(
    ("frames", "masks"),
    [
        (_paths("a.tif", "b.tif"), _paths("a.tif", "b.tif")),
        (_paths("a.tif", "b.tif"), _paths("a_cp_masks.png", "b_cp_masks.png")),
        (_paths("cell_1.tif", "cell_2.tif"), _paths("cell_1_Labels.tif", "cell_2_Labels.tif")),
        (_paths("im000_channel1_phase.tif", "im001_channel1_phase.tif"), _paths("im000_mask1.tif", "im001_mask1.tif")),
        (_paths("t000.tif", "t001.tif"), _paths("man_seg000.tif", "man_seg001.tif")),
        (_paths("img_9.png", "img_10.png"), _paths("mask_09.png", "mask_10.png")),
    ],
)
def test_masks_belong_by_name_or_number(frames, masks):
    assert pair(frames, masks, []) == dict(zip(frames, masks, strict=True))


def test_a_missing_mask_and_a_mask_without_image():
    frames, masks = _paths("a1.tif", "a2.tif", "a3.tif"), _paths("a1_mask.tif", "a3_mask.tif", "a9_mask.tif")
    warnings: list[str] = []
    assert pair(frames, masks, warnings) == {frames[0]: masks[0], frames[2]: masks[1]}
    assert "a9_mask.tif: no image" in warnings[0]


def test_numbers_that_fit_two_ways_are_refused():
    frames = _paths("t1.tif", "t2.tif", "t3.tif")
    with pytest.raises(BadInput, match="fit more than one image"):
        pair(frames, _paths("mask1_of2.tif"), [])


@pytest.mark.parametrize(
    "layout",
    [
        ("{f}/frames/t{t}.tif", "{f}/masks/t{t}.tif"),
        ("{f}/t{t}.tif", "{f}/t{t}_mask.tif"),
        ("{f}/t{t}.tif", "{f}/masks/t{t}.tif"),
        ("images/{f}/t{t}.tif", "masks/{f}/t{t}.tif"),
        ("data/{f}/raw/t{t}.tif", "data/{f}/gt/t{t}.tif"),
    ],
)
def test_every_layout_gives_two_fields_of_twelve_frames_in_order(layout, tmp_path):
    for f in ("east", "west"):
        for t in range(12):
            for kind in layout:
                path = tmp_path / kind.format(f=f, t=t)
                path.parent.mkdir(parents=True, exist_ok=True)
                tifffile.imwrite(path, np.zeros((16, 16), np.uint16))
    found = find(tmp_path)
    assert [field.name for field in found.fields] == ["east", "west"]
    for field in found.fields:
        assert [file.image.stem for file in field.files] == [f"t{t}" for t in range(12)]
        assert [file.drawing.path.stem.removesuffix("_mask") for file in field.files] == [f"t{t}" for t in range(12)]


def test_hidden_and_foreign_files_are_left_alone(movie):
    (movie / "frames/._t000.tif").write_bytes(b"junk")
    (movie / "frames/Thumbs.db").write_bytes(b"junk")
    assert len(find(movie).fields[0].files) == 5
