"""Which mask belongs to which image, and which folder is a field."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from data_io.errors import BadInput
from data_io.intake import Settings, take_in
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


def _write(root: Path, *names: str) -> Path:
    """Write a small file for each name: an empty image, or an empty file if it is none."""
    for at, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".tif":
            tifffile.imwrite(path, np.pad(np.full((14, 14), at, np.uint16), 1))
        else:
            path.write_bytes(b"")
    return root


def _told(root: Path) -> dict[str, list[tuple[str, str | None]]]:
    """Return per field the image and the annotation of each frame, as paths below the root."""

    def below(path: Path) -> str:
        return path.relative_to(root).as_posix()

    return {
        one.name: [(below(file.image), below(file.drawing.path) if file.drawing else None) for file in one.files]
        for one in find(root).fields
    }


PARTS = ("train", "val", "test")


@pytest.mark.parametrize(
    "layout", [("{p}/images/t{t}.tif", "{p}/masks/t{t}.tif"), ("images/{p}/t{t}.tif", "masks/{p}/t{t}.tif")]
)
@pytest.mark.parametrize("parts", [PARTS, ("Training", "validation", "testing")])
def test_folders_called_train_val_and_test_are_the_split(layout, parts, tmp_path):
    _write(tmp_path, *(kind.format(p=p, t=t) for p in parts for t in range(3) for kind in layout))
    found = find(tmp_path)
    assert {one.name: one.part for one in found.fields} == dict(zip(parts, PARTS, strict=True))
    assert not found.warnings
    splits = take_in(tmp_path, Settings()).splits
    told = [{ref.field for ref in refs} for refs in (splits.train, splits.val, splits.test)]
    assert told == [{part} for part in parts]


def test_fields_of_one_name_in_train_val_and_test_are_told_apart(tmp_path):
    _write(tmp_path, *(f"{k}/{p}/f1/t0.tif" for p in PARTS for k in ("images", "masks")))
    assert [(one.name, one.part) for one in find(tmp_path).fields] == [
        ("test_f1", "test"), ("train_f1", "train"), ("val_f1", "val"),
    ]  # fmt: skip


def test_train_and_test_without_val_are_dealt_anew_and_it_is_said(tmp_path):
    _write(tmp_path, *(f"{p}/{k}/t{t}.tif" for p in ("train", "test") for t in range(3) for k in ("images", "masks")))
    found = find(tmp_path)
    assert [one.part for one in found.fields] == ["", ""]
    assert "only test, train held annotated images; split anew" in found.warnings[0]
    (tmp_path / "train").rename(tmp_path / "other")
    assert not find(tmp_path).warnings


def test_every_folder_with_images_is_a_field(tmp_path):
    _write(
        tmp_path, *(f"{p}{k}/t{t}.tif" for p in ("", "extra/") for k in ("frames", "masks") for t in (0, 1)),
        "extra/deep/a.tif", "extra/deep/a_mask.tif", "extra/deep/sub/b.tif", "extra/deep/sub/b_mask.tif",
    )  # fmt: skip
    assert set(_told(tmp_path)) == {tmp_path.name, "extra", "deep", "sub"}
    assert not find(tmp_path).warnings


def test_sub_folders_of_images_may_lie_at_different_depths(tmp_path):
    places = [f"patient_{p}/{f}" for p in (1, 2) for f in ("f1", "f2")] + ["patient_3"]
    _write(tmp_path, *(f"{k}/{place}/t{t}.tif" for k in ("images", "masks") for place in places for t in (0, 1)))
    told = _told(tmp_path)
    assert set(told) == {"patient_1_f1", "patient_1_f2", "patient_2_f1", "patient_2_f2", "patient_3"}
    assert told["patient_2_f1"][1] == ("images/patient_2/f1/t1.tif", "masks/patient_2/f1/t1.tif")
    assert find(tmp_path).fields[0].groups == {"patient": "1"}


def test_a_stray_picture_is_left_out_and_named(tmp_path):
    _write(tmp_path, "overview.tif", *(f"f{k}/{kind}/t0.tif" for k in range(3) for kind in ("frames", "masks")))
    assert set(_told(tmp_path)) == {"f0", "f1", "f2"}
    assert "overview.tif: a picture without annotation above" in find(tmp_path).warnings[0]
    _write(tmp_path, "overview_mask.tif")
    assert _told(tmp_path)[tmp_path.name] == [("overview.tif", "overview_mask.tif")]


def test_images_deeper_than_fields_may_lie_are_named(tmp_path):
    _write(tmp_path, "a.tif", "a_mask.tif", "1/2/3/4/5/b.tif")
    assert "5: its images lie more than 4 folders deep; left out" in find(tmp_path).warnings[0]


def test_a_folder_that_links_to_one_above_is_not_entered(movie):
    (movie / "again").symlink_to(movie)
    assert [one.name for one in find(movie).fields] == ["movie"]


def test_of_two_mask_folders_that_of_labels_is_taken_and_said(tmp_path):
    _write(tmp_path, *(f"{kind}/t{t}.tif" for kind in ("images", "masks", "labels") for t in (0, 1)))
    assert _told(tmp_path)[tmp_path.name][0] == ("images/t0.tif", "labels/t0.tif")
    assert "masks: labels beside it is taken for the annotation; left out" in find(tmp_path).warnings[0]


def test_of_two_masks_of_an_image_the_labels_are_taken_and_said(tmp_path):
    _write(tmp_path, *(f"a{t}{end}.tif" for t in (0, 1) for end in ("", "_mask", "_cp_masks")))
    assert _told(tmp_path)[tmp_path.name] == [(f"a{t}.tif", f"a{t}_cp_masks.tif") for t in (0, 1)]
    assert "a0_mask.tif: a0_cp_masks.tif is taken for the same image (2 such); left out" in find(tmp_path).warnings[0]


def test_a_mask_of_the_very_name_of_its_image_goes_first(tmp_path):
    _write(tmp_path, "frames/t2.tif", "frames/t3.tif", "masks/t2.tif", "masks/t2_cp_masks.tif", "masks/t3.tif")
    assert _told(tmp_path)[tmp_path.name][0] == ("frames/t2.tif", "masks/t2.tif")
    assert "t2_cp_masks.tif: t2.tif is taken" in find(tmp_path).warnings[0]


def test_each_image_may_have_a_folder_of_its_own_for_its_outlines(tmp_path):
    _write(tmp_path, *(f"{k}.tif" for k in ("img0", "img1")), "rois/img0/RoiSet.zip", "rois/img1/RoiSet.zip")
    assert _told(tmp_path)[tmp_path.name] == [(f"img{k}.tif", f"rois/img{k}/RoiSet.zip") for k in (0, 1)]
    _write(tmp_path, "rois/img1/more.zip")
    with pytest.raises(BadInput, match="2 annotation files for one image"):
        find(tmp_path)


def test_masks_in_one_folder_may_bear_the_folder_of_their_image(tmp_path):
    for f in ("f0", "f1"):
        _write(tmp_path, *(name for t in (0, 1) for name in (f"images/{f}/t{t}.tif", f"masks/{f}_t{t}.tif")))
    assert _told(tmp_path)["f1"] == [(f"images/f1/t{t}.tif", f"masks/f1_t{t}.tif") for t in (0, 1)]
    assert not find(tmp_path).warnings


def test_an_image_whose_name_says_label_has_its_mask(tmp_path):
    _write(tmp_path, *(f"label_free_{t}{end}.tif" for t in (0, 1) for end in ("", "_mask")))
    assert _told(tmp_path)[tmp_path.name] == [(f"label_free_{t}.tif", f"label_free_{t}_mask.tif") for t in (0, 1)]


def test_a_stray_archive_is_no_annotation(tmp_path):
    _write(tmp_path, *(f"a{t}{end}.tif" for t in (0, 1) for end in ("", "_mask")), "notes.zip")
    assert _told(tmp_path)[tmp_path.name] == [(f"a{t}.tif", f"a{t}_mask.tif") for t in (0, 1)]
    assert "notes.zip: not called an annotation" in find(tmp_path).warnings[0]


def test_a_folder_of_pickled_masks_is_refused(tmp_path):
    _write(tmp_path, "images/a.tif", "images/b.tif", "masks/a_seg.npy", "masks/b_seg.npy")
    with pytest.raises(BadInput, match=r"a_seg.npy: a pickle"):
        find(tmp_path)


def test_a_name_that_begins_with_dots_is_a_name(tmp_path):
    _write(tmp_path, *(f"{kind}/{name}.tif" for kind in ("frames", "masks") for name in ("..t", "a")))
    assert _told(tmp_path)[tmp_path.name][0] == ("frames/..t.tif", "masks/..t.tif")


def test_masks_without_images_are_named(tmp_path):
    _write(tmp_path, "images/f0/a.tif", "masks/f0/a.tif", "masks/f9/a.tif")
    assert "f9: masks without images; left out" in find(tmp_path).warnings[0]


def test_truth_folders_of_a_challenge_are_no_fields(tmp_path):
    _write(tmp_path, "x/y/01/t000.tif", "x/y/01_GT/SEG/man_seg000.tif", "x/y/01_GT/TRA/man_track000.tif")
    assert [one.name for one in find(tmp_path).fields] == ["01"]
    assert "01_GT: truth of the Cell Tracking Challenge" in find(tmp_path).warnings[0]
