"""Nothing that happens to the files of a store goes unnoticed, and no writer leaves half a store."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import zarr

from data_io import integrity, zarr_io
from data_io.convert import convert
from data_io.errors import BadInput
from data_io.integrity import Damaged
from data_io.store import Dataset, FrameRef

ROOT = Path(__file__).resolve().parents[2]
META = ("zarr.json", ".zarray", ".zgroup", ".zattrs", "manifest.json", "METADATA.ome.xml")
HOWS = ("missing", "cut", "flipped", "emptied", "zeroed")


def spoil(file, how, rng):
    """Damage a file; its content before is returned."""
    before = file.read_bytes()
    if how == "missing":
        file.unlink()
    elif how == "flipped":
        data = bytearray(before)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        file.write_bytes(data)
    else:
        cut = {"cut": before[: rng.integers(1, len(before))], "emptied": b"", "zeroed": bytes(len(before))}
        file.write_bytes(cut[how])
    return before


def check(store):
    """Open a store and read every byte of it."""
    Dataset.open(store).preflight()


@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_two_hundred_corruptions_are_found_by_name(write_store, tmp_path, version):
    store = write_store(tmp_path / "d.zarr", frames=8, ome_zarr=version).path
    rng = np.random.default_rng(0)
    files = sorted(path for path in store.rglob("*") if path.is_file())
    chunks = [file for file in files if file.name not in META]
    check(store)
    found = 0
    for turn in range(200):
        pool = chunks if turn % 2 else [file for file in files if file.name in META]
        file, how = pool[rng.integers(len(pool))], HOWS[turn % len(HOWS)]
        before = spoil(file, how, rng)
        with pytest.raises(BadInput) as refused:
            check(store)
        assert (file.name if file.name == "manifest.json" else str(file)) in str(refused.value), (file, how)
        assert "\n" not in str(refused.value)
        found += 1
        file.write_bytes(before)
    assert found == 200
    check(store)


def test_the_preflight_names_all_faults_at_once(write_store, tmp_path):
    dataset = write_store(tmp_path / "d.zarr")
    store = dataset.path
    rng = np.random.default_rng(1)
    spoil(store / "Field-1/s0/c/2/0/0/0", "flipped", rng)
    spoil(store / "Field-1/labels/truth/s0/c/1/0/0", "cut", rng)
    (store / "Field-1/s0/c/4/0/0/0").unlink()
    seen = []
    with pytest.raises(Damaged, match=r"d\.zarr: 3 files are faulty, .*; convert the source again") as refused:
        dataset.preflight(lambda done, total: seen.append((done, total)))
    assert [fault.place for fault in refused.value.faults] == [
        "array Field-1/labels/truth/s0, chunk 1, 0, 0",
        "array Field-1/s0, chunk 2, 0, 0, 0",
        "array Field-1/s0, chunk 4, 0, 0, 0",
    ]
    assert len(str(refused.value).splitlines()) == 4
    assert seen[-1][0] == seen[-1][1] == len(dataset.manifest.files) - 2


@pytest.mark.parametrize("version", ["0.5", "0.4"])
@pytest.mark.parametrize("how", HOWS)
def test_reading_names_array_chunk_and_path(write_store, tmp_path, version, how):
    dataset = write_store(tmp_path / "d.zarr", ome_zarr=version)
    key = "Field-1/s0/" + ("c/" if version == "0.5" else "") + "3/0/0/0"
    spoil(dataset.path / key, how, np.random.default_rng(2))
    what = "missing chunk" if how == "missing" else "damaged chunk"
    with pytest.raises(BadInput, match=rf"{key}: {what}.*\(array Field-1/s0, chunk 3, 0, 0, 0\); convert"):
        dataset.image(FrameRef("Field 1", 3))
    assert dataset.image(FrameRef("Field 1", 2)).any()


def test_a_large_frame_is_a_grid_of_chunks_and_the_faulty_one_is_named(write_store, tmp_path):
    dataset = write_store(tmp_path / "d.zarr", frames=2, shape=(100, 4200))
    row = sorted(path.name for path in (dataset.path / "Field-1/s0/c/0/0/0").iterdir())
    assert row == ["0", "1", "2"]
    assert dataset.image(FrameRef("Field 1", 1)).shape == (1, 100, 4200)
    for how, what in (("flipped", "damaged"), ("missing", "missing")):
        spoil(dataset.path / "Field-1/s0/c/1/0/0/2", how, np.random.default_rng(3))
        with pytest.raises(BadInput, match=rf"c/1/0/0/2: {what} chunk.*chunk 1, 0, 0, 2"):
            dataset.image(FrameRef("Field 1", 1))


def test_foreign_metadata_and_links_are_refused_and_litter_is_not(write_store, tmp_path):
    store = write_store(tmp_path / "d.zarr").path
    (store / ".DS_Store").write_bytes(b"finder")
    (store / "Field-1/notes.txt").write_text("a good one")
    check(store)
    (store / "Field-1/zarr.json").rename(store / "Field-1/.zgroup")
    with pytest.raises(BadInput, match=r"2 files are faulty.*zarr\.json: missing"):
        Dataset.open(store)
    (store / "Field-1/.zgroup").rename(store / "Field-1/zarr.json")
    (store / "Field-1/s1").mkdir()
    (store / "Field-1/s1/zarr.json").write_text("{}")
    with pytest.raises(BadInput, match=r"s1/zarr\.json: not part of this data set"):
        Dataset.open(store)
    (store / "Field-1/s1/zarr.json").unlink()
    outside = tmp_path / "chunk"
    (store / "Field-1/s0/c/0/0/0/0").rename(outside)
    (store / "Field-1/s0/c/0/0/0/0").symlink_to(outside)
    with pytest.raises(BadInput, match="c/0/0/0/0: a symbolic link"):
        Dataset.open(store)


def reseal(store, change):
    """Change the metadata of a store as someone would who knows how its manifest is made."""
    manifest = json.loads((store / "manifest.json").read_text())
    manifest.pop("sha256")
    change(manifest["files"])
    for name in manifest["files"]:
        if (store / name).is_file():
            data = (store / name).read_bytes()
            manifest["files"][name] = [len(data), hashlib.sha256(data).hexdigest()]
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    (store / "manifest.json").write_text(json.dumps({"sha256": digest, **manifest}, indent=1) + "\n")


@pytest.mark.parametrize(
    ("version", "said", "forged", "message"),
    [
        ("0.5", '"name": "zstd"', '"name": "pickle"', "codec 'pickle' is not read"),
        ("0.5", '"data_type": "uint16"', '"data_type": "object"', "not plain numbers"),
        ("0.4", '"id": "zstd"', '"id": "pickle"', "codec 'pickle' is not read"),
        ("0.4", '"dtype": "<u2"', '"dtype": "|O"', "not plain numbers"),
        ("0.5", '"codecs"', '"codec"', "not the metadata of an array"),
        ("0.5", "{", "", "not JSON"),
    ],
)
def test_forged_metadata_are_refused(write_store, tmp_path, version, said, forged, message):
    store = write_store(tmp_path / "d.zarr", ome_zarr=version).path
    file = store / "Field-1/s0" / ("zarr.json" if version == "0.5" else ".zarray")
    text = file.read_text()
    assert said in text
    file.write_text(text.replace(said, forged, 1))
    reseal(store, lambda files: None)
    with pytest.raises(BadInput, match=message) as refused:
        Dataset.open(store)
    assert str(file) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("said", "forged", "message"),
    [
        ('"name": "zstd"', '"name": "pickle"', "codec 'pickle' is not read"),
        ('"data_type": "uint16"', '"data_type": "object"', "not plain numbers"),
        ("{", "", "not JSON"),
        ('"chunk_shape"', '"chunk_form"', "bad metadata of an array"),
    ],
)
def test_an_array_without_a_manifest_is_opened_only_if_it_is_harmless(tmp_path, said, forged, message):
    zarr_io.create_array(tmp_path, "s0", (2, 8, 8), "uint16", "tyx")
    assert zarr_io.open_checked(tmp_path / "s0")[:].sum() == 0
    file = tmp_path / "s0/zarr.json"
    file.write_text(file.read_text().replace(said, forged, 1))
    with pytest.raises(BadInput, match=message) as refused:
        zarr_io.open_checked(tmp_path / "s0")
    assert str(file) in str(refused.value)
    with pytest.raises(BadInput, match="no Zarr array there"):
        zarr_io.open_checked(tmp_path / "s1")


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b", "a\\b"])
def test_a_manifest_that_leads_out_of_the_store_is_refused(write_store, tmp_path, name):
    store = write_store(tmp_path / "d.zarr").path
    reseal(store, lambda files: files.update({name: [1, "0"]}))
    with pytest.raises(BadInput, match="names a file outside the store"):
        Dataset.open(store)


def test_a_field_that_leads_out_of_the_store_is_refused(write_store, tmp_path):
    store = write_store(tmp_path / "d.zarr").path
    file = store / "zarr.json"
    file.write_text(file.read_text().replace('"slug": "Field-1"', '"slug": "../other"'))
    reseal(store, lambda files: None)
    with pytest.raises(BadInput, match=r"its facts are damaged \(fields\.0\.slug: "):
        Dataset.open(store)
    file.write_text(file.read_text().replace('"slug": "../other"', '"slug": "Field-2"'))
    reseal(store, lambda files: None)
    with pytest.raises(BadInput, match="no such array in the manifest"):
        Dataset.open(store)


@pytest.mark.parametrize(
    ("said", "forged", "told"),
    [
        ('"n_frames": 5', '"n_frames": 6', r"fields\.0: 5 entries of annotated for 6 frames"),
        ('"shape": [\n', '"shape": [\n1,', r"fields\.0\.shape"),
        ('"name": "discs"', '"name": 3', "name: "),
        ('"crop": 64', '"crop": "64"', r"recommended\.crop: "),
        ('"mode": "frame"', '"mode": "pickle"', r"normalisation\.mode: "),
        ('"train": []', '"train": [["Field 1", 0], ["Field 1", 0]]', "a split with frames in two parts"),
        ('"train": []', '"train": [["Field 1", 4]]', "a split with .* that are not annotated"),
    ],
)
def test_forged_facts_are_refused(write_store, tmp_path, said, forged, told):
    store = write_store(tmp_path / "d.zarr").path
    file = store / "zarr.json"
    text = file.read_text()
    assert said in text
    file.write_text(text.replace(said, forged, 1))
    reseal(store, lambda files: None)
    with pytest.raises(BadInput, match=rf"its facts are damaged \({told}.*; convert the source again") as refused:
        Dataset.open(store)
    assert "\n" not in str(refused.value)


def test_an_array_of_another_shape_than_the_facts_say_is_refused(write_store, tmp_path):
    store = write_store(tmp_path / "d.zarr").path
    file = store / "Field-1/labels/truth/s0/zarr.json"
    described = json.loads(file.read_text())
    file.write_text(json.dumps(described | {"shape": [5, 2**30, 2**30]}))
    reseal(store, lambda files: None)
    with pytest.raises(BadInput, match=r"truth/s0: an array of \[5, .*\], not \[5, 96, 128\] as the facts say"):
        Dataset.open(store)


def test_an_unfinished_store_is_refused_and_says_who_began_it(tmp_path):
    token = integrity.begin(tmp_path / "d.zarr")
    with pytest.raises(BadInput, match=r"an unfinished data set, begun .* run its conversion again"):
        Dataset.open(tmp_path / "d.zarr")
    with pytest.raises(BadInput, match="another program writes here"):
        integrity.seal(tmp_path / "d.zarr", token[::-1], "", {})


def test_a_frame_left_out_is_no_store(write_store, tmp_path, monkeypatch):
    from data_io.store import Writer

    written = Writer.frame
    monkeypatch.setattr(Writer, "frame", lambda self, array, t, frame: t == 2 or written(self, array, t, frame))
    with pytest.raises(RuntimeError, match="c/2/0/0/0: this chunk was not written"):
        write_store(tmp_path / "d.zarr")
    assert not list(tmp_path.iterdir())


# conversions that are killed


def kill_conversions(write_movie, tmp_path, times, seed):
    """Kill a conversion at random moments; each time a rerun completes it."""
    source, folder = write_movie(tmp_path / "movie", frames=12, size=(256, 256)), tmp_path / "out"
    out, rng = folder / "d.zarr", np.random.default_rng(seed)
    code = "import sys; from data_io.convert import convert; print('ready', flush=True); convert(*sys.argv[1:])"
    refused = 0
    for _ in range(times):
        folder.mkdir()
        command = [sys.executable, "-c", code, str(source), str(out)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        process.stdout.readline()
        time.sleep(rng.uniform(0, 0.9))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if not out.exists():
            refused += 1
            with pytest.raises(BadInput, match="no such data set"):
                Dataset.open(out)
        convert(source, out).preflight()
        assert [path.name for path in folder.iterdir()] == ["d.zarr"]
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        folder.rmdir()
    return refused


def test_a_killed_conversion_is_completed_by_the_next(write_movie, tmp_path):
    kill_conversions(write_movie, tmp_path, times=3, seed=0)


@pytest.mark.slow
def test_twenty_killed_conversions_are_completed_by_the_next(write_movie, tmp_path):
    assert kill_conversions(write_movie, tmp_path, times=20, seed=1) > 5


# parallel writers


@pytest.mark.parametrize("sharded", [False, True])
def test_aligned_parallel_writers_lose_no_row(tmp_path, sharded):
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        for run in range(20):
            path = tmp_path / f"{run}.zarr"
            shards = (4, 8, 8) if sharded else None
            chunks = (1 if sharded else 4, 8, 8)
            array = zarr.create_array(path, shape=(64, 8, 8), chunks=chunks, shards=shards, dtype="int32")
            tasks = [
                pool.submit(zarr_io.write_region, array, (slice(row, row + 4),), np.full((4, 8, 8), row, np.int32))
                for row in range(0, 64, 4)
            ]
            for task in tasks:
                task.result()
            assert np.array_equal(array[:, 0, 0], np.arange(64) // 4 * 4)


@pytest.mark.parametrize("sharded", [False, True])
def test_a_region_that_cuts_a_chunk_is_refused_before_anything_is_written(tmp_path, sharded):
    shards, chunks = ((4, 8, 8), (1, 8, 8)) if sharded else (None, (4, 8, 8))
    array = zarr.create_array(tmp_path / "a.zarr", shape=(62, 8, 8), chunks=chunks, shards=shards, dtype="int32")
    for region in ((slice(2, 6),), (slice(0, 3),), (3,), (slice(0, 4), slice(0, 4)), (slice(58, 62),)):
        with pytest.raises(ValueError, match=r"cuts chunks of \d; begin and end at multiples of"):
            zarr_io.write_region(array, region, np.ones((4, 8, 8), np.int32))
    for region in ((slice(0, 8, 2),), (-1,), (slice(60, 70),), (slice(4, 4),), (0, 0, 0, 0)):
        with pytest.raises(ValueError, match=r"region|between"):
            zarr_io.write_region(array, region, np.ones((4, 8, 8), np.int32))
    with pytest.raises(ValueError, match=r"values of \(8, 8\) for a region of \(4, 8, 8\)"):
        zarr_io.write_region(array, (slice(0, 4),), np.ones((8, 8), np.int32))
    assert not list((tmp_path / "a.zarr").glob("c/*"))
    zarr_io.write_region(array, (slice(60, 62),), np.ones((2, 8, 8), np.int32))  # up to the end is whole
    assert array[60:].all()
