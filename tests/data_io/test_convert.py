"""Conversion: what goes in comes out, whole or not at all."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from data_io.convert import convert, main
from data_io.errors import BadInput
from data_io.intake import Settings
from data_io.store import Dataset, FrameRef

ROOT = Path(__file__).resolve().parents[2]


def test_pixels_and_labels_come_back_as_they_went_in(movie, discs, grey, tmp_path):
    dataset = convert(movie, tmp_path / "d.zarr", Settings(pixel_size_um=0.5))
    field = dataset.fields["movie"]
    assert (field.n_frames, field.shape, field.dtype, field.pixel_size_um) == (5, (96, 128), "uint16", 0.5)
    assert (field.annotation, field.cells, field.tracked) == ("labels", (6,) * 5, True)
    for t, ref in enumerate(dataset.frames()):
        assert np.array_equal(dataset.image(ref)[0], grey(discs(t), t))
        assert np.array_equal(dataset.labels(ref), discs(t))
        seen = dataset.normalised(ref)
        assert seen.dtype == np.float32
        assert abs(np.percentile(seen, 1)) < 0.01
        assert abs(np.percentile(seen, 99.8) - 1) < 0.01


def test_a_second_run_does_nothing_and_another_source_is_refused(movie, tmp_path, capsys, write_movie):
    out = tmp_path / "d.zarr"
    assert main([str(movie), str(out)]) == 0
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    assert main([str(movie), str(out)]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before
    with pytest.raises(BadInput, match="pixel_size_um=None, not 2"):
        convert(movie, out, Settings(pixel_size_um=2))
    with pytest.raises(BadInput, match="another data set"):
        convert(write_movie(tmp_path / "other", frames=4), out)


def test_the_yeast_movie(yeast, tmp_path):
    started = time.perf_counter()
    dataset = convert(yeast, tmp_path / "yeast.zarr")
    assert time.perf_counter() - started < 20
    assert [len(dataset.frames(part)) for part in ("train", "val", "test")] == [6, 2, 2]
    assert [ref.frame for ref in dataset.frames("test")] == [8, 9]
    assert dataset.recommended["crop"] == 128
    assert any("same cells" in warning for warning in dataset.warnings)
    field = next(iter(dataset.fields.values()))
    assert field.tracked
    assert field.sources[3] == "im003_channel1_phase.tif"
    truth = tifffile.imread(yeast / "masks/im003_mask1.tif")
    assert np.array_equal(dataset.labels(FrameRef(field.name, 3)), truth)


def test_png_8_bit_colour_and_binary_masks(tmp_path, discs):
    for name in ("images", "labels"):
        (tmp_path / "set" / name).mkdir(parents=True)
    for t in range(3):
        labels = discs(t, size=(70, 110), n=3)
        colour = np.stack([40 + 100 * (labels > 0) + t, 50 + 0 * labels, 60 + 0 * labels], axis=-1)
        Image.fromarray(colour.astype(np.uint8)).save(tmp_path / f"set/images/a{t}.png")
        Image.fromarray(((labels > 0) * 255).astype(np.uint8)).save(tmp_path / f"set/labels/a{t}.png")
    dataset = convert(tmp_path / "set", tmp_path / "d.zarr")
    field = dataset.fields["set"]
    assert (field.dtype, field.annotation, field.cells) == ("uint8", "binary: connected components", (3, 3, 3))
    assert sum("grey" in warning for warning in dataset.warnings) == 1
    assert any("connected components" in warning for warning in dataset.warnings)
    assert dataset.image(FrameRef("set", 0)).max() == round((140 + 50 + 60) / 3)


def test_a_16_bit_colour_png_keeps_its_bits(tmp_path):
    import imagecodecs

    from data_io.images import read

    colour = np.full((20, 30, 3), 1000, np.uint16)
    colour[5:9, 5:9] = 60001
    (tmp_path / "c.png").write_bytes(imagecodecs.png_encode(colour))
    pixels, _ = read(tmp_path / "c.png")
    assert pixels.dtype == np.uint16
    assert np.array_equal(pixels[0, 0], colour[..., 0])


def test_frames_of_different_size_are_fields_of_their_own(tmp_path, discs, grey):
    for t, size in enumerate([(80, 96), (64, 120), (100, 70), (80, 96), (90, 90)]):
        labels = discs(size=size, n=2, radius=6)
        tifffile.imwrite(tmp_path / f"img{t}.tif", grey(labels, t))
        tifffile.imwrite(tmp_path / f"img{t}_masks.tif", labels)
    dataset = convert(tmp_path, tmp_path / "d.zarr")
    assert len(dataset.fields) == 5
    assert {field.shape for field in dataset.fields.values()} == {(80, 96), (64, 120), (100, 70), (90, 90)}
    assert dataset.splits.unit == "field"
    assert [len(dataset.frames(part)) for part in ("train", "val", "test")] == [3, 1, 1]


def test_empty_frames_missing_masks_and_an_empty_field(tmp_path, write_movie):
    for k in range(4):
        write_movie(tmp_path / f"set/f{k}", frames=3, n=0 if k == 0 else 4)
    (tmp_path / "set/f1/masks/t002.tif").unlink()
    dataset = convert(tmp_path / "set", tmp_path / "d.zarr")
    assert dataset.fields["f0"].cells == (0, 0, 0)
    assert dataset.fields["f0"].annotated == (True,) * 3
    assert dataset.frames("unannotated") == [FrameRef("f1", 2)]
    assert dataset.split_of(FrameRef("f1", 2)) == "unannotated"
    with pytest.raises(BadInput, match="not annotated"):
        dataset.labels(FrameRef("f1", 2))
    for part in ("train", "val", "test"):
        assert any(dataset.labels(ref).any() for ref in dataset.frames(part))
    empty = dataset.normalised(FrameRef("f0", 0))
    assert empty.std() < 0.1, "noise of an empty frame must not be blown up to the contrast of cells"


@pytest.mark.parametrize("shallow", [("f0",), ("f0", "f2"), ("f2",)])
def test_fields_of_8_and_16_bit_look_the_same(tmp_path, write_movie, shallow):
    for name in ("f0", "f1", "f2"):
        for path in sorted((write_movie(tmp_path / f"set/{name}", frames=2) / "frames").iterdir()):
            image = tifffile.imread(path)
            tifffile.imwrite(path, (image >> 4).astype(np.uint8) if name in shallow else image << 4)
    dataset = convert(tmp_path / "set", tmp_path / "d.zarr")
    assert {field.dtype for field in dataset.fields.values()} == {"uint8", "uint16"}
    for t in range(2):
        deep, flat = (dataset.normalised(FrameRef(name, t)) for name in ("f1", shallow[0]))
        assert np.abs(deep - flat).mean() < 0.05
        assert flat.std() > 0.2


def test_cell_size_is_that_of_the_training_frames(tmp_path, write_movie):
    for name, radius in (("a", 4), ("b", 8), ("c", 12)):
        write_movie(tmp_path / f"set/{name}", frames=1, radius=radius)
    dataset = convert(tmp_path / "set", tmp_path / "d.zarr")
    radius = {"a": 4, "b": 8, "c": 12}[dataset.frames("train")[0].field]
    assert dataset.recommended["cell_diameter_px"] == pytest.approx(2 * radius, rel=0.1)
    alone = convert(tmp_path / "set", tmp_path / "e.zarr", Settings(annotations=False))
    assert alone.recommended["cell_diameter_px"] == pytest.approx(16, rel=0.1)


@pytest.mark.parametrize(
    ("how", "scale"),
    [
        ({"imagej": True, "resolution": (4, 4), "metadata": {"unit": "um", "finterval": 30}}, (0.25, 30)),
        ({"imagej": True, "resolution": (4, 4), "metadata": {"unit": "\\u00B5m"}}, (0.25, None)),
        ({"imagej": True, "resolution": (4, 5), "metadata": {"unit": "micron"}}, (None, None)),
        ({"imagej": True, "resolution": (4, 4), "metadata": {"unit": "pixel"}}, (None, None)),
        ({"resolution": (300, 300), "resolutionunit": "INCH"}, (None, None)),
        (
            {
                "ome": True,
                "metadata": {
                    "axes": "TYX",
                    "PhysicalSizeX": 250.0,
                    "PhysicalSizeXUnit": "nm",
                    "PhysicalSizeY": 250.0,
                    "PhysicalSizeYUnit": "nm",
                    "TimeIncrement": 2.0,
                    "TimeIncrementUnit": "min",
                },
            },
            (0.25, 120),
        ),
    ],
)
def test_pixel_size_and_interval_come_from_the_files_where_they_say_it(tmp_path, discs, grey, how, scale):
    labels = np.stack([discs(t) for t in range(6)])
    film = np.stack([grey(one, t) for t, one in enumerate(labels)])
    tifffile.imwrite(tmp_path / "film.tif", film, photometric="minisblack", **how)
    tifffile.imwrite(tmp_path / "film_mask.tif", labels, photometric="minisblack")
    field = convert(tmp_path / "film.tif", tmp_path / "d.zarr").fields["film"]
    assert (field.pixel_size_um, field.frame_interval_s) == scale
    told = convert(tmp_path / "film.tif", tmp_path / "e.zarr", Settings(pixel_size_um=0.5)).fields["film"]
    assert told.pixel_size_um == 0.5


def test_a_multi_page_movie(tmp_path, discs, grey):
    labels = np.stack([discs(t) for t in range(6)])
    tifffile.imwrite(tmp_path / "film.tif", np.stack([grey(one, t) for t, one in enumerate(labels)]), imagej=True)
    tifffile.imwrite(tmp_path / "film_mask.tif", labels, compression="zlib", photometric="minisblack")
    for source in (tmp_path, tmp_path / "film.tif"):
        dataset = convert(source, tmp_path / f"out/{source.stem}.zarr")
        ref = dataset.frames()[3]
        assert len(dataset.frames()) == 6
        assert np.array_equal(dataset.labels(ref), labels[3])


def test_huge_labels_are_renumbered_and_keep_their_cell(tmp_path, movie):
    for path in (movie / "masks").iterdir():
        labels = tifffile.imread(path).astype(np.int32)
        tifffile.imwrite(path, np.where(labels > 0, labels * 100_000_000, 0).astype(np.int32))
    dataset = convert(movie, tmp_path / "d.zarr")
    assert [sorted(np.unique(dataset.labels(ref)).tolist()) for ref in dataset.frames()] == [list(range(7))] * 5
    assert dataset.fields["movie"].tracked


def test_frames_without_masks_are_for_prediction_only(movie, tmp_path):
    shutil.rmtree(movie / "masks")
    with pytest.raises(BadInput, match="no masks at all"):
        convert(movie, tmp_path / "d.zarr")
    dataset = convert(movie, tmp_path / "d.zarr", Settings(annotations=False))
    assert dataset.splits.unit == "none"
    assert len(dataset.frames("unannotated")) == 5


def test_a_finished_store_is_opened_as_it_is(movie, tmp_path):
    first = convert(movie, tmp_path / "d.zarr")
    assert convert(tmp_path / "d.zarr", tmp_path / "e.zarr").content_hash == first.content_hash
    assert not (tmp_path / "e.zarr").exists()


def test_a_killed_conversion_leaves_no_store_and_the_next_one_completes(tmp_path, write_movie):
    source, out = write_movie(tmp_path / "movie", frames=60, size=(400, 400)), tmp_path / "out/d.zarr"
    out.parent.mkdir()
    command = [sys.executable, "-m", "data_io.convert", str(source), str(out)]
    process = subprocess.Popen(command, cwd=ROOT)
    while process.poll() is None and not list(out.parent.glob(".*.partial/*/*")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if not out.exists():
        with pytest.raises(BadInput, match="no such data set"):
            Dataset.open(out)
    convert(source, out)
    assert [path.name for path in out.parent.iterdir()] == ["d.zarr"]


def test_the_command_ends_with_one_line_and_exit_2(tmp_path):
    command = [sys.executable, "-m", "data_io.convert", str(tmp_path), str(tmp_path / "d.zarr")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"error: {tmp_path}: empty folder; put images in frames/ and label images in masks/, with the same names"
    ]


def test_the_store_is_valid_ome_zarr(movie, tmp_path):
    import zarr
    from ome_zarr_models.v05 import Image as OmeImage
    from ome_zarr_models.v05 import ImageLabel, Labels

    out = tmp_path / "d.zarr"
    convert(movie, out, Settings(pixel_size_um=0.5, frame_interval_s=60))
    image = OmeImage.from_zarr(zarr.open_group(out / "movie", mode="r"))
    scale = image.ome_attributes.multiscales[0].datasets[0].coordinateTransformations[0].scale
    assert list(scale) == [60, 1, 0.5, 0.5]
    assert Labels.from_zarr(zarr.open_group(out / "movie/labels", mode="r")).ome_attributes.labels == ["truth"]
    ImageLabel.from_zarr(zarr.open_group(out / "movie/labels/truth", mode="r"))
    series = json.loads((out / "OME/zarr.json").read_text())["attributes"]["ome"]["series"]
    assert series == ["movie"]
