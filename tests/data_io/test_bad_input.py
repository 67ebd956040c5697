"""Every unusable image or mask gives one line: file, fault, remedy; nothing stays on disk. Odd, honest ones are kept.

The names of the cases are the items of the list of bad input, by images, masks and set.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from data_io.convert import convert, main
from data_io.errors import BadInput, entry_point
from data_io.intake import Settings
from data_io.store import Dataset, FrameRef

Spoil = Callable[[Path], object]
FRAME, MASK = "frames/t001.tif", "masks/t001.tif"
SHAPE = (96, 128)
NAN = np.full(SHAPE, np.nan, np.float32)


def _cut(share: float, **how: object) -> Spoil:
    def spoil(movie: Path) -> None:
        tifffile.imwrite(movie / FRAME, tifffile.imread(movie / FRAME), **how)
        data = (movie / FRAME).read_bytes()
        (movie / FRAME).write_bytes(data[: int(share * len(data))])

    return spoil


def _mask(values: np.ndarray, **how: object) -> Spoil:
    return lambda movie: tifffile.imwrite(movie / MASK, values, **how)


def _frame(values: np.ndarray, **how: object) -> Spoil:
    return lambda movie: tifffile.imwrite(movie / FRAME, values, **how)


def _as_png(change: Callable[[np.ndarray], Image.Image], share: float = 1) -> Spoil:
    """Replace the frame by a PNG, cut to a share of its bytes."""

    def spoil(movie: Path) -> None:
        grey = (tifffile.imread(movie / FRAME) // 8).astype(np.uint8)
        (movie / FRAME).unlink()
        path = (movie / FRAME).with_suffix(".png")
        change(grey).save(path)
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    return spoil


def _flip_zlib(movie: Path) -> None:
    tifffile.imwrite(movie / FRAME, tifffile.imread(movie / FRAME), compression="zlib")
    data = bytearray((movie / FRAME).read_bytes())
    data[len(data) // 2] ^= 0x10
    (movie / FRAME).write_bytes(data)


def _palette(grey: np.ndarray) -> Image.Image:
    image = Image.fromarray(grey // 64)
    image.putpalette(list(range(0, 240, 20)))
    return image


def _renamed_jpeg(movie: Path) -> None:
    Image.fromarray(np.zeros(SHAPE, np.uint8)).save(movie / "x.jpg")
    (movie / "x.jpg").rename(movie / FRAME)


def _text_as_png(movie: Path) -> None:
    (movie / FRAME).unlink()
    (movie / FRAME).with_suffix(".png").write_text("no image")


def _bomb(movie: Path) -> None:
    tifffile.imwrite(movie / FRAME, np.zeros((12_000, 12_000), np.uint8), compression="zlib")


def _huge_header(movie: Path) -> None:
    _as_png(Image.fromarray)(movie)
    path = (movie / FRAME).with_suffix(".png")
    data = bytearray(path.read_bytes())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    path.write_bytes(data)


def _exotic(movie: Path) -> None:
    tifffile.imwrite(movie / FRAME, tifffile.imread(movie / FRAME), compression="zlib")
    with tifffile.TiffFile(movie / FRAME, mode="r+b") as file:
        file.pages.first.tags["Compression"].overwrite(32766)


def _double(movie: Path) -> None:
    Image.fromarray(np.zeros(SHAPE, np.uint8)).save(movie / "frames/t001.png")


def _case_only(movie: Path) -> None:
    shutil.copy(movie / FRAME, movie / "frames/T001.tif")


def _dangling(movie: Path) -> None:
    (movie / FRAME).unlink()
    (movie / FRAME).symlink_to(movie / "gone.tif")


def _pipe(movie: Path) -> None:
    (movie / FRAME).unlink()
    os.mkfifo(movie / FRAME)


def _not_utf8(name: str) -> Spoil:
    """Give a file or folder, and the mask of the same name, a name that is no text."""

    def spoil(movie: Path) -> None:
        for path in {movie / name, movie / name.replace("frames/", "masks/")}:
            path.rename(path.with_name("t\udcff" + path.suffix))

    return spoil


def _groups(table: str) -> Spoil:
    return lambda movie: (movie / "groups.csv").write_text(table)


def _as_gif(movie: Path) -> None:
    for path in list((movie / "frames").iterdir()):
        Image.fromarray((tifffile.imread(path) // 8).astype(np.uint8)).save(path.with_suffix(".gif"))
        path.unlink()


def _copy_as_mask(movie: Path) -> None:
    (movie / MASK).write_bytes((movie / FRAME).read_bytes())


def _all_masks(change: Callable[[np.ndarray], np.ndarray]) -> Spoil:
    def spoil(movie: Path) -> None:
        for path in (movie / "masks").iterdir():
            tifffile.imwrite(path, change(tifffile.imread(path)))

    return spoil


def _as_jpeg(movie: Path) -> None:
    (movie / MASK).unlink()
    Image.fromarray(np.zeros(SHAPE, np.uint8)).save(movie / "masks/t001.jpg")


def _as_cellpose(movie: Path) -> None:
    shutil.rmtree(movie / "masks")
    for path in (movie / "frames").iterdir():
        path.with_name(f"{path.stem}_seg.npy").write_bytes(b"\x93NUMPY")


def _cut_rois(movie: Path) -> None:
    shutil.rmtree(movie / "masks")
    (movie / "RoiSet.zip").write_bytes(b"PK\x03\x04")


def _renamed_masks(movie: Path) -> None:
    for i, path in enumerate(sorted((movie / "masks").iterdir())):
        path.rename(path.with_name(f"{'abcde'[i]}.tif"))


def _two_left(movie: Path) -> None:
    for t in (2, 3, 4):
        (movie / f"masks/t{t:03d}.tif").unlink()


def _wrapped() -> np.ndarray:
    """Return 320 labels of 4 x 4 px, saved in 8 bits."""
    labels = np.zeros(SHAPE, np.int64)
    for at in range(320):
        y, x = 5 * (at // 25), 5 * (at % 25)
        labels[y : y + 4, x : x + 4] = at + 1
    return labels.astype(np.uint8)


IMAGES: dict[str, tuple[Spoil, str]] = {
    "0 bytes": (lambda movie: (movie / FRAME).write_bytes(b""), r"t001.tif: empty file"),
    "TIFF cut at 10 %": (_cut(0.1), r"t001.tif: (unreadable|damaged)"),
    "TIFF cut at 50 %": (_cut(0.5), r"t001.tif: (unreadable|damaged)"),
    "TIFF cut at 99 %": (_cut(0.99), r"t001.tif: (unreadable|damaged)"),
    "packed TIFF cut at 10 %": (_cut(0.1, compression="zlib"), r"t001.tif: (unreadable|damaged)"),
    "packed TIFF cut at 50 %": (_cut(0.5, compression="zlib"), r"t001.tif: (unreadable|damaged)"),
    "packed TIFF cut at 99 %": (_cut(0.99, compression="zlib"), r"t001.tif: (unreadable|damaged)"),
    "PNG cut": (_as_png(Image.fromarray, 0.5), r"t001.png: unreadable"),
    "renamed JPEG": (_renamed_jpeg, r"t001.tif: neither TIFF nor PNG"),
    "text as PNG": (_text_as_png, r"t001.png: neither TIFF nor PNG"),
    "text as TIFF": (lambda movie: (movie / FRAME).write_text("no image"), r"t001.tif: neither TIFF nor PNG"),
    "flipped zlib TIFF": (_flip_zlib, r"t001.tif: unreadable"),
    "NaN": (_frame(NAN), r"t001.tif: has NaN or infinite"),
    "inf": (_frame(np.full(SHAPE, np.inf, np.float32)), r"t001.tif: has NaN or infinite"),
    "negative int": (_frame(np.full(SHAPE, -3, np.int16)), r"t001.tif: has negative"),
    "complex": (_frame(np.ones(SHAPE, np.complex64)), r"t001.tif: unreadable \(pixels of type complex64\)"),
    "RGBA": (_as_png(lambda grey: Image.fromarray(np.stack([grey] * 4, -1))), r"t001.png: 4 values per pixel"),
    "palette": (_as_png(_palette), r"t001.png: pixels from a table of colours"),
    "decompression bomb": (_bomb, r"t001.tif: a plane of 137 MiB in a file of \d+ KiB, as in a decompression bomb"),
    "bomb by its header": (_huge_header, r"t001.png: 60000 x 60000 pixels in one plane"),
    "exotic compression": (_exotic, r"t001.tif: unreadable \(.*32766"),
    "no page": (
        lambda movie: (movie / FRAME).write_bytes(b"II*\0\x08\0\0\0"),
        r"t001.tif: unreadable \(it holds no page",
    ),
    "a pipe": (_pipe, r"t001.tif: a folder, a pipe or a device, not a file; give the image itself"),
    "a name that is no UTF-8": (_not_utf8(FRAME), r"t\\udcff.tif': the name is not UTF-8 text; rename the file"),
    "dangling symlink": (_dangling, r"t001.tif: no such file, or a link to nothing"),
    "depth over time": (
        lambda movie: tifffile.imwrite(movie / FRAME, np.zeros((2, 3, 1, *SHAPE), np.uint16), imagej=True),
        r"t001.tif: 3 planes in depth; say --z max\|mean\|focus",
    ),
}
MASKS: dict[str, tuple[Spoil, str]] = {
    "missing for all": (lambda movie: shutil.rmtree(movie / "masks"), r"no masks at all; add label images"),
    "other size": (_mask(np.ones((90, 128), np.uint16)), r"t001.tif: 90 x 128 px, its image .* 96 x 128"),
    "more pages": (
        _mask(np.ones((3, *SHAPE), np.uint16), photometric="minisblack"),
        r"t001.tif: 3 frames, its image t001.tif 1",
    ),
    "float": (_mask(np.full(SHAPE, 0.5, np.float32)), r"t001.tif: a mask with fractions"),
    "NaN": (_mask(NAN), r"t001.tif: a mask with fractions or NaN"),
    "negative": (_mask(np.full(SHAPE, -1, np.int32)), r"t001.tif: a mask with negative values"),
    "label >= 2^31": (_mask(np.full(SHAPE, 2**31, np.uint32)), r"t001.tif: label 2147483648 is 2\*\*31 or more"),
    "uint8 overflow suspected": (_mask(_wrapped()), r"t001.tif: more than 255 cells in 8 bits share labels"),
    "RGB mask": (_mask(np.zeros((*SHAPE, 3), np.uint8), photometric="rgb"), r"t001.tif: a colour mask"),
    "all foreground": (_all_masks(lambda mask: np.full_like(mask, 255)), r"every pixel is foreground"),
    "one frame all foreground": (_mask(np.full(SHAPE, 3, np.uint16)), r"t001.tif: every pixel is foreground"),
    "classes 1 and 2": (_all_masks(lambda mask: (mask > 0) + np.uint8(1)), r"every pixel is foreground"),
    "JPEG mask": (_as_jpeg, r"t001.jpg: a mask stored with loss"),
    "JPEG in a TIFF mask": (_mask(np.zeros(SHAPE, np.uint8), compression="jpeg"), r"t001.tif: a JPEG-compressed mask"),
    "mask identical to the image": (_copy_as_mask, r"t001.tif: the same pixels as its image"),
    "cut": (lambda movie: (movie / MASK).write_bytes((movie / MASK).read_bytes()[:-50]), r"t001.tif: unreadable"),
    "in depth": (
        _mask(np.ones((3, *SHAPE), np.uint16), ome=True, metadata={"axes": "ZYX"}, photometric="minisblack"),
        r"t001.tif: a mask of 3 planes in depth",
    ),
    "pickle of Cellpose": (_as_cellpose, r"_seg.npy: a pickle, which may run code; save masks as PNG/TIFF in Cellpose"),
    "no cells": (_all_masks(np.zeros_like), r"all masks are empty"),
    "other names": (_renamed_masks, r"do not belong to the images"),
    "cut ROI set": (_cut_rois, r"RoiSet.zip: unreadable ROI file"),
}
SET: dict[str, tuple[Spoil, str]] = {
    "duplicate names": (_double, r"same name as"),
    "names differing by case": (_case_only, r"same name as"),
    "two annotated frames": (_two_left, r"movie: 2 annotated frames"),
    "a folder whose name is no UTF-8": (_not_utf8("frames"), r"t\\udcff/t000.tif': the name is not UTF-8 text; rename"),
    "images of another kind": (_as_gif, r"movie: no TIFF or PNG images in frames, only \.gif; put images in frames/"),
    "no images": (lambda movie: [p.unlink() for p in (movie / "frames").iterdir()], r"movie: frames is empty; put"),
    "groups in no file": (
        lambda movie: (movie / "groups.csv").symlink_to("gone.csv"),
        r"groups\.csv: a folder, a pipe or a link to nothing, not a table; put the table there or remove it",
    ),
    "groups with semicolons": (
        _groups("field;well\nmovie;A1\n"),
        r"groups\.csv: .*not separated by commas; save it as",
    ),
    "groups of one name": (
        _groups("field,well,well\nmovie,A1,B1\n"),
        r"groups\.csv: two columns are called 'well'; keep",
    ),
    "groups without end": (
        _groups(f"field,{','.join(map(str, range(100)))}\nmovie{',a' * 100}\n"),
        r"groups\.csv: 101 columns; keep field and those of groups, 100 at most",
    ),
    "groups without a name": (_groups("field,\nmovie,A1\n"), r"groups\.csv: cells below a column without a name; mend"),
    "groups without rows": (_groups("field,well\n"), r"groups\.csv: no rows; mend the table"),
    "unknown part": (_groups("field,part\nmovie,foo\n"), r"movie: part 'foo': unknown; choose from train, val, test"),
    "marker nested too deep": (
        lambda movie: (movie / "synthetic.json").write_text("[" * 100_000),
        r"synthetic\.json: not JSON .*; make the synthetic movies again",
    ),
}
FAULTS = {
    f"{kind}: {item}": case
    for kind, of in (("images", IMAGES), ("masks", MASKS), ("set", SET))
    for item, case in of.items()
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


def test_an_unreadable_file(movie, tmp_path, monkeypatch):
    if os.geteuid():
        (movie / FRAME).chmod(0)
    else:  # root may read anything
        usual = Path.open

        def denied(path: Path, *args: object, **how: object) -> object:
            if path.name == "t001.tif":
                raise PermissionError(13, "Permission denied")
            return usual(path, *args, **how)

        monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(BadInput, match=r"t001\.tif: you may not read this file; change its permissions"):
        convert(movie, tmp_path / "out/d.zarr")
    assert not list(tmp_path.glob("out/*"))


def test_the_command_says_it_in_one_line_without_a_traceback(movie, tmp_path, capsys):
    (movie / FRAME).write_bytes(b"")
    with pytest.raises(SystemExit) as ended:
        entry_point(lambda _: main([str(movie), str(tmp_path / "d.zarr")]))
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        f"error: {movie}/frames/t001.tif: empty file (0 bytes); copy or export it again"
    ]


# what is legitimate


def _converted(movie: Path, **how: object) -> Dataset:
    return convert(movie, movie.parent / "d.zarr", Settings(**how))


def _pixels(dataset: Dataset, frame: int = 1) -> np.ndarray:
    (field,) = dataset.fields
    return np.asarray(dataset.image(FrameRef(field, frame)))[0]


@pytest.mark.parametrize("top", [65535, 4095], ids=["16-bit", "12-in-16"])
def test_16_bit_is_kept_as_it_is(top, movie):
    values = np.linspace(0, top, SHAPE[0] * SHAPE[1]).reshape(SHAPE).astype(np.uint16)
    tifffile.imwrite(movie / FRAME, values)
    dataset = _converted(movie)
    assert dataset.image(FrameRef(next(iter(dataset.fields)), 1)).dtype == np.uint16
    np.testing.assert_array_equal(_pixels(dataset), values)


def test_pages_are_read_as_time_and_it_is_said(tmp_path, discs, grey):
    (tmp_path / "movie").mkdir()
    labels = np.stack([discs(t) for t in range(5)])
    tifffile.imwrite(tmp_path / "movie/a.tif", grey(labels), photometric="minisblack")
    tifffile.imwrite(tmp_path / "movie/a_mask.tif", labels, photometric="minisblack")
    dataset = _converted(tmp_path / "movie")
    assert [field.n_frames for field in dataset.fields.values()] == [5]
    assert any("a.tif: its 5 pages are read as time; if they are depth, say so with --z" in w for w in dataset.warnings)


@pytest.mark.parametrize("share", [0, 0.3], ids=["constant", "saturated"])
def test_constant_and_saturated_frames(share, movie):
    values = np.full(SHAPE, 700, np.uint16)
    if share:
        values = np.where(np.arange(SHAPE[1]) < share * SHAPE[1], 65535, tifffile.imread(movie / FRAME))
    tifffile.imwrite(movie / FRAME, values.astype(np.uint16))
    dataset = _converted(movie)
    np.testing.assert_array_equal(_pixels(dataset), values)
    assert np.isfinite(dataset.normalised(FrameRef(next(iter(dataset.fields)), 1))).all()
    assert any("saturated" in told for told in dataset.warnings) == bool(share)


def test_smaller_than_the_crop_and_not_divisible_by_32(tmp_path, write_movie):
    for path in (write_movie(tmp_path / "movie") / "frames").iterdir():
        for name in (path, tmp_path / "movie/masks" / path.name):
            tifffile.imwrite(name, tifffile.imread(name)[:61, :75])
    dataset = _converted(tmp_path / "movie")
    assert [field.shape for field in dataset.fields.values()] == [(61, 75)]
    assert dataset.recommended["crop"] > 0


def test_masks_missing_for_some_frames(movie):
    (movie / MASK).unlink()
    dataset = _converted(movie)
    assert next(iter(dataset.fields.values())).annotated == (True, False, True, True, True)
    assert "1 frames have no mask: not trained on, not scored, still predicted" in dataset.warnings


@pytest.mark.parametrize("touching", [False, True])
def test_binary_masks_are_recorded(touching, movie):
    _all_masks(lambda mask: 255 * (mask > 0).astype(np.uint8))(movie)
    field = next(iter(_converted(movie, split_touching=touching).fields.values()))
    assert field.annotation == ("binary: watershed" if touching else "binary: connected components")
    assert field.cells == (6, 6, 6, 6, 6)


def test_an_empty_mask_and_numbers_with_gaps(movie):
    _all_masks(lambda mask: np.where(mask > 0, 1000 * mask + 7, 0))(movie)
    tifffile.imwrite(movie / MASK, np.zeros(SHAPE, np.uint16))
    dataset = _converted(movie)
    field = next(iter(dataset.fields.values()))
    assert field.cells == (6, 0, 6, 6, 6)
    assert all(field.annotated)
    labels = np.unique(dataset.labels(FrameRef(next(iter(dataset.fields)), 0)))
    assert labels.tolist() == [0, *(1000 * n + 7 for n in range(1, 7))]


def test_files_of_kinds_that_are_not_read_are_named(movie):
    (movie / MASK).unlink()
    np.save(movie / "masks/t001.npy", np.ones(SHAPE, np.uint16))
    (movie / "frames/preview.gif").write_bytes(b"GIF89a")
    (movie / "frames/t001_seg.npy").write_bytes(b"left by Cellpose")
    assert f"{movie}/frames/preview.gif: not TIFF or PNG (2 such); left out" in _converted(movie).warnings


def test_labels_in_two_pieces_are_counted(movie):
    def stray(mask: np.ndarray) -> np.ndarray:
        mask[90:92, 120:122] = 1
        return mask

    _all_masks(stray)(movie)
    dataset = _converted(movie)
    assert next(iter(dataset.fields.values())).cells == (6, 6, 6, 6, 6)
    assert "5 labels lie in several pieces; each counts as one cell" in dataset.warnings


def test_a_bad_option_or_source(movie, tmp_path):
    with pytest.raises(BadInput, match="pixel_size_um: -1 is not a positive number"):
        convert(movie, tmp_path / "d.zarr", Settings(pixel_size_um=-1))
    for value in (1e308, 1e-320):
        with pytest.raises(BadInput, match=r"frame_interval_s: .* is too small or too large; give it in its unit"):
            convert(movie, tmp_path / "d.zarr", Settings(frame_interval_s=value))
    with pytest.raises(BadInput, match="no such file or folder"):
        convert(tmp_path / "gone", tmp_path / "d.zarr")
    with pytest.raises(BadInput, match="unknown group; choose from auto, field, time"):
        convert(movie, tmp_path / "d.zarr", Settings(split_by="plate"))
    with pytest.raises(BadInput, match="there is one field"):
        convert(movie, tmp_path / "d.zarr", Settings(split_by="field"))
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/notes.txt").write_text("x")
    with pytest.raises(BadInput, match=r"only \.txt"):
        convert(tmp_path / "texts", tmp_path / "d.zarr")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--tiles", "2"], "--tiles 2: not rows and columns; write them as 3x4"),
        (["--tiles", "²x2"], "--tiles ²x2: not rows and columns; write them as 3x4"),
        (["--z", "²"], "--z ²: unknown; choose from max, mean, focus or the number of a plane"),
        (["--channels", "²"], "no channel '²'; it has channel_1"),
        (["--folds", "3"], "--folds 3: 3 groups or more are needed, not 1 by field; leave folds out"),
        (
            ["--split-by", ""],
            "an empty argument, as of a variable of the shell that is not set; fill it in or leave it",
        ),
    ],
)
def test_an_option_that_cannot_be_meant(options, said, movie, tmp_path):
    with pytest.raises(BadInput) as caught:
        main([str(movie), str(tmp_path / "d.zarr"), *options])
    assert said in str(caught.value)
    assert not (tmp_path / "d.zarr").exists()


def test_names_with_numerals_that_are_no_digits(movie):
    for folder in ("frames", "masks"):
        (movie / folder / "t001.tif").rename(movie / folder / "t1²3 ².tif")
    assert next(iter(_converted(movie).fields.values())).annotated == (True,) * 5


def test_different_channels_are_refused(tmp_path, write_movie):
    write_movie(tmp_path / "set/a")
    write_movie(tmp_path / "set/b")
    for path in (tmp_path / "set/b/frames").iterdir():
        tifffile.imwrite(path, np.stack([tifffile.imread(path)] * 2), metadata={"axes": "CYX"})
    with pytest.raises(BadInput, match=r"2 channels, t000\.tif has 1"):
        convert(tmp_path / "set", tmp_path / "d.zarr")
