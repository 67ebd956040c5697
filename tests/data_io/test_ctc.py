"""Sequences of the Cell Tracking Challenge: frame numbers, nested folders, stacks in depth and truth of slices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from data_io.errors import BadInput
from data_io.readers import Options, find

if TYPE_CHECKING:
    from pathlib import Path

PLANES = 3


def _ctc(root: Path, discs, *, deep: bool = False, gold: bool = True) -> Path:
    """Write four frames; in depth, the cells of plane z are those of time t + 20 z."""
    for t in range(4):
        cells = np.stack([discs(t + 20 * z) for z in range(PLANES)]) if deep else discs(t)
        files = {f"01/t{t:03d}": 1000 + 100 * cells, f"01_GT/TRA/man_track{t:03d}": np.where(cells, cells + 10, 0)}
        files |= {f"01_GT/SEG/man_seg{t:03d}": cells} if gold else {}
        for name, pixels in files.items():
            _save(root / f"{name}.tif", pixels)
    (root / "01_GT/TRA/man_track.txt").write_text("11 0 3 0\n")
    return root


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, pixels.astype(np.uint16), photometric="minisblack")


def _labels(source: Path, frame: int, **options: str) -> np.ndarray:
    (labels,), _ = find(source, Options(**options)).fields[0].files[frame].drawing.read()
    return labels


@pytest.mark.parametrize("name", ["01/t0003.tif", "01_GT/SEG/man_seg0003.tif", "01_GT/TRA/man_track0003.tif"])
def test_a_frame_that_is_there_twice_is_refused(name, tmp_path, discs):
    source = _ctc(tmp_path, discs)
    _save(source / name, discs(0))
    with pytest.raises(BadInput, match=r"the same frame number as .*; keep one of them"):
        find(source)


@pytest.mark.parametrize("name", ["Fluo-X", "download"])
def test_a_data_set_one_folder_down_is_known(name, tmp_path, discs):
    _ctc(tmp_path / name / "Fluo-X", discs)
    found = find(tmp_path / name)
    assert (found.reader, [one.name for one in found.fields]) == ("ctc", ["Fluo-X_01"])
    assert not found.warnings


def test_a_folder_beside_the_data_set_is_named(tmp_path, discs):
    _ctc(tmp_path / "all/Fluo-X", discs)
    _save(tmp_path / "all/mine/a.tif", discs(0))
    assert "mine: no sequence of the Cell Tracking Challenge" in find(tmp_path / "all").warnings[0]


def test_depth_is_asked_for(tmp_path, discs):
    source = _ctc(tmp_path, discs, deep=True)
    with pytest.raises(BadInput, match=r"t000.tif: 3 planes in depth; say --z max or --z N"):
        find(source)


def test_masks_and_markers_take_the_plane_of_their_image(tmp_path, discs):
    source = _ctc(tmp_path, discs, deep=True)
    for z in range(PLANES):
        cells = discs(2 + 20 * z)
        assert np.array_equal(_labels(source, 2, z=str(z)), np.where(cells, cells + 10, 0))
    top = np.max([discs(2 + 20 * z) for z in range(PLANES)], axis=0)
    assert np.array_equal(_labels(source, 2, z="max"), np.where(top, top + 10, 0))
    (image, _), *_ = find(source, Options(z="max")).fields[0].files[2].read()
    assert np.array_equal(image[0], 1000 + 100 * top)


@pytest.mark.parametrize("z", ["mean", "focus"])
def test_labels_have_no_mean_and_no_focus(z, tmp_path, discs):
    with pytest.raises(BadInput, match=f"labels have no {z} over depth; say --z max or --z N"):
        _labels(_ctc(tmp_path, discs, deep=True), 0, z=z)


def test_truth_of_slices_is_that_of_the_slice_chosen(tmp_path, discs):
    source = _ctc(tmp_path, discs, deep=True, gold=False)
    for t, z in ((0, 2), (2, 2), (3, 1)):
        _save(source / f"01_GT/SEG/man_seg_{t:03d}_{z:03d}.tif", discs(t + 20 * z))
    found = find(source, Options(z="2"))
    assert [file.drawing is not None for file in found.fields[0].files] == [True, False, True, False]
    assert "man_seg_003_001.tif: not drawn on the plane that is read (1 such masks)" in found.warnings[0]
    assert np.array_equal(_labels(source, 2, z="2") > 0, discs(42) > 0)
    with pytest.raises(BadInput, match="truth of single slices; say --z N"):
        find(source, Options(z="max"))


def test_a_mask_of_fewer_planes_than_its_image_is_refused(tmp_path, discs):
    source = _ctc(tmp_path, discs, deep=True)
    _save(source / "01_GT/SEG/man_seg000.tif", np.stack([discs(0), discs(20)]))
    with pytest.raises(BadInput, match="2 planes, its image 3"):
        _labels(source, 0, z="max")
