"""What microscopes and challenges write: Gen5 exports, Cell Tracking Challenge, OME-Zarr, bioio, mosaics, groups."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import roifile
import tifffile
import zarr
from PIL import Image

from data_io import calibration
from data_io.convert import convert, main
from data_io.errors import BadInput
from data_io.intake import Settings
from data_io.readers import Options, find
from data_io.readers.ctc import name_tracks
from data_io.store import Dataset, FrameRef

if TYPE_CHECKING:
    from pathlib import Path

XML = (
    "<BTIImageMetaData><ImageReference><Plate>Plate 7</Plate><Date>02/19/26</Date><Time>{time}</Time></ImageReference>"
    "<ImageAcquisition><PixelWidth>128</PixelWidth><ImageWidthMicrons>83.2</ImageWidthMicrons></ImageAcquisition>"
    "</BTIImageMetaData>"
)


def _read(**options: object) -> Settings:
    return Settings(reading=Options(**options))


def _gen5(
    folder: Path, discs, grey, *, wells=("B1", "B2", "C10"), channels=("Bright Field",), times=4, planes=1
) -> Path:
    (folder / "masks").mkdir(parents=True)
    for k, well in enumerate(wells):
        for t in range(times):
            labels = discs(t)
            for c, channel in enumerate(channels):
                for z in range(planes):
                    depth = f"Z{z}" if planes > 1 else ""
                    name = f"{well}_04_1_1{depth}_{channel}_{t + 1:03d}.tif"
                    image = grey(labels, 100 * k + 10 * t + c) + 50 * z
                    text = XML.format(time=f"10:{5 * t:02d}:00")
                    tifffile.imwrite(folder / name, image.astype(np.uint16), description=text, metadata=None)
                    if c == z == 0:
                        tifffile.imwrite(folder / "masks" / name, labels)
    return folder


def test_a_gen5_export_gives_wells_times_and_its_pixel_size(tmp_path, discs, grey):
    source = _gen5(tmp_path / "export", discs, grey)
    dataset = convert(source, tmp_path / "d.zarr")
    assert dataset.facts["source"]["reader"] == "gen5"
    assert list(dataset.fields) == ["B1_1", "B2_1", "C10_1"]
    field = dataset.fields["C10_1"]
    assert (field.n_frames, field.channels, field.cells) == (4, ("Bright Field",), (6,) * 4)
    assert (field.pixel_size_um, field.frame_interval_s) == (0.65, 300)
    assert field.groups == {"plate": "Plate 7", "well": "C10"}
    assert dataset.splits.unit == "well"
    assert field.sources[2] == "C10_04_1_1_Bright Field_003.tif"


def test_gen5_channels_are_stacked_or_chosen_and_depth_is_asked_for(tmp_path, discs, grey):
    source = _gen5(tmp_path / "export", discs, grey, channels=("Bright Field", "GFP 469,525"), planes=3)
    with pytest.raises(BadInput, match=r"3 planes in depth; say --z max\|mean\|focus or --z N"):
        find(source)
    both = convert(source, tmp_path / "both.zarr", _read(z="max"))
    assert both.fields["B1_1"].channels == ("Bright Field", "GFP 469,525")
    one = convert(source, tmp_path / "one.zarr", _read(z="2", channels=("gfp 469,525",)))
    assert one.channels == 1
    ref = FrameRef("B1_1", 0)
    assert np.array_equal(both.image(ref)[1], one.image(ref)[0])
    with pytest.raises(BadInput, match="no channel 'DAPI'; it has Bright Field, GFP"):
        find(source, Options(z="max", channels=("DAPI",)))


def test_a_gen5_field_that_lacks_a_channel_is_refused(tmp_path, discs, grey):
    source = _gen5(tmp_path / "export", discs, grey, channels=("Bright Field", "GFP"))
    (source / "B2_04_1_1_GFP_003.tif").unlink()
    with pytest.raises(BadInput, match="B2_1 time 3 lacks GFP"):
        find(source)


def test_gen5_metadata_with_entities_are_not_read(tmp_path, discs, grey):
    source = _gen5(tmp_path / "export", discs, grey, wells=("A1",))
    bomb = '<!DOCTYPE r [<!ENTITY e "x">]>' + XML.format(time="10:00:00")
    for path in source.glob("*.tif"):
        tifffile.imwrite(path, tifffile.imread(path), description=bomb, metadata=None)
    assert find(source).fields[0].pixel_size_um is None


def _ctc(folder: Path, discs, grey, *, gold=(1, 3, 4), silver=False, frames=6) -> Path:
    """Write a sequence whose masks are numbered by place, while tracks are numbered from 11."""
    for name in ("01", "01_GT/SEG", "01_GT/TRA", "01_ST/SEG"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for t in range(frames):
        cells = discs(t)
        tifffile.imwrite(folder / f"01/t{t:03d}.tif", grey(cells, t))
        shuffled = np.r_[0, 1 + rng.permutation(6)].astype(np.uint16)[cells]
        if t in gold:
            tifffile.imwrite(folder / f"01_GT/SEG/man_seg{t:03d}.tif", shuffled)
        if silver:
            tifffile.imwrite(folder / f"01_ST/SEG/man_seg{t:03d}.tif", shuffled)
        tracks = np.where(discs(t, radius=3) > 0, discs(t, radius=3) + 10, 0).astype(np.uint16)
        tifffile.imwrite(folder / f"01_GT/TRA/man_track{t:03d}.tif", tracks)
    (folder / "01_GT/TRA/man_track.txt").write_text("".join(f"{k} 0 {frames - 1} 0\n" for k in range(11, 17)))
    return folder


def test_a_challenge_sequence_keeps_sparse_gold_truth_and_its_tracks(tmp_path, discs, grey):
    source = _ctc(tmp_path / "DIC-X", discs, grey)
    dataset = convert(source, tmp_path / "d.zarr")
    field = dataset.fields["DIC-X_01"]
    assert dataset.facts["source"]["reader"] == "ctc"
    assert field.annotated == (False, True, False, True, True, False)
    assert (field.tracked, field.annotation, field.groups) == (True, "labels (gold truth)", {"sequence": "01"})
    for t in (1, 3, 4):
        wanted = np.where(discs(t) > 0, discs(t) + 10, 0)
        assert np.array_equal(dataset.labels(FrameRef("DIC-X_01", t)), wanted)
    assert dataset.facts["lineage"]["DIC-X_01"][0] == [11, 0, 5, 0]
    assert find(source / "01").fields[0].name == "DIC-X_01"


def test_silver_truth_stands_in_where_gold_is_too_sparse_and_says_so(tmp_path, discs, grey):
    source = _ctc(tmp_path / "data", discs, grey, gold=(2,), silver=True)
    found = find(source)
    assert "silver truth taken (gold 1 frames, silver 6 frames)" in found.warnings[0]
    assert all(file.drawing for file in found.fields[0].files)
    gold = find(source, Options(truth="gold")).fields[0]
    assert [file.drawing is not None for file in gold.files] == [False, False, True, False, False, False]
    with pytest.raises(BadInput, match="--truth bronze: unknown"):
        find(source, Options(truth="bronze"))


def test_a_frame_with_cells_left_undrawn_is_not_annotated(tmp_path, discs, grey):
    source = _ctc(tmp_path / "data", discs, grey, gold=(0, 1, 2, 3))
    mask = source / "01_GT/SEG/man_seg002.tif"
    labels = tifffile.imread(mask)
    tifffile.imwrite(mask, np.where(labels > 3, 0, labels).astype(np.uint16))
    dataset = convert(source, tmp_path / "d.zarr")
    assert dataset.fields["data_01"].annotated == (True, True, False, True, False, False)
    assert any("3 of 6 tracked cells are drawn; the frame counts as not annotated" in w for w in dataset.warnings)


def test_cells_take_the_track_that_covers_most_of_them():
    labels = np.array([[1, 1, 1, 0, 2, 2, 3]], np.int32)
    tracks = np.array([[7, 7, 8, 0, 0, 9, 0]], np.int32)
    renamed, met, every = name_tracks(labels, tracks, 100)
    assert renamed.tolist() == [[7, 7, 7, 0, 9, 9, 100]]
    assert (met, every) == (2, 3)
    labels[labels == 3] = 2**31 - 1  # no table of all numbers below it
    assert np.array_equal(name_tracks(labels, tracks, 100)[0], renamed)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_ome_zarr_of_another_program_is_read_with_scale_and_labels(version, tmp_path, discs, grey):
    source, cells = _ome_zarr(tmp_path / "movie.ome.zarr", version, discs, grey)
    dataset = convert(source, tmp_path / "d.zarr")
    field = dataset.fields["movie"]
    assert dataset.facts["source"]["reader"] == "ome-zarr"
    assert (field.n_frames, field.pixel_size_um, field.frame_interval_s) == (4, 0.5, 90)
    assert np.array_equal(dataset.labels(FrameRef("movie", 2)), cells[2])
    assert np.array_equal(dataset.image(FrameRef("movie", 3))[0], grey(cells[3], 3))


def _ome_zarr(path: Path, version: str, discs, grey, *, depth: int = 1) -> tuple[Path, np.ndarray]:
    """Write t, z, y, x as other programs do: several levels, no checksums, named by the metadata only."""
    cells = np.stack([discs(t) for t in range(4)]).astype(np.int32)
    images = np.stack([np.stack([grey(c, t)] * depth) for t, c in enumerate(cells)])
    kind = {"0.4": 2, "0.5": 3}[version]

    def group(where: Path, attributes: dict) -> None:
        wrapped = {"ome": {"version": version, **attributes}} if kind == 3 else attributes
        zarr.open_group(where, mode="a", zarr_format=kind).attrs.update(wrapped)

    def axes(names: str) -> list[dict]:
        kinds = {"t": ("time", "minute"), "z": ("space", "micrometer"), "y": ("space", "nanometer")}
        kinds["x"] = kinds["y"]
        return [{"name": name, "type": kinds[name][0], "unit": kinds[name][1]} for name in names]

    def scales(names: str, level: str) -> list[dict]:
        steps = {"t": 1.5, "z": 1.0, "y": 500.0, "x": 500.0}
        scale = [{"type": "scale", "scale": [steps[name] for name in names]}]
        level = {"path": level, "coordinateTransformations": scale}
        return [{"version": version, "axes": axes(names), "datasets": [level]}]

    group(path, {"multiscales": scales("tzyx", "full")})
    zarr.create_array(path / "full", data=images, chunks=(1, 1, 64, 64), zarr_format=kind)
    group(path / "labels", {"labels": ["cells"]})
    group(path / "labels/cells", {"multiscales": scales("tyx", "0"), "image-label": {"version": version}})
    zarr.create_array(path / "labels/cells/0", data=cells, chunks=(1, 64, 64), zarr_format=kind)
    return path, cells


def test_an_ome_zarr_in_depth_with_a_missing_or_empty_chunk_is_refused(tmp_path, discs, grey):
    source, _ = _ome_zarr(tmp_path / "a.zarr", "0.5", discs, grey, depth=2)
    with pytest.raises(BadInput, match="2 planes in depth; say --z"):
        find(source)
    flat, _ = _ome_zarr(tmp_path / "b.zarr", "0.5", discs, grey)
    (flat / "full/c/1/0/0/1").write_bytes(b"")
    with pytest.raises(BadInput, match=r"full/c/1/0/0/1: chunk of 0 bytes"):
        find(flat)
    (flat / "full/c/1/0/0/1").unlink()
    with pytest.raises(BadInput, match=r"full/c/1/0/0/1: missing chunk \(1 such\)"):
        find(flat)


def test_a_run_inside_its_images_is_none_of_them(tmp_path, write_movie, discs):
    movie = write_movie(tmp_path / "movie")
    before = convert(movie, movie / "runs/0001/dataset.zarr")
    (movie / "runs/0001/trials/a").mkdir(parents=True)
    Image.fromarray((40 * discs(0)).astype(np.uint8)).save(movie / "runs/0001/trials/a/example.png")
    (movie / "runs/0001/run.json").write_text("{}")
    assert convert(movie, movie / "runs/0001/dataset.zarr").content_hash == before.content_hash


def test_a_zarr_without_ome_metadata_is_refused(tmp_path):
    zarr.create_group(tmp_path / "x.zarr")
    with pytest.raises(BadInput, match="a Zarr group without OME metadata"):
        find(tmp_path / "x.zarr")
    zarr.create_array(tmp_path / "x.zarr/s0", data=np.zeros((4, 4), np.uint16))
    with pytest.raises(BadInput, match="s0: one array of an OME-Zarr, not the image; give the folder that it is in"):
        find(tmp_path / "x.zarr/s0")


def test_a_pixel_size_that_cannot_be_is_unknown(tmp_path, discs, grey):
    source, _ = _ome_zarr(tmp_path / "movie.ome.zarr", "0.5", discs, grey)
    file = source / "zarr.json"
    file.write_text(file.read_text().replace("500.0", "1e300"))
    assert find(source).fields[0].files[0].plane.pixel_size_um is None
    told = {"axes": "YX", "PhysicalSizeX": 1e300, "PhysicalSizeY": 1e300}
    tifffile.imwrite(tmp_path / "a.ome.tif", grey(discs(0)), ome=True, metadata=told)
    assert calibration.of_tiff(tmp_path / "a.ome.tif") == (None, None)


def test_a_mosaic_of_16_bit_tiles_becomes_fields(tmp_path, discs, grey):
    (tmp_path / "set/images").mkdir(parents=True)
    (tmp_path / "set/masks").mkdir()
    cells = np.block([[discs(2 * r + c) for c in range(2)] for r in range(3)]).astype(np.uint16)
    Image.fromarray(grey(cells)).save(tmp_path / "set/images/all.png")
    Image.fromarray(cells).save(tmp_path / "set/masks/all.png")
    with pytest.raises(BadInput, match=r"all.png: 6 values that lie in many places each.*or give --tiles RxC"):
        convert(tmp_path / "set", tmp_path / "d.zarr")
    assert main([str(tmp_path / "set"), str(tmp_path / "d.zarr"), "--tiles", "3x2"]) == 0
    dataset = Dataset.open(tmp_path / "d.zarr")
    assert len(dataset.fields) == 6
    assert dataset.splits.unit == "field"
    assert np.array_equal(dataset.labels(FrameRef("set_r2c1", 0)), discs(2))
    assert dataset.image(FrameRef("set_r3c2", 0)).dtype == np.uint16
    with pytest.raises(BadInput, match="is not 5 x 2 equal tiles"):
        find(tmp_path / "set", Options(tiles=(5, 2)))


def test_one_roi_set_outlines_the_cells_of_a_folder_of_frames(tmp_path, discs, grey):
    for t in range(4):
        (tmp_path / "movie").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / f"movie/t{t}.tif", grey(discs(t), t))
    rois = []
    for t in (0, 1, 3):
        for k in range(3):
            corners = np.array([[10 + 36 * k, 8], [30 + 36 * k, 8], [30 + 36 * k, 24], [10 + 36 * k, 24]])
            rois.append(roifile.ImagejRoi.frompoints(corners, name=f"cell {k} {t}"))
            rois[-1].position = t + 1
    roifile.roiwrite(tmp_path / "movie/RoiSet.zip", rois)
    dataset = convert(tmp_path / "movie", tmp_path / "d.zarr")
    field = dataset.fields["movie"]
    assert field.annotation == "ImageJ ROIs"
    assert (field.annotated, field.cells) == ((True, True, False, True), (3, 3, 0, 3))
    assert (dataset.labels(FrameRef("movie", 0)) > 0).sum() == 3 * 20 * 16


def test_a_table_names_groups_and_parts(tmp_path, write_movie):
    for name in ("a", "b", "c", "d"):
        write_movie(tmp_path / "set" / name, 3)
    table = tmp_path / "set/groups.csv"
    table.write_text("field,patient,part\na,P1,train\nb,P1,val\nc,P2,test\nd,P3,train\n")
    dataset = convert(tmp_path / "set", tmp_path / "d.zarr")
    assert {ref.field for ref in dataset.splits.train} == {"a", "d"}
    assert dataset.fields["b"].groups == {"patient": "P1"}
    assert any("patient P1 appears in several parts" in warning for warning in dataset.warnings)
    with pytest.raises(BadInput, match="split by patient: patient 'P1' lies in train and val"):
        convert(tmp_path / "set", tmp_path / "e.zarr", Settings(split_by="patient"))
    table.write_text("field,patient\nz,P1\n")
    with pytest.raises(BadInput, match="no field 'z'; the fields are a, b, c, d"):
        find(tmp_path / "set")


def test_folders_tell_groups_and_tell_fields_of_one_name_apart(tmp_path, write_movie):
    for patient in ("patient_1", "patient_2", "patient_3"):
        write_movie(tmp_path / "set" / patient / "field_1", 3)
    dataset = convert(tmp_path / "set", tmp_path / "d.zarr")
    assert list(dataset.fields) == [f"patient_{k}_field_1" for k in (1, 2, 3)]
    assert dataset.fields["patient_2_field_1"].groups == {"patient": "2"}
    assert dataset.splits.unit == "patient"


def test_folds_test_every_group_once(tmp_path, write_movie):
    for name in "abcde":
        write_movie(tmp_path / "set" / name, 3)
    dataset = convert(tmp_path / "set", tmp_path / "d.zarr", Settings(folds=5))
    assert dataset.n_folds == 5
    tested = [{ref.field for ref in dataset.in_fold(k).splits.test} for k in range(5)]
    assert sorted(name for names in tested for name in names) == list("abcde")
    assert len({dataset.in_fold(k).content_hash for k in range(5)} | {dataset.content_hash}) == 6
    for k in range(5):
        splits = dataset.in_fold(k).splits
        parts = [{ref.field for ref in part} for part in (splits.train, splits.val, splits.test)]
        assert sum(map(len, parts)) == len(set.union(*parts)) == 5
    with pytest.raises(BadInput, match="has folds 0 to 4"):
        dataset.in_fold(5)
    with pytest.raises(BadInput, match=r"--folds 9: 3 or more are needed, and no more than groups \(5 by field\)"):
        convert(tmp_path / "set", tmp_path / "e.zarr", Settings(folds=9))


def test_binary_masks_are_split_by_a_watershed_when_asked(tmp_path, write_movie):
    movie = write_movie(tmp_path / "movie", 4)
    y, x = np.ogrid[:96, :128]
    pair = ((y - 40) ** 2 + (x - 40) ** 2 <= 144) | ((y - 40) ** 2 + (x - 60) ** 2 <= 144)
    for path in (movie / "masks").iterdir():
        tifffile.imwrite(path, (255 * pair).astype(np.uint8))
    one = convert(movie, tmp_path / "one.zarr")
    two = convert(movie, tmp_path / "two.zarr", Settings(split_touching=True))
    assert (one.fields["movie"].cells, two.fields["movie"].cells) == ((1,) * 4, (2,) * 4)
    assert two.fields["movie"].annotation == "binary: watershed"
    assert any("told apart by a watershed" in warning for warning in two.warnings)


@pytest.mark.filterwarnings("ignore")  # the plugin warns of its own libraries
def test_a_microscope_file_goes_through_bioio(tmp_path, discs, grey, monkeypatch):
    """The OME-TIFF plugin stands in for that of a microscope's own format."""
    pytest.importorskip("bioio_ome_tiff")
    from data_io.readers import bio

    cells = np.stack([discs(t) for t in range(4)]).astype(np.uint16)
    images = np.stack([np.stack([grey(c, t), grey(c, 50 + t)]) for t, c in enumerate(cells)])[:, :, None]
    meta = {"axes": "TCZYX", "PhysicalSizeX": 0.4, "PhysicalSizeY": 0.4, "Channel": {"Name": ["BF", "GFP"]}}
    (tmp_path / "scope").mkdir()
    tifffile.imwrite(tmp_path / "cells.ome.tiff", images, metadata=meta)
    shutil.copy(tmp_path / "cells.ome.tiff", tmp_path / "scope/cells.czi")
    tifffile.imwrite(tmp_path / "scope/cells_mask.tif", cells, photometric="minisblack")
    from bioio import BioImage
    from bioio_ome_tiff import Reader

    monkeypatch.setattr(bio, "_bio_image", lambda path: BioImage(tmp_path / "cells.ome.tiff", reader=Reader))
    dataset = convert(tmp_path / "scope", tmp_path / "d.zarr", _read(channels=("GFP",)))
    field = dataset.fields["cells"]
    assert dataset.facts["source"]["reader"] == "bioio"
    assert (field.channels, field.pixel_size_um, field.cells) == (("GFP",), 0.4, (6,) * 4)
    assert np.array_equal(dataset.image(FrameRef("cells", 2))[0], images[2, 1, 0])


def test_a_microscope_file_without_its_plugin_names_the_plugin(tmp_path):
    pytest.importorskip("bioio")
    (tmp_path / "a.nd2").write_bytes(b"no such format")
    with pytest.raises(BadInput, match=r"a.nd2: unreadable .*pip install bioio-nd2, or export it as TIFF"):
        find(tmp_path / "a.nd2")


def test_the_reader_can_be_chosen_and_is_named(tmp_path, discs, grey, capsys):
    source = _gen5(tmp_path / "export", discs, grey)
    assert find(source, Options(reader="folder")).reader == "folder"
    with pytest.raises(BadInput, match="not what the reader ctc reads"):
        find(source, Options(reader="ctc"))
    with pytest.raises(BadInput, match="--reader tiff: unknown; choose from auto, ome-zarr, ctc, gen5"):
        find(source, Options(reader="tiff"))
    assert main([str(source), str(tmp_path / "d.zarr")]) == 0
    out = capsys.readouterr().out
    assert "read as gen5, written as OME-Zarr 0.5" in out
    assert "of 0.65 um" in out


def test_a_mosaic_with_numbers_of_its_own_is_one_frame_unless_told(tmp_path, discs, grey):
    (tmp_path / "set/masks").mkdir(parents=True)
    cells = np.block(
        [[np.where(discs(2 * r + c) > 0, discs(2 * r + c) + 6 * (2 * r + c), 0) for c in range(2)] for r in range(3)]
    )
    tifffile.imwrite(tmp_path / "set/all.tif", grey(cells))
    tifffile.imwrite(tmp_path / "set/masks/all.tif", cells.astype(np.uint16))
    with pytest.raises(BadInput, match=r"1 annotated frames; .*or cut a mosaic with --tiles RxC"):
        convert(tmp_path / "set", tmp_path / "d.zarr")
    dataset = convert(tmp_path / "set", tmp_path / "d.zarr", _read(tiles=(3, 2)))
    assert [field.cells for field in dataset.fields.values()] == [(6,)] * 6
    assert any("neighbouring ones share a sample" in warning for warning in dataset.warnings)


def test_tiles_of_a_movie_stay_together_over_time(tmp_path, discs, grey):
    (tmp_path / "set/frames").mkdir(parents=True)
    (tmp_path / "set/masks").mkdir()
    for t in range(4):
        cells = np.hstack([discs(t), np.where(discs(t) > 0, discs(t) + 6, 0)])
        tifffile.imwrite(tmp_path / f"set/frames/t{t}.tif", grey(cells, t))
        tifffile.imwrite(tmp_path / f"set/masks/t{t}.tif", cells)
    fields = convert(tmp_path / "set", tmp_path / "d.zarr", _read(tiles=(1, 2))).fields
    assert {name: field.n_frames for name, field in fields.items()} == {"set_r1c1": 4, "set_r1c2": 4}


def test_an_ome_zarr_without_units_has_no_pixel_size_and_links_out_of_it_are_refused(tmp_path, discs, grey):
    source, _ = _ome_zarr(tmp_path / "a.zarr", "0.5", discs, grey)
    meta = source / "zarr.json"
    meta.write_text(meta.read_text().replace('"unit": "nanometer"', '"long_name": "side"'))
    assert find(source).fields[0].pixel_size_um is None
    (source / "labels").rename(tmp_path / "elsewhere")
    (source / "labels").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match="names a path outside itself"):
        find(source)


def test_label_chunks_that_a_program_left_out_are_background_and_said(tmp_path, discs, grey):
    source, _ = _ome_zarr(tmp_path / "a.zarr", "0.5", discs, grey)
    (source / "labels/cells/0/c/2/0/0").unlink()
    told = find(source).warnings[0]
    assert re.search(r"labels/cells/0: \d chunks are not stored, .* the first: taken as background", told)


@pytest.mark.parametrize("option", [{"labels": "cells"}, {"truth": "gold"}])
def test_an_option_that_the_reader_does_not_heed_is_refused(option, movie):
    with pytest.raises(BadInput, match=r"this was read by folder; leave it out"):
        find(movie, Options(**option))


def test_masks_of_one_value_in_each_frame_are_foreground(tmp_path, write_movie):
    movie = write_movie(tmp_path / "movie", 4)
    for t, path in enumerate(sorted((movie / "masks").iterdir())):
        tifffile.imwrite(path, ((255 if t else 1) * (tifffile.imread(path) > 0)).astype(np.uint8))
    field = convert(movie, tmp_path / "d.zarr").fields["movie"]
    assert (field.annotation, field.cells) == ("binary: connected components", (6,) * 4)


def test_smoothed_edges_and_classes_are_no_labels(tmp_path, write_movie):
    movie = write_movie(tmp_path / "movie", 4)
    for path in (movie / "masks").iterdir():
        cells = tifffile.imread(path) > 0
        inner = cells[1:-1, 1:-1] & cells[:-2, 1:-1] & cells[2:, 1:-1] & cells[1:-1, :-2] & cells[1:-1, 2:]
        classes = cells.astype(np.uint8)
        classes[1:-1, 1:-1] += inner
        tifffile.imwrite(path, classes)
    with pytest.raises(BadInput, match=r"2 values that lie in many places each, as classes, smoothed edges"):
        convert(movie, tmp_path / "d.zarr")


def test_images_whose_names_look_like_those_of_masks_are_images(tmp_path, grey, discs):
    for t in range(3):
        (tmp_path / "set").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / f"set/label-free_{t}.tif", grey(discs(t), t))
    found = find(tmp_path / "set").fields[0]
    assert [file.drawing for file in found.files] == [None] * 3


def test_wells_of_two_plates_are_two_wells(tmp_path, discs, grey):
    for plate in ("P1", "P2"):
        _gen5(
            tmp_path / "set" / plate,
            discs,
            lambda cells, seed, plate=plate: grey(cells, seed + ord(plate[1])),
            wells=("B1", "B2"),
        )
    dataset = convert(tmp_path / "set", tmp_path / "d.zarr")
    assert list(dataset.fields) == ["P1_B1_1", "P1_B2_1", "P2_B1_1", "P2_B2_1"]
    assert dataset.splits.unit == "well"
    assert not any("several parts" in warning for warning in dataset.warnings)


@pytest.mark.parametrize("axes", ["ctyx", "yxt", "tyx"])
def test_an_ome_zarr_may_have_its_axes_in_any_order(axes, tmp_path, discs, grey):
    source, cells = _ome_zarr(tmp_path / "a.zarr", "0.5", discs, grey)
    images = np.stack([grey(c, t) for t, c in enumerate(cells)])
    kinds = {"t": "time", "y": "space", "x": "space", "c": "channel"}
    stored = images[None] if "c" in axes else images
    stored = stored.transpose(["ctyx".index(a) - ("c" not in axes) for a in axes])
    shutil.rmtree(source / "full")
    zarr.create_array(source / "full", data=stored, zarr_format=3)
    group = zarr.open_group(source, mode="a")
    ome = dict(group.attrs["ome"])
    level = {"path": "full", "coordinateTransformations": [{"type": "scale", "scale": [1.0] * len(axes)}]}
    ome["multiscales"] = [{"axes": [{"name": a, "type": kinds[a]} for a in axes], "datasets": [level]}]
    group.attrs["ome"] = ome
    dataset = convert(source, tmp_path / "d.zarr")
    assert np.array_equal(dataset.image(FrameRef("a", 2))[0], images[2])


def test_a_cell_with_a_stray_piece_beside_fields_of_labels_stays_one(tmp_path, write_movie):
    for name in ("a", "b", "c"):
        write_movie(tmp_path / "set" / name, 3)
    for path in (tmp_path / "set/b/masks").iterdir():
        lone = np.where(tifffile.imread(path) == 3, 7, 0)
        lone[0, 0] = 7
        tifffile.imwrite(path, lone.astype(np.uint16))
    field = convert(tmp_path / "set", tmp_path / "d.zarr").fields["b"]
    assert (field.annotation, field.cells) == ("labels", (1, 1, 1))


def test_names_and_groups_that_contradict_are_refused(tmp_path, write_movie):
    for name in ("a", "b", "c"):
        write_movie(tmp_path / "set" / name, 3)
    table = tmp_path / "set/groups.csv"
    table.write_text("field,patient\na,P1\na,P2\n")
    with pytest.raises(BadInput, match="field 'a' has two rows"):
        find(tmp_path / "set")
    table.write_text("field,patient\na,P1\nb,P2\n")
    with pytest.raises(BadInput, match="patient of field 'c' is unknown"):
        convert(tmp_path / "set", tmp_path / "d.zarr", Settings(split_by="patient"))


def test_a_frame_that_is_there_twice_is_refused(tmp_path, write_movie):
    movie = write_movie(tmp_path / "movie", 4)
    shutil.copy(movie / "frames/t000.tif", movie / "frames/t002.tif")
    with pytest.raises(BadInput, match=r"movie t002.tif: the same pixels as movie t000.tif; remove one of the two"):
        convert(movie, tmp_path / "d.zarr")
    assert not (tmp_path / "d.zarr").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["movie"]


@pytest.mark.parametrize("out", ["file/d.zarr", "n" * 300, "empty"])
def test_a_place_that_cannot_be_written_is_one_line(out, tmp_path, movie):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=r"cannot be written|exists and is no data set"):
        convert(movie, tmp_path / out)
