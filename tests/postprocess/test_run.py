"""The stage as a whole: files, reruns, failures, schedulers."""

from __future__ import annotations

import errno
import json

import numpy as np
import pandas as pd
import pytest
import tifffile

from data_io.errors import DONE, PARTIAL, BadInput, DiskFull
from data_io.store import Dataset, FrameRef
from postprocess import exchange, export
from postprocess import run as stage
from postprocess.export import read_labels
from postprocess.predictions import PredictionStore

METHODS = ["two_class", "three_class", "star", "truth", "classical"]


def test_a_run_writes_every_file(make_run):
    run = make_run(pixel_size_um=0.5)
    assert stage.main([str(run)]) == DONE
    dataset = Dataset.open(run / "dataset.zarr")
    cells = pd.read_parquet(run / "cells.parquet")
    assert list(cells.columns[: len(stage.KEYS)]) == list(stage.KEYS)
    assert list(cells["method"].unique()) == METHODS
    assert {"area_um2", "circularity_trackmate", "intensity_mean_c0", "border", "reason"} <= set(cells.columns)
    assert not cells.duplicated(["method", "field", "frame", "label"]).any()
    assert not cells.duplicated(["method", "field", "frame", "track"]).any()
    assert len(pd.read_csv(run / "cells.csv")) == len(cells)

    truth = cells[cells["method"] == "truth"]
    for ref in dataset.frames("all"):
        labels = dataset.labels(ref)
        np.testing.assert_array_equal(read_labels(run, "truth", ref), labels)
        own = truth[truth["frame"] == ref.frame]
        assert own["area_px2"].tolist() == np.bincount(labels.ravel())[own["label"]].tolist()
        assert set(own["split"]) == {dataset.split_of(ref)}
        assert set(own["image"]) == {f"t{ref.frame}.tif"}

    pages = pd.read_csv(run / "labels" / "frames.csv")
    held_out = dataset.frames("val") + dataset.frames("test")
    assert list(zip(pages["field"], pages["frame"], strict=True)) == [(ref.field, ref.frame) for ref in held_out]
    for method in METHODS:
        with tifffile.TiffFile(run / "labels" / f"{method}.tif") as file:
            stack = file.asarray()
            assert file.is_imagej
        stack = stack.reshape(-1, *stack.shape[-2:])
        assert len(stack) == len(pages)
        for row in pages.itertuples():
            np.testing.assert_array_equal(stack[row.page], read_labels(run, method, row.field, row.frame))


@pytest.fixture
def finished(make_run):
    """Return a run with every file of the stage."""
    run = make_run()
    stage.run(run, "sync")
    return run


def test_labels_are_valid_ome_zarr(make_run):
    import zarr
    from ome_zarr_models.v05 import Image
    from ome_zarr_models.v05.image_label import ImageLabel

    run = make_run(pixel_size_um=0.5)
    stage.run(run, "sync")
    slug = next(iter(Dataset.open(run / "dataset.zarr").fields.values())).slug
    image = Image.from_zarr(zarr.open_group(run / "labels.zarr" / slug, mode="r"))
    multiscale = image.ome_attributes.multiscales[0]
    assert multiscale.datasets[0].coordinateTransformations[0].scale == [1.0, 1.0, 0.5, 0.5]
    for method in METHODS:
        found = ImageLabel.from_zarr(zarr.open_group(run / "labels.zarr" / slug / "labels" / method, mode="r"))
        coloured = {colour.label_value for colour in found.attributes.ome.image_label.colors}
        labels = pd.read_parquet(run / "cells.parquet").query("method == @method")["label"]
        assert set(labels) <= coloured, "a viewer hides labels without a colour"


def test_a_rerun_does_only_what_is_missing(make_run):
    run = make_run()
    first = stage.run(run, "sync")
    assert first.computed == first.frames == 5 + 5 + 3 * 2
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    assert stage.run(run, "sync").computed == 0
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before

    next((run / "cells" / "truth").glob("*_00002.parquet")).unlink()
    (run / "labels" / "star.tif").unlink()
    content = pd.read_parquet(run / "cells.parquet")
    assert stage.run(run, "sync").computed == 1
    assert (run / "labels" / "star.tif").is_file()
    pd.testing.assert_frame_equal(pd.read_parquet(run / "cells.parquet"), content)

    store = PredictionStore.open(run / "predictions.zarr")
    store.set_attrs("two_class", decode={"threshold": 0.5, "min_distance": 3})
    assert stage.run(run, "sync").computed == 2


def test_schedulers_agree(make_run):
    run = make_run()
    stage.run(run, "sync")
    cells = pd.read_parquet(run / "cells.parquet")
    for path in (run / "cells").rglob("*.parquet"):
        path.unlink()
    steps = []
    assert stage.run(run, "threads", lambda done, total: steps.append((done, total))).computed == 16
    assert steps[-1] == (16, 16)
    pd.testing.assert_frame_equal(pd.read_parquet(run / "cells.parquet"), cells)


def test_a_poison_frame_is_listed_and_the_others_are_done(make_run, capsys):
    run = make_run()
    chunk = next((run / "predictions.zarr" / "star").glob("*/distance/c/4")) / "0" / "0" / "0"
    good = chunk.read_bytes()
    chunk.write_bytes(good[: len(good) // 2])
    assert stage.main([str(run)]) == PARTIAL
    assert "failed: star" in capsys.readouterr().err
    cells = pd.read_parquet(run / "cells.parquet")
    assert set(cells.loc[cells["method"] == "star", "frame"]) == {3}
    assert set(cells.loc[cells["method"] == "two_class", "frame"]) == {3, 4}
    assert pd.read_csv(run / "labels" / "frames.csv")["frame"].tolist() == [3]
    chunk.write_bytes(good)
    result = stage.run(run)
    assert (result.computed, result.failed) == (1, ())
    cells = pd.read_parquet(run / "cells.parquet")
    assert set(cells.loc[cells["method"] == "star", "frame"]) == {3, 4}


def test_a_lost_chunk_of_the_result_is_not_read_as_background(make_run):
    run = make_run()
    stage.run(run, "sync")
    chunk = next((run / "labels.zarr").glob("*/labels/truth/s0/c/1")) / "0" / "0"
    chunk.unlink()
    with pytest.raises(BadInput, match="missing or changed"):
        read_labels(run, "truth", FrameRef(next(iter(Dataset.open(run / "dataset.zarr").fields)), 1))


def test_a_frame_that_was_not_segmented_is_no_empty_frame(make_run):
    import zarr

    run = make_run()
    stage.run(run, "sync")
    field = next(iter(Dataset.open(run / "dataset.zarr").fields.values()))
    with pytest.raises(BadInput, match=r"star has no cells of frame 0 .* not segmented"):
        read_labels(run, "star", field.name, 0)
    for frame in (-1, 5):
        with pytest.raises(BadInput, match="0 to 4"):
            read_labels(run, "star", field.name, frame)

    def listed(method: str) -> object:
        return zarr.open_group(run / "labels.zarr" / field.slug / "labels" / method, mode="r").attrs["segmented_frames"]

    assert listed("star") == [3, 4]
    assert listed("truth") == [0, 1, 2, 3, 4]
    store = PredictionStore.open(run / "predictions.zarr")
    facts = {key: store.attrs("star")[key] for key in ("target", "grid", "rays", "decode")}
    prediction = store.read("star", FrameRef(field.name, 4))
    store.remove_method("star")
    described = (facts["target"], facts["grid"], 1, facts["rays"], [field], {"decode": facts["decode"]})
    store.add_method("star", *described)
    store.write("star", FrameRef(field.name, 4), prediction)
    stage.run(run, "sync")
    assert listed("star") == [4]
    with pytest.raises(BadInput, match="not segmented"):
        read_labels(run, "star", field.name, 3)
    assert pd.read_csv(run / "labels" / "frames.csv")["frame"].tolist() == [4]


def test_a_method_that_shares_no_frame_gets_no_stack():
    jobs = [
        stage.Job(m, FrameRef("f", t), "")
        for m, frames in zip("abcd", ["123", "234", "9", "3"], strict=True)
        for t in map(int, frames)
    ]
    assert stage.frames_of_stacks(jobs) == (["a", "b", "d"], [FrameRef("f", 3)])
    assert stage.frames_of_stacks([]) == ([], [])


def test_progress_off_a_terminal_is_a_line_now_and_then(capsys, monkeypatch):
    clock = iter([0.0, 3.0, 11.0, 12.0, 13.0])
    monkeypatch.setattr(stage.time, "monotonic", lambda: next(clock) + 100)
    report = stage.Progress("frame")
    for done in (1, 2, 3, 4, 1):
        report(done, 4)
    assert capsys.readouterr().err.splitlines() == ["frame 1/4", "frame 3/4", "frame 4/4", "frame 1/4"]


def test_bad_input_is_one_line(make_run, tmp_path):
    run = make_run()
    with pytest.raises(BadInput, match=r"run\.json: missing"):
        stage.run(tmp_path)
    with pytest.raises(BadInput, match="auto, sync, threads"):
        stage.run(run, "magic")
    PredictionStore.open(run / "predictions.zarr").set_attrs("star", decode={"threshold": 1})
    with pytest.raises(BadInput, match="unknown threshold"):
        stage.run(run)
    (run / "run.json").write_text("{")
    with pytest.raises(BadInput, match="not JSON"):
        stage.run(run)
    (run / "run.json").write_text(json.dumps({"dataset": "nowhere.zarr"}))
    with pytest.raises(BadInput, match="no such data set"):
        stage.run(run)


def test_what_cannot_be_written_is_one_line(make_run):
    run = make_run()
    for name in ("labels.zarr", "cells", "labels"):
        (run / name).write_text("in the way")
        with pytest.raises(BadInput, match=rf"{name}.*: cannot be written .*; make room, or move away"):
            stage.run(run, "sync")
        (run / name).unlink()
    for name in ("cells.parquet", "cells.csv"):
        (run / name).unlink(missing_ok=True)
        (run / name).mkdir()
        with pytest.raises(BadInput, match="is a folder"):
            stage.run(run, "sync")
        (run / name).rmdir()
    (run / "labels.zarr" / "zarr.json").write_text("{")
    with pytest.raises(BadInput, match=r"labels\.zarr: damaged .*; delete it, the same command fills it"):
        stage.run(run, "sync")


def test_csv_text_is_no_formula():
    table = pd.DataFrame({"image": ["=cmd()", "@x", "a-b", None], "value": [-1.0, 2.0, 3.0, 4.0]})
    safe = export.harmless(table)
    assert safe["image"].tolist()[:3] == ["'=cmd()", "'@x", "a-b"]
    assert safe["value"].tolist() == [-1.0, 2.0, 3.0, 4.0]


def test_many_ids_make_an_ome_tiff(make_run, tmp_path):
    dataset = Dataset.open(make_run(pixel_size_um=0.5) / "dataset.zarr")
    ref = dataset.frames("all")[0]
    labels = dataset.labels(ref).astype(np.int32) + 70_000
    export.write_stack(tmp_path / "many.tif", [ref, ref], lambda _: labels, dataset, 70_100)
    with tifffile.TiffFile(tmp_path / "many.tif") as file:
        assert file.is_ome
        np.testing.assert_array_equal(file.asarray()[1], labels)


def test_a_full_disk_ends_the_stage_and_the_rest_is_done_afterwards(make_run, monkeypatch):
    run, do = make_run(), stage.do

    def full(at, job):
        if job.method == "star":
            raise OSError(errno.ENOSPC, "No space left on device", str(at.part(job)))
        do(at, job)

    monkeypatch.setattr(stage, "do", full)
    with pytest.raises(DiskFull, match=r"star.*: the disk is full \("):
        stage.run(run, "sync")
    monkeypatch.setattr(stage, "do", do)

    def no_room(*others):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stage, "write_stacks", no_room)
    with pytest.raises(DiskFull, match=r"run: the disk is full \("):
        stage.run(run, "sync")
    monkeypatch.undo()
    assert stage.main([str(run)]) == DONE


def test_a_damaged_result_is_written_again_and_is_the_same(finished):
    damages = {
        "cells.parquet": lambda data: data[: len(data) // 2],
        "cells.csv": lambda data: data.replace(b"1", b"2", 1),
        "cells/counts.csv": lambda data: b"",
        "cells/frames.json": lambda data: b"[" * 100_000,
        "labels/frames.csv": lambda data: data.replace(b"0", b"1", 1),
        "labels/star.tif": lambda data: data[:-100],
    }
    for name, damage in damages.items():
        whole = (finished / name).read_bytes()
        (finished / name).write_bytes(damage(whole))
        assert stage.run(finished, "sync").computed == 0
        assert (finished / name).read_bytes() == whole, name


def test_damaged_measures_of_a_frame_are_named(finished):
    [part, *_] = sorted((finished / "cells" / "star").glob("*.parquet"))
    whole = part.read_bytes()
    (finished / "cells.csv").unlink()
    part.write_bytes(damaged_page(whole))
    with pytest.raises(BadInput, match=rf"{part.name}: damaged .*; delete it, the same command measures the frame"):
        stage.run(finished, "sync")
    part.unlink()
    assert stage.run(finished, "sync").computed == 1
    assert (finished / "cells.csv").is_file()


def test_a_damaged_cells_table_is_refused_where_it_is_exported(finished):
    table = finished / "cells.parquet"
    table.write_bytes(damaged_page(table.read_bytes()))
    with pytest.raises(
        BadInput, match=r"cells\.parquet: damaged .*CRC.*; `python -m postprocess\.run .*` writes it anew"
    ):
        list(exchange.movies(finished))


def damaged_page(data):
    """Flip a bit in the first page of a parquet file."""
    changed = bytearray(data)
    changed[60] ^= 1
    return bytes(changed)
