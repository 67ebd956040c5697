"""A store at s3:// is like one in a folder: written, read, checked, refused by name. A local server plays S3."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from data_io import integrity, location
from data_io.errors import BadInput
from data_io.files import building
from data_io.location import located
from data_io.store import Dataset, FrameRef, Writer, is_store

moto = pytest.importorskip("moto.server")
REF = FrameRef("Field 1", 2)


@pytest.fixture(scope="module")
def endpoint():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def bucket(endpoint, monkeypatch):
    """Return s3://... of an empty bucket, reached through the environment as a user would."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }.items():
        monkeypatch.setenv(name, value)
    fs = located("s3://microscopes/any").fs
    fs.call_s3("create_bucket", Bucket="microscopes")
    yield "s3://microscopes"
    fs.rm("microscopes", recursive=True)


@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_it_is_the_store_a_folder_would_hold(bucket, write_store, tmp_path, version):
    there = write_store(f"{bucket}/lab/d.zarr", ome_zarr=version)
    here = write_store(tmp_path / "d.zarr", ome_zarr=version)
    assert there.content_hash == here.content_hash
    assert there.manifest.files.keys() == here.manifest.files.keys()
    assert str(there.path) == f"{bucket}/lab/d.zarr"
    assert np.array_equal(there.image(REF), here.image(REF))
    assert np.array_equal(there.labels(REF), here.labels(REF))
    there.preflight()
    assert is_store(there.path)
    assert not is_store(located(f"{bucket}/lab/other.zarr"))


def test_faults_are_found_and_named(bucket, write_store):
    dataset = write_store(f"{bucket}/d.zarr")
    chunk = dataset.path / "Field-1/s0/c/2/0/0/0"
    good = location.read_bytes(chunk)
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    location.write_bytes(chunk, bytes(flipped))
    with pytest.raises(BadInput, match=r"s3://microscopes/d\.zarr/Field-1/s0/c/2/0/0/0: damaged chunk"):
        Dataset.open(dataset.path).image(REF)
    with pytest.raises(BadInput, match=r"c/2/0/0/0: changed since it was written \(array Field-1/s0, chunk 2, 0, 0, 0"):
        dataset.preflight()
    chunk.unlink()
    with pytest.raises(BadInput, match=r"c/2/0/0/0: missing chunk"):
        dataset.image(REF)
    for check in (dataset.preflight, lambda: Dataset.open(str(dataset.path))):
        with pytest.raises(BadInput, match="c/2/0/0/0: missing"):
            check()
    location.write_bytes(chunk, good)
    Dataset.open(str(dataset.path)).preflight()


def test_a_killed_writer_is_refused_and_the_next_one_completes(bucket, write_store):
    place = located(f"{bucket}/d.zarr")
    Writer(place)
    location.write_bytes(place / "Field-1/s0/c/9/0/0/0", b"left over")
    location.write_bytes(located(f"{bucket}/d.zarr.txt"), b"someone else's")
    with pytest.raises(BadInput, match=r"an unfinished data set, begun .* run its conversion again"):
        Dataset.open(place)
    assert not integrity.is_taken(place)
    mark = json.loads(location.read_bytes(place / "manifest.json"))
    mark["unfinished"]["pid"] = os.getppid()  # a process that runs
    location.write_bytes(place / "manifest.json", json.dumps(mark).encode())
    with pytest.raises(BadInput, match=r"d\.zarr: being written by process"):
        write_store(place)
    mark["unfinished"]["host"] = "elsewhere"
    location.write_bytes(place / "manifest.json", json.dumps(mark).encode())
    with pytest.raises(BadInput, match=r"being written by process .* on elsewhere"):
        write_store(place)
    mark["unfinished"] |= {"host": integrity.socket.gethostname(), "pid": 2**22 + 1}  # none that runs
    location.write_bytes(place / "manifest.json", json.dumps(mark).encode())
    dataset = write_store(place)
    dataset.preflight()
    assert set(location.sizes(place)) == {*dataset.manifest.files, "manifest.json"}
    assert location.read_bytes(located(f"{bucket}/d.zarr.txt")) == b"someone else's"


def test_a_failed_writer_leaves_nothing_and_something_else_is_kept(bucket):
    place = located(f"{bucket}/d.zarr")

    def fail():
        with building(place) as partial:
            Writer(partial)
            raise KeyError("a bug")

    with pytest.raises(KeyError):
        fail()
    assert location.sizes(place) == {}
    location.write_bytes(place / "thesis.pdf", b"precious")
    assert integrity.is_taken(place)
    with pytest.raises(FileExistsError):
        fail()
    assert location.sizes(place) == {"thesis.pdf": 8}


def test_two_writers_at_one_place_do_not_both_finish(bucket, write_store):
    place = located(f"{bucket}/d.zarr")
    token = integrity.begin(place)
    location.remove(place)
    integrity.begin(place)
    with pytest.raises(BadInput, match="another program writes here"):
        integrity.seal(place, token, "", {})


def test_what_is_missing_is_said_in_one_line(bucket, monkeypatch):
    with pytest.raises(BadInput, match=r"s3://microscopes/gone\.zarr: no such data set; make one with"):
        Dataset.open(f"{bucket}/gone.zarr")
    with pytest.raises(BadInput, match=r"s3://nobucket/d\.zarr: no such bucket or object"):
        Dataset.open("s3://nobucket/d.zarr")
    with pytest.raises(BadInput, match="no such bucket"), building(located("s3://nobucket/d.zarr")):
        pass
    for bad in ("s3://", "s3://microscopes", "s3://microscopes/a/../b", "s3://microscopes//b"):
        with pytest.raises(BadInput, match="not a place in a bucket; write it as s3://bucket/name"):
            located(bad)
    monkeypatch.setattr("s3fs.core.S3FileSystem.connect_timeout", 1)
    monkeypatch.setattr("s3fs.core.S3FileSystem.retries", 1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(
        BadInput, match=r"http://127\.0\.0\.1:9 does not answer as it should .*; check AWS_ENDPOINT_URL"
    ):
        Dataset.open("s3://microscopes/d.zarr")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:10")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(BadInput, match="no credentials; set AWS_ACCESS_KEY_ID"):
        Dataset.open("s3://microscopes/d.zarr")


def test_missing_packages_are_named_and_folders_do_not_need_them(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(BadInput, match=r"pip install 'cellsearch\[s3\]'"):
        located("s3://bucket/d.zarr")
    assert located("d.zarr") == Path("d.zarr")
