"""TIFF and PNG files become frames, one at a time; what their axes mean is said or refused, never guessed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from data_io import images, paged
from data_io.errors import BadInput
from data_io.images import Options

if TYPE_CHECKING:
    from pathlib import Path

RNG = np.random.default_rng(0)
MOVIE = RNG.integers(0, 4000, (6, 20, 30), np.uint16)
STACK = RNG.integers(0, 4000, (2, 5, 3, 20, 30), np.uint16)
"""T, Z, C, Y, X."""


def written(folder: Path, pixels: np.ndarray, axes: str | None = None, **how: Any) -> Path:
    metadata = {"axes": axes} if axes else {}
    tifffile.imwrite(folder / "a.tif", pixels, metadata=metadata | how.pop("metadata", {}), **how)
    return folder / "a.tif"


PLAIN = [
    {},
    {"compression": "zlib"},
    {"compression": "zstd", "predictor": True},
    {"imagej": True},
    {"imagej": True, "axes": "TYX", "compression": "zlib"},
    {"ome": True, "axes": "TYX"},
    {"ome": True, "axes": "TYX", "tile": (16, 16), "compression": "lzw"},
    {"byteorder": ">"},
    {"byteorder": ">", "compression": "zlib"},
    {"bigtiff": True},
    {"rowsperstrip": 3, "compression": "zlib"},
]


@pytest.mark.parametrize("how", PLAIN, ids=str)
def test_a_movie_frame_by_frame(how, tmp_path):
    path = written(tmp_path, MOVIE, photometric="minisblack", **how)
    plane = images.header(path)
    assert (plane.frames, plane.channels, plane.shape, plane.dtype, plane.depth) == (6, 1, (20, 30), "uint16", 1)
    found = list(images.frames(path))
    assert [frame.shape for frame, _ in found] == [(1, 20, 30)] * 6
    np.testing.assert_array_equal(np.stack([frame[0] for frame, _ in found]), MOVIE)
    assert found[0][0].dtype.isnative
    stack, note = images.read(path)
    np.testing.assert_array_equal(stack[:, 0], MOVIE)
    assert note is None


@pytest.mark.parametrize("how", [{}, {"compression": "zlib"}], ids=str)
def test_one_frame_is_decoded_at_a_time(how, tmp_path, monkeypatch):
    path = written(tmp_path, MOVIE, photometric="minisblack", **how)
    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", lambda *_, **__: pytest.fail("the whole movie was read"))
    taken = []
    take = paged.Paged.take
    monkeypatch.setattr(paged.Paged, "take", lambda self, at: taken.append(1) or take(self, at))
    stream = images.frames(path)
    np.testing.assert_array_equal(next(stream)[0][0], MOVIE[0])
    assert len(taken) == 1
    stream.close()


def test_pages_written_one_by_one(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for page in MOVIE:
            file.write(page, compression="zlib")
    np.testing.assert_array_equal(images.read(tmp_path / "a.tif")[0][:, 0], MOVIE)


def test_what_is_read_as_time_is_said(tmp_path):
    told = images.header(written(tmp_path, MOVIE, photometric="minisblack")).notes
    assert told == (f"{tmp_path}/a.tif: its 6 pages are read as time; if they are depth, say so with --z",)
    (told,) = images.header(written(tmp_path, MOVIE, "ZYX", imagej=True)).notes
    assert "its 6 slices are read as time; if they are depth, say so with --z" in told
    assert images.header(written(tmp_path, MOVIE, "TYX", imagej=True)).notes == ()
    assert images.header(written(tmp_path, MOVIE[0])).notes == ()


@pytest.mark.parametrize("how", [{"ome": True}, {}], ids=str)
def test_depth_is_not_time(how, tmp_path):
    path = written(tmp_path, MOVIE, "ZYX", photometric="minisblack", **how)
    for read in (images.header, lambda path: next(images.frames(path))):
        with pytest.raises(BadInput, match=r"a.tif: 6 planes in depth; say --z max\|mean\|focus or --z N"):
            read(path)


@pytest.mark.parametrize("how", [{"imagej": True}, {"ome": True}, {"ome": True, "compression": "zlib"}], ids=str)
def test_depth_over_time_with_channels(how, tmp_path):
    path = written(tmp_path, STACK, "TZCYX", photometric="minisblack", **how)
    with pytest.raises(BadInput, match="5 planes in depth"):
        images.header(path)
    expected = {
        "max": STACK.max(1),
        "mean": np.rint(STACK.mean(1)).astype(np.uint16),
        "0": STACK[:, 0],
        "4": STACK[:, 4],
    }
    for z, pixels in expected.items():
        plane = images.header(path, Options(z=z))
        assert (plane.frames, plane.channels, plane.depth) == (2, 3, 5)
        np.testing.assert_array_equal(images.read(path, Options(z=z))[0], pixels)
    with pytest.raises(BadInput, match="--z 5, but its planes are 0 to 4"):
        images.header(path, Options(z="5"))
    with pytest.raises(BadInput, match="--z middle: unknown; choose from max, mean, focus"):
        next(images.frames(path, Options(z="middle")))


def test_the_plane_in_focus_is_found(tmp_path):
    from scipy.ndimage import gaussian_filter

    sharp = RNG.normal(1000, 200, (20, 30))
    stack = np.stack([gaussian_filter(sharp, s) for s in (3, 0, 2)]).astype(np.uint16)
    path = written(tmp_path, stack, "ZYX", ome=True, photometric="minisblack")
    np.testing.assert_array_equal(images.read(path, Options(z="focus"))[0][0, 0], stack[1])


@pytest.mark.parametrize("how", [{}, {"imagej": True, "axes": "ZYX"}, {"ome": True, "axes": "CYX"}], ids=str)
def test_a_lone_axis_is_depth_when_told(how, tmp_path):
    path = written(tmp_path, MOVIE, photometric="minisblack", **how)
    plane = images.header(path, Options(z="max"))
    assert (plane.frames, plane.depth, plane.notes) == (1, 6, ())
    np.testing.assert_array_equal(images.read(path, Options(z="max"))[0][0, 0], MOVIE.max(0))
    time = written(tmp_path, MOVIE, "TYX", imagej=True)
    assert images.header(time, Options(z="max")).frames == 6


def test_more_than_two_stack_axes_are_refused(tmp_path):
    path = written(tmp_path, RNG.integers(0, 9, (2, 3, 2, 20, 30), np.uint8), "TZRYX", photometric="minisblack")
    with pytest.raises(BadInput, match="a stack of 2 T x 3 Z x 2 R planes; export one movie per file"):
        images.header(path)


def test_channels_are_chosen_by_name_or_number(tmp_path):
    names = {"Channel": {"Name": ["Bright Field", "GFP", "DAPI"]}}
    path = written(tmp_path, STACK[:, 0], "TCYX", ome=True, metadata=names, photometric="minisblack")
    assert images.header(path).channel_names == ("Bright Field", "GFP", "DAPI")
    chosen = Options(channels=("dapi", "0"))
    plane = images.header(path, chosen)
    assert (plane.channels, plane.channel_names) == (2, ("DAPI", "Bright Field"))
    np.testing.assert_array_equal(images.read(path, chosen)[0], STACK[:, 0, [2, 0]])
    with pytest.raises(BadInput, match="no channel 'RFP'; it has Bright Field, GFP, DAPI"):
        images.header(path, Options(channels=("RFP",)))
    many = written(tmp_path, MOVIE, "CYX", ome=True, metadata={"Channel": {"Name": list("abcdef")}})
    assert (images.header(many).frames, images.header(many).channels) == (1, 6)


def test_scale_and_names_of_imagej(tmp_path):
    how = {"resolution": (2.0, 2.0), "metadata": {"unit": "um", "finterval": 30.0, "Labels": ["BF", "GFP", "DAPI"]}}
    plane = images.header(written(tmp_path, STACK[0, 0], "CYX", imagej=True, **how))
    assert (plane.pixel_size_um, plane.channel_names) == (0.5, ("BF", "GFP", "DAPI"))
    assert images.header(written(tmp_path, MOVIE, "TYX", imagej=True)).channel_names == ()


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_colour_becomes_grey(planar, tmp_path):
    rgb = RNG.integers(0, 255, (20, 30, 3), np.uint8)
    stored = rgb if planar == "contig" else np.moveaxis(rgb, -1, 0)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar)
    pixels, note = images.read(tmp_path / "a.tif")
    np.testing.assert_array_equal(pixels[0, 0], np.rint(rgb.mean(-1)).astype(np.uint8))
    assert note == images.GREY
    assert images.header(tmp_path / "a.tif").shape == (20, 30)


def test_kinds_of_png(tmp_path):
    grey = RNG.integers(0, 255, (20, 30), np.uint8)
    for name, pixels in {
        "L": grey,
        "RGB": np.stack([grey] * 3, -1),
    }.items():
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        read, note = images.read(tmp_path / f"{name}.png")
        np.testing.assert_array_equal(read[0, 0], grey)
        assert note is None
    Image.fromarray(MOVIE[0]).save(tmp_path / "16.png")
    np.testing.assert_array_equal(images.read(tmp_path / "16.png")[0][0, 0], MOVIE[0])
    assert images.header(tmp_path / "16.png").dtype == "uint16"


def test_transparency_and_tables_of_colours_are_refused(tmp_path):
    grey = RNG.integers(0, 255, (20, 30), np.uint8)
    palette = Image.fromarray(grey // 64)
    palette.putpalette([0, 0, 0, 90, 90, 90, 180, 180, 180, 250, 250, 250])
    palette.save(tmp_path / "p.png")
    Image.fromarray(np.stack([grey] * 4, -1)).save(tmp_path / "RGBA.png")
    Image.fromarray(np.stack([grey] * 2, -1)).save(tmp_path / "LA.png")
    colours = RNG.integers(0, 2**16, (3, 256), np.uint16)
    tifffile.imwrite(tmp_path / "p.tif", grey, photometric="palette", colormap=colours)
    for name, fault in {
        "p.png": "pixels from a table of colours",
        "p.tif": "pixels from a table of colours",
        "RGBA.png": "4 values per pixel, as with transparency",
        "LA.png": "2 values per pixel",
    }.items():
        with pytest.raises(BadInput, match=rf"{name}: {fault}.*; export the raw grey values"):
            images.header(tmp_path / name)
    np.testing.assert_array_equal(next(images.raw(tmp_path / "p.png"))[0, 0, :, :, 0], grey // 64)
    tifffile.imwrite(tmp_path / "lut.tif", grey, imagej=True, colormap=colours)
    np.testing.assert_array_equal(images.read(tmp_path / "lut.tif")[0][0, 0], grey)


def test_a_file_does_not_open_others(tmp_path):
    """OME metadata may name planes in other files, anywhere; a file stands for itself."""
    for name in ("a.ome.tif", "b.ome.tif"):
        tifffile.imwrite(tmp_path / name, MOVIE[0], metadata=None)
    planes = '<TiffData FirstT="{0}" IFD="0" PlaneCount="1"><UUID FileName="{1}.ome.tif">urn:uuid:{0}</UUID></TiffData>'
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        'UUID="urn:uuid:0"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" '
        'SizeX="30" SizeY="20" SizeC="1" SizeZ="1" SizeT="2">'
        f"{planes.format(0, 'a')}{planes.format(1, 'b')}</Pixels></Image></OME>"
    )
    tifffile.imwrite(tmp_path / "a.ome.tif", MOVIE[0], description=xml, metadata=None)
    assert images.header(tmp_path / "a.ome.tif").frames == 1
    np.testing.assert_array_equal(images.read(tmp_path / "a.ome.tif")[0][0, 0], MOVIE[0])
    tifffile.imwrite(tmp_path / "a.ome.tif", MOVIE[:2], description=xml, metadata=None, photometric="minisblack")
    with pytest.raises(BadInput, match="one of several files of an OME-TIFF; export one file that holds all"):
        images.header(tmp_path / "a.ome.tif")


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_bombs_are_refused_before_they_are_decoded(suffix, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "BOMB_BYTES", 2**20)
    empty = np.zeros((1024, 1024), np.uint8)
    if suffix == ".png":
        Image.fromarray(empty).save(tmp_path / "a.png")
    else:
        tifffile.imwrite(tmp_path / "a.tif", empty, compression="zlib")
    with pytest.raises(BadInput, match=r"a plane of 1 MiB in a file of \d KiB, as in a decompression bomb"):
        images.header(tmp_path / f"a{suffix}")
    monkeypatch.setattr(images, "MAX_PIXELS", 2**19)
    with pytest.raises(BadInput, match="1024 x 1024 pixels in one plane; cut it into tiles first"):
        images.header(tmp_path / f"a{suffix}")


def test_a_plane_too_large_in_its_header_alone(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(BadInput, match="60000 x 60000 pixels in one plane"):
        images.header(tmp_path / "a.png")


def test_an_exotic_compression_is_named(tmp_path):
    path = written(tmp_path, MOVIE[0], compression="zlib")
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages.first.tags["Compression"].overwrite(32766)
    with pytest.raises(BadInput, match=r"a.tif: unreadable \(.*(NEXT|32766)"):
        images.read(path)


def test_a_file_you_may_not_read(tmp_path, monkeypatch):
    path = written(tmp_path, MOVIE[0])

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", denied)  # root may read anything
    with pytest.raises(BadInput, match=r"a\.tif: you may not read this file; change its permissions"):
        images.header(path)
