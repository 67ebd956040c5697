"""The command that measures any label image: readers, columns, refusals."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from data_io.errors import DONE, BadInput, DiskFull
from postprocess import measure as command
from postprocess import morphology
from postprocess import tables as table_parts

KEYS = ["frame", "label", "image"]


def movie(frames: int = 2) -> np.ndarray:
    """Return ``(T, 40, 50)`` uint16: two cells that move to the right, one of them in two pieces."""
    stack = np.zeros((frames, 40, 50), np.uint16)
    for t, frame in enumerate(stack):
        frame[5:15, 5 + t : 17 + t] = 7
        frame[20:30, 10 + t : 20 + t] = 300
        frame[34:36, 30:33] = 300
    return stack


def measured(labels: Path, *arguments: str, suffix: str = ".csv") -> pd.DataFrame:
    out = labels.parent / f"out{suffix}"
    assert command.main([str(labels), "--out", str(out), *arguments]) == DONE
    return pd.read_csv(out, keep_default_na=False, na_values=["nan"]) if suffix == ".csv" else pd.read_parquet(out)


def save(path: Path, labels: np.ndarray, **options: object) -> Path:
    with warnings.catch_warnings():  # three frames without a word become the planes of a colour picture
        warnings.simplefilter("ignore", DeprecationWarning)
        tifffile.imwrite(path, labels, **options)
    return path


def as_plain(folder: Path, stack: np.ndarray) -> Path:
    return save(folder / "a.tif", stack)


def as_compressed(folder: Path, stack: np.ndarray) -> Path:
    return save(folder / "a.tif", stack.astype(np.uint32), compression="zlib", byteorder=">")


def as_imagej(folder: Path, stack: np.ndarray) -> Path:
    return save(folder / "a.tif", stack, imagej=True, metadata={"axes": "TYX"})


def as_imagej_slices(folder: Path, stack: np.ndarray) -> Path:
    return save(folder / "a.tif", stack, imagej=True, metadata={"axes": "ZYX"})


def as_imagej_unnamed(folder: Path, stack: np.ndarray) -> Path:
    return save(folder / "a.tif", stack, imagej=True)


def as_ome(folder: Path, stack: np.ndarray) -> Path:
    return save(folder / "a.ome.tif", stack.astype(np.int32), ome=True, metadata={"axes": "TYX"})


def as_array(folder: Path, stack: np.ndarray) -> Path:
    np.save(folder / "a.npy", stack.astype(np.int64))
    return folder / "a.npy"


def as_fortran_array(folder: Path, stack: np.ndarray) -> Path:
    np.save(folder / "a.npy", np.asfortranarray(stack.astype(">u8")))
    return folder / "a.npy"


def as_png_folder(folder: Path, stack: np.ndarray) -> Path:
    (folder / "masks").mkdir()
    for t, frame in enumerate(stack):
        Image.fromarray(frame).save(folder / "masks" / f"t{9 + t}.png")  # t9 before t10
    return folder / "masks"


def as_mixed_folder(folder: Path, stack: np.ndarray) -> Path:
    (folder / "all").mkdir()
    for t, frame in enumerate(stack):
        save(folder / "all" / f"t{9 + t}_cp_masks.tif", frame)
        save(folder / "all" / f"t{9 + t}.tif", frame + 100)
        (folder / "all" / f"t{9 + t}_seg.npy").write_bytes(pickle.dumps({"masks": frame}))
    (folder / "all" / ".hidden.tif").write_bytes(b"no picture")
    return folder / "all"


READERS = [
    as_plain,
    as_compressed,
    as_imagej,
    as_imagej_slices,
    as_imagej_unnamed,
    as_ome,
    as_array,
    as_fortran_array,
    as_png_folder,
    as_mixed_folder,
]


@pytest.mark.parametrize("frames", [2, 3, 6])
@pytest.mark.parametrize("write", READERS)
def test_every_kind_of_file_gives_the_same_table(tmp_path, write, frames):
    stack = movie(frames)
    found = measured(write(tmp_path, stack))
    expected = pd.concat([morphology.measure(frame).assign(frame=t) for t, frame in enumerate(stack)])
    assert found.columns[:3].tolist() == KEYS
    assert sorted(found.columns) == sorted([*expected.columns, "image"])
    for name in expected.columns:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert found["n_pieces"].tolist() == [1, 2] * frames


def test_an_8_bit_png_and_a_palette(tmp_path):
    labels = movie(1)[0].clip(0, 9).astype(np.uint8)
    Image.fromarray(labels).save(tmp_path / "a.png")
    coloured = Image.fromarray(labels).convert("P")
    coloured.putdata(labels.ravel().tolist())
    coloured.putpalette([3, 1, 4] * 256)
    coloured.save(tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        assert measured(tmp_path / name)["label"].tolist() == [7, 9]


def test_an_ome_zarr_label_image_of_a_run(make_run, tmp_path):
    from data_io.store import Dataset
    from postprocess import run as stage

    run = make_run(pixel_size_um=0.5)
    stage.run(run, "sync")
    slug = next(iter(Dataset.open(run / "dataset.zarr").fields.values())).slug
    image = run / "labels.zarr" / slug
    out = tmp_path / "out.parquet"
    assert command.main([str(image / "labels" / "truth"), "--image", str(image), "--out", str(out)]) == DONE
    found, cells = pd.read_parquet(out), pd.read_parquet(run / "cells.parquet")
    truth = cells[cells["method"] == "truth"].reset_index(drop=True)
    for name in set(found.columns) - {"image"}:
        assert found[name].tolist() == pytest.approx(truth[name].tolist(), nan_ok=True), name
    with pytest.raises(BadInput, match="no label image"):
        command.main([str(image), "--out", str(out)])


def test_calibration_from_the_command_line_or_the_files(tmp_path):
    stack = movie()
    scaled = {"imagej": True, "resolution": (2, 2), "metadata": {"axes": "TYX", "unit": "um", "finterval": 30.0}}
    save(tmp_path / "known.tif", stack, **scaled)
    save(tmp_path / "plain.tif", stack)
    plain = measured(tmp_path / "plain.tif")
    assert not any(name.endswith(("_um", "_um2")) for name in plain.columns)
    for name, arguments, side in (
        ("plain.tif", ["--pixel-size", "0.65"], 0.65),
        ("known.tif", ["--pixel-size", "0.65"], 0.65),
        ("known.tif", [], 0.5),
    ):
        found = measured(tmp_path / name, *arguments)
        np.testing.assert_allclose(found["area_um2"], found["area_px2"] * side**2)
        for trait in ("perimeter", "radius", "contour_perimeter", "feret_max", "feret_min"):
            np.testing.assert_allclose(found[f"{trait}_um"], found[f"{trait}_px"] * side)
        assert "area_trackmate_um2" not in found.columns
        np.testing.assert_allclose(found["area_trackmate"], plain["area_trackmate"])
    assert measured(tmp_path / "known.tif")["time_s"].tolist() == [0, 0, 30, 30]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_an_image_adds_intensities_and_tracks_are_linked(tmp_path, suffix):
    stack = movie(3)
    grey = np.random.default_rng(0).integers(0, 4000, (3, 2, 40, 50)).astype(np.uint16)
    save(tmp_path / "a.tif", stack)
    save(tmp_path / "grey.tif", grey, imagej=True, metadata={"axes": "TCYX"})
    np.save(tmp_path / "grey.npy", grey)
    found = [
        measured(tmp_path / "a.tif", "--image", str(tmp_path / name), "--track", suffix=suffix)
        for name in ("grey.tif", "grey.npy")
    ]
    pd.testing.assert_frame_equal(*found)
    assert found[0]["track"].tolist() == [1, 2] * 3
    expected = [grey[row.frame, 1][stack[row.frame] == row.label].mean() for row in found[0].itertuples()]
    np.testing.assert_allclose(found[0]["intensity_mean_c1"], expected)
    assert (found[0]["focus_c0"] > 0).all()


def test_a_folder_of_images_belongs_to_a_folder_of_labels_by_its_numbers(tmp_path):
    for name in ("masks", "frames"):
        (tmp_path / name).mkdir()
    for t, frame in enumerate(movie(3)):
        save(tmp_path / "masks" / f"t{t}_mask.tif", frame)
        save(tmp_path / "frames" / f"c1_t{t}.tif", frame + 1)
    arguments = ("--image", str(tmp_path / "frames"))
    assert len(measured(tmp_path / "masks", *arguments)) == 6
    for t in range(3):
        (tmp_path / "frames" / f"c1_t{t}.tif").rename(tmp_path / "frames" / f"t{2 * t}.tif")
    with pytest.raises(BadInput, match=r"t2.tif: its turn is with t1_mask.tif"):
        measured(tmp_path / "masks", *arguments)


@pytest.mark.parametrize("highest", [2**31 - 1, 2**32 - 1, 2**40])
def test_huge_ids(tmp_path, highest):
    labels = movie(1)[0].astype(np.uint32 if highest < 2**32 else np.int64)
    labels[labels == 300] = highest
    save(tmp_path / "a.tif", labels)
    for suffix in (".csv", ".parquet"):
        found = measured(tmp_path / "a.tif", "--track", suffix=suffix)
        assert found["label"].tolist() == [7, highest]
        assert found["area_px2"].tolist() == [120, 106]


def test_empty_frames_are_counted_and_give_no_row(tmp_path, capsys):
    stack = movie(4)
    stack[1] = stack[3] = 0
    found = measured(save(tmp_path / "a.tif", stack))
    assert found["frame"].tolist() == [0, 0, 2, 2]
    assert "4 cells in 4 frames, 2 of them empty" in capsys.readouterr().out
    for suffix in (".csv", ".parquet"):
        none = measured(save(tmp_path / "b.tif", np.zeros_like(stack)), "--track", "--pixel-size", "1", suffix=suffix)
        assert none.empty
        assert {"area_um2", "track", *KEYS} <= set(none.columns)


def test_rows_are_written_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(table_parts, "ROWS", 3)
    stack = movie(5)
    stack[0] = stack[2] = 0
    save(tmp_path / "a.tif", stack)
    tables = [measured(tmp_path / "a.tif", suffix=suffix) for suffix in (".csv", ".parquet")]
    assert tables[0]["frame"].tolist() == tables[1]["frame"].tolist() == [1, 1, 3, 3, 4, 4]
    np.testing.assert_array_equal(tables[0]["perimeter_px"], tables[1]["perimeter_px"])


def test_names_that_look_like_formulas_and_cells_without_a_shape(tmp_path, capsys):
    labels = movie(1)[0]
    labels[0, 0] = 1
    found = measured(save(tmp_path / "=1+1.tif", labels))
    assert set(found["image"]) == {"'=1+1.tif"}
    assert found["reason"].tolist() == [morphology.NO_CONTOUR, "", ""]
    assert "1 cells too small for a contour" in capsys.readouterr().out


def test_a_binary_mask_is_told(tmp_path, capsys):
    measured(save(tmp_path / "a.tif", (movie() > 0).astype(np.uint8) * 255))
    assert "binary mask" in capsys.readouterr().err


def npy(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as file:
        np.lib.format.write_array(file, array, allow_pickle=True)


def cut(path: Path, labels: np.ndarray) -> None:
    save(path, labels, compression="zlib")
    path.write_bytes(path.read_bytes()[:-40])


LABEL_FAULTS = {
    "float": ("a.tif", lambda p: save(p, movie().astype(np.float32)), "float32"),
    "float array": ("a.npy", lambda p: npy(p, movie() / 2), "float64"),
    "negative": ("a.tif", lambda p: save(p, -movie().astype(np.int32)), "negative labels .down to -300"),
    "colours": ("a.tif", lambda p: save(p, np.zeros((40, 50, 3), np.uint8), photometric="rgb"), "3 colours"),
    "colours png": ("a.png", lambda p: Image.new("RGB", (50, 40)).save(p), "3 colours"),
    "transparency": ("a.png", lambda p: Image.new("RGBA", (50, 40)).save(p), "4 colours"),
    "colours array": ("a.npy", lambda p: npy(p, np.zeros((40, 50, 3), np.uint8)), "picture in colour"),
    "channels": ("a.ome.tif", lambda p: save(p, movie(), ome=True, metadata={"axes": "CYX"}), "2 channels"),
    "depth": ("a.ome.tif", lambda p: save(p, movie(), ome=True, metadata={"axes": "ZYX"}), "2 planes in depth"),
    "more axes": (
        "a.tif",
        lambda p: save(p, np.stack([movie(5)] * 2), imagej=True, metadata={"axes": "TZYX"}),
        "more axes",
    ),
    "unnamed axes": ("a.tif", lambda p: save(p, np.stack([movie(5)] * 2)), "more axes"),
    "array of 4 axes": ("a.npy", lambda p: npy(p, np.stack([movie()] * 2)), r"shape \(2, 2, 40, 50\)"),
    "one axis": ("a.npy", lambda p: npy(p, np.arange(9)), r"shape \(9,\)"),
    "no pixel": ("a.npy", lambda p: npy(p, np.zeros((0, 5), int)), "a.npy"),
    "objects": ("a_seg.npy", lambda p: npy(p, np.array({"masks": 1}, object)), "pickled objects"),
    "pickle": ("a.npy", lambda p: p.write_bytes(pickle.dumps(movie())), "a pickle"),
    "no array": ("a.npy", lambda p: p.write_bytes(b"text"), "unreadable"),
    "0 bytes": ("a.tif", lambda p: p.write_bytes(b""), "0 bytes"),
    "0 bytes array": ("a.npy", lambda p: p.write_bytes(b""), "unreadable"),
    "cut": ("a.tif", lambda p: cut(p, movie(1)[0]), "a.tif"),
    "lossy": ("a.jpg", lambda p: Image.new("L", (50, 40)).save(p), "stored with loss"),
    "unknown": ("a.txt", lambda p: p.write_text("1 2 3"), "txt is not read"),
    "missing": ("a.tif", lambda p: None, "no such file or folder"),
    "nothing in it": ("a", lambda p: p.mkdir(), "holds no label images"),
    "ids": ("a.npy", lambda p: npy(p, np.array([[0, 2**63]], np.uint64)), "2\\*\\*63 or more"),
    "inside out": ("a.tif", lambda p: save(p, np.full((40, 50), 255, np.uint8)), "no background"),
}


@pytest.mark.parametrize("fault", LABEL_FAULTS)
def test_what_cannot_be_labels_is_refused(tmp_path, fault):
    name, write, message = LABEL_FAULTS[fault]
    write(tmp_path / name)
    with pytest.raises(BadInput, match=message) as refused:
        command.main([str(tmp_path / name), "--out", str(tmp_path / "out.csv")])
    assert str(refused.value).startswith(str(tmp_path / name))
    assert ";" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not [path for path in tmp_path.iterdir() if "out.csv" in path.name]


IMAGE_FAULTS = {
    "size": (lambda p: save(p, np.zeros((2, 40, 51), np.uint16)), "40 x 51 pixels, but a.tif has 40 x 50"),
    "frames": (lambda p: save(p, np.zeros((5, 40, 50), np.uint16)), "5 frames, but the labels have 2"),
    "depth": (
        lambda p: save(p, np.zeros((2, 4, 40, 50), np.uint16), imagej=True, metadata={"axes": "TZYX"}),
        "several planes in depth; save",
    ),
    "NaN": (lambda p: save(p, np.full((2, 40, 50), np.nan, np.float32)), "NaN"),
    "the labels": (lambda p: save(p, movie()), "the same pixels"),
    "missing": (lambda p: None, "no such file or folder"),
}


@pytest.mark.parametrize("fault", IMAGE_FAULTS)
def test_an_image_that_does_not_fit_is_refused(tmp_path, fault):
    write, message = IMAGE_FAULTS[fault]
    save(tmp_path / "a.tif", movie())
    write(tmp_path / "image.tif")
    with pytest.raises(BadInput, match=message) as refused:
        measured(tmp_path / "a.tif", "--image", str(tmp_path / "image.tif"))
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.glob("*out*"))


def test_the_label_file_is_no_image(tmp_path):
    save(tmp_path / "a.tif", movie())
    with pytest.raises(BadInput, match="is the label image itself"):
        measured(tmp_path / "a.tif", "--image", str(tmp_path / "a.tif"))


@pytest.mark.parametrize("side", ["0", "-1", "nan", "inf", "1e300", "0,65", "wide"])
def test_a_pixel_size_that_is_none_is_refused(tmp_path, side):
    save(tmp_path / "a.tif", movie())
    with pytest.raises(BadInput, match=r"--pixel-size \S+: no"):
        measured(tmp_path / "a.tif", f"--pixel-size={side}")


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("nowhere/out.csv", "cannot be written"),
        ("a.tif/out.csv", "cannot be written"),
        ("folder.csv", "is a folder"),
        ("out.xlsx", r"\.csv or \.parquet"),
        ("out", r"\.csv or \.parquet"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused(tmp_path, out, message):
    save(tmp_path / "a.tif", movie())
    (tmp_path / "folder.csv").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BadInput, match=message):
        command.main([str(tmp_path / "a.tif"), "--out", str(tmp_path / out)])
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_failure_leaves_the_older_table(tmp_path, suffix, monkeypatch):
    stack = movie(3).astype(np.int32)
    save(tmp_path / "a.tif", stack)
    before = measured(tmp_path / "a.tif", suffix=suffix)
    monkeypatch.setattr(table_parts, "ROWS", 1)
    stack[2] *= -1
    save(tmp_path / "b.tif", stack)
    with pytest.raises(BadInput, match="negative"):
        measured(tmp_path / "b.tif", suffix=suffix)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull, match=rf"out{suffix}: the disk is full"):
        measured(tmp_path / "a.tif", suffix=suffix)
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "b.tif", f"out{suffix}"]
    pd.testing.assert_frame_equal(measured(tmp_path / "a.tif", suffix=suffix), before)


def test_the_command_ends_with_one_line_and_exit_2(tmp_path):
    arguments = [sys.executable, "-m", "postprocess.measure"]
    command_line = [*arguments, str(tmp_path / "none.tif"), "--out", str(tmp_path / "out.csv")]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command_line, capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {tmp_path / 'none.tif'}: no such file or folder; ")
    assert done.stderr.count("\n") == 1
